"""The FIFO queue of these tests: messages are named such as `a1`, by their group and their place in it."""

from __future__ import annotations

from typing import Any, Final

from headrace.queue import operations as ops
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.nodes import ask

QUEUE: Final = arn_of("q.fifo")
VISIBILITY_MS: Final = 5_000
SETTINGS: Final[dict[str, Any]] = {"fifo": True, "content_dedup": True, "visibility_ms": VISIBILITY_MS}


def send(store: PostgresStore, *names: str) -> list[Sent]:
    """Send a message for each name such as `a1`."""
    sent: list[Sent] = ask(store, ops.Send(QUEUE, [Entry(name.encode(), group=name[0]) for name in names]))[0]
    return sent


def receive(store: PostgresStore, limit: int = 10) -> list[str]:
    return [one.message.body.decode() for one in ask(store, ops.Receive(QUEUE, limit))[0]]
