"""NATS JetStream: published ten at a time, fetched in tens, each acknowledged; a work queue on files."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Final

from benchmarks.postgres.clients import window

BATCH: Final = 10


async def main() -> None:
    given = window.arguments()
    nats: Any = importlib.import_module("nats")
    api: Any = importlib.import_module("nats.js.api")
    connection = await nats.connect(given.address)
    stream = connection.jetstream(publish_async_max_pending=100_000)
    work_queue = api.StreamConfig(
        name="bench", subjects=["bench"], retention=api.RetentionPolicy.WORK_QUEUE, storage=api.StorageType.FILE
    )
    await stream.add_stream(work_queue)
    consumer = api.ConsumerConfig(max_ack_pending=100_000)
    done = [0] * given.connections

    async def work(number: int) -> None:
        # one each: fetches of one subscription take each other's messages, and wait for them
        subscription = await stream.pull_subscribe("bench", "bench", config=consumer)
        while True:
            await asyncio.gather(*[stream.publish("bench", b"x" * 256) for _ in range(BATCH)])
            if given.mode == "cycle":
                fetched = await subscription.fetch(BATCH, timeout=10)
                await asyncio.gather(*[one.ack_sync(timeout=10) for one in fetched])
                done[number] += len(fetched)
            else:
                done[number] += BATCH

    tasks = [asyncio.create_task(work(number)) for number in range(given.connections)]
    for seconds in (given.warmup, given.seconds):
        finished, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in finished:
            task.result()
        window.tell(sum(done))
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
