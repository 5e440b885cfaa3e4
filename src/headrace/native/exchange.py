"""One HTTP/1.1 exchange as bytes, without I/O: what is written, and how the answer is read. Sync and async share it."""

from __future__ import annotations

from typing import Final

import httptools

from headrace.native import protocol
from headrace.native.endpoint import Endpoint

READ_BYTES: Final = 262_144
"""A read's size. Larger reads are fewer system calls; this one still fits the caches."""


class RequestWriter:
    """Writes requests for one endpoint. What is the same in each is made once."""

    def __init__(self, endpoint: Endpoint) -> None:
        host = endpoint.host_header.encode()
        common = b"Host: %b\r\nAccept: %b\r\nUser-Agent: headrace\r\n" % (host, protocol.MSGPACK)
        self._call = b"POST %b HTTP/1.1\r\n%bContent-Type: %b\r\nContent-Length: " % (
            protocol.CALL_PATH.encode(),
            common,
            protocol.MSGPACK,
        )
        self.statistics: bytes = b"GET %b HTTP/1.1\r\n%bContent-Type: %b\r\n\r\n" % (
            protocol.STATISTICS_PATH.encode(),
            common,
            protocol.MSGPACK,
        )

    def call(self, body: bytes, wait_ms: int | None) -> bytes:
        """A call. `wait_ms` None leaves out the header: only a receive waits."""
        if wait_ms is None:
            return b"%b%d\r\n\r\n%b" % (self._call, len(body), body)
        return b"%b%d\r\n%b: %d\r\n\r\n%b" % (self._call, len(body), protocol.WAIT_HEADER, wait_ms, body)


class ResponseReader:
    """Reads the responses of one connection, one after another.

    `complete` once a whole response has been fed; then `status`, `body` and `reusable` are its. Bytes beyond it, when
    nothing has been asked, make the connection unusable: `feed` raises BadResponse.
    """

    __slots__ = ("_chunks", "_parser", "body", "complete", "reusable", "status")

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self.status = 0
        self.body = b""
        self.complete = False
        self.reusable = False

    def expect(self) -> None:
        """A request is on its way: the next bytes are its response."""
        self._chunks = []
        self.complete = False

    def feed(self, data: bytes) -> bool:
        """Take bytes that have arrived; whether the response is complete.

        Raises:
            BadResponse: not HTTP, or more than was asked for.
        """
        if self.complete:
            raise BadResponse("the server sent more than was asked for")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise BadResponse(f"the server does not speak HTTP/1.1: {error}") from None
        return self.complete

    # httptools calls these.

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.body = b"".join(self._chunks) if len(self._chunks) != 1 else self._chunks[0]
        self._chunks = []
        self.reusable = self._parser.should_keep_alive()
        self.complete = True


class BadResponse(Exception):
    """The connection carries something that is not the response to our request; it is closed."""
