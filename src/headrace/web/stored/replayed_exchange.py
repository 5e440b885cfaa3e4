"""A stored request as an exchange: its body is whole, and its answer is kept instead of sent."""

from __future__ import annotations

import asyncio
import os
import time

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.web.stored.limits import RESPONSE_BYTES_MAX
from headrace.web.stored.records import Response, StoredRequest

PRIORITY_LAST = 2
"""Durable requests have time: clients that wait go first."""
_FILE_PIECE_BYTES = 1_048_576
_ID, _ATTEMPT = OWN_HEADERS = (b"headrace-request-id", b"headrace-attempt")
"""By which the application tells a stored request from others: no client may send them."""


class ReplayedExchange(Exchange):
    """Invariant: `outcome` is set once, to the answer if it is whole, else to None."""

    __slots__ = ("_answer", "_answer_bytes", "_body", "_fields", "outcome")

    def __init__(self, request: StoredRequest, body: bytes, attempt: int) -> None:
        """Args: attempt: 1 for the first; the application reads it as `Headrace-Attempt`, and the id beside it."""
        super().__init__()
        self.method = request.method
        self.target = request.target
        self.path, _, self.query = request.target.partition("?")
        self.headers = {
            **request.headers,
            _ID: request.id.encode(),
            _ATTEMPT: b"%d" % attempt,
        }
        if body or b"content-type" in request.headers:
            self.headers[b"content-length"] = b"%d" % len(body)
        self.version = request.version
        self.secure = request.secure
        self.peer = request.peer
        self.peer_port = request.peer_port
        self.server = request.server
        self.upgrade = b""
        self.length = len(body)
        self.expects = False
        self.began_s = time.monotonic()
        self.priority = PRIORITY_LAST
        self._body = body
        self._fields = Fields()
        self._answer = bytearray()
        self._answer_bytes = 0
        self.outcome: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

    def take(self) -> bytes:
        body, self._body = self._body, b""
        return body

    @property
    def ended(self) -> bool:
        return True

    @property
    def writable(self) -> bool:
        return True

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        del status, length
        self._fields = fields
        self._send(body)
        self._finish()

    def _start(self, status: int, fields: Fields) -> None:
        del status
        self._fields = fields

    def _send(self, data: bytes) -> None:
        self._answer_bytes += len(data)
        if self._answer_bytes <= RESPONSE_BYTES_MAX:
            self._answer += data
        else:
            self._answer.clear()  # a part of an answer is of no use to anybody

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        with os.fdopen(fd, "rb", buffering=0):
            if self._answer_bytes + count > RESPONSE_BYTES_MAX:
                self._answer_bytes += count
                self._answer.clear()
                return
            while count and (piece := os.pread(fd, min(count, _FILE_PIECE_BYTES), offset)):
                self._send(piece)
                offset += len(piece)
                count -= len(piece)
        if count:
            self.abort()

    def _finish(self) -> None:
        self._settle(Response(self.status, self._fields.block, bytes(self._answer), self._answer_bytes))

    def _abort(self) -> None:
        self._settle(None)

    def _tunnel(self, fields: Fields) -> None:  # noqa: ARG002  # never called
        raise AssertionError("a stored request asks for no upgrade")

    def _inform(self, status: int, fields: Fields) -> None: ...

    def _settle(self, response: Response | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(response)
