"""The supervisor: binds the address, starts the other processes, replaces those that die, and ends them in order.

  supervisor ─┬─ edge …            clients' connections, the queue of each app        (not with --direct)
              └─ zygote ─┬─ worker an app, imported once for each generation of its code
                         └─ …

It serves no request, and imports no app: whatever goes wrong there cannot take it along. What should be is decided by
`headrace.web.fleet`; this is the order of things:

    start   address bound → edges and zygotes → workers → ready
    HUP     settings read anew → new zygotes → new workers ready → they serve, old ones drain → routes, certificates
    TERM    edges drain, what waits in their queues too → workers drain → exit 0
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace import __version__
from headrace.errors import CallerError, HeadraceError
from headrace.process import notify_systemd
from headrace.settings import dump
from headrace.web import control
from headrace.web.control import Channel
from headrace.web.crew import IDLE_S, Crew, Place
from headrace.web.edges import Edges
from headrace.web.own_broker import OwnBroker
from headrace.web.process import usable_cores
from headrace.web.routes import apps_of
from headrace.web.settings import WebSettings
from headrace.web.sockets import address_of, open_sockets
from headrace.web.upgrade import Upgrade, tell_ready

_log: Final = logging.getLogger("headrace.web")

_FOLDER_BYTES_MAX: Final = 87
_WORKERS_MAX: Final = 8
"""By default: each holds the app in memory, and databases count connections."""
_EDGE_END_S: Final = 3.0
"""What an edge gets beyond the drain before it is killed."""
_WORKERS_GRACE_S: Final = 2.0
"""For workers at the end, when no edge has a request for them any more."""
_FIXED: Final = (
    "host",
    "port",
    "uds",
    "edges",
    "direct",
    "admin",
    "reload",
    "reload_dir",
    "http2",
    "broker",
    "durable_queue",
)
"""What a reload does not change."""


@dataclass(eq=False)
class StartFailed(CallerError):
    """The server could not start."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Ready:
    """What is told when requests are served. `url`: `http://…`, or `unix:/path`."""

    url: str
    port: int
    interface: str
    workers: int
    admin: str


