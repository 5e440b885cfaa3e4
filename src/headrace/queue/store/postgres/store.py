"""The store: sorts requests into lanes, lets them run, answers. See `store/base.py` for the contract.

It decides nothing. Attached to a broker, each lane works in a thread of its own and takes all that has gathered for it
meanwhile; alone (tests, tools), everything runs in order, on one connection, before `execute` returns.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from headrace.errors import StoreFailed
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Operation
from headrace.queue.store.base import Done, Offload, Ready, Request, StoreStatistics
from headrace.queue.store.local.commit_times import CommitTimes
from headrace.queue.store.postgres import maintenance, watching
from headrace.queue.store.postgres.families import FAMILIES, LaneName, run_in_order, run_together
from headrace.queue.store.postgres.lane import Batch, Lane
from headrace.queue.store.postgres.shared import Shared
from headrace.queue.store.postgres.transaction import Transaction
from headrace.queue.store.postgres.watch import Watch

log = logging.getLogger("headrace.store")

BATCH_MAX: Final = 1_000  # requests that one transaction takes: what fails or waits, fails or waits together


class Running:
    """A lane with the requests that wait for it."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.waiting: deque[Request] = deque()
        self.busy = False


class PostgresStore:
    """One node's store."""

    durable = True

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._alone = Lane("alone", shared, run_in_order)
        self._lanes = {name: Running(Lane(name.value, shared, run_together)) for name in LaneName}
        self._offload: Offload | None = None
        self._ready: set[Ready] = set()
        self._watch = Watch()
        self._memory = maintenance.Memory()
        self._times = CommitTimes()

    # --- the contract ---

    def attach(self, offload: Offload | None) -> None:
        self._offload = offload

    def execute(self, requests: Sequence[Request]) -> None:
        if self._offload is None:
            self._answer(requests, *self._timed(self._alone, requests))
            return
        for request in requests:
            self._lanes[FAMILIES[type(request.operation)].lane].waiting.append(request)
        for running in self._lanes.values():
            self._start(running)

    def advance(self) -> int | None:
        if self._offload is None:
            self._advance_alone()
        return self._watch.next_ms()

    def take_ready(self) -> set[Ready]:
        ready, self._ready = self._ready, set()
        return ready

    def find(self, queue: str) -> QueueInfo | None:
        found = self._shared.catalog.queues.get(queue)
        return found.info if found is not None else None

    def busy(self) -> bool:
        return any(running.busy or running.waiting for running in self._lanes.values())

    def failed(self) -> StoreFailed | None:
        return None

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(**self._times.statistics(), size_bytes=0, damaged=0, failed=None, full=False)

    def close(self) -> None:
        for lane in (self._alone, *[running.lane for running in self._lanes.values()]):
            lane.close()

    # --- lanes ---

    def _start(self, running: Running) -> None:
        """Let a lane take what waits for it, unless it is at work."""
        if running.busy or not running.waiting:
            return
        assert self._offload is not None
        running.busy = True
        requests = [running.waiting.popleft() for _ in range(min(BATCH_MAX, len(running.waiting)))]

        def then(result: tuple[list[Batch], float]) -> None:
            running.busy = False
            self._answer(requests, *result)
            if self._offload is not None:
                self._start(running)

        self._offload(lambda: self._timed(running.lane, requests), then, running.lane.name)

    def _timed(self, lane: Lane, requests: Sequence[Request]) -> tuple[list[Batch], float]:
        started = time.perf_counter()
        return lane.run([request.operation for request in requests]), time.perf_counter() - started

    def _answer(self, requests: Sequence[Request], batches: Sequence[Batch], seconds: float) -> None:
        outcomes: list[Any] = []
        for batch in batches:
            outcomes += batch.outcomes
            if batch.transaction is not None:
                self._settle(batch.transaction)
        if any(batch.transaction is not None and batch.transaction.writes for batch in batches):
            self._times.note(seconds, len(requests))
        for request, outcome in zip(requests, outcomes, strict=True):
            _tell(request.done, outcome)

    def _settle(self, tx: Transaction) -> None:
        """What a commit has brought about."""
        self._shared.totals.update(tx.totals)
        self._ready |= tx.places()
        self._watch.note(tx.now, empty=tx.empty, due=tx.due)

    # --- what time does ---

    def _advance_alone(self) -> None:
        now = self._shared.clock()
        due = self._watch.to_look_into(now)
        seen: dict[int, int | None] = {}

        def work(tx: Transaction, _: Sequence[Operation]) -> list[Any]:
            seen.update(watching.look(tx, due))
            return [maintenance.run(tx, self._memory)]

        self._run_alone(work)
        for queue, next_ms in seen.items():
            self._watch.seen(queue, next_ms, now)

    def _run_alone(self, work: Callable[[Transaction, Sequence[Operation]], list[Any]]) -> list[Any]:
        outcomes: list[Any] = []
        for batch in self._alone.run([], work):
            outcomes += batch.outcomes
            if batch.transaction is not None:
                self._settle(batch.transaction)
        return outcomes


def _tell(done: Done, outcome: Any) -> None:
    """Answer one request. What goes wrong in the answering is that request's misfortune, not its neighbours'."""
    try:
        done(outcome)
    except Exception:
        log.exception("an answer could not be given", extra={"action": "store.answer"})
