"""Several nodes as one store: each call is the next node's, and now and then one dies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, settings

from headrace.clock import ManualClock
from headrace.errors import StoreFailed
from headrace.queue.model import QueueInfo
from headrace.queue.store.base import Offload, Ready, Request, StoreStatistics
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from tests.queue.postgres.nodes import kill, node

NODES: Final = 3
# A step is some ten round trips to a database, to each node. Nightly runs set more.
EXAMPLES: Final = int(os.environ.get("HEADRACE_MACHINE_EXAMPLES", "60"))
LIVES: Final = 40  # calls after which a node dies and another takes its place


def case_of(machine: Any, examples: int) -> Any:
    """A stateful machine as a test case; its steps are few, since each is slow."""
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    return case


class Several:
    """A Store."""

    durable = True
    shared = True

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self._folder = folder
        self._clock = clock
        self._nodes = [node(folder, clock) for _ in range(NODES)]
        self._calls = 0

    def attach(self, offload: Offload | None) -> None:
        assert offload is None

    def execute(self, requests: Sequence[Request]) -> None:
        self._next().execute(requests)

    def _next(self) -> PostgresStore:
        self._calls += 1
        at = self._calls % NODES
        if self._calls % LIVES == 0:
            kill(self._nodes[at])
            self._nodes[at] = node(self._folder, self._clock)
        return self._nodes[at]

    def advance(self) -> int | None:
        due = [ms for one in self._nodes if (ms := one.advance()) is not None]
        return min(due, default=None)

    def take_ready(self) -> set[Ready]:
        return {place for one in self._nodes for place in one.take_ready()}

    def find(self, queue: str) -> QueueInfo | None:
        return self._nodes[0].find(queue)

    def busy(self) -> bool:
        return False

    def failed(self) -> StoreFailed | None:
        return None

    def away(self) -> str | None:
        return None

    def statistics(self) -> StoreStatistics:
        return self._nodes[0].statistics()

    def close(self) -> None:
        for one in self._nodes:
            one.close()


SEVERAL: Final = StoreKind("nodes", lambda folder, clock, _: Several(folder, clock), durable=True, in_files=False)
