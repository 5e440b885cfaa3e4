"""The task in Huey."""

import os

import ledger
from huey import RedisHuey, SqliteHuey

broker = os.environ["BROKER"]
huey = (
    RedisHuey("bench", url=broker, results=False)
    if "://" in broker
    else SqliteHuey("bench", filename=broker, results=False)
)


@huey.task()
def note(number: int) -> None:
    ledger.note(number)


def send(numbers: range) -> None:
    for number in numbers:
        note(number)
