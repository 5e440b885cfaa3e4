"""What the tests of HTTP/2 share: a client that writes frames by hand, and one that is the `h2` library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import h2.config
import h2.connection
import h2.events
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from headrace.http.engine import Service
from headrace.http.exchange import Exchange, Target
from headrace.http.fields import Fields
from headrace.http.h2_frames import Code
from headrace.http.http2 import Http2Connection
from headrace.http.limits import Limits
from tests.http import h2_frames as frames
from tests.http.support import FakeTransport

Pair = tuple[bytes, bytes]
PLAIN = Fields.of([(b"Content-Type", b"text/plain")])
AnyFrame = TypeVar("AnyFrame", bound=Frame)


def request_head(
    method: bytes = b"GET", path: bytes = b"/", *more: Pair, authority: bytes | None = b"localhost"
) -> list[Pair]:
    head = [(b":method", method), (b":scheme", b"https"), (b":path", path)]
    if authority is not None:
        head.append((b":authority", authority))
    return [*head, *more]


class Rig:
    """One connection without a network; time moves by `advance`. To be made on a running loop."""

    def __init__(self, target: Target | None = None, limits: Limits | None = None) -> None:
        self.exchanges: list[Exchange] = []
        self.service = Service(None, limits=limits or Limits(), target=target or self.exchanges.append)
        self.service.advance(now_s=0.0, unix_s=0.0)
        self.transport = FakeTransport()
        self.connection = Http2Connection(self.service)
        self.connection.connection_made(self.transport)

    def advance(self, seconds: float) -> None:
        end_s = self.service.now_s + seconds
        while self.service.now_s < end_s:
            self.service.advance(now_s=self.service.now_s + 1.0, unix_s=0.0)

    async def turn(self) -> None:
        """Let the loop turn, so that what is scheduled is written."""
        for _ in range(3):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  # the loop's turns are what is under test
            await asyncio.sleep(0)


class RawClient(Rig):
    """Writes any frames, right or wrong. Has exchanged the preface and SETTINGS unless told not to."""

    def __init__(self, target: Target | None = None, limits: Limits | None = None, *, greet: bool = True) -> None:
        super().__init__(target, limits)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.received: list[Frame] = []
        self.statuses: dict[int, int] = {}
        self.fields: dict[int, dict[bytes, bytes]] = {}
        self._read = 0
        if greet:
            self.feed(frames.PREFACE + frames.settings({}) + frames.SETTINGS_ACK)

    def feed(self, data: bytes) -> None:
        """As from a transport, but for its reading flow: abuse does not stop at a pause."""
        self.connection.data_received(data)
        self.collect()

    def head(self, stream: int, pairs: list[Pair] | None = None, *, end: bool = True, flags: int = 0) -> bytes:
        block = self.encoder.encode(pairs or request_head())
        return frames.frame(
            frames.HEADERS, flags | frames.END_HEADERS | (frames.END_STREAM if end else 0), stream, block
        )

    def collect(self) -> None:
        """Take apart what the server has written since."""
        written = self.transport.written
        while self._read < len(written):
            frame, size = Frame.parse_frame_header(memoryview(written[self._read : self._read + 9]))
            frame.parse_body(memoryview(written[self._read + 9 : self._read + 9 + size]))
            self._read += 9 + size
            self.received.append(frame)
            if isinstance(frame, HeadersFrame):
                fields = dict(self.decoder.decode(frame.data, raw=True))
                self.fields[frame.stream_id] = fields
                self.statuses[frame.stream_id] = int(fields[b":status"])

    def of(self, kind: type[AnyFrame]) -> list[AnyFrame]:
        self.collect()
        return [frame for frame in self.received if isinstance(frame, kind)]

    def goaway(self) -> Code | None:
        """The code of the last GOAWAY."""
        found = self.of(GoAwayFrame)
        return Code(found[-1].error_code) if found else None

    def reset(self, stream: int) -> Code | None:
        found = [frame for frame in self.of(RstStreamFrame) if frame.stream_id == stream]
        return Code(found[0].error_code) if found else None

    def body(self, stream: int) -> bytes:
        return b"".join([frame.data for frame in self.of(DataFrame) if frame.stream_id == stream])

    def ended(self, stream: int) -> bool:
        self.collect()
        return any(frame.stream_id == stream and "END_STREAM" in frame.flags for frame in self.received)

    def alive(self) -> bool:
        """Whether the connection still answers."""
        before = len(self.of(PingFrame))
        if self.transport.closed or self.transport.eof_written:
            return False
        self.feed(frames.frame(frames.PING, 0, 0, b"alive???"))
        return len(self.of(PingFrame)) == before + 1

    def widened(self, stream: int) -> int:
        return sum(frame.window_increment for frame in self.of(WindowUpdateFrame) if frame.stream_id == stream)

    def setting(self, number: int) -> int | None:
        value: int | None = self.of(SettingsFrame)[0].settings.get(number)
        return value


class LibraryClient(Rig):
    """The `h2` library as the client: what it takes exception to fails the test."""

    def __init__(self, target: Target | None = None, limits: Limits | None = None) -> None:
        super().__init__(target, limits)
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.events: list[h2.events.Event] = []
        self._read = 0
        self.h2.initiate_connection()
        self.swap()

    def swap(self) -> None:
        """Bytes go both ways until nobody has more."""
        while True:
            written = self.transport.written
            unread, self._read = written[self._read :], len(written)
            if unread:
                self.events += self.h2.receive_data(unread)
            waiting = self.h2.data_to_send()
            if not waiting and not unread:
                return
            if waiting:
                self.connection.data_received(waiting)

    async def settle(self) -> None:
        for _ in range(20):
            await self.turn()
            self.swap()

    def ask(self, pairs: list[Pair] | None = None, body: bytes | None = None) -> int:
        stream = int(self.h2.get_next_available_stream_id())
        self.h2.send_headers(stream, pairs or request_head(), end_stream=body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self.swap()
        return stream

    def answer(self, stream: int) -> tuple[dict[bytes, bytes], bytes, bool]:
        """Fields, body, and whether it is whole."""
        fields: dict[bytes, bytes] = {}
        body, whole = b"", False
        for event in self.events:
            if getattr(event, "stream_id", None) != stream:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                event.flow_controlled_length = 0
            elif isinstance(event, h2.events.StreamEnded):
                whole = True
        return fields, body, whole

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
