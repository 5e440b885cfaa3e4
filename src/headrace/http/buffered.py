"""Whole requests, answered whole: what the SQS, native and console listeners run on a connection.

A request reaches its handler when its body is complete, so that a cut body reaches nobody. Handlers are plain calls, on
the loop; an answer may come at once or later. Answers leave in the order of the requests (RFC 9112 9.3.2), and those
that are ready together leave in one write.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from headrace.http.answers import BODILESS, CLOSE, CONTINUE, END, KEEP_ALIVE
from headrace.http.engine import BODY, HEAD, IDLE, INTERNAL, LAST, READING, Connection, Phase, Service
from headrace.http.parse import Head, Refusal
from headrace.http.reader import Reader

_log: Final = logging.getLogger("headrace.http")

LONG_BYTES: Final = 65_536
"""Of an answer's body: as long as this, to copy it costs more than a second piece to write."""


class BufferedRequest(Head):
    """`messages.Request` by this engine."""

    __slots__ = ("_connection", "answer", "body", "gone", "on_disconnect", "peer", "secure", "tail")

    def __init__(self, connection: BufferedConnection) -> None:
        self._connection = connection
        self.peer = connection.peer
        self.secure = connection.secure
        self.body = b""
        self.on_disconnect: Callable[[], None] | None = None
        self.answer: bytes | None = None
        """The rendered answer, from `respond` until it is written."""
        self.tail = b""
        """A long body that is written behind `answer`: to copy it into it takes as long as to send it."""
        self.gone = False
        """The client left before the answer."""

    def connected(self) -> bool:
        return not self.gone and self.answer is None and self._connection.client_present()

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        if self.gone:
            return
        if self.answer is not None:
            raise RuntimeError(f"{self.method} {self.path} was answered twice")
        connection = self._connection
        if connection.phase is LAST and connection.is_last(self):
            end = CLOSE
        else:
            end = END if self.http11 else KEEP_ALIVE
        to_head = self.method == "HEAD"
        self.tail = body if len(body) >= LONG_BYTES and not to_head and status not in BODILESS else b""
        self.answer = connection.service.answers.render(
            status, body, content_type, headers, end=end, to_head=to_head or bool(self.tail)
        )
        connection.answered(self)

    def abandon(self) -> None:
        """The client has left: tell the handler, once, unless it has answered."""
        if self.answer is None and not self.gone:
            self.gone = True
            if self.on_disconnect is not None:
                self.on_disconnect()


