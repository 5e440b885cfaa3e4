"""The task in Dramatiq."""

import os

import dramatiq
import ledger
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BROKER"]))


@dramatiq.actor
def note(number: int) -> None:
    ledger.note(number)


def send(numbers: range) -> None:
    for number in numbers:
        note.send(number)
