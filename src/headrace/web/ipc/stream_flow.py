"""Transfers what does not fit into one frame each way: a long body, an answer in pieces, a tunnel.

Both directions have a window: at most WINDOW_BYTES are on their way that the other side has not consumed. So a client
that sends or takes slowly holds back its own stream, neither the link nor the other streams; and nothing is held here but
a window's worth.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.http.exchange import ANSWERING, TUNNEL, LengthMismatch
from headrace.http.fields import Fields
from headrace.web.dispatch.limits import CONSUMED_BYTES
from headrace.web.dispatch.queued_request import QueuedRequest, ReplayableBody
from headrace.web.ipc import frames
from headrace.web.ipc.frames import COUNT, HEAD, HEAD_BYTES, PIECE_BYTES_MAX, WINDOW_BYTES, Kind

if TYPE_CHECKING:
    from headrace.web.ipc.worker_link import WorkerLink

_log: Final = logging.getLogger("headrace.web")

_BODY, _ENDED, _CONSUMED = int(Kind.BODY), int(Kind.ENDED), int(Kind.CONSUMED)
_decode_file: Final = msgspec.msgpack.Decoder(frames.File).decode
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for msgpack that is none, of text that is none, nested too deeply."""

_FLAGS: Final = [(bool(f & frames.DATED), bool(f & frames.SERVED), bool(f & frames.CLOSE)) for f in range(8)]


class MalformedFrame(Exception):
    """A worker has violated the protocol: its link is closed."""