class Supervisor:
    """`start`, then `run` until stopped; on one loop, in the main thread."""

    def __init__(self, settings: WebSettings, *, reread: Callable[[], WebSettings]) -> None:
        """Args:
        settings: checked.
        reread: reads them anew, for HUP. Raises SettingsError.
        """
        self._settings = settings
        self._reread = reread
        self._loop = asyncio.get_running_loop()
        self._folder = _private_folder()
        self._control = self._folder / "control"
        self._sockets: list[socket.socket] = []
        self._crews: list[Crew] = []
        self._apps: list[str] = []
        """Every app there has been, so that each keeps its number."""
        self._edges: Edges | None = None
        self._broker: OwnBroker | None = None
        self._admin: Any = None
        self._watcher: Any = None
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failure = ""
        self._unix_file: tuple[Path, int] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._successor = Upgrade(self._upgraded)
        self._idle_s = 0.0
        self.draining = False

    # Start

    async def start(self) -> Ready:
        """Everything that serves; ready when it returns.

        Raises: AddressUnusable, StartFailed, SettingsError.
        """
        settings = self._settings
        self._obey_signals()
        self._sockets = open_sockets(settings.host, settings.port, settings.uds, count=self._listeners())
        if settings.uds is not None:
            self._unix_file = (settings.uds.absolute(), settings.uds.stat().st_ino)
        for listening in self._sockets:
            listening.set_inheritable(False)
        await self._loop.create_unix_server(self._make_channel, str(self._control))
        self._apps = list(apps_of(settings))
        if settings.broker and "://" not in settings.broker:
            keys = self._folder / "broker-keys.json"
            self._broker = OwnBroker(Path(settings.broker), keys=keys, on_ended=self._changed.set)
            await self._broker.start()
        if not settings.direct:
            self._edges = self._make_edges()
            self._edges.start()
        self._start_crews(self._apps)
        await self._wait(lambda: bool(self._failure) or self._stopping.is_set() or self.ready)
        if self._failure:
            raise StartFailed(self._failure)
        if self._stopping.is_set():
            raise StartFailed("stopped before it was ready")
        if settings.admin:
            await self._open_admin()
        if settings.reload:
            self._watch()
        return self._tell_ready()

    def _listeners(self) -> int:
        return self._workers() if self._settings.direct else self._settings.edges

    def _workers(self) -> int:
        return self._settings.workers or min(usable_cores(), _WORKERS_MAX)

    def _make_edges(self) -> Edges:
        count = self._settings.edges
        return Edges(
            self._control,
            [[self._sockets[number % len(self._sockets)].fileno()] for number in range(count)],
            boot=self._boot_edge,
            on_change=self._changed.set,
            on_start_failed=self._start_failed,
            on_hung=self._hung,
            on_ended=self._keep,
        )

    def _boot_edge(self, number: int, sockets: list[int]) -> control.Boot:
        return control.Boot(
            settings=dump(self._settings),
            apps=self._apps,
            links=self._edge_links(number),
            sockets=sockets,
            shared=len(self._sockets) < self._settings.edges,
        )

    def _edge_links(self, edge: int) -> list[list[str]]:
        return [[self._link(app, edge)] for app in range(len(self._apps))]

    def _link(self, app: int, edge: int) -> str:
        return str(self._folder / f"app{app}.edge{edge}")

    def _start_crews(self, wanted: Sequence[str]) -> list[Crew]:
        """A crew for each wanted app that has none, or whose crew rests; in direct mode one for all of them. Returns those
        that were started."""
        if self._settings.direct:
            if not self._crews and self._apps:
                sockets = [listening.fileno() for listening in self._sockets]
                return [self._add_crew(Place(self._control, self._apps, [], sockets))]
            return []
        resting = [crew for crew in self._crews if crew.fleet.draining and crew.place.apps[0] in wanted]
        for crew in resting:
            crew.resume(self._settings, workers=self._workers())
        return [*resting, *(self._add_crew(self._place(number)) for number in range(len(self._crews), len(self._apps)))]

    def _place(self, app: int) -> Place:
        links = [self._link(app, edge) for edge in range(self._settings.edges)]
        return Place(self._control, [self._apps[app]], [links], [])

    def _add_crew(self, place: Place) -> Crew:
        crew = Crew(
            len(self._crews),
            place,
            self._settings,
            workers=self._workers(),
            on_change=lambda _: self._changed.set(),
            on_start_failed=self._start_failed,
            on_ended=self._keep,
        )
        self._crews.append(crew)
        crew.step()
        return crew

    def _start_failed(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._changed.set()

    def _tell_ready(self) -> Ready:
        settings, listening = self._settings, self._sockets[0]
        url = address_of(listening, secure=settings.certfile is not None)
        port = 0 if listening.family == socket.AF_UNIX else int(listening.getsockname()[1])
        interface = "/".join(sorted({crew.interface for crew in self._crews if crew.interface}))
        workers = sum(crew.fleet.wanted for crew in self._crews)
        facts = {"action": "web.ready", "url": url, "port": port, "interface": interface, "workers": workers}
        admin = self._admin.address if self._admin is not None else ""
        _log.info("ready at %s", url, extra={**facts, "admin": admin, "version": __version__, "pid": os.getpid()})
        notify_systemd(f"READY=1\nMAINPID={os.getpid()}")
        tell_ready()
        return Ready(url, port, interface, workers, admin)

    async def _open_admin(self) -> None:
        from headrace.web.admin import Admin  # noqa: PLC0415 - only where it is wanted

        self._admin = Admin(self)
        self._admin.open(self._settings.admin)

    def _watch(self) -> None:
        from headrace.web.watch import Watcher  # noqa: PLC0415 - only for development

        folders = self._settings.reload_dir or (self._settings.app_dir,)
        self._watcher = Watcher(folders, on_change=self._reload_for)
        self._watcher.start()

    # What others ask

    @property
    def ready(self) -> bool:
        """Whether requests are served: by all edges, and a worker of each app at least."""
        edges = self._edges is None or self._edges.ready
        return edges and not self.draining and all(crew.fleet.serving or crew.fleet.draining for crew in self._crews)

    @property
    def crews(self) -> list[Crew]:
        return self._crews

    @property
    def edges(self) -> Edges | None:
        return self._edges

    # While it runs

    async def run(self) -> int:
        """Serve until stopped, then stop in order. Returns the exit code."""
        await self._stopping.wait()
        await self._drain()
        return 0

    def stop(self) -> None:
        """In order; the second time at once."""
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
        for crew in self._crews:
            crew.reap()
        if self._edges is not None:
            self._edges.reap()
        if self._broker is not None:
            self._broker.reap()

    def _make_channel(self) -> Channel:
        return Channel(on_message=self._welcome, on_lost=lambda _: None)

    def _welcome(self, channel: Channel, message: control.Message) -> None:
        if not isinstance(message, control.Hello):
            channel.close()
        elif message.role == "edge" and self._edges is not None:
            self._edges.welcome(channel, message)
        elif message.role != "edge" and message.crew < len(self._crews):
            self._crews[message.crew].welcome(channel, message)

    def _hung(self, pid: int) -> None:
        any(crew.hung(pid) for crew in self._crews)

    def _keep(self, record: bytes) -> None:
        if self._admin is not None:
            self._admin.keep(record)

    def _resize(self, change: int) -> None:
        for crew in self._crews:
            if self._settings.direct and crew.fleet.wanted + change < len(self._sockets):
                reason = "in direct mode each worker has a socket of its own that nobody else would serve"
                _log.warning("no worker less: %s", reason, extra={"action": "web.resize.refused"})
            else:
                crew.resize(change)

    def _reopen_logs(self) -> None:
        if self._edges is not None:
            self._edges.tell(control.Reopen())
        for crew in self._crews:
            crew.reopen_logs()

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # Reload

    def reload(self) -> None:
        """New code, settings and certificates; one that comes while one is under way follows it."""
        if self.draining:
            return
        if self._reloading is not None:
            self._reload_again = True
            for crew in self._crews:
                crew.hurry()
            return
        self._reloading = self._loop.create_task(self._reload())
        self._reloading.add_done_callback(self._reload_ended)

    def _reload_for(self, path: str) -> None:
        _log.info("%s has changed", path, extra={"action": "web.file.changed", "path": path})
        self.reload()

    def _reload_ended(self, task: asyncio.Task[None]) -> None:
        self._reloading = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("reload failed", exc_info=task.exception(), extra={"action": "web.reload.failed"})
        if self._reload_again:
            self._reload_again = False
            self.reload()

    async def _reload(self) -> None:
        notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={_monotonic_us()}")
        try:
            await self._reload_steps()
        except HeadraceError as error:
            _log.error("not reloaded, what served before goes on: %s", error, extra={"action": "web.reload.failed"})
        finally:
            notify_systemd("READY=1")

    async def _reload_steps(self) -> None:
        """Each step can fail without harm to what runs; routes change last, when those whom they name are up."""
        settings = _keep_fixed(self._settings, self._reread())
        wanted = apps_of(settings)
        new = [app for app in wanted if app not in self._apps]
        if new and settings.direct:
            raise StartFailed("in direct mode a new app needs a restart")
        self._apps.extend(new)
        await self._apply(settings, switch=False)
        before = self._settings
        resized = settings.workers != before.workers
        self._settings = settings
        unwanted = [] if settings.direct else [crew for crew in self._crews if crew.place.apps[0] not in wanted]
        old = [crew for crew in self._crews if crew not in unwanted and not crew.fleet.draining]
        for crew in old:
            if resized:
                crew.fleet.resize(self._workers())
            crew.reload(settings)
        started = self._start_crews(wanted)
        await self._wait(lambda: self.draining or not _under_way(old, started))
        if any(crew.reload_failure for crew in (*old, *started)):
            self._settings = before
            for crew in old:
                crew.settings = before
            self._rest(started)
            for crew in started:
                if crew.reload_failure:  # of the others it has been told
                    raise StartFailed(crew.reload_failure)
            return
        await self._apply(settings, switch=True)
        self._rest(unwanted)
        _log.info("reloaded", extra={"action": "web.reload.done"})

    def _rest(self, crews: Iterable[Crew]) -> None:
        """Nobody needs these apps; their crews may be wanted again."""
        for crew in crews:
            crew.drain(float(self._settings.drain), idle_s=0.0)

    async def _apply(self, settings: WebSettings, *, switch: bool) -> None:
        """Raises: StartFailed: an edge cannot use them, and keeps what it has."""
        if self._edges is None:
            return
        for edge in range(settings.edges):
            message = control.Apply(dump(settings), self._apps, self._edge_links(edge), switch)
            error = await self._edges.apply(edge, message)
            if error:
                raise StartFailed(error)

    # Upgrade

    def _upgrade(self) -> None:
        """A new supervisor from what is installed now; when it serves, this one drains."""
        if not self.draining:
            self._successor.start(self._sockets, self._admin.sockets if self._admin is not None else [])

    def _upgraded(self) -> None:
        self._unix_file = None  # it is the new one's
        self._idle_s = IDLE_S
        self._stopping.set()
        self._changed.set()

    # The end

    async def _drain(self) -> None:
        """Producers first, then consumers: what is in a queue still finds its worker."""
        self.draining = True
        drain_s = float(self._settings.drain)
        _log.info("stopping", extra={"action": "web.stopping"})
        notify_systemd("STOPPING=1")
        if self._watcher is not None:
            self._watcher.stop()
        self._close_sockets()
        for crew in self._crews:
            crew.announce_end()
        if self._edges is not None:
            self._edges.leave(drain_s, idle_s=self._idle_s)
            killing = self._loop.call_later(drain_s + _EDGE_END_S, self._edges.kill)
            await self._wait(lambda: self._edges is None or self._edges.over)
            killing.cancel()
            drain_s = min(drain_s, _WORKERS_GRACE_S)
        for crew in self._crews:
            crew.drain(drain_s, idle_s=self._idle_s)
        await self._wait(lambda: all(crew.over for crew in self._crews))
        if self._broker is not None:
            self._broker.stop()
            await self._wait(lambda: self._broker is None or self._broker.over)
        await self.close()
        _log.info("stopped", extra={"action": "web.stopped"})

    async def close(self) -> None:
        """Leave nothing behind. Idempotent."""
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
        """As a crash would, but leave no process behind."""
        self.kill()
        _log.warning("ended at once", extra={"action": "web.ended"})
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)

    def kill(self) -> None:
        """All other processes."""
        if self._edges is not None:
            self._edges.kill()
        for crew in self._crews:
            crew.kill()
        if self._broker is not None:
            self._broker.kill()


def _private_folder() -> Path:
    """For the sockets between the processes; their names must not get longer than the system takes (about 100 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-"))
    if len(os.fsencode(folder)) > _FOLDER_BYTES_MAX:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="headrace-", dir="/tmp"))
    return folder


def _under_way(old: Iterable[Crew], started: Iterable[Crew]) -> bool:
    """Whether a reload has come neither to its end nor to a failure."""
    return any(crew.fleet.reloading for crew in old) or not all(
        crew.fleet.serving or crew.reload_failure for crew in started
    )


def _keep_fixed(old: WebSettings, new: WebSettings) -> WebSettings:
    """What needs a restart stays as it was, and is told."""
    changed = [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
    for name in changed:
        _log.warning("a new %s takes effect after a restart", name, extra={"action": "web.reload.fixed"})
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in _FIXED})


def _monotonic_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
