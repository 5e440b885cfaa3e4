"""What the processes of the web server share: set-up, import of apps, reports of failures."""

from __future__ import annotations

import faulthandler
import logging
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final, Protocol

from headrace import logs
from headrace.errors import HeadraceError
from headrace.process import raise_descriptor_limit
from headrace.web.server import control
from headrace.web.settings import WebSettings

_log: Final = logging.getLogger("headrace.web")


def set_up(settings: WebSettings) -> None:
    """Log as the supervisor does; leave the terminal's Ctrl-C, and a service manager's TERM to all processes of the
    service, to the supervisor: it knows the order in which to end.

    The log has a descriptor of its own: an application may close sys.stderr, and a line that cannot be written would end
    the thread that reports why a request failed."""
    stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    logs.configure(stream, form=settings.log_format, level=settings.log_level)
    raise_descriptor_limit()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, _nothing)


class FailureChannel(Protocol):
    def send(self, message: control.Message) -> None: ...


def _nothing(*_: object) -> None:
    """Not SIG_IGN: programs that the app starts would inherit that."""


def import_apps(specs: list[str], settings: WebSettings) -> dict[str, Any]:
    """Spec → app. Raises whatever the import raises."""
    from headrace.web.apps.app_loading import load  # noqa: PLC0415 - where nothing is preloaded, only the workers import it

    return {spec: load(spec, app_dir=settings.app_dir) for spec in specs}


def report_failure(channel: FailureChannel, what: str, error: BaseException) -> None:
    """Log the error, with a traceback unless headrace itself raised it, and report it to the supervisor."""
    reason = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    known = isinstance(error, HeadraceError)
    if not known:
        _log.error("%s: %s", what, reason, exc_info=error, extra={"action": "web.app.failed"})
    channel.send(control.Failed(f"{what}: {error}" if known else f"{what}: {reason}"))


def clear(control_path: Path) -> None:
    """Remove the folder of a supervisor that is gone and could not do it."""
    shutil.rmtree(control_path.parent, ignore_errors=True)


def end_after(grace_s: float) -> None:
    """Exit after `grace_s`, whatever hangs: faulthandler's thread does it, and dumps the tracebacks of all threads."""
    faulthandler.dump_traceback_later(max(grace_s, 0.05), exit=True)


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
