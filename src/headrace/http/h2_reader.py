"""The bytes of one HTTP/2 connection, taken apart into what the client says. No sockets. RFC = RFC 9113.

Checks all that a frame alone tells, and the order of header blocks; what depends on a stream's state is the sink's.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

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
    """What frames say, to a connection. A StreamFault ends the stream; a ConnectionFault, which may come from anywhere, all."""

    def on_data(self, stream: int, data: bytes, size: int, *, ended: bool) -> None:
        """`size` is what windows count: with padding."""

    def on_fields(self, stream: int, pairs: Pairs, *, ended: bool) -> None:
        """A whole header block: of a request, or trailers."""

    def on_reset(self, stream: int) -> None: ...

    def on_settings(self, pairs: list[tuple[int, int]]) -> None: ...

    def on_ping(self, payload: bytes) -> None: ...

    def on_goaway(self) -> None: ...

    def on_window_update(self, stream: int, increment: int) -> None: ...

    def on_stream_fault(self, stream: int, fault: StreamFault) -> None: ...


class FrameReader:
    """Invariant: what is buffered is less than a frame, and one header block within limits, unless `waiting`."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_stream",
        "_buffer",
        "_control",
        "_decoder",
        "_limits",
        "_preface_read",
        "_since_s",
        "_sink",
        "_updates",
        "blocks",
        "greeted",
        "now_s",
    )

    def __init__(self, sink: Sink, limits: Limits, *, now_s: float) -> None:
        self._sink = sink
        self._limits = limits
        self.now_s = now_s
        """Coarse; the owner sets it before `feed`."""
        self.blocks = 0
        """Header blocks since the last `feed` began."""
        self._buffer = b""
        self._since_s: float | None = None  # when what is buffered, other than DATA, began to arrive
        self._preface_read = False
        self.greeted = False
        """SETTINGS, which come first, have come."""
        # Between our own limit, which is answered by 431, and this one, which is fatal since the table is then unknown.
        self._decoder = Decoder(max_header_list_size=2 * limits.header_bytes + 65_536)
        self._block: bytearray | None = None  # a header block that is not complete
        self._block_stream = 0
        self._block_flags = 0
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
        while end - at >= frames.HEADER_BYTES and self.blocks < blocks_max:
            high, low, kind, flags, stream = unpack(buffer, at)
            size = high << 8 | low
            if size > frames.FRAME_BYTES_MAX:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + frames.HEADER_BYTES
            if start + size > end:
                break
            at = start + size
            self._take(kind, flags, stream & frames.STREAM_ID_MAX, buffer[start:at])
        self._buffer = buffer[at:] if self._preface_read else buffer
        self._note_wait(moved=at > 0)

    @property
    def waiting(self) -> bool:
        """Whether a whole frame is buffered."""
        buffer = self._buffer
        return len(buffer) >= frames.HEADER_BYTES and len(buffer) >= frames.HEADER_BYTES + (
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
        self._block = None
        self._since_s = None

    def spend(self) -> None:
        """Pay for a frame that has brought nothing.

        Raises: ConnectionFault.
        """
        if not self._control.spend(self.now_s):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def _note_wait(self, *, moved: bool) -> None:
        buffer = self._buffer
        if self._block is None and (len(buffer) < 4 or buffer[3] == frames.DATA):
            self._since_s = None
        elif self._since_s is None or (moved and self._block is None):
            self._since_s = self.now_s

    def _read_preface(self, buffer: bytes) -> int:
        """Returns where frames begin (RFC 3.4); 0 if that is still to come."""
        if buffer.startswith(frames.PREFACE):
            self._preface_read = True
            return len(frames.PREFACE)
        if not frames.PREFACE.startswith(buffer):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "this is not HTTP/2")
        return 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or stream != self._block_stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a frame in the middle of a header block")
        if not self.greeted:
            self.greeted = kind == frames.SETTINGS and not flags & frames.ACK
            if not self.greeted:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        try:
            if kind < len(self._TAKERS):
                self._TAKERS[kind](self, flags, stream, payload)
            else:
                self.spend()  # types that nobody knows are ignored (RFC 4.1)
        except StreamFault as fault:
            self._sink.on_stream_fault(stream, fault)

    # One method a type of frame; all have the same arguments.

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on stream 0")
        data = frames.unpad(payload, flags) if flags & frames.PADDED else payload
        ended = flags & frames.END_STREAM != 0
        if not data and not ended:
            self.spend()
        self._sink.on_data(stream, data, len(payload), ended=ended)

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"HEADERS on stream {stream}")
        block = frames.unpad(payload, flags)
        if flags & frames.WITH_PRIORITY:
            block = frames.skip_priority(block)
        if flags & frames.END_HEADERS:
            self._take_block(flags, stream, block)
        else:
            self._block, self._block_stream, self._block_flags = bytearray(block), stream, flags

    def _take_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self.spend()
        self._block += payload
        if len(self._block) > 2 * self._limits.header_bytes:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & frames.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._take_block(self._block_flags, stream, block)

    def _take_block(self, flags: int, stream: int, block: bytes) -> None:
        self.blocks += 1
        # Decoded also if the stream is refused: the client's table and ours have to stay in step.
        self._sink.on_fields(stream, self._decode(block), ended=flags & frames.END_STREAM != 0)

    def _decode(self, block: bytes) -> Pairs:
        try:
            return self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header list without end") from error
        except (HPACKError, IndexError, ValueError, TypeError) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "a header block that cannot be decoded") from error

    def _take_priority(self, _flags: int, stream: int, payload: bytes) -> None:
        """Ignored (RFC 5.3.2)."""
        if not stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:  # of the stream alone, says the RFC; but a stream that is not open cannot be reset
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes")
        self.spend()

    def _take_reset(self, _flags: int, stream: int, payload: bytes) -> None:
        frames.read_u32(payload)
        self._sink.on_reset(stream)

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS on a stream")
        self.spend()
        if not flags & frames.ACK:
            self._sink.on_settings(frames.read_settings(payload))
        elif payload:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")

    def _take_push(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a client pushes nothing")

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        self.spend()
        if not flags & frames.ACK:
            self._sink.on_ping(payload)

    def _take_goaway(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self.spend()
        self._sink.on_goaway()

    def _take_window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        increment = frames.read_u32(payload) & frames.WINDOW_MAX
        if not self._updates.spend(self.now_s):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")
        self._sink.on_window_update(stream, increment)

    # By the number of the type
    _TAKERS: ClassVar = (
        _take_data,
        _take_headers,
        _take_priority,
        _take_reset,
        _take_settings,
        _take_push,
        _take_ping,
        _take_goaway,
        _take_window_update,
        _take_continuation,
    )
