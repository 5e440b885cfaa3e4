"""The task in RQ."""

import os

import ledger
from redis import Redis
from rq import Queue


def note(number: int) -> None:
    ledger.note(number)


def send(numbers: range) -> None:
    queue = Queue(connection=Redis.from_url(os.environ["BROKER"]))
    jobs = [Queue.prepare_data(note, (number,), result_ttl=0) for number in numbers]
    for start in range(0, len(jobs), 1_000):
        queue.enqueue_many(jobs[start : start + 1_000])
