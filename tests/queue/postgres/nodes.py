"""Nodes for tests: databases of their own, and connections that break when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.clock import ManualClock
from headrace.queue.operations import Operation
from headrace.queue.store.base import Request
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.postgres import databases


def node(folder: Path, clock: ManualClock) -> PostgresStore:
    """Another node on the database of a folder; without a broker: all runs before `execute` returns."""
    return databases().open(folder, clock, cooldowns=False)


def ask(store: PostgresStore, *operations: Operation) -> list[Any]:
    """The outcomes of operations that are handed over together."""
    answers: list[Any] = []
    store.execute([Request(operation, answers.append) for operation in operations])
    return answers


def kill(store: PostgresStore) -> None:
    """Let a node end as if its process had: it says nothing to anybody, its connection breaks."""
    store._alone._drop()


class Threads:
    """What a broker's threads would do, when the test says so."""

    def __init__(self, store: PostgresStore) -> None:
        self.jobs: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {}
        store.attach(self.offload)

    def offload(self, work: Callable[[], Any], then: Callable[[Any], None], lane: str = "commit", /) -> None:
        self.jobs[lane] = work, then

    def work(self, lane: str) -> Callable[[], None]:
        """Do a lane's work; returns what tells of it."""
        work, then = self.jobs.pop(lane)
        result = work()
        return lambda: then(result)
