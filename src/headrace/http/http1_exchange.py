"""One request of an HTTP/1 connection as an exchange. What becomes of what it says is in `http1_answers.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.http.exchange import DONE, Exchange
from headrace.http.fields import Fields

if TYPE_CHECKING:
    from headrace.http.http1_answers import AnsweringConnection


class StreamedExchange(Exchange):
    """Also the `AnyHead` of its request.

    Invariant: unless `stage` is DONE, the connection's current exchange is this one.
    """

    __slots__ = (
        "_body",
        "_connection",
        "chunked",
        "delimited",
        "expects_continue",
        "http11",
        "keep_alive",
        "whole",
    )

    http11: bool
    keep_alive: bool
    """Whether another request may follow; what the answer has said, once it has begun."""
    expects_continue: bool

    def __init__(self, connection: AnsweringConnection) -> None:
        Exchange.__init__(self)
        self._connection = connection
        self._body: bytes | bytearray = b""
        self.whole = True
        """All of the body has arrived. In a tunnel: the client will send no more."""
        self.chunked = False
        """The answer is sent in chunks."""
        self.delimited = False
        """The answer ends where the connection does (HTTP/1.0)."""

    @property
    def mute(self) -> bool:
        """The answer has no body, by the method or the status."""
        return self._mute

    # The body

    def add(self, data: bytes) -> None:
        """More of the body has arrived."""
        if not self._body:
            self._body = data
            return
        if isinstance(self._body, bytes):
            # Not a list of pieces: a body of one-byte packets would take forty times its size.
            self._body = bytearray(self._body)
        self._body += data

    @property
    def untaken(self) -> int:
        return len(self._body)

    def take(self) -> bytes:
        body, self._body = self._body, b""
        if self.stage is not DONE:
            if self.expects:
                self.expects = False
                self._connection.invite(self)
            elif not self.whole:
                self._connection.release()
        return body if isinstance(body, bytes) else bytes(body)

    @property
    def ended(self) -> bool:
        return self.whole

    # The answer

    @property
    def writable(self) -> bool:
        return self.gone or self._connection.writable

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        self._connection.respond(self, status, fields, body, length=length)

    def _start(self, status: int, fields: Fields) -> None:
        self._connection.start(self, status, fields)

    def _send(self, data: bytes) -> None:
        self._connection.send(self, data)

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        self._connection.send_file(self, fd, offset=offset, count=count)

    def _finish(self) -> None:
        self._connection.finish(self)

    def _tunnel(self, fields: Fields) -> None:
        self._connection.tunnel(self, fields)

    def _inform(self, status: int, fields: Fields) -> None:
        self._connection.inform(self, status, fields)

    def _abort(self) -> None:
        self._connection.cut(self)


def offered_upgrade(exchange: StreamedExchange) -> bytes:
    """The protocol that the request offers and that we know (RFC 9110 7.8): `websocket`, on a GET without body; or empty.

    Others (`h2c`, `TLS/1.0`) are ignored, as a server may, and stay plain requests: they only serve to smuggle.
    """
    if exchange.method != "GET" or not exchange.http11 or exchange.length:
        return b""
    if b"upgrade" not in _tokens(exchange.headers.get(b"connection", b"")):
        return b""
    return b"websocket" if b"websocket" in _tokens(exchange.headers[b"upgrade"]) else b""


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip() for token in value.lower().split(b",")]


def bodiless_framing(status: int, fields: Fields, length: int) -> bytes:
    """The Content-Length line of an answer whose body is not sent: what a GET would have had, if that is known.

    RFC 9110 8.6: never with 204; 0 would be a lie for a HEAD whose application does not make the body.
    """
    announced = fields.length if fields.length is not None else length or None
    return b"" if status == 204 or announced is None else b"Content-Length: %d\r\n" % announced
