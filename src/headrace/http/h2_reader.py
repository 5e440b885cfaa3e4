"""The bytes of one HTTP/2 connection on their way to the `h2` library: counted first, fed frame by frame. RFC = RFC 9113.

The library keeps the protocol; what it does not bound is bounded here, by looking at the nine bytes that every frame
begins with: floods of frames that ask for nothing, header blocks without end, requests per turn. Fed in whole packets it
would work a flood off before it could be counted, and lose what came before a fault.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, ClassVar, Protocol

from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from headrace.http import h2_frames as frames
from headrace.http.h2_budget import (
    CONTROL_FRAMES_MAX,
    CONTROL_FRAMES_PER_S,
    UPDATES_MAX,
    UPDATES_PER_S,
    Budget,
)
from headrace.http.h2_fields import Pairs
from headrace.http.h2_frames import Code, ConnectionFault, StreamFault
from headrace.http.limits import Limits


class Sink(Protocol):
    """What the client says, to a connection. A StreamFault ends the stream; a ConnectionFault, which may come from anywhere, all."""

    def on_request(self, stream: int, pairs: Pairs, *, ended: bool) -> None: ...

    def on_trailers(self, stream: int, pairs: Pairs) -> None: ...

    def on_data(self, stream: int, data: bytes, size: int, *, ended: bool) -> None:
        """`size` is what windows count: with padding."""

    def on_reset(self, stream: int) -> None:
        """The stream is closed: by the client, or by the library, since the client has broken a rule."""

    def on_settings(self) -> None: ...

    def on_goaway(self) -> None: ...

    def on_window_update(self, stream: int) -> None: ...

    def on_stream_fault(self, stream: int, fault: StreamFault) -> None: ...


class FrameReader:
    """Invariant: what is buffered is less than a frame, unless `waiting`."""

    __slots__ = (
        "_block_bytes",
        "_buffer",
        "_control",
        "_h2",
        "_in_block",
        "_limits",
        "_preface_read",
        "_since_s",
        "_sink",
        "_streams",
        "_updates",
        "blocks",
        "greeted",
        "now_s",
    )

    def __init__(self, h2: H2Connection, sink: Sink, streams: Container[int], limits: Limits, *, now_s: float) -> None:
        """
        Args:
            streams: those that are open.
            now_s: coarse; later the owner sets `now_s` before `feed`.
        """
        self._h2 = h2
        self._sink = sink
        self._streams = streams
        self._limits = limits
        self.now_s = now_s
        self.blocks = 0
        """Header blocks since the last `feed` began."""
        self.greeted = False
        """SETTINGS, which come first, have come."""
        self._buffer = b""
        self._since_s: float | None = None  # when what is buffered, other than DATA, began to arrive
        self._preface_read = False
        self._in_block = False
        self._block_bytes = 0
        self._control = Budget(CONTROL_FRAMES_MAX, CONTROL_FRAMES_PER_S, now_s=now_s)
        self._updates = Budget(UPDATES_MAX, UPDATES_PER_S, now_s=now_s)

    def feed(self, data: bytes, *, blocks_max: int) -> None:
        """Tell the sink what the whole frames say, with at most `blocks_max` header blocks.

        Raises: ConnectionFault.
        """
        buffer = self._buffer + data if self._buffer else data
        self.blocks = 0
        at, end = 0, len(buffer)
        if not self._preface_read:
            at = self._read_preface(buffer) or end  # no frame before all of it
        unpack = frames.HEAD.unpack_from
        while end - at >= frames.HEAD_BYTES and self.blocks < blocks_max:
            high, low, kind, flags, stream = unpack(buffer, at)
            size = high << 8 | low
            if size > frames.FRAME_BYTES_MAX:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            stop = at + frames.HEAD_BYTES + size
            if stop > end:
                break
            self._judge(kind, flags, stream & frames.STREAM_ID_MAX, size)
            if kind == frames.GOAWAY and not self._in_block and size >= 8 and not stream & frames.STREAM_ID_MAX:
                self._sink.on_goaway()  # the library would take it for the end of all streams
            else:
                self._tell(buffer[at:stop])
            at = stop
        self._buffer = buffer[at:] if self._preface_read else buffer
        self._note_wait(moved=at > 0)

    @property
    def waiting(self) -> bool:
        """Whether a whole frame is buffered."""
        buffer = self._buffer
        return len(buffer) >= frames.HEAD_BYTES and len(buffer) >= frames.HEAD_BYTES + (
            buffer[0] << 16 | buffer[1] << 8 | buffer[2]
        )

    @property
    def mid_head(self) -> bool:
        """Whether a header block, or a frame other than DATA, is not complete."""
        return self._since_s is not None

    def waits_for_s(self, now_s: float) -> float:
        """How long that has been so. The pace of DATA is judged by its stream."""
        return 0.0 if self._since_s is None else now_s - self._since_s

    def clear(self) -> None:
        self._buffer = b""
        self._since_s = None

    def _spend(self) -> None:
        if not self._control.spend(self.now_s):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def _note_wait(self, *, moved: bool) -> None:
        buffer = self._buffer
        if not self._in_block and (len(buffer) < 4 or buffer[3] == frames.DATA):
            self._since_s = None
        elif self._since_s is None or (moved and not self._in_block):
            self._since_s = self.now_s

    def _read_preface(self, buffer: bytes) -> int:
        """Returns where frames begin (RFC 3.4); 0 if that is still to come."""
        if buffer.startswith(frames.PREFACE):
            self._preface_read = True
            self._h2.receive_data(frames.PREFACE)
            return len(frames.PREFACE)
        if not frames.PREFACE.startswith(buffer):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "this is not HTTP/2")
        return 0

    # Before the library sees a frame

    def _judge(self, kind: int, flags: int, stream: int, size: int) -> None:
        if not self.greeted:
            self.greeted = kind == frames.SETTINGS and not flags & frames.ACK
            if not self.greeted:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind == frames.DATA:
            if stream not in self._streams:
                self._spend()
        elif kind == frames.HEADERS:
            self._judge_headers(flags, stream, size)
        elif kind == frames.WINDOW_UPDATE:
            if not self._updates.spend(self.now_s):
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")
        elif kind == frames.RST_STREAM:
            self._judge_reset(stream)
        elif kind == frames.CONTINUATION and self._in_block:
            self._judge_continuation(flags, size)
        else:
            self._spend()

    def _judge_headers(self, flags: int, stream: int, size: int) -> None:
        if stream not in self._streams and stream <= self._h2.highest_inbound_stream_id:
            self._spend()
        if flags & frames.END_HEADERS:
            self.blocks += 1
        else:
            self._in_block, self._block_bytes = True, size

    def _judge_continuation(self, flags: int, size: int) -> None:
        self._spend()
        self._block_bytes += size
        if self._block_bytes > 2 * self._limits.header_bytes:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & frames.END_HEADERS:
            self._in_block = False
            self.blocks += 1

    def _judge_reset(self, stream: int) -> None:
        if stream > self._h2.highest_inbound_stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on a stream that is not open")
        if stream not in self._streams:
            self._spend()

    # After the library has seen it

    def _tell(self, frame: bytes) -> None:
        try:
            events = self._h2.receive_data(frame)
        except ProtocolError as error:
            code = Code(error.error_code)
            raise ConnectionFault(code, str(error), told=True) from error
        for event in events:
            teller = self._TELLERS.get(type(event))
            if teller is not None:
                self._tell_one(teller, event)

    def _tell_one(self, teller: Any, event: Any) -> None:
        try:
            teller(self, event)
        except StreamFault as fault:
            self._sink.on_stream_fault(event.stream_id, fault)

    def _tell_request(self, event: RequestReceived) -> None:
        self._sink.on_request(event.stream_id, event.headers, ended=event.stream_ended is not None)

    def _tell_trailers(self, event: TrailersReceived) -> None:
        self._sink.on_trailers(event.stream_id, event.headers)

    def _tell_data(self, event: DataReceived) -> None:
        ended = event.stream_ended is not None
        if not event.data and not ended:
            self._spend()
        self._sink.on_data(event.stream_id, event.data, event.flow_controlled_length, ended=ended)

    def _tell_reset(self, event: StreamReset) -> None:
        self._sink.on_reset(event.stream_id)

    def _tell_settings(self, _event: RemoteSettingsChanged) -> None:
        self._sink.on_settings()

    def _tell_window(self, event: WindowUpdated) -> None:
        self._sink.on_window_update(event.stream_id)

    _TELLERS: ClassVar[dict[type[Event], Any]] = {
        RequestReceived: _tell_request,
        TrailersReceived: _tell_trailers,
        DataReceived: _tell_data,
        StreamReset: _tell_reset,
        RemoteSettingsChanged: _tell_settings,
        WindowUpdated: _tell_window,
    }
