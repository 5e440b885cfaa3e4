"""The task in taskiq."""

import asyncio
import os

import ledger
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["BROKER"])


@broker.task
def note(number: int) -> None:
    ledger.note(number)


def send(numbers: range) -> None:
    async def main() -> None:
        await broker.startup()
        for number in numbers:
            await note.kiq(number)
        await broker.shutdown()

    asyncio.run(main())
