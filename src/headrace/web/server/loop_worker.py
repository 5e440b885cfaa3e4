"""A worker on an event loop: ASGI apps behind an edge, and every app in direct mode."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from headrace.process import rss_bytes
from headrace.web.apps.lifespan import Lifespan
from headrace.web.server import control
from headrace.web.server.control import ControlChannel
from headrace.web.server.process import end_after, report_failure
from headrace.web.server.worker_job import EXIT_FAILED, OrphanedWorker, RecyclePolicy, WorkerJob, hello_of
from headrace.web.settings import WebSettings

_log: Final = logging.getLogger("headrace.web")

_END_S: Final = 10.5
"""After its grace: for the lifespan to shut down."""
_LAST_HOLDER_S: Final = 0.05
"""A listening socket is closed so long after the order to leave: supervisor and fork server have closed theirs by then. Whoever
holds it last must accept what is in its backlog; connections that came between our accept and their close would be reset."""
_ORPHAN_S: Final = 0.05


class RequestSource(Protocol):
    """Where requests come from: links to the edges, or the listening socket itself."""

    @property
    def requests(self) -> int: ...

    @property
    def in_flight(self) -> int: ...

    async def open(self) -> None: ...

    def announce_shutdown(self) -> None: ...

    async def close(self, grace_s: float, *, idle_s: float) -> None: ...

    def statistics(self) -> bytes: ...

    def reopen_logs(self) -> None: ...


class LoopWorker:
    """See headrace.web.server.worker for the life of a worker."""

    def __init__(
        self, job: WorkerJob, connection: socket.socket, apps: dict[str, Any], interfaces: dict[str, str]
    ) -> None:
        self._job = job
        self._connection = connection
        self._apps = apps
        self._interfaces = interfaces
        self._allowance = RecyclePolicy(job.settings)
        self._serve = asyncio.Event()
        self._leave = asyncio.Event()
        self._grace_s = float(job.settings.drain)
        self._idle_s = 0.0
        self._lost = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._connection.setblocking(False)
        _, self._channel = await loop.create_unix_connection(self._make_channel, sock=self._connection)
        loop.add_signal_handler(signal.SIGTERM, self._ask, "it received TERM")
        lifespans = {
            spec: Lifespan(self._apps[spec], self._job.settings.lifespan)
            for spec, interface in self._interfaces.items()
            if interface == "asgi"
        }
        try:
            for lifespan in lifespans.values():
                await lifespan.startup()
            source = self._source = make_request_source(
                self._job, self._apps, self._interfaces, lifespans, on_hung=self._on_hung
            )
        except Exception as error:  # noqa: BLE001 - the app's own
            report_failure(self._channel, "the app did not start", error)
            return EXIT_FAILED
        self._channel.send(control.Ready("/".join(sorted(set(self._interfaces.values())))))
        await self._run_source(source)
        for lifespan in reversed(lifespans.values()):
            await lifespan.shutdown()
        return 0

    def _make_channel(self) -> ControlChannel:
        return ControlChannel(on_message=self._obey, on_lost=self._on_lost)

    def _obey(self, _: ControlChannel, message: control.Message) -> None:
        match message:
            case control.Serve():
                self._serve.set()
            case control.Leave(grace_s, idle_s):
                self._grace_s, self._idle_s = grace_s, idle_s
                self._leave.set()
            case control.ShuttingDown():
                if self._source is not None:
                    self._source.announce_shutdown()
            case control.Reopen():
                if self._source is not None:
                    self._source.reopen_logs()

    def _on_lost(self, _: ControlChannel) -> None:
        self._lost = True
        if self._source is not None:
            self._source.announce_shutdown()
        self._orphaned = asyncio.create_task(self._leave_when_needless())

    async def _leave_when_needless(self) -> None:
        orphan = OrphanedWorker(self._job)
        while not orphan.done:  # noqa: ASYNC110 - the removal of a file raises no event
            await asyncio.sleep(_ORPHAN_S)
        self._grace_s = orphan.left_s
        self._leave.set()

    def _on_hung(self, pid: int) -> None:
        self._channel.send(control.RequestTimedOut(pid))

    def _ask(self, reason: str) -> None:
        if not self._lost:
            self._channel.send(control.Retire(reason))

    _source: RequestSource | None = None

    async def _run_source(self, source: RequestSource) -> None:
        await _first(self._serve, self._leave)
        if self._leave.is_set():
            end_after(self._grace_s + _END_S)
            return
        serving = asyncio.create_task(self._serve_by(source))
        await self._leave.wait()
        end_after(self._grace_s + _END_S)
        serving.cancel()  # it may still look for an edge that is not there any more
        await source.close(self._grace_s, idle_s=self._idle_s)
        self._send_report(source)

    async def _serve_by(self, source: RequestSource) -> None:
        await source.open()
        self._channel.send(control.Serving())
        await self._report(source)

    async def _report(self, source: RequestSource) -> None:
        while True:
            reason = self._allowance.exceeded(self._send_report(source))
            if reason:
                self._ask(reason)
            await asyncio.sleep(control.REPORT_S)

    def _send_report(self, source: RequestSource) -> control.Report:
        report = control.Report(source.requests, source.in_flight, rss_bytes(), source.statistics())
        self._channel.send(report)
        return report


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def make_request_source(
    job: WorkerJob,
    apps: dict[str, Any],
    interfaces: dict[str, str],
    lifespans: dict[str, Lifespan],
    *,
    on_hung: Callable[[int], None],
) -> RequestSource:
    if job.boot.links:
        (spec,) = apps
        return EdgeLinks(job, _asgi_target(apps[spec], lifespans.get(spec)))
    return DirectListener(job, apps, interfaces, lifespans, on_hung=on_hung)


def _asgi_target(app: Any, lifespan: Lifespan | None) -> Any:
    from headrace.web.apps.asgi import AsgiTarget  # noqa: PLC0415 - a WSGI app in direct mode needs none

    return AsgiTarget(app, lifespan=lifespan)


class EdgeLinks:
    """One connection to each edge."""

    def __init__(self, job: WorkerJob, target: Any) -> None:
        from headrace.web.ipc.asgi_link import AsgiLinkClient  # noqa: PLC0415 - direct mode has no links

        hello = hello_of(job, "asgi", capacity=job.settings.concurrency)
        self._clients = [AsgiLinkClient(Path(edge), target, hello=hello) for edge in job.boot.links[0]]
        self._target = target

    @property
    def requests(self) -> int:
        return sum(client.requests for client in self._clients)

    @property
    def in_flight(self) -> int:
        return sum(client.in_flight for client in self._clients)

    async def open(self) -> None:
        await asyncio.gather(*(client.connect() for client in self._clients))

    def announce_shutdown(self) -> None:
        self._target.leave()

    async def close(self, grace_s: float, *, idle_s: float) -> None:  # noqa: ARG002 - the edges have the connections
        until_s = time.monotonic() + grace_s
        self.announce_shutdown()
        for client in self._clients:
            client.leave()
        closed = asyncio.gather(*(client.closed() for client in self._clients))
        try:
            await asyncio.wait_for(closed, grace_s)
        except TimeoutError:
            _log.warning(
                "%d requests did not finish within the drain", self.in_flight, extra={"action": "web.drain.cut"}
            )
        await self._target.close(max(0.0, until_s - time.monotonic()))  # background tasks

    def statistics(self) -> bytes:
        return b""  # the edges have them

    def reopen_logs(self) -> None:
        """The edges write them."""


class DirectListener:
    """The listening socket and the whole frontend, with the apps in this process."""

    def __init__(
        self,
        job: WorkerJob,
        apps: dict[str, Any],
        interfaces: dict[str, str],
        lifespans: dict[str, Lifespan],
        *,
        on_hung: Callable[[int], None],
    ) -> None:
        from headrace.web.frontend.frontend import Frontend  # noqa: PLC0415 - workers behind an edge need none of it
        from headrace.web.stored.durable_marks import durable_marks  # noqa: PLC0415 - as above

        self._targets: list[Any] = []
        settings = job.settings
        locals_ = {}
        for spec, app in apps.items():
            if interfaces[spec] == "wsgi":
                from headrace.web.apps.wsgi_target import WsgiTarget  # noqa: PLC0415 - as above

                target = WsgiTarget(app, threads=settings.threads)
                capacity = settings.threads
            else:
                target, capacity = _asgi_target(app, lifespans.get(spec)), settings.concurrency
            self._targets.append(target)
            locals_[spec] = local_dispatcher(target, capacity, settings, on_hung)
        sockets = [socket.socket(fileno=number) for number in own_sockets(job)]
        self._frontend = Frontend(
            settings, dispatchers=locals_, sockets=sockets, shared=job.boot.shared, marks=durable_marks
        )

    @property
    def requests(self) -> int:
        return self._frontend.requests

    @property
    def in_flight(self) -> int:
        return self._frontend.in_flight

    async def open(self) -> None:
        await self._frontend.open()

    def announce_shutdown(self) -> None:
        for target in self._targets:
            if hasattr(target, "leave"):  # WSGI has no connections without an end
                target.leave()

    async def close(self, grace_s: float, *, idle_s: float) -> None:
        self.announce_shutdown()
        await asyncio.sleep(_LAST_HOLDER_S)
        await self._frontend.close(grace_s, idle_s=idle_s)
        for target in self._targets:
            result = target.close(grace_s) if hasattr(target, "close") else None
            if asyncio.iscoroutine(result):
                await result

    def statistics(self) -> bytes:
        return self._frontend.statistics()

    def reopen_logs(self) -> None:
        self._frontend.reopen_logs()


def own_sockets(job: WorkerJob) -> list[int]:
    """The listening socket of this worker's slot: one each where the kernel spreads connections over them."""
    sockets = job.boot.sockets
    own = sockets[job.index % len(sockets)]
    for other in sockets:
        if other != own:
            os.close(other)
    return [own]


def local_dispatcher(target: Any, capacity: int, settings: WebSettings, on_hung: Callable[[int], None]) -> Any:
    from headrace.web.dispatch.local_dispatcher import LocalDispatcher  # noqa: PLC0415 - only direct mode

    return LocalDispatcher(
        target,
        loop=asyncio.get_running_loop(),
        capacity=capacity,
        queue_size=settings.queue_size,
        queue_timeout_s=settings.queue_timeout,
        request_timeout_s=settings.request_timeout,
        on_hung=on_hung,
    )
