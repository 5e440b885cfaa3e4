"""One upstream server: its connections, its health, its counters.

A connection carries at most one request at a time, and is kept for the next one. A health check is one GET of
`health_path`, on a connection of its own.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from headrace.http.liveness import has_input
from headrace.web.dispatch.statistics import UpstreamStatistics
from headrace.web.proxy import health as rules
from headrace.web.proxy.address import Address
from headrace.web.proxy.health import OUT, PROBING, UNFIT, UP, WELL, Health
from headrace.web.proxy.limits import ANSWER_HEAD_BYTES_MAX, CLOSE_S, IDLE_S, IDLE_UNREPEATABLE_S, WRITE_BUFFER_BYTES
from headrace.web.proxy.response_reader import InvalidResponse, ResponseReader

_log: Final = logging.getLogger("headrace.web")


class Upstream:
    """See the module. Invariants: `busy` requests have a place; at most `limit` do, so at most as many connections are
    kept."""

    def __init__(
        self,
        address: Address,
        *,
        limit: int,
        preserve_host: bool,
        tls: Callable[[], ssl.SSLContext],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.address: Final = address
        self.limit: Final = limit
        self.host: Final = b"" if preserve_host else address.authority
        """What its requests say in Host; empty: what the client said."""
        self.busy = 0
        self.health = WELL
        self.requests = self.failures = self._connects = 0
        self.checked_s = 0.0
        """When its health was last asked for."""
        self._idle: list[UpstreamConnection] = []
        self._closing = False
        self._tls = tls
        self._loop = loop

    # Connections

    def take_connection(self, now_s: float, *, repeatable: bool) -> UpstreamConnection | None:
        """A kept connection, the last used first, since the others are rather stale; None if there is none.

        Args:
            repeatable: the request may be sent again if the upstream closes just now.
        """
        while self._idle:
            connection = self._idle.pop()
            if repeatable:
                if not connection.closing and now_s - connection.since_s < IDLE_S:
                    return connection
            elif now_s - connection.since_s >= IDLE_UNREPEATABLE_S:
                self._idle.append(connection)
                return None
            elif connection.is_fresh():
                return connection
            connection.close()
        return None

    def keep(self, connection: UpstreamConnection, now_s: float) -> None:
        """Keep the connection for another request."""
        if self._closing:
            connection.close()
            return
        connection.user = None
        connection.since_s = now_s
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises: OSError.
        """
        self._connects += 1
        address, loop = self.address, self._loop
        if address.socket:
            _, connection = await loop.create_unix_connection(self._make, address.socket)
        else:
            tls = self._tls() if address.secure else None
            _, connection = await loop.create_connection(self._make, address.host, address.port, ssl=tls)
        return connection

    def _make(self) -> UpstreamConnection:
        return UpstreamConnection(self)

    def sweep(self, now_s: float) -> None:
        """Close connections that were idle for too long."""
        stale = [connection for connection in self._idle if now_s - connection.since_s >= IDLE_S]
        if stale:
            self._idle = self._idle[len(stale) :]  # in the order of their last use
            for connection in stale:
                connection.close()

    def close(self) -> None:
        """Close idle connections; those in use continue."""
        self._closing = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # Health

    @property
    def up(self) -> bool:
        return self.health.state is UP

    def set_health(self, found: Health, reason: str = "") -> None:
        """Set its health, and log a change."""
        before, self.health = self.health, found
        if before.state is found.state or {before.state, found.state} == {OUT, PROBING}:
            return
        extra = {"action": "web.upstream.up", "upstream": self.address.url}
        if found.state is UP:
            _log.info("an upstream gets requests again", extra=extra)
        elif found.state is UNFIT or before.state is UP:
            extra["action"] = "web.upstream.down"
            _log.warning("an upstream gets no requests: %s", reason, extra=extra)

    def succeeded(self) -> None:
        if self.health is not WELL:
            self.set_health(rules.succeeded(self.health))

    def released(self) -> None:
        if self.health is not WELL:
            self.set_health(rules.released(self.health))

    def statistics(self) -> UpstreamStatistics:
        return UpstreamStatistics(
            up=int(self.up),
            in_flight=self.busy,
            idle=len(self._idle),
            connects=self._connects,
            requests=self.requests,
            failures=self.failures,
        )


