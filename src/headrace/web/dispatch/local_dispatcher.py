"""Dispatches requests to an application in this process, in direct mode."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from headrace.http import problem
from headrace.http.exchange import Exchange, Target
from headrace.web.dispatch.base_dispatcher import BaseDispatcher
from headrace.web.dispatch.concurrency_limit import ConcurrencyLimit
from headrace.web.dispatch.limits import CONCURRENCY_MIN, PING_S
from headrace.web.dispatch.queued_request import QueuedRequest
from headrace.web.dispatch.statistics import WorkerStatistics

_log: Final = logging.getLogger("headrace.web")


class LocalDispatcher(BaseDispatcher):
    """Gives requests to an application in this process, as many at once as it keeps up with.

    The lateness of the loop decides how many: while it is late, fewer are admitted. For ASGI the loop runs the
    requests; for WSGI it runs beside the threads, and those that compute keep the interpreter from it: eight of them
    would delay every read, write and 503 by eight switches, and be no faster than one.
    """

    def __init__(
        self, target: Target, *, capacity: int, adaptive: bool = True, ahead: int | None = None, **settings: Any
    ) -> None:
        """Create.

        Args:
            target: runs a request. If it has `in_flight`, that is what takes room (a thread may go on after its client
                has left), and it calls `on_free` when that has fallen.
            capacity: requests at once, at most.
            adaptive: whether the loop's lag has a say.
            ahead: additional requests that threads get, so that none of them waits for this loop: by default one each. At
                0 every request costs a wake-up each way (Flask: 169 µs instead of 113), since no two are ready at once.
            settings: those of `BaseDispatcher`.
        """
        super().__init__(**settings)
        runner: Any = target
        self._target = runner
        self._asks = hasattr(runner, "in_flight") and hasattr(runner, "on_free")
        if self._asks:
            runner.on_free = self.fill
        self._adaptive = adaptive
        self._spools = hasattr(runner, "capacity")  # threads want whole bodies
        most = capacity + (capacity if ahead is None else ahead) if self._spools else capacity
        self._concurrency_limit = (
            ConcurrencyLimit(most, start=most, least=2)
            if self._spools
            else ConcurrencyLimit(most, least=CONCURRENCY_MIN)
        )
        self._capacity = self._concurrency_limit.count if adaptive else most
        self._probe_s = 0.0
        self._probing = False
        self._used_up = False
        self._filling = False

    @property
    def _busy(self) -> int:
        return self._target.in_flight if self._asks else len(self.running)

    def _has_room(self) -> bool:
        return self._busy < self._capacity

    def _try_dispatch(self, queued: QueuedRequest) -> bool:
        if self._busy >= self._capacity:
            return False
        exchange = queued.exchange
        exchange.notify = None
        self._begin(queued)
        exchange.on_done = _Done(self, queued, exchange.on_done)
        if self._adaptive and not self._probing:
            self._probe()
        self._run(exchange)
        return True

    def _run(self, exchange: Exchange) -> None:
        try:
            self._target(exchange)
        except Exception:  # noqa: BLE001  # a bug of the application's entrance: it costs this request
            extra = {"action": "web.request.failed", "method": exchange.method, "path": exchange.path}
            _log.exception("a request failed", extra=extra)
            problem.respond(exchange, 500, "internal error; see the server's log")

    def done(self, queued: QueuedRequest) -> None:
        """The exchange is done; its thread may not be."""
        self._end(queued, counted=not queued.exchange.gone)
        self._client_disconnects += queued.exchange.gone
        self.fill()

    def fill(self) -> None:
        if not self._filling:  # a target that answers at once comes back here before it returns
            self._filling = True
            try:
                super().fill()
            finally:
                self._filling = False

    def _probe(self) -> None:
        self._probing = True
        self._probe_s = self.now_s() + PING_S
        self.loop.call_later(PING_S, self._on_probe)

    def _on_probe(self) -> None:
        """How late is this? So late is the loop."""
        self._probing = False
        now_s = self.now_s()
        lag_s = max(0.0, now_s - self._probe_s)
        self._concurrency_limit.lag(lag_s, used_up=self._used_up)
        self._capacity = self._concurrency_limit.count
        if not self._spools and self._busy >= self._capacity:  # a WSGI request occupies its thread even while it waits
            self._capacity = self._concurrency_limit.room(
                (queued.is_quiet(now_s) for queued in self.running), lag_s=lag_s
            )
        self._used_up = self._busy >= self._capacity
        if self.running:
            self._probe()
        self.fill()

    def _cancel(self, queued: QueuedRequest) -> None:
        pass  # the exchange is the target's: it knows

    def _mark_hung(self, queued: QueuedRequest) -> int:
        queued.reported = True
        pid = os.getpid()
        self.on_hung(pid)
        return pid

    def _workers(self) -> list[WorkerStatistics]:
        return []


class _Done:
    """Notifies the dispatcher that an exchange is done, after its previous callback."""

    __slots__ = ("_before", "_dispatcher", "_queued")

    def __init__(self, dispatcher: LocalDispatcher, queued: QueuedRequest, before: Any) -> None:
        self._dispatcher = dispatcher
        self._queued = queued
        self._before = before

    def __call__(self, exchange: Exchange) -> None:
        if self._before is not None:
            self._before(exchange)
        self._dispatcher.done(self._queued)
