"""Sockets: opening them, accepting without falling over, closing without failing anybody.

The engine accepts by itself rather than by the loop's server: when file descriptors run out, libuv accepts and drops
clients in a loop; here they wait in the kernel's backlog until there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.errors import CallerError, InvalidParameter
from headrace.http.buffered import BufferedConnection
from headrace.http.engine import Connection, ErrorBody, Service, plain_error_body
from headrace.http.exchange import Target
from headrace.http.http1 import StreamedConnection
from headrace.http.limits import Limits
from headrace.http.messages import Handler

_log: Final = logging.getLogger("headrace.http")

_ACCEPTS_PER_TURN: Final = 64  # then the connections that are open already have their turn
_BACK_OFF_S: Final = 0.25  # four tries a second while descriptors are short: far below 1 % CPU
_EVICTED_MAX: Final = 64
_EVICTED_IDLE_S: Final = 2.0  # an SDK between two requests is not cut off; a forgotten connection is
_TICK_S: Final = 1.0
_WARNING_EVERY_S: Final = 60.0
_UNIX_PATH_BYTES_MAX: Final = 107 if hasattr(socket, "SO_PEERCRED") else 103  # sun_path less its NUL: Linux, BSD


@dataclass(eq=False)
class AddressUnusable(CallerError):
    """The address cannot be listened on: in use, not permitted, too long."""

    address: str
    reason: str

    def __str__(self) -> str:
        hint = (
            "; end what listens there, or name another address" if self.reason == os.strerror(errno.EADDRINUSE) else ""
        )
        return f"cannot listen on {self.address}: {self.reason}{hint}"


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one listener, since it was opened; `open` is now."""

    accepted: int
    open: int
    requests: int
    refused: int


