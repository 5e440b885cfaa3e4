"""The base of all dispatchers: the queue, its timeouts and its statistics.

It admits requests (`admission`), buffers bodies (`spool`), answers requests that are shed, enforces `request_timeout`, and
counts. Subclasses run the requests. One timer runs, and only while a request waits or runs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final

from headrace.http import problem
from headrace.http.exchange import WAITING, Exchange
from headrace.web.dispatch.admission import Admission
from headrace.web.dispatch.limits import SWEEP_S
from headrace.web.dispatch.queued_request import QueuedRequest
from headrace.web.dispatch.spool import Spooler
from headrace.web.dispatch.statistics import DispatchStatistics, RouteStatistics, WorkerStatistics

_log: Final = logging.getLogger("headrace.web")

_WATCH_S: Final = 1.0  # hung requests are looked for so often, or four times in the timeout
_SHED: Final = {
    "queue-full": "too many requests are waiting for the application",
    "timeout": "the request waited too long for the application",
    "draining": "the server is stopping",
}


class BaseDispatcher(ABC):
    """A Target. Invariant: while a request waits, no worker has room."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        queue_size: int = 1_000,
        queue_timeout_s: float = 10.0,
        request_timeout_s: float = 60.0,
        on_hung: Callable[[int], None] = lambda _: None,
        spool_folder: Path | None = None,
        now_s: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Create on the running loop.

        Args:
            queue_size: requests that wait at most; one more gets 503.
            queue_timeout_s: the longest wait; then 503. Less once the queue has stood (`admission`).
            request_timeout_s: the longest run until the answer begins; then 504. 0: none.
            on_hung: called with the pid of a worker with such a request; it gets no further requests.
            spool_folder: for bodies that are too long for memory.
            now_s, chance: the clock that deadlines run on, and dice for Retry-After.
        """
        self.loop = loop or asyncio.get_running_loop()
        self.now_s = now_s
        self.on_hung = on_hung
        self.running: set[QueuedRequest] = set()
        self._admission: Admission[QueuedRequest] = Admission(queue_size=queue_size, queue_timeout_s=queue_timeout_s)
        self._queue_timeout_s = queue_timeout_s
        self._request_timeout_s = request_timeout_s
        self._watch_s = min(_WATCH_S, request_timeout_s / 4) if request_timeout_s else math.inf
        self._chance = chance
        self._spooler = Spooler(self._admit, on_refused=self._count_shed, folder=spool_folder)
        self._spools = True
        self._draining = False
        self._idle: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = math.inf
        self._requests = self._client_disconnects = self._request_timeouts = 0
        self._shed: dict[str, int] = {}
        self._routes: dict[str, RouteStatistics] = {}

    # A request comes

    def __call__(self, exchange: Exchange) -> None:
        self._requests += 1
        if self._draining:
            self._refuse(exchange, "draining")
        elif exchange.length and self._spools and (exchange.length < 0 or not exchange.ended):
            self._spooler.collect(exchange)  # chunks that are all here, too: WSGI has to know how long they are
        else:
            self._admit(exchange)

    def _admit(self, exchange: Exchange) -> None:
        """The request is complete, as far as it has to be."""
        queued = QueuedRequest(self, exchange)
        if self._admission.length or not self._try_dispatch(queued):
            self._wait(queued)

    def _wait(self, queued: QueuedRequest) -> None:
        now_s = self.now_s()
        victim = self._admission.offer(queued, now_s)
        if victim is not None:
            self._shed_request(victim, "queue-full")
        self._arm(now_s + SWEEP_S)

    @abstractmethod
    def _try_dispatch(self, queued: QueuedRequest) -> bool:
        """Give it to a worker with room; False if there is none."""

    def fill(self) -> None:
        """Dispatch queued requests while a worker has room."""
        admission = self._admission
        while admission.length and self._has_room():
            queued = admission.take(self.now_s())
            placed = queued is not None and self._try_dispatch(queued)
            assert placed, "who waits and finds room is given to it"

    @abstractmethod
    def _has_room(self) -> bool: ...

    # It runs

    def _begin(self, queued: QueuedRequest) -> None:
        """It is given to a worker now."""
        now_s = queued.given_s = queued.active_s = self.now_s()
        exchange = queued.exchange
        route = self._routes.get(exchange.route)
        if route is None:
            route = self._routes[exchange.route] = RouteStatistics()
        queued.route = route
        if queued.since_s:
            exchange.waited_s = waited_s = now_s - queued.since_s
            route.wait.observe(waited_s)
        else:
            route.wait.counts[0] += 1  # at once
        self.running.add(queued)
        if self._timer is None:
            self._arm(now_s + self._watch_s)

    def _end(self, queued: QueuedRequest, *, counted: bool = True) -> float:
        """Its worker is done with it. `counted`: its time is that of the application. Returns the current time."""
        self.running.discard(queued)
        now_s = self.now_s()
        if counted:
            service_s = now_s - queued.given_s
            self._admission.finished(min(service_s, self._queue_timeout_s), now_s)
            queued.route.run.observe(service_s)
        if self._idle is not None:
            self._check_idle()
        return now_s

    # It ends otherwise

    def client_left(self, queued: QueuedRequest) -> None:
        """Skip the request if it waits; else notify its worker, whose slot is free when the worker confirms."""
        self._client_disconnects += 1
        if queued.waiting:
            self._admission.leave(queued)
            self._forget(queued)
        else:
            self._cancel(queued)

    def client_half_closed(self, queued: QueuedRequest) -> None:
        self.client_left(queued)
        queued.exchange.status = 499  # as of one that is gone
        queued.exchange.abort()

    @abstractmethod
    def _cancel(self, queued: QueuedRequest) -> None:
        """Its client has left while it ran."""

    def _shed_request(self, queued: QueuedRequest, reason: str) -> None:
        self._refuse(queued.exchange, reason)
        self._forget(queued)

    def _refuse(self, exchange: Exchange, reason: str) -> None:
        self._count_shed(reason)
        exchange.refused = reason
        retry_s = self._admission.retry_after_s(self._chance())
        detail = f"{_SHED[reason]}; try again in {retry_s} s"
        problem.respond(exchange, 503, detail, kind=reason, headers=((b"Retry-After", b"%d" % retry_s),))

    def _count_shed(self, reason: str) -> None:
        self._shed[reason] = self._shed.get(reason, 0) + 1

    def _forget(self, queued: QueuedRequest) -> None:
        queued.exchange.notify = None  # no circle of references is left for the collector
        if self._idle is not None:
            self._check_idle()

    # Time

    def _arm(self, due_s: float) -> None:
        if due_s >= self._due_s or due_s == math.inf:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = due_s
        self._timer = self.loop.call_later(max(0.0, due_s - self.now_s()), self._tick)

    def _tick(self) -> None:
        self._timer, self._due_s = None, math.inf
        now_s = self.now_s()
        self._arm(max(self.advance(now_s), now_s + SWEEP_S))

    def advance(self, now_s: float) -> float:
        """Do everything that is due; returns when to look again. Called by the timer, and by tests that move the clock."""
        shed, due_s = self._admission.advance(now_s)
        for queued in shed:
            self._shed_request(queued, "timeout")
        if self.running and self._request_timeout_s:
            self._watch(now_s - self._request_timeout_s)
            due_s = min(due_s, now_s + self._watch_s)
        return due_s

    def _watch(self, since_s: float) -> None:
        """Find the requests that have not moved since."""
        for queued in tuple(self.running):
            exchange = queued.exchange
            # One whose client has given up holds its place all the same.
            late = queued.active_s <= since_s and not (queued.begun or queued.reported or self._waits_behind(queued))
            if late and (exchange.gone or not exchange.answered):
                self._find_hung(queued)

    def _waits_behind(self, queued: QueuedRequest) -> bool:  # noqa: ARG002  # overridden
        """Whether it is with a worker that has not come to it."""
        return False

    def _find_hung(self, queued: QueuedRequest) -> None:
        flow = queued.flow
        if flow is not None and flow.waits_for_client:
            queued.active_s = self.now_s()
            return
        self._request_timeouts += 1
        exchange = queued.exchange
        pid = self._mark_hung(queued)
        extra = {"action": "web.request.hung", "method": exchange.method, "path": exchange.path, "pid": pid}
        _log.error("no response within %g s", self._request_timeout_s, extra=extra)
        if exchange.stage is WAITING:
            detail = f"the application did not answer within {self._request_timeout_s:g} s"
            problem.respond(exchange, 504, detail, kind="request-timeout")
            self._cancel(queued)

    @abstractmethod
    def _mark_hung(self, queued: QueuedRequest) -> int:
        """Give no further requests to the worker that has it, and report the worker; returns its pid."""

    # The end, and statistics

    def drain(self) -> None:
        """Refuse new requests; those that wait or run continue."""
        self._draining = True

    async def wait_idle(self) -> None:
        """Wait until no request waits or runs."""
        self._idle = asyncio.Event()
        while not self._is_idle():  # what its worker has lost may have been put back since it was
            self._idle.clear()
            await self._idle.wait()

    def _check_idle(self) -> None:
        if self._idle is not None and self._is_idle():
            self._idle.set()

    def _is_idle(self) -> bool:
        return not self._admission.length and not self.running

    def statistics(self) -> DispatchStatistics:
        return DispatchStatistics(
            requests=self._requests,
            in_flight=len(self.running),
            queue_length=self._admission.length,
            oldest_wait_s=self._admission.oldest_wait_s(self.now_s()),
            shed=dict(self._shed),
            client_disconnects=self._client_disconnects,
            request_timeouts=self._request_timeouts,
            workers=self._workers(),
            routes=dict(self._routes),
        )

    @abstractmethod
    def _workers(self) -> list[WorkerStatistics]: ...