class ConnectionUser(Protocol):
    """Uses the connection: the relay of a request."""

    def received(self) -> None:
        """Bytes have come; they are in the connection's `reader`."""

    def drained(self) -> None:
        """The upstream takes more again."""

    def lost(self, error: Exception | None) -> None:
        """The connection has ended; without an error, in order. It is not used any more."""


class ConnectionPool(Protocol):
    """Keeps a connection while no request uses it."""

    def forget(self, connection: UpstreamConnection) -> None:
        """It has ended."""


class UpstreamConnection(asyncio.Protocol):
    """Invariant: while no request uses it, no bytes may come; if some do, it is closed, since they belong to no request."""

    __slots__ = ("_fd", "_pool", "_transport", "reader", "since_s", "user", "writable")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool: Final = pool
        self._transport: asyncio.Transport = cast("Any", None)
        self._fd = -1
        self.user: ConnectionUser | None = None
        self.reader = ResponseReader()
        self.writable = True
        """Whether the upstream keeps up with what is written."""
        self.since_s = 0.0
        """When it was last used."""

    # The owner's

    def is_fresh(self) -> bool:
        """Whether, as far as the kernel knows now, the upstream has neither closed it nor sent anything."""
        return not self._transport.is_closing() and not has_input(self._fd)

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def end_writing(self) -> None:
        """End writing; reading continues. TLS cannot do this: there it closes the connection."""
        if not self._transport.can_write_eof():
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write_eof()

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close after what was written has been sent, unless that takes too long."""
        self.user = None
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(CLOSE_S, self._transport.abort)

    def abort(self) -> None:
        """Close at once: the upstream must not take a partial request for a complete one."""
        self.user = None
        self._transport.abort()

    # The transport's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno() if sock is not None else -1

    def data_received(self, data: bytes) -> None:
        if self.user is None:
            self._transport.abort()
            return
        self.reader.feed(data)
        self.user.received()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.user is not None:
            self.user.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        user, self.user = self.user, None
        if user is not None:
            user.lost(exc)
        else:
            self._pool.forget(self)


_READ_BYTES: Final = 4_096


async def check_health(address: Address, path: str, *, tls: ssl.SSLContext | None, within_s: float) -> str:
    """Check an upstream. Returns what is wrong; empty if it answers 200 to 399 in time."""
    try:
        async with asyncio.timeout(within_s):
            status = await _get(address, path, tls)
    except TimeoutError:
        return f"no answer within {within_s:g} s"
    except (OSError, ValueError, InvalidResponse) as error:
        return str(error) or type(error).__name__
    return "" if status < 400 else f"status {status}"


async def _get(address: Address, path: str, tls: ssl.SSLContext | None) -> int:
    if address.socket:
        source, sink = await asyncio.open_unix_connection(address.socket, limit=ANSWER_HEAD_BYTES_MAX)
    else:
        source, sink = await asyncio.open_connection(address.host, address.port, ssl=tls, limit=ANSWER_HEAD_BYTES_MAX)
    try:
        sink.write(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: headrace-health\r\nConnection: close\r\n\r\n"
            % (path.encode(), address.authority)
        )
        return await _read_status(source)
    finally:
        sink.transport.abort()


async def _read_status(source: asyncio.StreamReader) -> int:
    reader = ResponseReader()
    while data := await source.read(_READ_BYTES):
        reader.feed(data)
        while (answer := reader.next_head(mute=True)) is not None:
            if answer.status >= 200:
                return answer.status
    raise InvalidResponse("it closed without a response")