class Listener:
    """Serves a handler, or a target, on any number of sockets. One loop, one thread.

    Invariant: a socket is watched for accept only while there is room for a connection and a descriptor.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        target: Target | None = None,
        http2: Callable[[Service], Connection] | None = None,
        limits: Limits | None = None,
        error_body: ErrorBody = plain_error_body,
        error_fields: tuple[tuple[bytes, bytes], ...] = (),
        tls: ssl.SSLContext | None = None,
        now_s: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Create on the running loop. Nothing is listened on before `open_tcp`, `open_unix` or `open_socket`.

        Args:
            handler: gets whole requests. Either this or `target`.
            target: gets exchanges, as soon as a head is there.
            http2: with `target`: makes the connections of TLS clients that choose HTTP/2; None: it is not offered.
            error_body: how the engine's own answers (4xx, 500, 505) look; `error_fields`: header fields that all of them have.
            tls: for the TCP sockets; at least TLS 1.2. With `target`, its ALPN protocols are set here. Its certificate may
                be renewed at any time by `load_cert_chain`: later handshakes use the new one.
            now_s: a clock that never steps, for deadlines; `unix_s`: wall time, for the Date header.

        Raises: InvalidParameter.
        """
        if tls is not None and tls.minimum_version < ssl.TLSVersion.TLSv1_2:
            raise InvalidParameter("tls", tls.minimum_version.name, "TLS 1.2 is the least that is safe")
        if (handler is None) == (target is None):
            raise InvalidParameter("target", repr(target), "give either a handler or a target")
        if tls is not None and target is not None:
            tls.set_alpn_protocols(["http/1.1"] if http2 is None else ["h2", "http/1.1"])
        self._limits = limits or Limits()
        self._tls = tls
        self._connect: type[Connection] = BufferedConnection if target is None else StreamedConnection
        self._now_s = now_s
        self._unix_s = unix_s
        self._service = Service(
            handler,
            limits=self._limits,
            target=target,
            http2=http2,
            error_body=error_body,
            error_fields=error_fields,
            on_closed=self._on_closed,
        )
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._shared: set[socket.socket] = set()
        self._unix_files: dict[Path, int] = {}
        self._accepting = False
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._warn_again_s = -math.inf
        self._empty = asyncio.Event()

    # Opening

    def open_tcp(self, host: str, port: int) -> int:
        """Listen on one address; returns the port, which the system chooses if `port` is 0.

        Raises: AddressUnusable.
        """
        address = f"{host}:{port}"
        try:
            family, kind, protocol, _, target = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = socket.socket(family, kind, protocol)
        except OSError as error:
            raise AddressUnusable(address, error.strerror or str(error)) from error
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._bind(listening, target, address)
        return int(listening.getsockname()[1])

    def open_unix(self, path: Path) -> None:
        """Listen on a socket file that only its owner may use (0600). One left by a dead process is replaced.

        Raises: AddressUnusable: a live server has it, or something that is no socket is there.
        """
        if len(os.fsencode(path)) > _UNIX_PATH_BYTES_MAX:
            raise AddressUnusable(str(path), f"the path is longer than {_UNIX_PATH_BYTES_MAX} bytes")
        _remove_stale(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        _narrow(listening)
        self._bind(listening, str(path), str(path))
        path.chmod(0o600)  # again, for systems where the mode of the unbound socket has no say
        self._unix_files[path] = path.stat().st_ino

    def open_socket(self, listening: socket.socket, *, shared: bool = False) -> None:
        """Listen on a bound socket, which this listener owns from here on. The file of a Unix socket stays its maker's.

        Args:
            shared: other processes listen on it, too: what is in its backlog is theirs when this listener closes.

        Raises: AddressUnusable.
        """
        listening.setblocking(False)
        try:
            listening.listen(self._limits.backlog)
        except OSError as error:
            address = listening.getsockname()
            listening.close()
            raise AddressUnusable(str(address), error.strerror or str(error)) from error
        if shared:
            self._shared.add(listening)
        self._watch(listening)

    def _bind(self, listening: socket.socket, target: object, address: str) -> None:
        try:
            listening.setblocking(False)
            listening.bind(target)  # type: ignore[arg-type]  # typeshed has no type for "an address of its family"
            listening.listen(self._limits.backlog)
        except OSError as error:
            listening.close()
            raise AddressUnusable(address, error.strerror or str(error)) from error
        self._watch(listening)

    def _watch(self, listening: socket.socket) -> None:
        self._sockets.append(listening)
        if self._timer is None:
            self._tick()
        self._stop_accepting()
        self._resume_accepting()

    def statistics(self) -> Statistics:
        service = self._service
        return Statistics(service.accepted, len(service.connections), service.requests, service.refused)

    # Time

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK_S, self._tick)  # first: it goes on whatever happens now
        self.advance()

    def advance(self) -> None:
        """End what has waited too long. Called once a second by itself; by tests that move the clock."""
        self._service.advance(now_s=self._now_s(), unix_s=self._unix_s())

    # Accepting

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._is_full():
                self._back_off("connections_max")
                return
            try:
                client, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Short of descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM), or the network is down.
                self._back_off(errno.errorcode.get(error.errno or 0, str(error)))
                return
            self._adopt(client)

    def _adopt(self, client: socket.socket) -> None:
        client.setblocking(False)
        tcp = client.family != socket.AF_UNIX
        if tcp:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._serve(client, self._tls if tcp else None))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _serve(self, client: socket.socket, tls: ssl.SSLContext | None) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._new_connection,
                client,
                ssl=tls,
                ssl_handshake_timeout=self._limits.tls_handshake_s if tls else None,
            )
        except asyncio.CancelledError:
            client.close()
            raise
        except OSError as error:  # TLS errors are some, too
            client.close()
            _log.debug("a client left before it was served: %r", error, extra={"action": "http.connect.failed"})
            self._on_closed()

    def _new_connection(self) -> Connection:
        return self._connect(self._service)

    def _is_full(self) -> bool:
        return len(self._service.connections) + len(self._opening) >= self._limits.connections_max

    def _back_off(self, reason: str) -> None:
        """Leave new clients in the backlog until a connection closes, or a moment has passed."""
        self._stop_accepting()
        self._evict_idle()
        if self._retry is None:
            self._warn(reason)
            self._retry = self._loop.call_later(_BACK_OFF_S, self._resume_accepting)

    def _warn(self, reason: str) -> None:
        now_s = self._now_s()
        if now_s >= self._warn_again_s:
            self._warn_again_s = now_s + _WARNING_EVERY_S
            _log.warning("not accepting for now: %s", reason, extra={"action": "http.accept.paused", "reason": reason})

    def _evict_idle(self) -> None:
        idle = [connection for connection in self._service.connections if connection.idle_for_s() >= _EVICTED_IDLE_S]
        for connection in sorted(idle, key=Connection.idle_for_s, reverse=True)[:_EVICTED_MAX]:
            connection.close()

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for listening in self._sockets:
                self._loop.remove_reader(listening)

    def _resume_accepting(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not self._accepting and not self._service.draining:
            self._accepting = True
            for listening in self._sockets:
                self._loop.add_reader(listening, self._accept, listening)

    def _on_closed(self) -> None:
        if self._service.draining and not self._service.connections:
            self._empty.set()
        elif self._retry is not None:
            self._resume_accepting()

    # Closing

    async def close(self, grace_s: float = 10.0, *, idle_s: float = 0.0) -> None:
        """Stop accepting, answer what has been sent, close. Idempotent.

        Clients in the backlog are still served: to them the server was up. What is not done after `grace_s` is cut.

        Args:
            idle_s: how long idle connections are kept, within `grace_s`. A request that comes then is answered, with
                `Connection: close`. For when a successor listens: who uses its connection moves there without an error.
        """
        deadline_s = self._loop.time() + grace_s
        self._stop_listening()
        if self._opening:
            await asyncio.wait(self._opening, timeout=grace_s)
        if idle_s > 0:
            self._service.draining = True  # every answer from here on says that it is its connection's last
            await self._wait_idle(min(idle_s, grace_s))
        self._service.drain()
        if self._service.connections:
            await self._wait_empty(deadline_s)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_listening(self) -> None:
        self._stop_accepting()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for listening in self._sockets:
            if listening not in self._shared:
                self._accept_backlog(listening)
            listening.close()
        self._sockets.clear()
        self._shared.clear()
        for path, inode in self._unix_files.items():
            _remove_own(path, inode)
        self._unix_files.clear()

    def _accept_backlog(self, listening: socket.socket) -> None:
        for _ in range(self._limits.backlog):
            try:
                client, _ = listening.accept()
            except OSError:
                return
            self._adopt(client)

    async def _wait_idle(self, idle_s: float) -> None:
        if self._service.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), idle_s)

    async def _wait_empty(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._service.connections):
                connection.transport.abort()
            await self._empty.wait()


def _narrow(listening: socket.socket) -> None:
    """Give the socket file its mode before it exists, so that nobody slips in between (Linux)."""
    try:
        os.fchmod(listening.fileno(), 0o600)
    except OSError:
        return  # a system that cannot; `open_unix` changes the mode of the file afterwards


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressUnusable(str(path), "something that is not a socket is there; it is left alone")
    if _is_served(path):
        raise AddressUnusable(str(path), "another server listens there")
    path.unlink(missing_ok=True)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # a full backlog, or no permission: somebody's
        return True


def _remove_own(path: Path, inode: int) -> None:
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return