class StreamFlow:
    """Transfers the body of one request and its answer, on one link.

    Invariants: the worker has at most WINDOW_BYTES of the body that it has not taken; `_unpassed` at most WINDOW_BYTES of
    the answer wait here; the order of the answer's frames is kept.
    """

    __slots__ = (
        "_body_done",
        "_held",
        "_invited",
        "_link",
        "_number",
        "_over",
        "_owed",
        "_queued",
        "_rest",
        "_unpassed",
        "_window",
    )

    def __init__(self, link: WorkerLink, queued: QueuedRequest, number: int) -> None:
        self._link = link
        self._queued = queued
        self._number = number
        self._rest = b""  # of the body: read, and not yet sent
        self._window = WINDOW_BYTES
        self._body_done = True
        self._invited = True
        self._held: deque[bytes | frames.File] = deque()  # of the answer: what the client has no room for
        self._unpassed = 0
        self._owed = 0  # passed on, and the worker has not been notified
        self._over = False  # the worker has ended the stream

    # The body

    def open_body(self, piece: bytes, rest: bytes, *, invited: bool) -> None:
        """`piece` goes with the REQUEST; the rest, and later bytes, by `pump`."""
        self._body_done = False
        self._rest = rest
        self._window -= len(piece)
        self._invited = invited

    def pump(self) -> None:
        """Send what there is of the body, as far as the window allows."""
        body = self._queued.body
        if self._body_done or not self._invited or body is None:
            return
        while not self._body_done:
            if self._rest:
                if not self._window:
                    return
                size = min(PIECE_BYTES_MAX, self._window)
                piece, self._rest = self._rest[:size], self._rest[size:]
                self._window -= len(piece)
                self._link.send(_BODY, self._number, piece)
            elif body.ended:
                self._body_done = True
                self._link.send(_ENDED, self._number)
            else:
                self._rest = body.read()
                if not self._rest and not body.ended:
                    return

    def consumed(self, count: int) -> None:
        """The worker has taken `count` bytes of the body; or asks for it (`Expect: 100-continue`)."""
        self._invited = True
        self._window = min(WINDOW_BYTES, self._window + count)
        self.pump()

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's body, not the worker, that is slow."""
        return not self._body_done and not self._rest and self._invited

    # The answer

    def begin_tunnel(self, fields: Fields) -> None:
        """From here on the client sends a stream without an end."""
        exchange = self._queued.exchange
        exchange.tunnel(fields)
        self._queued.body = ReplayableBody(exchange, keep=False)
        self._body_done = False
        self.pump()

    def data(self, piece: bytes) -> None:
        """Raises: Malformed: the worker has overrun the window."""
        self._unpassed += len(piece)
        if self._unpassed > WINDOW_BYTES:
            raise MalformedFrame(f"{self._unpassed} bytes of an answer are unconsumed; at most {WINDOW_BYTES} may be")
        if self._held or not self._queued.exchange.writable:
            self._held.append(piece)
        else:
            self._pass_on(piece)

    def file(self, payload: bytes) -> None:
        """Raises: Malformed: no file, or another one has not been answered yet."""
        try:
            file = _decode_file(payload)
        except UNREADABLE as error:
            raise MalformedFrame(f"a FILE that cannot be read: {error}") from error
        if self._held or not self._queued.exchange.writable:
            if any(isinstance(held, frames.File) for held in self._held):
                raise MalformedFrame("a FILE before the last one was answered")
            self._held.append(file)
        else:
            self._send_file(file)

    def end(self) -> None:
        """The worker is done with this stream; the client may not have read all that is held."""
        self._over = True
        if not self._held:
            self._finish()

    def changed(self) -> None:
        if not self._over:
            self.pump()
        exchange = self._queued.exchange
        while self._held and exchange.writable:
            held = self._held.popleft()
            if isinstance(held, bytes):
                self._pass_on(held)
            else:
                self._send_file(held)
        if self._over and not self._held:
            self._finish()

    def abandon(self) -> None:
        """The client is gone."""
        self._held.clear()
        self._body_done = True

    def _pass_on(self, piece: bytes) -> None:
        exchange = self._queued.exchange
        if exchange.stage is ANSWERING or exchange.stage is TUNNEL:
            try:
                exchange.send(piece)
            except LengthMismatch as error:
                self._mismatched(error)
        self._unpassed -= len(piece)
        self._owed += len(piece)
        if self._owed >= CONSUMED_BYTES and not self._over:
            self._link.send(_CONSUMED, self._number, COUNT.pack(self._owed))
            self._owed = 0

    def _send_file(self, file: frames.File) -> None:
        opened = self._link.open_file(file)
        if not self._over:
            answer = frames.FILE_REFUSED if opened is None else frames.FILE_OPENED
            self._link.send(_CONSUMED, self._number, COUNT.pack(answer))
        exchange = self._queued.exchange
        if opened is None:
            if self._over:
                exchange.abort()
            return
        fd, offset, count = opened
        if exchange.stage is not ANSWERING:
            os.close(fd)
            return
        try:
            exchange.send_file(fd, offset, count)
        except LengthMismatch as error:
            self._mismatched(error)

    def _finish(self) -> None:
        exchange = self._queued.exchange
        exchange.notify = None
        self._queued.flow = None
        if exchange.stage is ANSWERING or exchange.stage is TUNNEL:
            try:
                exchange.finish()
            except LengthMismatch as error:
                self._mismatched(error)

    def _mismatched(self, error: LengthMismatch) -> None:
        exchange = self._queued.exchange
        extra = {"action": "web.answer.length", "method": exchange.method, "path": exchange.path}
        _log.error("an answer was cut: %s", error, extra=extra)
        exchange.abort()


def open_of_process(pid: int, file: frames.File) -> tuple[int, int, int] | None:
    """A descriptor of our own for a piece of a regular file that another process holds open, with offset and count; None
    if there is no such thing, or no /proc."""
    if file.fd < 0 or file.offset < 0 or file.count < 0:
        return None
    try:
        fd = os.open(f"/proc/{pid}/fd/{file.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or file.offset + file.count > status.st_size:
        os.close(fd)
        return None
    return fd, file.offset, file.count


def read_head(payload: bytes) -> tuple[int, Fields, int]:
    """Status and fields of an answer, and where its body begins."""
    status, flags, length, size = HEAD.unpack_from(payload)
    end = HEAD_BYTES + size
    if end > len(payload):
        raise MalformedFrame(f"a block of {size} bytes in a frame of {len(payload)}")
    dated, served, close = _FLAGS[flags & 7]
    fields = Fields(payload[HEAD_BYTES:end], length if length >= 0 else None, dated=dated, served=served, close=close)
    return status, fields, end
