"""The threads of a WSGI worker, each with a link of its own to an edge.

A thread is a consumer with room for one request: it waits in `recv`, runs the application, answers, and waits again. In
the common case that is one `recv` and one `sendall` a request, and no thread ever hands anything to another. An edge that
ends is looked for until it is there again.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from headrace.errors import InvalidParameter
from headrace.web.frames import HEADER, Hello, Kind
from headrace.web.wsgi import Runner, WsgiApp
from headrace.web.wsgi_channel import Link, LinkBroken, LinkLost

PAUSE_MIN_S: Final = 0.02
PAUSE_MAX_S: Final = 1.0
"""Between two tries to connect: an edge that is started anew is there within some 0.1 s."""
_CONNECT_S: Final = 5.0

_log: Final = logging.getLogger("headrace.web")


class LinkThreads:
    """Threads that pull requests from the edges and run the application. They start at once."""

    def __init__(
        self, app: WsgiApp, *, edges: Sequence[Path], threads: int, hello: Hello, multiprocess: bool = True
    ) -> None:
        """Connects in the background.

        Args:
            edges: their sockets; the threads are dealt out over them in turn.
            threads: at least as many as edges, else an edge would have nobody here.
            hello: what to say of this worker; its capacity becomes 1, a link's.

        Raises: InvalidParameter.
        """
        if not edges or threads < len(edges):
            raise InvalidParameter(
                "threads", str(threads), f"at least one for each of the {len(edges)} edges is needed"
            )
        runner = Runner(app, multithread=threads > 1, multiprocess=multiprocess)
        greeting = _greeting(hello)
        self._threads = [_LinkThread(edges[number % len(edges)], runner, greeting) for number in range(threads)]
        for number, thread in enumerate(self._threads):
            thread.start(f"headrace-wsgi-{number}")

    @property
    def requests(self) -> int:
        """Answered so far."""
        return sum(thread.requests for thread in self._threads)

    @property
    def in_flight(self) -> int:
        """Threads that run the application now."""
        return sum(thread.running for thread in self._threads)

    def leave(self) -> None:
        """Take no more; what runs, or was on its way, is answered. Does not wait. Idempotent."""
        for thread in self._threads:
            thread.leave()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until all threads have ended, after `leave`. Whether they have."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        return all(thread.join(deadline_s) for thread in self._threads)


class _LinkThread:
    """One thread: a link after another to the same edge, or its successors."""

    def __init__(self, path: Path, runner: Runner, greeting: bytes) -> None:
        self._path = path
        self._runner = runner
        self._greeting = greeting
        self._link: Link | None = None
        self._leaving = threading.Event()
        self._requests = 0  # on links that are over
        self._pause_s = PAUSE_MIN_S
        self._reported = False

    def start(self, name: str) -> None:
        # A daemon, so that an application that hangs does not keep the process from ending after its grace.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def requests(self) -> int:
        link = self._link
        return self._requests + (link.requests if link is not None else 0)

    @property
    def running(self) -> bool:
        link = self._link
        return link is not None and link.running

    def leave(self) -> None:
        self._leaving.set()
        if (link := self._link) is not None:
            link.leave()

    def join(self, deadline_s: float | None) -> bool:
        self._thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._leaving.is_set():
            if not self._attend():
                self._leaving.wait(self._pause_s)
                self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _attend(self) -> bool:
        """Connect, and serve that link to its end. Whether it was of any use."""
        connected = self._connect()
        if connected is None:
            return False
        with connected:
            link = Link(connected, self._runner)
            self._link = link
            if self._leaving.is_set():
                link.leave()  # `leave` has come before it could see the link
            self._serve(link)
        self._requests, self._link = self._requests + link.requests, None
        if link.requests:
            self._pause_s = PAUSE_MIN_S
        return link.requests > 0

    def _connect(self) -> socket.socket | None:
        try:
            connected = _connect(self._path, self._greeting)
        except OSError as error:
            self._report(str(error))
            return None
        self._reported = False
        return connected

    def _serve(self, link: Link) -> None:
        try:
            link.serve()
        except LinkBroken as error:
            _log.error("the link to the edge is broken: %s", error, extra={"action": "web.link.broken"})
        except LinkLost as error:
            if not self._leaving.is_set():
                self._report(str(error))
        except Exception:  # noqa: BLE001  # our bug: it may cost this link, not the thread
            _log.exception("a link failed", extra={"action": "web.link.failed"})

    def _report(self, reason: str) -> None:
        """Once an outage, and not of one that is over at once: an edge that ends, or is made anew, is nothing to see."""
        if not self._reported and self._pause_s >= PAUSE_MAX_S:
            self._reported = True
            extra = {"action": "web.link.lost", "edge": str(self._path)}
            _log.info("no link to the edge (%s); trying again", reason, extra=extra)


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


def _greeting(hello: Hello) -> bytes:
    payload = msgspec.msgpack.encode(msgspec.structs.replace(hello, capacity=1))
    return HEADER.pack(len(payload), 0, Kind.HELLO) + payload
