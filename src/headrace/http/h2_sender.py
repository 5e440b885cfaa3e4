"""What leaves an HTTP/2 connection: gathered, written once a turn of the loop, streams taking turns. RFC = RFC 9113.

Answers' heads and control frames are put at once; bodies wait with their streams (`h2_exchange.py`) until both windows
and the client let them go, so that what is gathered here is bounded by a turn's share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from headrace.http import h2_frames as frames
from headrace.http.fields import Fields
from headrace.http.h2_fields import TABLE_EMPTIED, encode_answer, encode_interim

if TYPE_CHECKING:
    from headrace.http.engine import Connection
    from headrace.http.h2_exchange import Http2Exchange

_FRAME_BYTES_MOST: Final = 65_536  # if the client takes such: other streams have their turn in time
_TURN_BYTES_MAX: Final = 262_144  # written by one connection before the other connections have their turn
_WRITE_BYTES: Final = 65_536  # then the transport is asked whether it has had enough


class Sender:
    """Role: order and pace. Does not know what a request is.

    Invariant: what has been put is written by `on_turn`, which is scheduled for the loop's next turn or about to be called.
    """

    __slots__ = (
        "_connection",
        "_on_turn",
        "_out",
        "_out_bytes",
        "_ready",
        "_starved",
        "frame_bytes",
        "scheduled",
        "table_named",
        "window",
    )

    def __init__(self, connection: Connection, on_turn: Callable[[], None]) -> None:
        self._connection = connection
        self._on_turn = on_turn
        self.window = frames.WINDOW_DEFAULT
        """What the client lets us send on all streams together."""
        self.frame_bytes = frames.FRAME_BYTES_MAX
        self.scheduled = False
        """`on_turn` will be called. Set by the owner when it will call it itself."""
        self.table_named = False
        """The client has named a size for the encoder's table, of which it wants to see the effect."""
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._ready: deque[Http2Exchange] = deque()
        self._starved: list[Http2Exchange] = []  # they could send, but for the connection's window

    # Gathering

    def put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)
        if not self.scheduled:
            self.schedule()

    def schedule(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self._connection.service.loop.call_soon(self._on_turn)

    def put_head(self, stream: int, status: int, fields: Fields, length: int | None, *, end_stream: bool) -> None:
        date = self._connection.service.answers.date
        self._put_block(stream, encode_answer(status, fields, length=length, date=date), end_stream=end_stream)

    def put_interim(self, stream: int, status: int, fields: Fields) -> None:
        self._put_block(stream, encode_interim(status, fields), end_stream=False)

    def _put_block(self, stream: int, block: bytes, *, end_stream: bool) -> None:
        if self.table_named:
            self.table_named = False
            block = TABLE_EMPTIED + block
        self.put(frames.header_frames(block, stream=stream, size_max=self.frame_bytes, end_stream=end_stream))

    # Taking turns

    def room_for(self, exchange: Http2Exchange, size: int) -> bool:
        """Whether a whole small answer may leave at once, past the round."""
        return (
            size <= self.frame_bytes
            and size <= self.window
            and size <= exchange.window
            and not self._ready
            and self._out_bytes < _TURN_BYTES_MAX
            and not self._connection.congested
        )

    def enqueue(self, exchange: Http2Exchange) -> None:
        """It has something to send, or may again."""
        if not exchange.queued and not exchange.over and (exchange.has_output or exchange.closing):
            exchange.queued = True
            self._ready.append(exchange)
            self.schedule()

    def forget(self, exchange: Http2Exchange) -> None:
        """Its stream is gone. The round drops it when its turn comes."""
        if exchange.queued and exchange in self._starved:
            self._starved.remove(exchange)

    def take_frame_size(self, size: int) -> None:
        """The client takes frames up to `size`."""
        self.frame_bytes = min(size, _FRAME_BYTES_MOST)

    def widen(self, increment: int) -> None:
        """The connection's window grows."""
        self.window += increment
        self._ready.extend(self._starved)
        self._starved.clear()

    @property
    def waiting(self) -> bool:
        """Whether a stream waits for its turn."""
        return bool(self._ready)

    def run(self) -> list[Http2Exchange]:
        """Write what has been put, and the bodies' next frames; returns those that may be given more now."""
        self.scheduled = True  # whatever this causes is written by it
        writable = self._pump() if self._ready else []
        self.flush()
        self.scheduled = False
        if self._ready and not self._connection.congested:
            self.schedule()
        return writable

    def flush(self) -> None:
        """Write what has been put."""
        out = self._out
        if out:
            self._connection.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            self._out_bytes = 0

    def discard(self) -> None:
        """There is nobody to write to."""
        self._out.clear()
        self._ready.clear()
        self._starved.clear()

    def _pump(self) -> list[Http2Exchange]:
        writable: list[Http2Exchange] = []
        ready, left = self._ready, _TURN_BYTES_MAX
        while ready and left > 0 and not self._connection.congested:
            exchange = ready.popleft()
            size = self._share(exchange)
            if size < 0:
                continue
            if exchange.emit(size):
                writable.append(exchange)
            left -= size
            exchange.queued = not exchange.over and (exchange.has_output or exchange.closing)
            if exchange.queued:
                ready.append(exchange)
            if self._out_bytes >= _WRITE_BYTES:
                self.flush()
        return writable

    def _share(self, exchange: Http2Exchange) -> int:
        """How many bytes it may send now; -1: none, and it is out of the round."""
        exchange.queued = False
        if exchange.over:
            return -1
        if not exchange.has_output:
            return 0 if exchange.closing else -1
        if exchange.window <= 0:
            return -1  # a WINDOW_UPDATE brings it back
        if self.window <= 0:
            exchange.queued = True
            self._starved.append(exchange)
            return -1
        return min(self.frame_bytes, exchange.window, self.window)
