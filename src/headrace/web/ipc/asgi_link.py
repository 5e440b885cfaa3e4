"""The worker's end of a link to an edge, for ASGI: many requests on one socket, as numbered streams (see `frames`).

A link that breaks takes its requests with it, since their clients are the edge's; then it is opened again, until `leave`.
Leaving loses nothing: LEAVE is sent, requests that were under way come still, and the edge's LEAVE is its last word.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, cast

import msgspec

from headrace.http import problem
from headrace.http.exchange import Target
from headrace.web.ipc.frames import (
    COUNT,
    HEADER,
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    Hello,
    Kind,
    Request,
)
from headrace.web.ipc.link_exchange import LinkExchange

_log: Final = logging.getLogger("headrace.web")

RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between two attempts to connect; the last one again and again. An edge that restarts is back within these."""
WRITE_BUFFER_BYTES: Final = 1_048_576
"""Unsent bytes of all streams of a link; beyond, none is writable: the edge is behind."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Request).decode
_REQUEST, _BODY, _ENDED, _GONE = int(Kind.REQUEST), int(Kind.BODY), int(Kind.ENDED), int(Kind.GONE)
_CONSUMED, _PING, _PONG, _LEAVE = int(Kind.CONSUMED), int(Kind.PING), int(Kind.PONG), int(Kind.LEAVE)


class AsgiLinkClient:
    """Keeps one link to one edge; hands its requests to `target`."""

    def __init__(self, path: Path, target: Target, *, hello: Hello) -> None:
        """Args:
        path: the edge's socket.
        hello: its capacity is how many requests the edge may have here at once.
        """
        self.requests = 0
        """So far, over all its connections."""
        self._path = path
        self._target = target
        self._hello = hello
        self.loop = asyncio.get_running_loop()
        self._link: AsgiLink | None = None
        self._leaving = False
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._connecting: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests that the edge counts as here."""
        return len(self._link.streams) if self._link is not None else 0

    async def connect(self) -> None:
        """Returns when the link stands, or after `leave`. Tries until then: the edge may start later."""
        if self._connecting is None:
            self._connecting = self.loop.create_task(self._connect(), name=f"link {self._path}")
        await asyncio.wait((self._connecting, self._closed), return_when="FIRST_COMPLETED")

    def leave(self) -> None:
        """Take no more requests; finish those that are here, and close. Idempotent."""
        if self._leaving:
            return
        self._leaving = True
        if self._link is not None:
            self._link.leave()
        else:
            self._finish()

    async def closed(self) -> None:
        """Until the link is closed for good, after `leave` from either side."""
        await asyncio.shield(self._closed)

    def abort(self) -> None:
        """Close at once: the edge gives the requests to others, or answers 502."""
        self._leaving = True
        if self._link is not None:
            self._link.transport.abort()
        else:
            self._finish()

    # From the link

    def take(self, exchange: LinkExchange) -> None:
        self.requests += 1
        try:
            self._target(exchange)
        except Exception:  # noqa: BLE001  # a bug costs its request, not the link
            _log.exception("%s %s could not be taken", exchange.method, exchange.path, extra={"action": "web.link.bug"})
            problem.respond(exchange, 500, "internal error; see the server's log")

    def lost(self, link: AsgiLink) -> None:
        self._link = None
        if self._leaving or link.left:
            self._finish()
            return
        _log.warning("the link to the edge broke; connecting again", extra={"action": "web.link.lost"})
        self._connecting = self.loop.create_task(self._connect(), name=f"link {self._path}")

    async def _connect(self) -> None:
        attempt = 0
        while not self._leaving:
            try:
                await self.loop.create_unix_connection(self._make_link, str(self._path))
            except OSError as error:
                if attempt == len(RETRY_S):
                    _log.warning("no edge at %s: %s", self._path, error, extra={"action": "web.link.refused"})
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            else:
                break

    def _make_link(self) -> AsgiLink:
        return AsgiLink(self)

    def connected(self, link: AsgiLink) -> None:
        self._link = link
        link.send(Kind.HELLO, 0, _encode(self._hello))
        if self._leaving:  # meanwhile
            link.leave()

    def _finish(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if not self._closed.done():
            self._closed.set_result(None)


class AsgiLink(asyncio.Protocol):
    """One connection to the edge. What it writes during a turn of the loop leaves as one.

    Invariant: `streams` has a stream from its REQUEST until this side's last frame of it.
    """

    __slots__ = ("_buffer", "_client", "_edge_left", "_out", "_sent_leave", "congested", "left", "streams", "transport")

    transport: asyncio.Transport

    def __init__(self, client: AsgiLinkClient) -> None:
        self._client = client
        self._buffer = bytearray()
        """The begin of a frame whose end has not arrived."""
        self._edge_left = False
        self._out: list[bytes] = []  # to be written at the end of this turn
        self._sent_leave = False
        self.left = False
        """Closed on purpose."""
        self.congested = False
        self.streams: dict[int, LinkExchange] = {}

    def send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        out = self._out
        if not out:
            self._client.loop.call_soon(self._flush)
        out.append(HEADER.pack(len(payload), stream, kind) + payload)

    def _flush(self) -> None:
        out = self._out
        if out and not self.transport.is_closing():  # uvloop raises where asyncio only warns
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def end(self, stream: int) -> None:
        """This side's last frame of the stream has been sent."""
        self.streams.pop(stream, None)
        if self._edge_left and not self.streams:
            self._close()

    def leave(self) -> None:
        """Say LEAVE; the edge's answer comes behind the last request."""
        if not self._sent_leave:
            self._sent_leave = True
            self.send(_LEAVE, 0)

    def _close(self) -> None:
        self.left = True
        self._flush()
        self.transport.close()

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._client.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        streams, self.streams = self.streams, {}
        for exchange in streams.values():
            exchange.cut()
        self._client.lost(self)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        for exchange in tuple(self.streams.values()):
            exchange.notify_changed()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
            if not self._is_whole():
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        try:
            used = self._read(data)
        except (msgspec.DecodeError, ValueError) as error:
            _log.error("the edge sent an invalid frame: %s", error, extra={"action": "web.link.malformed"})
            self.transport.abort()
            return
        if used < len(data):
            self._buffer += data[used:]

    def _is_whole(self) -> bool:
        """Whether the first frame of the buffer is: else it is not copied yet."""
        have = len(self._buffer)
        if have < HEADER_BYTES:
            return False
        length: int = HEADER.unpack_from(self._buffer)[0]
        return have >= HEADER_BYTES + length or length > PAYLOAD_BYTES_MAX

    def eof_received(self) -> None:
        return None  # close: the edge has gone

    def _read(self, data: bytes) -> int:
        """Take the whole frames of `data`; returns where the next one begins."""
        at, end = 0, len(data)
        while at + HEADER_BYTES <= end:
            length, stream, kind = HEADER.unpack_from(data, at)
            if length > PAYLOAD_BYTES_MAX:
                raise ValueError(f"a payload of {length} bytes; at most {PAYLOAD_BYTES_MAX}")
            begin = at + HEADER_BYTES
            if begin + length > end:
                break
            at = begin + length
            self._take(kind, stream, data[begin:at])
        return at

    def _take(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == _REQUEST:
            self._open(stream, payload)
        elif kind == _PING:
            self.send(_PONG, stream, payload)
        elif kind == _LEAVE:
            self._edge_left = True
            self.leave()
            if not self.streams:
                self._close()
        else:
            exchange = self.streams.get(stream)
            if exchange is not None:  # else it crossed our last frame
                self._pass_on(exchange, kind, payload)

    def _open(self, stream: int, payload: bytes) -> None:
        if len(payload) < COUNT.size or stream in self.streams:
            raise ValueError(f"a REQUEST of {len(payload)} bytes for stream {stream}")
        begin = COUNT.size + COUNT.unpack_from(payload)[0]
        exchange = LinkExchange(self, stream, _decode(payload[COUNT.size : begin]), payload[begin:])
        self.streams[stream] = exchange
        self._client.take(exchange)

    @staticmethod
    def _pass_on(exchange: LinkExchange, kind: int, payload: bytes) -> None:
        if kind == _BODY:
            exchange.arrived(payload)
        elif kind == _ENDED:
            exchange.body_ended()
        elif kind == _CONSUMED:
            if len(payload) != COUNT.size:
                raise ValueError(f"a CONSUMED of {len(payload)} bytes")
            exchange.consumed(COUNT.unpack(payload)[0])
        elif kind == _GONE:
            exchange.client_left()
        else:
            raise ValueError(f"kind {kind}")
