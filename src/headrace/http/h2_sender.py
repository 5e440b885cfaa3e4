"""What leaves an HTTP/2 connection: gathered, written once a turn of the loop, streams taking turns. RFC = RFC 9113.

Answers' heads and control frames are put at once; bodies wait with their streams (`h2_exchange.py`) until both windows
and the client let them go, so that what is gathered here is bounded by a turn's share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from h2.connection import H2Connection
from h2.exceptions import StreamClosedError

from headrace.http.fields import Fields
from headrace.http.h2_fields import answer_pairs, interim_pairs
from headrace.http.h2_frames import Code

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
        "_h2",
        "_on_turn",
        "_out",
        "_out_bytes",
        "_ready",
        "_starved",
        "frame_bytes",
        "scheduled",
    )

    def __init__(self, h2: H2Connection, connection: Connection, on_turn: Callable[[], None]) -> None:
        self._h2 = h2
        self._connection = connection
        self._on_turn = on_turn
        self.frame_bytes = h2.max_outbound_frame_size
        self.scheduled = False
        """`on_turn` will be called. Set by the owner when it will call it itself."""
        self._out: list[bytes] = []  # what has been put past the library, and what it had put before
        self._out_bytes = 0
        self._ready: deque[Http2Exchange] = deque()
        self._starved: list[Http2Exchange] = []  # they could send, but for the connection's window

    # Gathering

    def put_raw(self, data: bytes) -> None:
        """A frame past the library."""
        self._out += (self._h2.data_to_send(), data)
        self.schedule()

    def schedule(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self._connection.service.loop.call_soon(self._on_turn)

    def put_head(self, stream: int, status: int, fields: Fields, length: int | None, *, end_stream: bool) -> None:
        pairs = answer_pairs(status, fields, length=length, date=self._connection.service.answers.date)
        self._h2.send_headers(stream, pairs, end_stream=end_stream)
        self.schedule()

    def put_interim(self, stream: int, status: int, fields: Fields) -> None:
        self._h2.send_headers(stream, interim_pairs(status, fields))
        self.schedule()

    def put_data(self, stream: int, data: bytes, *, end_stream: bool) -> None:
        self._h2.send_data(stream, data, end_stream=end_stream)
        self._out_bytes += len(data)
        self.schedule()

    def put_reset(self, stream: int, code: Code) -> None:
        """No effect on a stream that both sides have ended."""
        with suppress(StreamClosedError):
            self._h2.reset_stream(stream, code)
            self.schedule()

    def acknowledge(self, stream: int, size: int) -> None:
        """The client may send as much more of a body; the library says so when it is worth a frame."""
        self._h2.acknowledge_received_data(size, stream)
        self.schedule()

    # Taking turns

    def room_for(self, stream: int, size: int) -> bool:
        """Whether a whole small answer may leave at once, past the round."""
        return (
            size <= self.frame_bytes
            and not self._ready
            and self._out_bytes < _TURN_BYTES_MAX
            and not self._connection.congested
            and size <= self._h2.local_flow_control_window(stream)
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

    def widen(self) -> None:
        """The connection's window has grown."""
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
        data = self._h2.data_to_send()
        if self._out:
            data = b"".join([*self._out, data])
            self._out.clear()
        self._out_bytes = 0
        if data:
            self._connection.write(data)

    def discard(self) -> None:
        """There is nobody to write to."""
        self._out.clear()
        self._h2.clear_outbound_data_buffer()
        self._ready.clear()
        self._starved.clear()

    def _pump(self) -> list[Http2Exchange]:
        self.frame_bytes = min(self._h2.max_outbound_frame_size, _FRAME_BYTES_MOST)
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
        window = self._h2.local_flow_control_window(exchange.id)
        if window > 0:
            return min(self.frame_bytes, window)
        if self._h2.outbound_flow_control_window <= 0:
            exchange.queued = True
            self._starved.append(exchange)
        return -1  # a WINDOW_UPDATE brings it back
