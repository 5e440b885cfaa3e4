"""The catalogue: every queue as the database has it, in memory. Immutable: a change makes a new one, readers keep theirs."""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec

from headrace.errors import QueueNotFound
from headrace.queue.model import QueueInfo
from headrace.queue.receipts import Receipts
from headrace.queue.store.postgres.connecting import Connection, Executes

_READ: Final[LiteralString] = "SELECT id, info::text, floor, purged_ms FROM queue"
_VERSION: Final[LiteralString] = "SELECT version FROM directory"


class StoredQueue(msgspec.Struct, frozen=True):
    """A queue: its number (never reused), what is known of it, and the seq below which everything is purged.

    `receipts`: mints and reads this queue's, and no other's.
    """

    number: int
    info: QueueInfo
    floor: int
    purged_ms: int | None
    receipts: Receipts

    @property
    def arn(self) -> str:
        return self.info.arn


class Catalog:
    """All queues at one version of the directory."""

    def __init__(self, secret: bytes, version: int, queues: dict[str, StoredQueue]) -> None:
        self.secret = secret
        self.version = version
        self.queues = queues
        self.by_number = {queue.number: queue for queue in queues.values()}

    def queue(self, arn: str) -> StoredQueue:
        """Raises QueueNotFound."""
        queue = self.queues.get(arn)
        if queue is None:
            raise QueueNotFound(arn)
        return queue

    def with_queue(self, queue: StoredQueue) -> Catalog:
        """The next version, in which this queue is as given."""
        return Catalog(self.secret, self.version + 1, {**self.queues, queue.arn: queue})

    def without_queue(self, arn: str) -> Catalog:
        """The next version, without this queue."""
        return Catalog(self.secret, self.version + 1, {name: one for name, one in self.queues.items() if name != arn})

    def stored(self, number: int, info: QueueInfo, floor: int = 0, purged_ms: int | None = None) -> StoredQueue:
        return StoredQueue(number, info, floor, purged_ms, Receipts(self.secret, queue=number))


def load(connection: Connection, before: Catalog) -> Catalog:
    """The catalogue as it is now."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return read(connection, before)


def read(connection: Executes, before: Catalog) -> Catalog:
    """The catalogue as the current transaction sees it: of one version only if all its statements see the same."""
    version = connection.execute(_VERSION).fetchone()
    rows = connection.execute(_READ).fetchall()
    assert version is not None
    queues = {}
    for number, text, floor, purged_ms in rows:
        info = msgspec.json.decode(text, type=QueueInfo)
        queues[info.arn] = before.stored(number, info, floor, purged_ms)
    return Catalog(before.secret, version[0], queues)
