"""Being present: a loop of `Hold`s. Leases name this process as their holder, and end at once when it is gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from headrace.errors import CallerError, HeadraceError
from headrace.work.backend import Backend
from headrace.work.pool.limits import HOLD_S
from headrace.work.pool.reconnect_backoff import ReconnectBackoff

_log: Final = logging.getLogger("headrace.work")


class Heartbeat:
    """A thread. Without it leases would end after the visibility timeout only; so it is tried again without end."""

    def __init__(
        self, backend: Backend, *, holder: str, facts: Callable[[], dict[str, Any]], on_come: Callable[[], None]
    ) -> None:
        """`on_come`: called when the broker had not known this process: another node, or one that was started again."""
        self._backend = backend
        self._holder = holder
        self._facts = facts
        self._on_come = on_come
        self._away = ReconnectBackoff("presence")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace presence", daemon=True)

    def start(self) -> None:
        if self._backend.capabilities.holders:
            self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        refused = False
        while not self._over.is_set():
            try:
                if self._backend.hold(self._holder, "worker", {} if refused else self._facts(), wait_s=HOLD_S):
                    self._on_come()
                self._away.back()
            except CallerError as error:
                if not refused:
                    _log.warning("the broker takes no facts: %s", error, extra={"action": "work.facts.refused"})
                refused = True
                self._over.wait(self._away.failed(error))
            except HeadraceError as error:
                self._over.wait(self._away.failed(error))
