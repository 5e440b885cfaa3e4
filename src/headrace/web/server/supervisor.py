"""The supervisor: binds the address, starts the other processes, replaces those that die, and ends them in order.

  supervisor ─┬─ edge …            clients' connections, the queue of each app        (not with --direct)
              └─ fork server ─┬─ worker    an app, imported once for each generation of its code
                              └─ …

It serves no request, and imports no app: whatever goes wrong there cannot take it along. What should be is decided by
`headrace.web.server.reconciler`; this is the order of things:

    start   address bound → edges and fork servers → workers → ready
    HUP     settings read → new fork servers → new workers ready → they serve, old ones drain → routes, certificates
    TERM    edges drain, with their queues → workers drain → exit 0
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from headrace._version import __version__
from headrace.managed_broker import ManagedBroker
from headrace.process import notify_systemd, private_folder, raise_descriptor_limit
from headrace.settings import dump
from headrace.web.frontend.routes import apps_of
from headrace.web.server import control
from headrace.web.server.control import ControlChannel
from headrace.web.server.edge_group import EdgeGroup
from headrace.web.server.process import usable_cores
from headrace.web.server.reloader import Reloader, StartFailed
from headrace.web.server.sockets import address_of, distribute, open_sockets
from headrace.web.server.stats_aggregator import Ready, StatsAggregator
from headrace.web.server.upgrade import Upgrade, notify_predecessor
from headrace.web.server.worker_group import IDLE_S, WorkerGroup, WorkerGroupConfig
from headrace.web.settings import WebSettings

_log: Final = logging.getLogger("headrace.web")

_WORKERS_MAX: Final = 8
"""By default: each holds the app in memory, and databases count connections."""
_EDGE_END_S: Final = 3.0
"""What an edge gets beyond the drain before it is killed."""
_WORKERS_GRACE_S: Final = 2.0
"""For workers at the end, when no edge has a request for them any more."""


class Supervisor:
    """`start`, then `run` until stopped; on one loop, in the main thread."""

    def __init__(self, settings: WebSettings, *, reread: Callable[[], WebSettings]) -> None:
        """Args:
        settings: checked.
        reread: reads them again, for HUP. Raises SettingsError.
        """
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self._folder = private_folder()
        self._control = self._folder / "control"
        self._sockets: list[socket.socket] = []
        self.worker_groups: list[WorkerGroup] = []
        self.apps: list[str] = []
        """All apps so far: each keeps its number."""
        self.edges: EdgeGroup | None = None
        self.stats = StatsAggregator()
        self._broker: ManagedBroker | None = None
        self._admin: Any = None
        self._status_task: asyncio.Task[None] | None = None
        self._watcher: Any = None
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failure = ""
        self._unix_file: tuple[Path, int] | None = None
        self._reloader = Reloader(self, reread)
        self._successor = Upgrade(self._upgraded)
        self._idle_s = 0.0
        self.draining = False

    # Start

    async def start(self) -> Ready:
        """Start all processes; the server is ready when this returns.

        Raises: AddressUnusable, StartFailed, SettingsError.
        """
        settings = self.settings
        self._obey_signals()
        self._sockets = open_sockets(settings.host, settings.port, settings.uds, count=self._listeners())
        if settings.uds is not None:
            self._unix_file = (settings.uds.absolute(), settings.uds.stat().st_ino)
        for listening in self._sockets:
            listening.set_inheritable(False)
        await self._loop.create_unix_server(self._make_channel, str(self._control))
        self.apps = list(apps_of(settings))
        if settings.broker and "://" not in settings.broker:
            keys = self._folder / "broker-keys.json"
            self._broker = ManagedBroker(Path(settings.broker), keys=keys, on_ended=self._changed.set)
            await self._broker.start()
        if not settings.direct:
            self.edges = self._make_edges()
            self.edges.start()
        self.start_worker_groups(self.apps)
        await self.wait(lambda: bool(self._failure) or self._stopping.is_set() or self._complete)
        if self._failure or self._stopping.is_set():
            raise StartFailed(self._failure or "stopped before it was ready")
        if settings.admin:
            await self._open_admin()
        if settings.reload:
            self._watch()
        ready = self._announce_ready()
        if settings.broker:
            from headrace.web.server.status_reporter import show  # noqa: PLC0415 - only where there is a broker

            self._status_task = self._loop.create_task(show(self, ready.url))
        return ready

    def _listeners(self) -> int:
        return self.workers() if self.settings.direct else self.settings.edges

    def workers(self) -> int:
        """The number of workers for each app; in direct mode at least one for each socket, which no other process serves."""
        wanted = self.settings.workers or min(usable_cores(), _WORKERS_MAX)
        return len(self._sockets) if self._too_few(wanted) else wanted

    def _too_few(self, workers: int) -> bool:
        too_few = self.settings.direct and workers < len(self._sockets)
        if too_few:
            reason = "in direct mode each worker has a socket that no other process serves"
            _log.warning("the number of workers is not reduced: %s", reason, extra={"action": "web.resize.refused"})
        return too_few

    def _make_edges(self) -> EdgeGroup:
        return EdgeGroup(
            self._control,
            [[one.fileno() for one in own] for own in distribute(self._sockets, self.settings.edges)],
            boot=self._boot_edge,
            on_change=self._changed.set,
            on_start_failed=self._start_failed,
            on_hung=self._mark_hung,
            on_ended=self.stats.keep,
        )

    def _boot_edge(self, number: int, sockets: list[int]) -> control.Boot:
        return control.Boot(
            settings=dump(self.settings),
            apps=self.apps,
            links=self.edge_links(number),
            sockets=sockets,
            shared=len(self._sockets) < self.settings.edges,
        )

    def edge_links(self, edge: int) -> list[list[str]]:
        """For each app the socket paths at which an edge accepts workers."""
        return [[self._link(app, edge)] for app in range(len(self.apps))]

    def _link(self, app: int, edge: int) -> str:
        return str(self._folder / f"app{app}.edge{edge}")

    def start_worker_groups(self, wanted: Sequence[str]) -> list[WorkerGroup]:
        """A worker group for each wanted app that has none, or whose worker group rests; in direct mode one for all of
        them. Returns those that were started."""
        if self.settings.direct:
            if not self.worker_groups and self.apps:
                sockets = [listening.fileno() for listening in self._sockets]
                return [self._add_worker_group(WorkerGroupConfig(self._control, self.apps, [], sockets))]
            return []
        drained = [
            worker_group
            for worker_group in self.worker_groups
            if worker_group.reconciler.draining and worker_group.config.apps[0] in wanted
        ]
        for worker_group in drained:
            worker_group.resume(self.settings, workers=self.workers())
        return [
            *drained,
            *(
                self._add_worker_group(self._config_of(number))
                for number in range(len(self.worker_groups), len(self.apps))
            ),
        ]

    def _config_of(self, app: int) -> WorkerGroupConfig:
        links = [self._link(app, edge) for edge in range(self.settings.edges)]
        return WorkerGroupConfig(self._control, [self.apps[app]], [links], [])

    def _add_worker_group(self, config: WorkerGroupConfig) -> WorkerGroup:
        worker_group = WorkerGroup(
            len(self.worker_groups),
            config,
            self.settings,
            workers=self.workers(),
            on_change=lambda _: self._changed.set(),
            on_start_failed=self._start_failed,
            on_ended=self.stats.keep,
        )
        self.worker_groups.append(worker_group)
        worker_group.reconcile()
        return worker_group

    def _start_failed(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._changed.set()

    def _announce_ready(self) -> Ready:
        settings, listening = self.settings, self._sockets[0]
        url = address_of(listening, secure=settings.certfile is not None)
        port = 0 if listening.family == socket.AF_UNIX else int(listening.getsockname()[1])
        interface = "/".join(
            sorted({worker_group.interface for worker_group in self.worker_groups if worker_group.interface})
        )
        workers = sum(worker_group.reconciler.wanted for worker_group in self.worker_groups)
        facts = {"action": "web.ready", "url": url, "port": port, "interface": interface, "workers": workers}
        admin = self._admin.address if self._admin is not None else ""
        _log.info("ready at %s", url, extra={**facts, "admin": admin, "version": __version__, "pid": os.getpid()})
        notify_systemd(f"READY=1\nMAINPID={os.getpid()}")
        notify_predecessor()
        return Ready(url, port, interface, workers, admin)

    async def _open_admin(self) -> None:
        from headrace.web.server.admin import Admin  # noqa: PLC0415 - only where it is wanted

        self._admin = Admin(self)
        self._admin.open(self.settings.admin)

    def _watch(self) -> None:
        from headrace.web.server.reloader import FileWatcher  # noqa: PLC0415 - only for development

        self._watcher = FileWatcher(self.settings.reload_dir or (self.settings.app_dir,), on_change=self._reload_for)
        self._watcher.start()

    @property
    def _complete(self) -> bool:
        """Whether the server is ready. In direct mode each socket needs a worker: a TERM would cut clients of a socket
        without."""
        apart = self.edges is None and len(self._sockets) > 1
        return self.ready and (
            not apart
            or all(
                worker_group.reconciler.serving >= worker_group.reconciler.wanted for worker_group in self.worker_groups
            )
        )

    # What others ask

    @property
    def ready(self) -> bool:
        """Whether requests are served: by all edges, and a worker of each app at least."""
        edges = self.edges is None or self.edges.ready
        return (
            edges
            and not self.draining
            and all(
                worker_group.reconciler.serving or worker_group.reconciler.draining
                for worker_group in self.worker_groups
            )
        )

    # While it runs

    async def run(self) -> int:
        """Serve until stopped, then stop in order. Returns the exit code."""
        await self._stopping.wait()
        await self._drain()
        return 0

    def stop(self) -> None:
        """Stop in order; at once when called a second time."""
        if self._stopping.is_set():
            self._end_now()
        self._stopping.set()
        self._changed.set()

    def _obey_signals(self) -> None:
        for number, react in {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGQUIT: self._end_now,
            signal.SIGHUP: self.reload,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._upgrade,
            signal.SIGTTIN: lambda: self._resize(1),
            signal.SIGTTOU: lambda: self._resize(-1),
            signal.SIGCHLD: self._reap,
        }.items():
            self._loop.add_signal_handler(number, react)

    def _reap(self) -> None:
        for worker_group in self.worker_groups:
            worker_group.reap()
        if self.edges is not None:
            self.edges.reap()
        if self._broker is not None:
            self._broker.reap()

    def _make_channel(self) -> ControlChannel:
        return ControlChannel(on_message=self._attach, on_lost=lambda _: None)

    def _attach(self, channel: ControlChannel, message: control.Message) -> None:
        if not isinstance(message, control.Hello):
            channel.close()
        elif message.role == "edge" and self.edges is not None:
            self.edges.attach(channel, message)
        elif message.role != "edge" and message.worker_group < len(self.worker_groups):
            self.worker_groups[message.worker_group].attach(channel, message)

    def _mark_hung(self, pid: int) -> None:
        any(worker_group.mark_hung(pid) for worker_group in self.worker_groups)

    def _resize(self, change: int) -> None:
        for worker_group in self.worker_groups:
            if not self._too_few(worker_group.reconciler.wanted + change):
                worker_group.resize(change)

    def _reopen_logs(self) -> None:
        if self.edges is not None:
            self.edges.send(control.Reopen())
        for worker_group in self.worker_groups:
            worker_group.reopen_logs()

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is checked after each change."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # Reload

    def reload(self) -> None:
        """Load new code, settings and certificates. A reload requested during another one follows it."""
        if not self.draining:
            self._reloader.ask()

    def _reload_for(self, path: str) -> None:
        _log.info("%s has changed", path, extra={"action": "web.file.changed", "path": path})
        self.reload()

    # Upgrade

    def _upgrade(self) -> None:
        """Start a new supervisor from the installed version; once it serves, this one drains."""
        if not self.draining:
            self._successor.start(self._sockets, self._admin.sockets if self._admin is not None else [])

    def _upgraded(self) -> None:
        self._unix_file = None  # it is the new one's
        self._idle_s = IDLE_S
        self._stopping.set()
        self._changed.set()

    # The end

    async def _drain(self) -> None:
        """Stop edges first, then workers: queued requests still find a worker."""
        self.draining = True
        drain_s = float(self.settings.drain)
        _log.info("stopping", extra={"action": "web.stopping"})
        notify_systemd("STOPPING=1")
        if self._watcher is not None:
            self._watcher.stop()
        self._close_sockets()
        for worker_group in self.worker_groups:
            worker_group.announce_shutdown()
        if self.edges is not None:
            self.edges.leave(drain_s, idle_s=self._idle_s)
            killing = self._loop.call_later(drain_s + _EDGE_END_S, self.edges.kill)
            await self.wait(lambda: self.edges is None or self.edges.finished)
            killing.cancel()
            drain_s = min(drain_s, _WORKERS_GRACE_S)
        for worker_group in self.worker_groups:
            worker_group.drain(drain_s, idle_s=self._idle_s)
        await self.wait(lambda: all(worker_group.finished for worker_group in self.worker_groups))
        if self._broker is not None:
            self._broker.stop()
            await self.wait(lambda: self._broker is None or self._broker.over)
        await self.close()
        _log.info("stopped", extra={"action": "web.stopped"})

    async def close(self) -> None:
        """Clean up. Idempotent."""
        if self._status_task is not None and self._status_task.cancel():
            await asyncio.wait({self._status_task})
        if self._admin is not None:
            await self._admin.close()
            self._admin = None
        # A child that ends later would wake a loop that is closed, and Python complain of that.
        self._loop.remove_signal_handler(signal.SIGCHLD)
        self._close_sockets()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        if self._unix_file is not None:
            path, inode = self._unix_file
            with suppress(OSError):
                if path.lstat().st_ino == inode:
                    path.unlink()

    def _end_now(self) -> None:
        """Exit at once, and kill all other processes."""
        self.kill()
        _log.warning("ended at once", extra={"action": "web.ended"})
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)

    def kill(self) -> None:
        """Kill all other processes."""
        if self.edges is not None:
            self.edges.kill()
        for worker_group in self.worker_groups:
            worker_group.kill()
        if self._broker is not None:
            self._broker.kill()


def run_web(
    settings: WebSettings, *, reread: Callable[[], WebSettings], on_ready: Callable[[Ready], None] = lambda _: None
) -> int:
    """Returns the exit code.

    Args:
        settings: checked by `headrace.web.check`.
        reread: reads them again, for HUP. Raises SettingsError.
        on_ready: called once, when requests are served.

    Raises: AddressUnusable, StartFailed, SettingsError: it cannot start.
    """
    raise_descriptor_limit()
    return asyncio.run(_run(settings, reread, on_ready))


async def _run(settings: WebSettings, reread: Callable[[], WebSettings], on_ready: Callable[[Ready], None]) -> int:
    supervisor = Supervisor(settings, reread=reread)
    try:
        on_ready(await supervisor.start())
        return await supervisor.run()
    except BaseException:
        supervisor.kill()
        raise
    finally:
        await supervisor.close()
