"""RabbitMQ: a quorum queue, published ten at a time with confirms, consumed and acknowledged; a channel a worker."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Final

from benchmarks.postgres.clients import window

BATCH: Final = 10
PREFETCH: Final = 500


async def main() -> None:
    given = window.arguments()
    rabbit: Any = importlib.import_module("aio_pika")
    connection = await rabbit.connect(given.address)
    done = {"sent": 0, "acknowledged": 0}

    async def publish(channel: Any) -> None:
        message = rabbit.Message(b"x" * 256, delivery_mode=rabbit.DeliveryMode.PERSISTENT)
        while True:
            await asyncio.gather(*[channel.default_exchange.publish(message, "bench") for _ in range(BATCH)])
            done["sent"] += BATCH

    async def consume(channel: Any) -> None:
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.declare_queue("bench", durable=True, arguments={"x-queue-type": "quorum"})

        async def on_message(message: Any) -> None:
            await message.ack()
            done["acknowledged"] += 1

        await queue.consume(on_message)
        await asyncio.Future()

    first = await connection.channel()
    await first.declare_queue("bench", durable=True, arguments={"x-queue-type": "quorum"})
    tasks = [asyncio.create_task(publish(await connection.channel())) for _ in range(given.connections)]
    if given.mode == "cycle":
        tasks.append(asyncio.create_task(consume(await connection.channel())))
    for seconds in (given.warmup, given.seconds):
        finished, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in finished:
            task.result()
        window.tell(done["acknowledged" if given.mode == "cycle" else "sent"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
