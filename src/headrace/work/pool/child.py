"""A child: `python -m headrace.work.pool.child`. It imports the app, is told where the broker is, works, and drains.

Its parent tells it what to do on a socket pair; when that ends, the parent is gone, and the child drains and ends, too.
TERM does the same, for who ends a single child.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from headrace import logs
from headrace.errors import HeadraceError, StoreError
from headrace.process import raise_descriptor_limit, shorten_switch_interval
from headrace.settings import load as load_settings
from headrace.work.pool import control
from headrace.work.pool.limits import END_MARGIN_S
from headrace.work.pool.reconnect_backoff import ReconnectBackoff
from headrace.work.pool.shared_status import SharedStatus
from headrace.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from headrace.work.app import App
    from headrace.work.pool.worker import Worker

_log: Final = logging.getLogger("headrace.work")


class Child:
    """`run` in the main thread."""

    def __init__(self, line: int, board: int, slot: int, settings: WorkerSettings) -> None:
        self._settings = settings
        self._status = SharedStatus(board)
        self._slot = slot
        self._orders: queue.SimpleQueue[control.Message] = queue.SimpleQueue()
        self._line = control.Line(line, self._orders.put, self._parent_gone)
        self._leaving = False

    def run(self) -> int:
        threading.excepthook = self._thread_failed
        self._line.start()
        signal.signal(signal.SIGTERM, lambda *_: self._orders.put(self._leave()))
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, _nothing)
        try:
            app = self._import()
            self._line.tell(control.Loaded(app.broker or ""))
            order = self._orders.get()
            if not isinstance(order, control.Connect):
                return 0
            return self._work(app, order.target)
        except HeadraceError as error:
            return self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - an app's import may raise anything
            _log.exception("the app cannot be loaded", extra={"action": "work.app.failed"})
            return self._failed(f"{type(error).__name__}: {error}")

    def _import(self) -> App:
        from headrace.loading import AppInvalid, describe, load  # noqa: PLC0415 - from here on the app's imports count
        from headrace.work.app import App  # noqa: PLC0415
        from headrace.work.metering import meter  # noqa: PLC0415
        from headrace.work.tracing import trace  # noqa: PLC0415

        spec = self._settings.app
        found = load(spec, app_dir=self._settings.app_dir, usual=("app",), fits=lambda value: isinstance(value, App))
        if not isinstance(found, App):
            raise AppInvalid(describe(found), "it is no headrace.App")
        if not found.tasks and not found.consumers:
            raise AppInvalid(
                describe(found), "it has neither tasks nor consumers: import their modules where it is made"
            )
        trace(found)
        meter(found)
        return found

    def _work(self, app: App, target: str) -> int:
        from headrace.work.pool.services import Services  # noqa: PLC0415
        from headrace.work.pool.worker import Worker  # noqa: PLC0415

        if target:
            app.connect(target)
        worker = Worker(
            app,
            app.backend,
            self._status,
            self._settings,
            on_leave=self._on_leave,
            on_report=self._line.tell if self._settings.metrics_port else None,
        )
        services = Services(app, app.backend, self._settings, first=self._slot == 0)  # refuses what the broker lacks
        if not self._prepared(worker):
            return 0
        worker.start()
        services.start()
        self._line.tell(control.Working(tuple(worker.queues)))
        drain_s = self._wait_for_end()
        faulthandler.dump_traceback_later(drain_s + END_MARGIN_S, exit=True)
        services.stop()
        worker.drain(drain_s)
        if self._settings.metrics_port:
            self._line.tell(worker.report())
        with suppress(Exception):  # a task may have closed them
            logging.shutdown()
            sys.stdout.flush()
        os._exit(0)  # functions that do not end would keep the interpreter; everything else is done

    def _prepared(self, worker: Worker) -> bool:
        """Wait for the broker, however long that takes. Returns False when told to leave before."""
        away = ReconnectBackoff("start")
        while True:
            try:
                worker.prepare()
            except StoreError as error:
                with suppress(queue.Empty):
                    if isinstance(self._orders.get(timeout=away.failed(error)), control.Leave):
                        return False
            else:
                away.back()
                return True

    def _wait_for_end(self) -> float:
        while True:
            order = self._orders.get()
            if isinstance(order, control.Leave):
                return order.drain_s

    def _on_leave(self, reason: str) -> None:
        """Tell the parent, which starts another and then tells this one to leave."""
        if not self._leaving:
            self._leaving = True
            self._line.tell(control.Leaving(reason))

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """One of ours that has failed may have been the one that fetches or commits: nothing fails silently."""
        name = failure.thread.name if failure.thread is not None else "a thread"
        error = failure.exc_value
        _log.error("%s has failed", name, exc_info=error, extra={"action": "work.thread.failed", "thread": name})
        if name.startswith("headrace "):
            self._on_leave(f"{name} has failed: {error!r}")

    def _leave(self) -> control.Leave:
        return control.Leave(float(self._settings.drain))

    def _parent_gone(self) -> None:
        self._orders.put(self._leave())

    def _failed(self, reason: str) -> int:
        self._line.tell(control.Failed(reason))
        return 1


def _nothing(*_: Any) -> None:
    """Not SIG_IGN: programs that tasks start would inherit that."""


def main(arguments: list[str]) -> int:
    line, board, slot, data = arguments
    settings = load_settings(WorkerSettings, data.encode())
    stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    logs.configure(stream, form=settings.log_format, level=settings.log_level)
    raise_descriptor_limit()
    shorten_switch_interval()
    threading.current_thread().name = f"headrace child {slot}"
    began_s = time.monotonic()
    code = Child(int(line), int(board), int(slot), settings).run()
    _log.debug("ended after %.1f s", time.monotonic() - began_s, extra={"action": "work.child.ended"})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
