"""One HTTP/1.1 exchange as bytes, without I/O: what is written, and how the answer is read. Sync and async share it."""

from __future__ import annotations

from typing import Final

import httptools

from headrace.native import protocol
from headrace.native.endpoint import Endpoint
from headrace.native.signing import Credentials, Signer

READ_BYTES: Final = 262_144
"""A read's size. Larger reads are fewer system calls; this one still fits the caches."""


class RequestWriter:
    """Writes requests for one endpoint. What is the same in each is made once."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None = None) -> None:
        """Sign with `credentials`, if there are any; a Unix socket needs no signature."""
        host = endpoint.host_header
        self._common = f"Host: {host}\r\nUser-Agent: headrace\r\nContent-Type: {protocol.MSGPACK.decode()}\r\n".encode()
        self._signer = Signer(credentials, host) if credentials is not None and endpoint.unix_path is None else None

    def call(self, body: bytes, wait_ms: int | None) -> bytes:
        """A call. `wait_ms` None leaves out the header: few operations wait."""
        wait = b"" if wait_ms is None else b"%b: %d\r\n" % (protocol.WAIT_HEADER, wait_ms)
        return self._request("POST", protocol.CALL_PATH, body, b"%bContent-Length: %d\r\n" % (wait, len(body)))

    def statistics(self) -> bytes:
        return self._request("GET", protocol.STATISTICS_PATH, b"", b"")

    def live(self) -> bytes:
        """Whether anybody is there."""
        return self._request("GET", "/health/live", b"", b"")

    def _request(self, method: str, path: str, body: bytes, headers: bytes) -> bytes:
        signature = b"" if self._signer is None else self._signer.headers(method, path, body)
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (
            method.encode(),
            path.encode(),
            self._common,
            signature,
            headers,
            body,
        )


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
