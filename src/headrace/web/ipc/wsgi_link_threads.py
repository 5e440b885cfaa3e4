"""The threads of a WSGI worker, each with a link of its own to an edge.

A thread is a consumer: it waits in `recv`, runs the application, answers, and waits again. In the common case that is
at most one `recv` and one `sendall` a request, and no thread ever hands anything to another. For each edge there is one
thread more, the control thread, that gives requests back that wait behind a long one. An edge that ends is looked for
until it is there again.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from headrace.errors import InvalidParameter
from headrace.web.apps.wsgi import WsgiApp, WsgiRunner
from headrace.web.ipc.frames import COUNT, HEADER, HEADER_BYTES, Hello, Kind
from headrace.web.ipc.wsgi_link import LEAVING, LinkBroken, LinkLost, WsgiLink

PAUSE_MIN_S: Final = 0.02
PAUSE_MAX_S: Final = 1.0
"""Between two attempts to connect: an edge that restarts is back within about 0.1 s."""
_CONNECT_S: Final = 5.0
_PONG: Final = HEADER.pack(0, 0, Kind.PONG)

_log: Final = logging.getLogger("headrace.web")


class WsgiLinkThreads:
    """Threads that pull requests from the edges and run the application. They start at once."""

    def __init__(
        self, app: WsgiApp, *, edges: Sequence[Path], threads: int, hello: Hello, multiprocess: bool = True
    ) -> None:
        """Connects in the background.

        Args:
            edges: their sockets; the threads are dealt out over them in turn.
            threads: at least as many as edges, else an edge would have no thread here.
            hello: what to say of this worker; capacity and number become those of each link.

        Raises: InvalidParameter.
        """
        if not edges or threads < len(edges):
            raise InvalidParameter(
                "threads", str(threads), f"at least one for each of the {len(edges)} edges is needed"
            )
        runner = WsgiRunner(app, multithread=threads > 1, multiprocess=multiprocess)
        self._threads = [
            _LinkThread(edges[number % len(edges)], runner, _greeting(hello, capacity=1, number=number))
            for number in range(threads)
        ]
        control_greeting = _greeting(hello, capacity=0, number=threads)
        self._control_threads = [_ControlThread(edge, self._threads, control_greeting) for edge in edges]
        for number, thread in enumerate((*self._threads, *self._control_threads)):
            thread.start(f"headrace-wsgi-{number}")

    @property
    def requests(self) -> int:
        """Answered so far."""
        return sum(thread.requests for thread in self._threads)

    @property
    def in_flight(self) -> int:
        """Requests that are here now."""
        return sum(thread.in_flight for thread in self._threads)

    def leave(self) -> None:
        """Take no further requests; those that run, or were in transit, are answered. Does not wait. Idempotent."""
        for thread in self._threads:
            thread.leave()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until all threads have ended, after `leave`. Whether they have."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        if not all(thread.join(deadline_s) for thread in self._threads):
            return False
        for control_thread in self._control_threads:  # until now a request could have waited behind a long one
            control_thread.leave()
        return all(control_thread.join(deadline_s) for control_thread in self._control_threads)


class _Attendant(ABC):
    """A thread with one connection after another to the same edge, or its successors."""

    def __init__(self, path: Path, greeting: bytes) -> None:
        self._path = path
        self._greeting = greeting
        self._leaving = threading.Event()
        self._pause_s = PAUSE_MIN_S
        self._reported = False

    def start(self, name: str) -> None:
        # A daemon, so that an application that hangs does not keep the process from ending after its grace.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def join(self, deadline_s: float | None) -> bool:
        self._thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._leaving.is_set():
            if self._attend():
                self._pause_s = PAUSE_MIN_S
            else:
                self._leaving.wait(self._pause_s)
                self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _attend(self) -> bool:
        """Connect, and serve that connection to its end. Whether it was of any use."""
        connected = self._connect()
        if connected is None:
            return False
        with connected:
            return self._serve(connected)

    def _connect(self) -> socket.socket | None:
        try:
            connected = _connect(self._path, self._greeting)
        except OSError as error:
            self._outage(str(error))
            return None
        self._reported = False
        return connected

    @abstractmethod
    def _serve(self, connected: socket.socket) -> bool:
        """Whether it was of any use."""

    def _outage(self, reason: str) -> None:
        """Log an outage once, and only if it lasts: an edge that stops or restarts is not worth a line."""
        if not self._reported and self._pause_s >= PAUSE_MAX_S:
            self._reported = True
            extra = {"action": "web.link.lost", "edge": str(self._path)}
            _log.info("no link to the edge (%s); trying again", reason, extra=extra)


class _LinkThread(_Attendant):
    """A thread that runs the application."""

    def __init__(self, path: Path, runner: WsgiRunner, greeting: bytes) -> None:
        super().__init__(path, greeting)
        self._runner = runner
        self._link: WsgiLink | None = None
        self._requests = 0  # on links that are over

    @property
    def requests(self) -> int:
        link = self._link
        return self._requests + (link.requests if link is not None else 0)

    @property
    def in_flight(self) -> int:
        link = self._link
        return link.in_flight if link is not None else 0

    def leave(self) -> None:
        self._leaving.set()
        if (link := self._link) is not None:
            link.leave()

    def return_unstarted(self) -> None:
        if (link := self._link) is not None:
            link.return_unstarted()

    def _serve(self, connected: socket.socket) -> bool:
        link = WsgiLink(connected, self._runner)
        self._link = link
        if self._leaving.is_set():
            link.leave()  # `leave` has come before it could see the link
        self._run(link)
        self._requests, self._link = self._requests + link.requests, None
        return link.requests > 0

    def _run(self, link: WsgiLink) -> None:
        try:
            link.serve()
        except LinkBroken as error:
            _log.error("the link to the edge is broken: %s", error, extra={"action": "web.link.broken"})
        except LinkLost as error:
            if not self._leaving.is_set():
                self._outage(str(error))
        except Exception:  # noqa: BLE001  # our bug: it may cost this link, not the thread
            _log.exception("a link failed", extra={"action": "web.link.failed"})


class _ControlThread(_Attendant):
    """A thread that returns requests that wait behind a long one; it sleeps unless the edge asks."""

    def __init__(self, path: Path, threads: Sequence[_LinkThread], greeting: bytes) -> None:
        super().__init__(path, greeting)
        self._threads = threads
        self._connected: socket.socket | None = None

    def leave(self) -> None:
        """Idempotent."""
        if self._leaving.is_set():
            return
        self._leaving.set()
        if (connected := self._connected) is not None:
            self._hang_up(connected)

    def _outage(self, reason: str) -> None:
        """The request threads log it."""

    def _hang_up(self, connected: socket.socket) -> None:
        try:
            connected.sendall(LEAVING)
            connected.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is over already

    def _serve(self, connected: socket.socket) -> bool:
        self._connected = connected
        if self._leaving.is_set():
            self._hang_up(connected)  # as in _LinkThread
        useful = False
        try:
            with connected.makefile("rb") as arriving:
                while (frame := _read_frame(arriving)) is not None and frame[0] != Kind.LEAVE:
                    useful = True
                    self._obey(connected, *frame)
        except OSError as error:  # an edge that has ended, perhaps before its PONG: another one will come
            _log.debug("the edge has closed its control connection: %s", error, extra={"action": "web.link.lost"})
        return useful

    def _obey(self, connected: socket.socket, kind: int, payload: bytes) -> None:
        if kind == Kind.PING:
            connected.sendall(_PONG)
        elif kind == Kind.RECALL and len(payload) == COUNT.size:
            (number,) = COUNT.unpack(payload)
            if number < len(self._threads):
                self._threads[number].return_unstarted()


def _read_frame(arriving: BinaryIO) -> tuple[int, bytes] | None:
    """Kind and payload; None at the end.

    Raises: OSError: the edge was lost.
    """
    header = arriving.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length, _, kind = HEADER.unpack(header)
    return kind, arriving.read(min(length, COUNT.size))


def _connect(path: Path, greeting: bytes) -> socket.socket:
    """Raises: OSError."""
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.settimeout(_CONNECT_S)
        connecting.connect(str(path))
        connecting.sendall(greeting)
        connecting.settimeout(None)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _greeting(hello: Hello, *, capacity: int, number: int) -> bytes:
    payload = msgspec.msgpack.encode(msgspec.structs.replace(hello, capacity=capacity, number=number))
    return HEADER.pack(len(payload), 0, Kind.HELLO) + payload
