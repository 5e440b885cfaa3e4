"""A worker: one process that runs the app. The fork server forks it, the supervisor directs it.

    start    app imported → started (lifespan) → READY → Serve received → SERVING
    end      Leave received → takes nothing new → finishes what it has → shut down → exit

A worker never leaves by itself: one that has served enough, or is asked by TERM, asks to be replaced (Retire), and leaves
on Leave. Only when the supervisor is gone it drains on its own.

A WSGI app behind an edge needs no event loop: its threads each have a socket of their own, and the main thread looks
after the channel. Everything else runs on one (headrace.web.server.loop_worker).
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from headrace.process import rss_bytes
from headrace.web.server import control
from headrace.web.server.control import BlockingControlChannel
from headrace.web.server.process import end_after, import_apps, report_failure
from headrace.web.server.worker_job import EXIT_FAILED, OrphanedWorker, RecyclePolicy, WorkerJob, hello_of
from headrace.web.settings import WebSettings

_log: Final = logging.getLogger("headrace.web")

_LEAVING_S: Final = 0.05  # how often a worker that leaves looks whether it is done
_END_S: Final = 0.5  # after its grace a worker ends, whatever runs


def run_worker(job: WorkerJob, path: Path, worker_group: int) -> int:
    """Run until Leave. Returns the exit code."""
    random.seed()
    channel = BlockingControlChannel(path)
    channel.send(control.Hello("worker", os.getpid(), job.worker, worker_group))
    try:
        apps = job.apps or import_apps(job.boot.apps, job.settings)
        interfaces = {spec: interface(app, job.settings) for spec, app in apps.items()}
    except BaseException as error:  # noqa: BLE001 - a module that is imported may do anything, sys.exit too
        report_failure(channel, "the app could not be imported", error)
        return EXIT_FAILED
    if job.boot.links and set(interfaces.values()) == {"wsgi"}:
        return WsgiWorker(job, channel, next(iter(apps.values()))).run()
    import uvloop  # noqa: PLC0415 - WSGI threads need no loop

    from headrace.web.server.loop_worker import LoopWorker  # noqa: PLC0415

    return uvloop.run(LoopWorker(job, channel.detach(), apps, interfaces).run())


def interface(app: Any, settings: WebSettings) -> str:
    """Raises: AppInvalid."""
    from headrace.web.apps.app_loading import interface_of  # noqa: PLC0415 - the supervisor's side of this module needs no apps

    return interface_of(app) if settings.interface == "auto" else settings.interface


class WsgiWorker:
    """Threads that pull from the edges; the main thread looks after the supervisor's channel."""

    def __init__(self, job: WorkerJob, channel: BlockingControlChannel, app: Callable[..., Any]) -> None:
        self._job = job
        self._channel = channel
        self._app = app
        self._allowance = RecyclePolicy(job.settings)
        self._links: Any = None
        self._leaving = False
        self._orphan: OrphanedWorker | None = None
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.signal(signal.SIGTERM, self._on_term)

    def run(self) -> int:
        self._channel.send(control.Ready("wsgi"))
        while not (self._leaving and self._is_done()):
            sources: list[Any] = [self._wake] if self._channel.lost else [self._wake, self._channel]
            hurried = self._leaving or self._orphan is not None
            readable, _, _ = select.select(sources, [], [], _LEAVING_S if hurried else control.REPORT_S)
            if self._wake in readable:
                self._wake.recv(64)
                self._ask("it received TERM")
            if self._channel in readable:
                self._obey(self._channel.read())
            if self._orphan is not None and self._orphan.done:
                self._leave(self._orphan.left_s)
            self._report()
        return 0

    def _on_term(self, *_: object) -> None:
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            return

    def _ask(self, reason: str) -> None:
        if not self._channel.lost:
            self._channel.send(control.Retire(reason))

    def _obey(self, messages: list[control.Message] | None) -> None:
        if messages is None:
            self._orphan = OrphanedWorker(self._job)
            return
        for message in messages:
            match message:
                case control.Serve():
                    self._serve()
                case control.Leave(grace_s):
                    self._leave(grace_s)

    def _serve(self) -> None:
        from headrace.web.ipc.wsgi_link_threads import WsgiLinkThreads  # noqa: PLC0415 - only this kind of worker has them

        settings, (edges,) = self._job.settings, self._job.boot.links
        hello = hello_of(self._job, "wsgi", capacity=1)
        # Every edge has to have a thread of every worker.
        threads = max(settings.threads, len(edges))
        self._links = WsgiLinkThreads(self._app, edges=[Path(edge) for edge in edges], threads=threads, hello=hello)
        self._channel.send(control.Serving())

    def _leave(self, grace_s: float) -> None:
        if not self._leaving:
            self._leaving = True
            end_after(grace_s + _END_S)
            if self._links is not None:
                self._links.leave()

    def _is_done(self) -> bool:
        return self._links is None or bool(self._links.join(0))

    def _report(self) -> None:
        requests, in_flight = (self._links.requests, self._links.in_flight) if self._links is not None else (0, 0)
        report = control.Report(requests, in_flight, rss_bytes())
        self._channel.send(report)
        reason = self._allowance.exceeded(report)
        if reason:
            self._channel.send(control.Retire(reason))
