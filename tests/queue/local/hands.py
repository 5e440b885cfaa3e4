"""A local store whose disk does as a test says: refuses a commit, or holds it back until the test lets go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.clock import ManualClock
from headrace.errors import StoreError
from headrace.queue.operations import Operation
from headrace.queue.store.base import Request
from headrace.queue.store.disk import Batch
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.store import LocalStore
from headrace.queue.store.memory import MemoryDisk
from headrace.testing import StoreDriver, StoreKind


class HandDisk(MemoryDisk):
    """`refuses`: what the next commit raises, once. `batches`: every commit asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: StoreError | None = None
        self.batches: list[Batch] = []

    def prepare(self, batch: Batch) -> None:
        self.batches.append(batch)
        if self.refuses is not None:
            refusal, self.refuses = self.refuses, None
            raise refusal
        super().prepare(batch)


class Hands(StoreDriver):
    """A driver of a memory store that can hold commits back."""

    def __init__(self, folder: Path) -> None:
        self.disk = HandDisk()
        self._held: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        super().__init__(StoreKind("hands", self._make, durable=False, in_files=False), folder)

    def _make(self, _folder: Path, clock: ManualClock, cooldowns: bool) -> LocalStore:
        return LocalStore(self.disk, clock, cooldowns=cooldowns)

    @property
    def local(self) -> LocalStore:
        assert isinstance(self.store, LocalStore)
        return self.store

    def queue(self, arn: str) -> LocalQueue:
        return self.local.state.queues[arn]

    def hold_commits(self) -> None:
        """From now on each commit waits for `let_go`."""
        self.disk.sync_seconds = 1.0
        self.store.attach(lambda work, then, _lane="commit", /: self._held.append((work, then)))

    def let_go(self) -> None:
        """Let the commit on its way, and those behind it, be done."""
        while self._held:
            work, then = self._held.pop(0)
            then(work())

    def ask(self, *operations: Operation) -> list[Any]:
        """Hand operations over together, and nothing else: the answers so far, in the order in which they came."""
        answers: list[Any] = []
        self.store.execute([Request(operation, answers.append) for operation in operations])
        return answers
