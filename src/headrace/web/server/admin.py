"""The admin listener, in the supervisor: metrics and health, apart from what clients reach."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace._version import __version__
from headrace.http.exposition import CONTENT_TYPE
from headrace.http.listener import Listener
from headrace.http.messages import Request
from headrace.process import rss_bytes
from headrace.settings import SettingsError, flag_of
from headrace.web.frontend.metrics import SupervisorFacts, render
from headrace.web.server.sockets import address_of, inherited, open_one

if TYPE_CHECKING:
    from headrace.web.server.supervisor import Supervisor

_LIVE: Final = frozenset({"/health/live", "/healthz"})
_READY: Final = frozenset({"/health/ready", "/readyz"})


class Admin:
    """Answers /metrics, /health/live (/healthz) and /health/ready (/readyz)."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._listener = Listener(self._handle)
        self._socket: socket.socket | None = None
        self.address = ""

    def open(self, where: str) -> None:
        """Args:
        where: `host:port`, or the path of a Unix socket.

        Raises: AddressUnusable, SettingsError.
        """
        found = inherited("admin")
        self._socket = found[0] if found else _open(where)
        self.address = address_of(self._socket, secure=False)
        self._listener.open_socket(self._socket)

    @property
    def sockets(self) -> list[socket.socket]:
        return [self._socket] if self._socket is not None else []

    async def close(self) -> None:
        await self._listener.close(0.5)

    def _handle(self, request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            request.respond(405, b"", headers=((b"Allow", b"GET, HEAD"),))
        elif request.path in _LIVE:
            request.respond(200, b"live\n", b"text/plain")
        elif request.path in _READY:
            ready = self._supervisor.ready
            request.respond(200 if ready else 503, b"ready\n" if ready else b"not ready\n", b"text/plain")
        elif request.path == "/metrics":
            request.respond(200, self._metrics(), CONTENT_TYPE)
        else:
            request.respond(404, b"there are /metrics, /health/live and /health/ready\n", b"text/plain")

    def _metrics(self) -> bytes:
        supervisor = self._supervisor
        return render(supervisor.stats.all(supervisor), facts_of(supervisor))


def facts_of(supervisor: Supervisor) -> SupervisorFacts:
    """Metrics of the processes."""
    reconcilers = [worker_group.reconciler for worker_group in supervisor.worker_groups]
    workers = [worker for reconciler in reconcilers for worker in reconciler.workers.values()]
    states = dict.fromkeys(("starting", "ready", "serving", "leaving"), 0)
    for worker in workers:
        states[worker.stage.name.lower()] += 1
    edges = supervisor.edges
    memory = {"supervisor": rss_bytes(), "worker": sum(worker.rss_bytes for worker in workers)}
    if edges is not None:
        memory["edge"] = edges.rss_bytes
    return SupervisorFacts(
        version=__version__,
        workers=states,
        generation=max((reconciler.current for reconciler in reconcilers), default=0),
        restarts=sum(reconciler.restarts for reconciler in reconcilers) + (edges.restarts if edges is not None else 0),
        recycled=sum(reconciler.recycled for reconciler in reconcilers),
        reloads=sum(reconciler.reloads for reconciler in reconcilers),
        reloads_failed=sum(reconciler.reloads_failed for reconciler in reconcilers),
        memory_bytes=memory,
    )


def _open(where: str) -> socket.socket:
    if "/" in where or os.sep in where:
        return open_one("", 0, Path(where))
    host, _, port = where.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise SettingsError(flag_of("admin"), f"invalid address {where!r}: use host:port, or a path with a slash")
    return open_one(host or "127.0.0.1", int(port), None)
