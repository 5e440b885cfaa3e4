"""The whole contract of a store.

A store owns its queues: it decides (by the rules in `headrace.queue`, or by the same rules in SQL) and makes durable.
It is batch-shaped: many operations in, one commit. The broker (`queue/broker.py`) is its only caller.

To write another store: implement this, add a line to the list in `headrace.testing.stores`, pass the suite and the
stateful machine. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from headrace.errors import StoreFailed
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Operation

Done = Callable[[Any], None]
"""Takes an operation's outcome: the value its docstring names, or a HeadraceError. Must not raise."""


class Request(msgspec.Struct, gc=True):
    """An operation and who waits for its outcome."""

    operation: Operation
    done: Done


class Offload(Protocol):
    """`offload(work, then, lane)`: run `work` in another thread, then `then(its result)` on the owner's thread. Neither
    raises. Works of one lane run one after another, those of different lanes at the same time."""

    def __call__(self, work: Callable[[], Any], then: Callable[[Any], None], lane: str = "commit", /) -> None: ...


Ready: TypeAlias = str | tuple[str, bytes]
"""What became ready: the ARN of a queue, or the name and key of a value of state."""


class LaneStatistics(msgspec.Struct, frozen=True):
    """What one of a store's connections has done since it opened; `seconds` of all its batches, `waiting` for the next."""

    lane: str
    batches: int
    operations: int
    seconds: float
    waiting: int


class StoreStatistics(msgspec.Struct, frozen=True):
    """What the store has done since it opened. Latencies in seconds, of whole commits, the sync included.

    `commit_buckets[i]` counts commits that took up to `commit_bounds[i]`, the last one the slower ones.
    `failed`: why it has stopped for good, or None. `full`: whether sends are refused until there is space again.
    `lanes`: of a store that has several connections to its database.
    """

    commits: int
    commit_operations: int
    commit_seconds: float
    commit_seconds_recent: float
    commit_buckets: tuple[int, ...]
    commit_bounds: tuple[float, ...]
    size_bytes: int
    damaged: int
    failed: str | None
    full: bool
    lanes: tuple[LaneStatistics, ...] = ()


class Store(Protocol):
    """A durable set of queues.

    Lifetime: construct (opens or raises StoreUnusable, StoreDamaged), `execute` any number of times, `close`.
    Not thread-safe: one owner calls it, from one thread.
    """

    durable: bool
    """Whether what was answered survives the process; the suite skips its restart tests where not."""

    shared: bool
    """Whether other brokers work on it, too. It then takes TellHolders and ListElsewhere, of its own broker only."""

    def attach(self, offload: Offload | None) -> None:
        """From now on slow commits may run by `offload` in a thread, and their requests be answered later. Without,
        `execute` returns when all is done."""

    def execute(self, requests: Sequence[Request]) -> None:
        """Run the requests in order, and call each one's `done` once, when its outcome is as durable as promised.

        May return before all are done. Deletes, sends, transactions: after their commit is on the disk. Receives:
        after their leases are written. An error of one request touches no other.
        """

    def advance(self) -> int | None:
        """Do what time has made due: end leases, show delayed messages, expire, go on with move tasks and purges.

        One slice of each: a purge of a million messages takes many calls. Answers requests of commits that it makes.

        Returns when to call again: steady ms, None when nothing is pending. Idempotent.
        """

    def take_ready(self) -> set[Ready]:
        """What became ready since the last call: queues in which messages did, values of state that were put. Whose
        waiting polls to serve."""

    def find(self, queue: str) -> QueueInfo | None:
        """The queue's info, from memory: no I/O, for every request's checks."""

    def busy(self) -> bool:
        """Whether requests are still waiting for a commit on its way."""

    def failed(self) -> StoreFailed | None:
        """Why the store has stopped for good, or None. Its requests are answered with this from then on."""

    def away(self) -> str | None:
        """Why requests are refused just now, though that may pass by itself; None: they are served."""

    def statistics(self) -> StoreStatistics: ...

    def close(self) -> None:
        """Finish commits, checkpoint, release the lock. Idempotent."""
