"""Reload: new code, settings and certificates without a failed request, or nothing new at all.

`FileWatcher` watches source files in a thread, for `--reload`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.errors import CallerError, HeadraceError
from headrace.process import notify_systemd
from headrace.settings import dump
from headrace.web.frontend.routes import apps_of
from headrace.web.server import control
from headrace.web.server.worker_group import WorkerGroup
from headrace.web.settings import FIXED, WebSettings

if TYPE_CHECKING:
    from headrace.web.server.supervisor import Supervisor

_log: Final = logging.getLogger("headrace.web")


@dataclass(eq=False)
class StartFailed(CallerError):
    """The server could not start, or not with its new settings."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class Reloader:
    """Runs one reload at a time; requests during a reload cause one more after it."""

    def __init__(self, supervisor: Supervisor, reread: Callable[[], WebSettings]) -> None:
        """Args: reread: reads the settings again. Raises SettingsError."""
        self._supervisor = supervisor
        self._reread = reread
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def ask(self) -> None:
        if self._task is not None:
            self._again = True
            for worker_group in self._supervisor.worker_groups:
                worker_group.limit_reload_wait()
            return
        self._task = self._loop.create_task(self._reload())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("reload failed", exc_info=task.exception(), extra={"action": "web.reload.failed"})
        if self._again:
            self._again = False
            self._supervisor.reload()

    async def _reload(self) -> None:
        notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={_monotonic_us()}")
        try:
            await self._steps()
        except HeadraceError as error:
            _log.error(
                "reload failed, the previous code keeps serving: %s", error, extra={"action": "web.reload.failed"}
            )
        finally:
            notify_systemd("READY=1")

    async def _steps(self) -> None:
        """Each step can fail without harm to running processes; routes change last, when the apps that they name are up."""
        supervisor = self._supervisor
        before = supervisor.settings
        settings = _keep_fixed(before, self._reread())
        wanted = apps_of(settings)
        self._add_apps(settings, wanted)
        await self._apply(settings, switch=False)
        if supervisor.draining:
            return
        supervisor.settings = settings
        unwanted = (
            []
            if settings.direct
            else [
                worker_group for worker_group in supervisor.worker_groups if worker_group.config.apps[0] not in wanted
            ]
        )
        old = [
            worker_group
            for worker_group in supervisor.worker_groups
            if worker_group not in unwanted and not worker_group.reconciler.draining
        ]
        for worker_group in old:
            if settings.workers != before.workers:
                worker_group.reconciler.resize(supervisor.workers())
            worker_group.reload(settings)
        started = supervisor.start_worker_groups(wanted)
        await supervisor.wait(lambda: supervisor.draining or not _under_way(old, started))
        if supervisor.draining:
            return
        if any(worker_group.reload_failure for worker_group in (*old, *started)):
            self._roll_back(before, old, started)
            return
        await self._apply(settings, switch=True)
        self._drain_groups(unwanted)
        _log.info("reloaded", extra={"action": "web.reload.done"})

    def _add_apps(self, settings: WebSettings, wanted: Iterable[str]) -> None:
        """Apps are only added, so that each keeps its number."""
        new = [app for app in wanted if app not in self._supervisor.apps]
        if new and settings.direct:
            raise StartFailed("in direct mode a new app needs a restart")
        self._supervisor.apps.extend(new)

    def _roll_back(self, before: WebSettings, old: Iterable[WorkerGroup], started: Iterable[WorkerGroup]) -> None:
        """Raises: StartFailed: a new app failed to start. Failures of other apps were logged by their worker groups."""
        resized = self._supervisor.settings.workers != before.workers
        self._supervisor.settings = before
        for worker_group in old:
            worker_group.roll_back(
                before, workers=self._supervisor.workers() if resized else worker_group.reconciler.wanted
            )
        self._drain_groups(started)
        for worker_group in started:
            if worker_group.reload_failure:
                raise StartFailed(worker_group.reload_failure)

    def _drain_groups(self, worker_groups: Iterable[WorkerGroup]) -> None:
        """Drain the worker groups of apps that no route uses; they can be resumed."""
        for worker_group in worker_groups:
            worker_group.drain(float(self._supervisor.settings.drain), idle_s=0.0)

    async def _apply(self, settings: WebSettings, *, switch: bool) -> None:
        """Raises: StartFailed: an edge cannot use them, and keeps what it has."""
        supervisor = self._supervisor
        if supervisor.edges is None:
            return
        for edge in range(settings.edges):
            message = control.Apply(dump(settings), supervisor.apps, supervisor.edge_links(edge), switch)
            error = await supervisor.edges.apply(edge, message)
            if error:
                raise StartFailed(error)


def _under_way(old: Iterable[WorkerGroup], started: Iterable[WorkerGroup]) -> bool:
    """Whether a reload has come neither to its end nor to a failure."""
    return any(worker_group.reconciler.reloading for worker_group in old) or not all(
        worker_group.reconciler.serving or worker_group.reload_failure for worker_group in started
    )


def _keep_fixed(old: WebSettings, new: WebSettings) -> WebSettings:
    """Keep settings that need a restart, and log a warning for each that has changed."""
    changed = [name for name in FIXED if getattr(old, name) != getattr(new, name)]
    for name in changed:
        _log.warning("a new %s takes effect after a restart", name, extra={"action": "web.reload.fixed"})
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in FIXED})


def _monotonic_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000


_DEBOUNCE_MS: Final = 200
"""An editor writes a file in several steps, a checkout many files: after so much quiet it is one change."""


class WatchfilesMissing(CallerError):
    """The extra is not installed."""

    def __str__(self) -> str:
        return "--reload needs the package watchfiles: pip install 'headrace[web]'"


class FileWatcher:
    """Between `start` and `stop`, `on_change` is called on the loop with the path that has changed."""

    def __init__(self, folders: Sequence[Path], *, on_change: Callable[[str], None]) -> None:
        """Raises: WatchMissing."""
        try:
            import watchfiles  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise WatchfilesMissing from None
        self._folders = [str(folder.resolve()) for folder in folders]
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        import watchfiles  # noqa: PLC0415 - as above

        only = watchfiles.PythonFilter(extra_extensions=(".toml",))
        for changes in watchfiles.watch(
            *self._folders,
            watch_filter=only,
            debounce=_DEBOUNCE_MS,
            stop_event=self._stop,
            raise_interrupt=False,
            rust_timeout=1_000,
        ):
            path = min(path for _, path in changes)
            self._loop.call_soon_threadsafe(self._on_change, path)
