"""One connection to an upstream: at most one request at a time, and kept for the next one."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

from headrace.http.liveness import has_input
from headrace.web.proxy.limits import CLOSE_S, WRITE_BUFFER_BYTES
from headrace.web.proxy.response_reader import ResponseReader


class ConnectionUser(Protocol):
    """Who has the connection: a request's relay."""

    def received(self) -> None:
        """Bytes have come; they are in the connection's `reader`."""

    def drained(self) -> None:
        """The upstream takes more again."""

    def lost(self, error: Exception | None) -> None:
        """The connection has ended; without an error, in order. It is not used any more."""


class ConnectionPool(Protocol):
    """Who keeps the connection while nobody uses it."""

    def forget(self, connection: UpstreamConnection) -> None:
        """It has ended."""


class UpstreamConnection(asyncio.Protocol):
    """Invariant: while nobody has it, nothing may come; if something does, it is closed, since nobody knows whose it is."""

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
        """Nothing more is written; what comes is still read. TLS cannot do this: there it is the end."""
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
        """What was written still goes out, unless that takes too long."""
        self.user = None
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(CLOSE_S, self._transport.abort)

    def abort(self) -> None:
        """At once: the upstream must not take what it has for the whole of a request."""
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
