"""What a pool does beside tasks: fires schedules, removes what has expired. One child does it; several would not hurt."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from headrace.errors import HeadraceError, StateChanged
from headrace.queue.operations import Transact
from headrace.work import keys, run_log, support
from headrace.work.backend import Backend
from headrace.work.pool.limits import SWEEP_S
from headrace.work.pool.reconnect_backoff import ReconnectBackoff
from headrace.work.scheduler import Scheduler
from headrace.work.sweeping import Sweeper
from headrace.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from headrace.work.app import App

_log: Final = logging.getLogger("headrace.work")
_PAUSE_MIN_S: Final = 0.05
_PAUSE_MAX_S: Final = 60.0

Advance = Callable[[int], int]
"""Does what is due at wall clock ms; returns when it wants to be called again."""


class Service:
    """One thread that advances something, and bears with a broker that is away."""

    def __init__(self, name: str, advance: Advance) -> None:
        self._advance = advance
        self._away = ReconnectBackoff(name)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._over.wait(pause_s):
            now_ms = time.time_ns() // 1_000_000
            try:
                due_ms = self._advance(now_ms)
            except HeadraceError as error:
                pause_s = self._away.failed(error)
            else:
                self._away.back()
                pause_s = min(max((due_ms - time.time_ns() // 1_000_000) / 1_000, _PAUSE_MIN_S), _PAUSE_MAX_S)


class Services:
    """Those that one child of a pool runs."""

    def __init__(self, app: App, backend: Backend, settings: WorkerSettings, *, first: bool) -> None:
        """Args:
        first: whether this child is the one that does it.
        """
        support.check_app(app, backend)
        self._services: list[Service] = []
        if not first or not backend.capabilities.state:
            return
        self._services.append(Service("sweeping", Sweeper(backend).advance))
        if settings.run_log:
            self._services.append(Service("run log", lambda now_ms: _sweep_runs(backend, now_ms)))
        if settings.schedules:
            self._services.append(Service("schedules", Scheduler(settings.app, app.schedules, backend).advance))

    def start(self) -> None:
        for service in self._services:
            service.start()

    def stop(self) -> None:
        for service in self._services:
            service.stop()


def _sweep_runs(backend: Backend, now_ms: int) -> int:
    gone = run_log.sweep(backend, now_ms=now_ms)
    if gone:
        try:
            backend.transact(Transact(state=[(key, None) for key in gone], name=keys.NAME))
        except StateChanged:
            _log.debug("another sweeps", extra={"action": "work.sweep"})
    return now_ms + int(SWEEP_S * 1_000)
