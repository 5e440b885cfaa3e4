"""The whole contract of a store.

A store owns its queues: it decides (by the rules in `headrace.queue`, or by the same rules in SQL) and makes durable.
It is batch-shaped: many operations in, one commit. The broker (`queue/broker.py`) is its only caller.

To write another store: implement this, add a line to the list in `headrace.testing.stores`, pass the suite and the
stateful machine. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from headrace.queue.model import QueueInfo
from headrace.queue.operations import Operation

Done = Callable[[Any], None]
"""Takes an operation's outcome: the value its docstring names, or a HeadraceError. Must not raise."""


class Request(msgspec.Struct, gc=True):
    """An operation and who waits for its outcome."""

    operation: Operation
    done: Done


class StoreStatistics(msgspec.Struct, frozen=True):
    """What the store has done since it opened. Latencies in seconds, of whole commits, the sync included."""

    commits: int
    commit_operations: int
    commit_seconds: float
    commit_seconds_recent: float
    commit_buckets: tuple[int, ...]
    commit_bounds: tuple[float, ...]
    size_bytes: int
    damaged: int


class Store(Protocol):
    """A durable set of queues.

    Lifetime: construct (opens or raises StoreUnusable, StoreDamaged), `execute` any number of times, `close`.
    Not thread-safe: one owner calls it, from one thread.
    """

    durable: bool
    """Whether what was answered survives the process; the suite skips its restart tests where not."""

    def execute(self, requests: Sequence[Request]) -> None:
        """Run the requests in order, and call each one's `done` once, when its outcome is as durable as promised.

        May return before all are done. Deletes, sends, transactions: after their commit is on the disk. Receives:
        after their leases are written. An error of one request touches no other.
        """

    def advance(self) -> int | None:
        """Do what time has made due: end leases, show delayed messages, expire, go on with move tasks and purges.

        Returns when to call again: steady ms, None when nothing is pending. Idempotent.
        """

    def take_ready(self) -> set[str]:
        """ARNs of queues in which messages became ready since the last call: whose waiting polls to serve."""

    def find(self, queue: str) -> QueueInfo | None:
        """The queue's info, from memory: no I/O, for every request's checks."""

    def busy(self) -> bool:
        """Whether requests are still waiting for a commit on its way."""

    def statistics(self) -> StoreStatistics: ...

    def close(self) -> None:
        """Finish commits, checkpoint, release the lock. Idempotent."""