class BufferedConnection(Connection):
    """Reads whole requests and keeps their answers in order.

    Invariants: `_pending` holds the requests given to the handler whose answers have not been written, oldest first;
    `_arriving` is the one whose body is not complete; it is in no handler's hands.
    """

    __slots__ = ("_arriving", "_body", "_corked", "_flushing", "_pending", "_reader")

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._reader = Reader(service.parser, service.limits)
        self._pending: deque[BufferedRequest] = deque()
        self._arriving: BufferedRequest | None = None
        self._body = bytearray()
        self._corked = False
        self._flushing = False

    # Requests in

    def proceed(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        try:
            drained = self._take_requests(reader)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        if self._corked:
            self._corked = False
            self._flush()
        if drained and self.phase is IDLE and self.reading and self._arriving is None and not reader.buffer:
            return  # nine requests in ten
        self._settle_reading(drained=drained)

    def _take_requests(self, reader: Reader) -> bool:
        """Hand complete requests to the handler; False if one turn's share is used up or there is no room for more."""
        for _ in range(self.service.limits.pipeline_max):
            if (self._pending or self.congested) and not self._has_room():
                return False
            request = self._arriving
            if request is None:
                request = BufferedRequest(self)
                if not reader.next_head(request):
                    return True
                self._arriving = request
            if not self._take_body(reader, request):
                return True
            self._arriving = None
            self._corked = self._corked or bool(reader.buffer)  # more may follow: one write for all their answers
            self._dispatch(request)
            if not reader.buffer:
                return True
            if self.phase is LAST:
                self.dropped_input = True
                return True
        return False

    def _has_room(self) -> bool:
        limits, pending = self.service.limits, self._pending
        return (
            not self.congested
            and len(pending) < limits.pipeline_max
            and sum([len(request.body) for request in pending]) < limits.pipeline_body_bytes
        )

    def _take_body(self, reader: Reader, request: BufferedRequest) -> bool:
        """Give the request its body, once that is complete; until then, keep what there is of it."""
        rest = reader.rest_of_body()
        if rest is None:
            pieces: list[bytes] = []
            if not reader.read_body(pieces):
                # Not in a list until the end: a body of one-byte packets would take forty times its size.
                self._body += b"".join(pieces)
                return False
            rest = b"".join(pieces)
        request.body = rest
        if self._body:
            self._body += rest
            request.body = bytes(self._body)
            self._body = bytearray()
        return True

    def _dispatch(self, request: BufferedRequest) -> None:
        service = self.service
        service.requests += 1
        self.since_s = service.now_s
        if not request.keep_alive or service.draining:
            self.move(LAST)
        self._pending.append(request)
        try:
            service.handler(request)
        except Exception:  # noqa: BLE001  # whatever it is, it is this request's: the others go on
            _log.exception("a handler failed", extra={"action": "http.handler.failed", "path": request.path})
            if request.answer is None:
                content_type, body = service.error_body(500, INTERNAL)
                request.respond(500, body, content_type)

    def _settle_reading(self, *, drained: bool) -> None:
        """All that could be taken has been: what is the connection waiting for now?"""
        if self.phase is LAST:
            self.release()  # what comes is dropped, but that the client leaves is noticed
        elif self.phase not in READING:
            return
        elif not drained:
            self.hold()
            if self._has_room():
                self.wake()
        else:
            self.release()
            self.move(self._next_phase())
            self._invite_body()

    def _next_phase(self) -> Phase:
        if self._arriving is not None:
            return BODY
        return HEAD if self._reader.mid_head else IDLE

    def _invite_body(self) -> None:
        """Send 100 Continue, unless earlier answers are still due: then after them (RFC 9110 10.1.1)."""
        request = self._arriving
        if request is not None and request.expects_continue and not self._pending:
            request.expects_continue = False
            self.write(CONTINUE)

    # Answers out

    def is_last(self, request: BufferedRequest) -> bool:
        """Whether no answer is due after this request's."""
        return self._pending[-1] is request

    def answered(self, request: BufferedRequest) -> None:
        if self._corked or self._pending[0] is not request:
            return
        if len(self._pending) == 1:
            self._flush()
        elif not self._flushing:
            # More answers may become ready in this turn: one write for all of them.
            self._flushing = True
            self.service.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write the answers that are ready and whose turn it is; then what follows from there being fewer due."""
        self._flushing = False
        ready = self._take_ready()
        if not ready:
            return
        if self.phase is IDLE:
            self.since_s = self.service.now_s
        for data in ready:
            self.write(data)
        if not self.reading:
            self.wake()
        if not self._pending:
            self._settle_writing()

    def _take_ready(self) -> list[bytes]:
        """What is to be written: one piece, or a long body as one of its own."""
        pending = self._pending
        if not pending or (answer := pending[0].answer) is None:
            return []
        tail = pending.popleft().tail
        if not pending or pending[0].answer is None:
            return [answer, tail] if tail else [answer]
        ready = [answer, tail]
        while pending and (answer := pending[0].answer) is not None:
            ready += (answer, pending.popleft().tail)
        return [b"".join(ready)]

    def _settle_writing(self) -> None:
        """No answer is due any more."""
        if self.phase is not LAST:
            if self._arriving is not None:
                self._invite_body()
        elif self.dropped_input or self._reader.buffer:
            self.linger()
        else:
            self.close()

    def refuse(self, refusal: Refusal) -> None:
        request = self._arriving or _blank(self)
        self._arriving = None
        self._body = bytearray()
        self._reader.clear()
        self.dropped_input = True
        self._corked = False
        self.move(LAST)
        self.service.refused += 1
        self._pending.append(request)
        content_type, body = self.service.error_body(refusal.status, refusal.reason)
        request.respond(refusal.status, body, content_type)
        self._flush()

    # The client leaves

    def busy(self) -> bool:
        return bool(self._pending)

    def half_closed(self) -> None:
        """Requests that watch for this are given up; the others are answered still, as `nc` and shell scripts expect."""
        self._drop_arriving()
        for request in tuple(self._pending):
            if request.on_disconnect is not None and request.answer is None:
                self._pending.remove(request)
                request.abandon()
        self._flush()
        if not self._pending:
            self.close()

    def lost(self) -> None:
        self._drop_arriving()
        pending = tuple(self._pending)
        self._pending.clear()
        for request in pending:
            request.abandon()

    def _drop_arriving(self) -> None:
        self._arriving = None
        self._body = bytearray()
        self._reader.clear()


def _blank(connection: BufferedConnection) -> BufferedRequest:
    """Stands for a request that could not be read, so that its error takes its turn."""
    request = BufferedRequest(connection)
    request.method, request.target, request.path, request.query = "GET", "", "", ""
    request.headers, request.http11 = {}, True
    return request
