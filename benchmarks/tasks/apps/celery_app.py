"""The task in Celery."""

import os

import ledger
from celery import Celery

app = Celery("bench", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


@app.task(name="note", acks_late=True)
def note(number: int) -> None:
    ledger.note(number)


def send(numbers: range) -> None:
    with app.producer_pool.acquire() as producer:
        for number in numbers:
            note.apply_async((number,), producer=producer)
