"""The fetcher: asks the broker for as many tasks as can be begun, and hands them to who runs them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.errors import HeadraceError, ReceiptExpired, StateChanged
from headrace.queue.model import Delivery
from headrace.work import preflight, settling
from headrace.work.backend import Backend
from headrace.work.cancelling import CancelRequests
from headrace.work.execution import describe
from headrace.work.job import Job, Runnable, open_job
from headrace.work.outcome import Deferred, Failed, Outcome
from headrace.work.pool.in_flight import InFlightTask, InFlightTasks
from headrace.work.pool.limits import CONTENDED_MS, DEFAULT_VISIBILITY_MS, POLL_WAIT_S, RETRY_MAX_S
from headrace.work.pool.prefetch import Source
from headrace.work.pool.reconnect_backoff import AWAY, ReconnectBackoff

_log: Final = logging.getLogger("headrace.work")


@dataclass(frozen=True, slots=True)
class Routes:
    """Where what was fetched goes."""

    room: Callable[[Source], int]
    """How many can be begun of what may come from there."""
    run: Callable[[Sequence[InFlightTask]], None]
    settle: Callable[[InFlightTask, Outcome], None]
    """For what is not run."""


class Fetcher:
    """A thread that polls some queues. `stop` ends it when the poll under way has ended.

    Attributes:
        progress_s: when it last got on: a poll ended, well or not. Monotonic, as all times here.
        succeeded_s: when a poll last succeeded; 0: none has.
    """

    def __init__(
        self,
        backend: Backend,
        hand: InFlightTasks,
        cancel_requests: CancelRequests,
        source: Source,
        *,
        holder: str,
        tasks: Mapping[str, Runnable],
        consumers: Mapping[str, Runnable],
        routes: Routes,
    ) -> None:
        self._backend = backend
        self._in_flight = hand
        self._cancel_requests = cancel_requests
        self._source = source
        self.progress_s = time.monotonic()
        self.succeeded_s = 0.0
        self._holder = holder if backend.capabilities.holders else None
        self._tasks = tasks
        self._consumers = consumers
        self._routes = routes
        self._stopping = threading.Event()
        self._room = threading.Event()
        self._away = ReconnectBackoff("fetching")
        self._thread = threading.Thread(target=self._run, name="headrace fetcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._room.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def note_room(self) -> None:
        """Something has ended. From any thread."""
        if not self._room.is_set():
            self._room.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            limit = self._routes.room(self._source)
            if limit <= 0:
                self._room.wait(RETRY_MAX_S)
                self._room.clear()
                continue
            try:
                self._fetch(limit)
            except HeadraceError as error:
                self.progress_s = time.monotonic()
                self._stopping.wait(self._away.failed(error))

    def _fetch(self, limit: int) -> None:
        found = self._backend.receive(
            self._source.queues,
            limit,
            visibility_ms=DEFAULT_VISIBILITY_MS,
            wait_s=POLL_WAIT_S,
            holder=self._holder,
        )
        self._away.back()
        self.progress_s = self.succeeded_s = now_s = time.monotonic()
        jobs = [self._open(queue, delivery) for queue, deliveries in found for delivery in deliveries]
        if jobs:
            self._take_in(jobs, now_s)

    def _open(self, queue: str, delivery: Delivery) -> Job:
        return open_job(queue, delivery, self._tasks, self._consumers)

    def _take_in(self, jobs: list[Job], now_s: float) -> None:
        """In hand from here on: renewed, and settled or given back in the end."""
        held = [InFlightTask(job, now_s) for job in jobs]
        for each in held:
            self._in_flight.add(each)
        if self._stopping.is_set():
            for each in held:
                self._routes.settle(each, Deferred(0))
            return
        self._begin(held)

    def _begin(self, held: list[InFlightTask]) -> None:
        ready = []
        for each, begun in zip(held, self._begun(held), strict=True):
            match begun:
                case preflight.Ready(job, slot):
                    each.job, each.limit_slot = job, slot
                    ready.append(each)
                case preflight.Sent():
                    self._in_flight.drop(each)
                case (job, outcome):
                    each.job = job
                    self._routes.settle(each, outcome)
        if ready:
            self._routes.run(ready)

    def _begun(self, held: Sequence[InFlightTask]) -> list[preflight.Begun]:
        """Until the broker has answered: they are in hand, and renewed."""
        while True:
            try:
                return self._begun_once([each.job for each in held])
            except AWAY as error:
                self.progress_s = time.monotonic()
                self._stopping.wait(self._away.failed(error))
                if self._stopping.is_set():
                    return [(each.job, Deferred(0)) for each in held]
            except Exception as error:  # noqa: BLE001 - whatever one message brings about, the others are begun
                if len(held) == 1:
                    return [self._not_begun(held[0], error)]
                return [begun for each in held for begun in self._begun([each])]

    def _begun_once(self, jobs: Sequence[Job]) -> list[preflight.Begun]:
        begun = preflight.begin(jobs, self._backend, self._cancel_requests, now_ms=time.time_ns() // 1_000_000)
        for one in begun:
            if isinstance(one, preflight.Ready) and one.job.envelope.unique is not None:
                operation = settling.begun(one.job, read=self._backend.read)
                if operation is not None:
                    self._backend.transact(operation)
        return begun

    def _not_begun(self, held: InFlightTask, error: Exception) -> preflight.Begun:
        """Its lease has ended while it was begun: nothing was done, and it is somebody else's. Or it cannot be begun at all."""
        if isinstance(error, StateChanged):
            return held.job, Deferred(int(time.time() * 1_000) + CONTENDED_MS)
        if not isinstance(error, ReceiptExpired):
            return held.job, Failed(describe(error), final=True)
        ids = {"action": "work.lease.lost", "task": held.job.envelope.task, "task_id": held.job.envelope.id}
        _log.warning("%s was not begun, its lease was lost: %s", held.label, error, extra=ids)
        return preflight.Sent()
