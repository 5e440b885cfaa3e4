"""The demo's processes: one reader, some producers, some consumers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Event as Signal
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from demo import flights
from demo.clients import CLIENTS, Client, Cut, Received, Refused
from demo.ledger import ACCEPTED, CUT, DELETED, DELIVERED, Event, Page

SENT_TO: Final = "flights"
"""The inbox of the topic: plain SQS clients send to it, and so publish."""
WORK: Final = "flights-work"
"""The consumers' subscription."""
CHUNK: Final = 100
"""Rows that a producer takes at once."""
RETRY_PAUSE_S: Final = 0.05

Chunk = tuple[int, list[bytes]]
"""The first row's number, and the bodies."""

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """What every worker process is told.

    Attributes:
        name: its name in the view and the ledger.
        place: its place in `counts`.
        client: a key of CLIENTS.
        counts: messages accepted or processed so far, one cell a worker, for the view only.
        finished: set when there is nothing more to do.
    """

    name: str
    place: int
    client: str
    endpoint: str
    ledger: Path
    counts: SynchronizedArray[int]
    finished: Signal


class _Row(msgspec.Struct):
    row: int


_row = msgspec.json.Decoder(_Row)


def read_flights(chunks: Queue[Chunk | None], limit: int, producers: int) -> None:
    """The reader: hand chunks of rows to the producers, then one None to each."""
    _leave_interrupts_to_the_parent()
    bodies: list[bytes] = []
    first = 0
    for number, body in enumerate(flights.read(limit), start=1):
        bodies.append(body)
        if len(bodies) == CHUNK:
            chunks.put((first, bodies))
            bodies, first = [], number
    if bodies:
        chunks.put((first, bodies))
    for _ in range(producers):
        chunks.put(None)


def produce(worker: Worker, chunks: Queue[Chunk | None], rate_max: float) -> None:
    """A producer: send each row until a send of it has been answered, and write down every id. At most `rate_max`/s."""
    _leave_interrupts_to_the_parent()
    client = CLIENTS[worker.client](worker.endpoint, SENT_TO)
    page = Page(worker.ledger, worker.name)
    started, sent = time.monotonic(), 0
    while (chunk := chunks.get()) is not None and not worker.finished.is_set():
        first, bodies = chunk
        for start in range(0, len(bodies), client.batch):
            batch = bodies[start : start + client.batch]
            _send(client, page, first + start, batch, worker.finished)
            sent += len(batch)
            worker.counts[worker.place] = sent
            time.sleep(max(0.0, started + sent / rate_max - time.monotonic()))
    page.close()


def _send(client: Client, page: Page, first: int, bodies: list[bytes], finished: Signal) -> None:
    """Send until answered. A cut send goes into the ledger, and is repeated: the flight may then come twice."""
    while not finished.is_set():
        try:
            ids = client.send(bodies)
        except Refused:
            time.sleep(RETRY_PAUSE_S)
        except Cut:
            for row in range(first, first + len(bodies)):
                page.write(Event(CUT, time.monotonic_ns(), row))
        else:
            for row, id in enumerate(ids, start=first):
                page.write(Event(ACCEPTED, time.monotonic_ns(), row, id))
            return


def consume(worker: Worker) -> None:
    """A consumer: receive, process, delete, until `finished`. It goes on where it was when the broker is back."""
    _leave_interrupts_to_the_parent()
    client = CLIENTS[worker.client](worker.endpoint, WORK)
    page = Page(worker.ledger, worker.name)
    processed = 0
    while not worker.finished.is_set():
        asked_ns = time.monotonic_ns()
        messages = _persist(client.receive, worker.finished)
        if not messages:
            continue
        rows = [_process(message, page, asked_ns) for message in messages]
        if _persist(partial(_delete, client, messages), worker.finished):
            for row, message in zip(rows, messages, strict=True):
                page.write(Event(DELETED, time.monotonic_ns(), row, message.id))
            processed += len(messages)
            worker.counts[worker.place] = processed
    page.close()


def _process(message: Received, page: Page, asked_ns: int) -> int:
    """What a real consumer would do with a flight stands here; the demo reads it, and remembers that it did."""
    row = _row.decode(message.body).row
    page.write(Event(DELIVERED, asked_ns, row, message.id, message.receives))
    return row


def _delete(client: Client, messages: list[Received]) -> bool:
    client.delete(messages)
    return True


def _persist(call: Callable[[], T], finished: Signal) -> T | None:
    """Repeat what may be repeated until it is answered; None when the demo ends meanwhile."""
    while not finished.is_set():
        try:
            return call()
        except (Refused, Cut):
            time.sleep(RETRY_PAUSE_S)
    return None


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches the whole process group; the parent alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
