"""One stream of an HTTP/2 connection as an exchange: its windows, the body that waits, the answer that waits. RFC = RFC 9113."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from headrace.http import consumers
from headrace.http.answers import BODILESS
from headrace.http.engine import RateWindow
from headrace.http.exchange import DONE, WAITING, Exchange
from headrace.http.fields import Fields
from headrace.http.h2_frames import Code, StreamFault
from headrace.http.limits import Limits
from headrace.http.parse import CHUNKED, Refusal
from headrace.http.sendfile import FilePiece

if TYPE_CHECKING:
    from headrace.http.http2 import Http2Connection

SKIP_BYTES_MAX: Final = 65_536
"""Of a body that came too late for its answer."""
ANSWER_BYTES_MAX: Final = 65_536
"""Of one stream's answer, not taken by the client; beyond: not `writable`."""

_EMPTY: Final = Fields()


class Http2Exchange(Exchange):
    """See the module.

    Invariants: the connection's `streams` has it as long as either side may still send; `_out` is only non-empty then.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_moved_bytes",
        "_offset",
        "_out",
        "_out_bytes",
        "_receiving",
        "_sending",
        "_skipped_bytes",
        "_starved",
        "closing",
        "id",
        "over",
        "queued",
        "received_bytes",
        "touched",
        "whole",
    )

    def __init__(self, connection: Http2Connection, stream: int) -> None:
        Exchange.__init__(self)
        self._connection = connection
        self.id = stream
        self.version = "2"
        self.secure = connection.secure
        self.peer = connection.peer
        self.peer_port = connection.peer_port
        self.server = connection.server
        self.length = CHUNKED
        self.expects = False
        self.whole = False
        """All of the body has arrived. In a tunnel: the client will send no more."""
        self.closing = False
        """The answer is complete: END_STREAM follows what waits."""
        self.over = False
        """Our side of the stream has ended."""
        self.queued = False
        """In the sender's round."""
        self.touched = True
        """The consumer will look at it in this turn: it need not be notified."""
        self.received_bytes = 0
        self._body: bytes | bytearray = b""
        self._out: deque[bytes | FilePiece] = deque()
        self._offset = 0  # what has been sent of the first of `_out`
        self._out_bytes = 0
        self._skipped_bytes = 0
        self._starved = False  # the consumer waits until it may write
        self._moved_bytes = 0
        self._receiving: RateWindow | None = None
        self._sending: RateWindow | None = None

    # The body

    def add(self, data: bytes, size: int, limits: Limits) -> None:
        """More of the body has arrived, in a frame of `size` bytes with its padding. Changes nothing when it raises.

        Raises: StreamFault. Refusal, to be answered.
        """
        if self.over:
            self._skip(size)
            return
        if self.received_bytes + len(data) > limits.body_bytes and not self.upgrade:
            raise Refusal(413, f"the body is longer than {limits.body_bytes} bytes")
        self.received_bytes += len(data)
        if size > len(data):
            self._connection.sender.acknowledge(self.id, size - len(data))
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        if data:
            self.expects = False
        if not self._body:
            self._body = data
            return
        if isinstance(self._body, bytes):
            # Not a list of pieces: a body of one-byte frames would take forty times its size.
            self._body = bytearray(self._body)
        self._body += data

    def _skip(self, size: int) -> None:
        """The answer is out already. A short rest is cheaper than a reset, over which some clients forget the answer."""
        self.received_bytes += size
        self._skipped_bytes += size
        if self._skipped_bytes > SKIP_BYTES_MAX:
            raise StreamFault(Code.NO_ERROR, "the answer is out; the rest is not wanted")
        self._connection.sender.acknowledge(self.id, size)

    def end(self) -> None:
        """The client has said that this was all; the library has compared it with Content-Length."""
        self.whole = True
        self.expects = False

    @property
    def untaken(self) -> int:
        return len(self._body)

    def take(self) -> bytes:
        body, self._body = self._body, b""
        sender = self._connection.sender
        if body:
            sender.acknowledge(self.id, len(body))
        elif self.expects and self.stage is WAITING:  # behind the head of the answer there is no 100
            self.expects = False
            sender.put_interim(self.id, 100, _EMPTY)
        return body if isinstance(body, bytes) else bytes(body)

    @property
    def ended(self) -> bool:
        return self.whole

    # The answer

    @property
    def writable(self) -> bool:
        if self.gone or self._out_bytes < ANSWER_BYTES_MAX:
            return True
        self._starved = True
        return False

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        announced: int | None = length
        if status in BODILESS:
            announced = None
        elif self.method == "HEAD":
            announced = fields.length if fields.length is not None else length or None  # 0 may be a lie
        sender = self._connection.sender
        sender.put_head(self.id, status, fields, announced, end_stream=not body)
        self.closing = True
        if not body:
            self._connection.finished(self)
        elif sender.room_for(self.id, len(body)):
            self._put_data(body)
        else:
            self._queue(body, len(body))

    def refuse(self, status: int, fields: Fields, body: bytes) -> None:
        """Answer in place of the consumer, to whom the client is gone: the request is not what it seemed to be."""
        self.status = status
        consumers.lose(self)
        self._respond(status, fields, b"" if self.method == "HEAD" else body, len(body))

    def _start(self, status: int, fields: Fields) -> None:
        length = None if status in BODILESS else fields.length
        self._connection.sender.put_head(self.id, status, fields, length, end_stream=False)

    def _send(self, data: bytes) -> None:
        self._queue(data, len(data))

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        self._queue(FilePiece(fd, offset, count), count)

    def _finish(self) -> None:
        self.closing = True
        self._connection.sender.enqueue(self)

    def _tunnel(self, fields: Fields) -> None:
        self._connection.sender.put_head(self.id, 200, fields, None, end_stream=False)

    def _inform(self, status: int, fields: Fields) -> None:
        self._connection.sender.put_interim(self.id, status, fields)

    def _abort(self) -> None:
        self._connection.cut(self, Code.INTERNAL_ERROR)

    # Sending, frame by frame

    def _queue(self, piece: bytes | FilePiece, size: int) -> None:
        self._out.append(piece)
        self._out_bytes += size
        self._connection.sender.enqueue(self)

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def emit(self, size_max: int) -> bool:
        """Send one frame of at most `size_max` bytes; 0 if only the end is left to send.

        Returns whether the consumer is to be told that it may write again.
        """
        full = self._out_bytes >= ANSWER_BYTES_MAX
        data = self._next_piece(size_max) if self._out else b""
        if data is None:
            self._connection.broken(self)
            return False
        self._out_bytes -= len(data)
        self._put_data(data)
        if not full or not self._starved or self._out_bytes >= ANSWER_BYTES_MAX:
            return False
        self._starved = False
        return self.stage is not DONE

    def _put_data(self, data: bytes) -> None:
        """The end goes along with the last bytes."""
        self._moved_bytes += len(data)
        last = self.closing and not self._out
        self._connection.sender.put_data(self.id, data, end_stream=last)
        if last:
            self._connection.finished(self)

    def _next_piece(self, size: int) -> bytes | None:
        """None if the file is shorter than it was."""
        first = self._out[0]
        if isinstance(first, FilePiece):
            return self._read_file(first, size)
        data = first[self._offset : self._offset + size] if self._offset or len(first) > size else first
        self._offset += len(data)
        if self._offset < len(first):
            return data
        self._out.popleft()
        self._offset = 0
        if len(data) < size and self._out and isinstance(self._out[0], bytes):
            return self._join_small(data, size)
        return data

    def _join_small(self, data: bytes, size: int) -> bytes:
        """Many small pieces in one frame."""
        pieces = [data]
        left = size - len(data)
        while self._out:
            piece = self._out[0]
            if isinstance(piece, FilePiece) or len(piece) > left:
                break
            self._out.popleft()
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _read_file(self, piece: FilePiece, size: int) -> bytes | None:
        data = piece.read(size)
        if not data and piece.left:
            return None
        if not piece.left:
            piece.close()
            self._out.popleft()
        return data

    def drop(self) -> int:
        """Forget what waits in both directions; returns how many body bytes nobody has taken."""
        for piece in self._out:
            if isinstance(piece, FilePiece):
                piece.close()
        self._out.clear()
        self._out_bytes = 0
        untaken, self._body = len(self._body), b""
        return untaken

    # Deadlines

    def takes_too_slowly(self, limits: Limits, now_s: float) -> bool:
        """The client keeps the window shut (a slow reader), or hardly open."""
        if not self._out:
            self._sending = None
        elif self._sending is None:
            self._sending = RateWindow(now_s=now_s, total_bytes=self._moved_bytes)
        else:
            return self._sending.is_too_slow(limits, now_s=now_s, total_bytes=self._moved_bytes)
        return False

    def sends_too_slowly(self, limits: Limits, now_s: float) -> bool:
        """We wait for the body: it has been invited, and all that came has been taken; or for its end, after the answer."""
        awaited = self.over or (self.stage is WAITING and not (self.expects or self._body or self.upgrade))
        if self.whole or not awaited:
            self._receiving = None
        elif self._receiving is None:
            self._receiving = RateWindow(now_s=now_s, total_bytes=self.received_bytes)
        else:
            return self._receiving.is_too_slow(limits, now_s=now_s, total_bytes=self.received_bytes)
        return False
