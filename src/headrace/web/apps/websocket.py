"""WebSocket (RFC 6455) for ASGI: the application's messages over a tunnel. Frames are wsproto's.

Theory. The client's bytes are read whether or not the application receives, since pings and closes must be answered; but
only while few messages wait for the application, and while the client reads what we send. So every buffer is bounded:
the inbox, one message being put together (also after inflating), and what the exchange holds.

  CONNECTING ──accept──▶ OPEN ──we close──▶ CLOSING ──the client's close, or time──▶ CLOSED
      │                   └──the client closes, errs or leaves───────────────────────────▲
      └──close or an HTTP answer (denied)────────────────────────────────────────────────┘

`Deflate` is permessage-deflate (RFC 7692), bounded: how much a client may make us inflate is known before it is
inflated. It works on wsproto's frame layer: wsproto's own extension inflates whatever comes, and forgets that a message
is compressed when a ping comes between two of its frames.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
import zlib
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, cast

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from headrace.http import problem
from headrace.http.exchange import DONE, WAITING, Exchange
from headrace.http.fields import Fields
from headrace.web.apps.app_call import AppCall, Message

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")
_MESSAGE_COST_BYTES: Final = 256  # of a message in the inbox beyond its data: a flood of empty ones is bounded, too


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketLimits:
    """The limits of one WebSocket."""

    message_bytes: int = 16 * 1_048_576
    """A whole message, inflated; beyond: closed with 1009. As uvicorn's."""
    inbox_bytes: int = 262_144
    """Messages that the application has not received; beyond: not read from the client."""
    ping_interval_s: float = 20.0
    """Below the idle timeouts of proxies, which start at 30 s; 0 switches pings off."""
    ping_timeout_s: float = 20.0
    """A client that sends nothing for so long after a ping has left; closed with 1011."""
    close_s: float = 10.0
    """How long the client's answer to our close is awaited."""
    compress: bool = True
    """Grant permessage-deflate."""


class ClientGone(OSError):
    """The client has closed the WebSocket, or left: nothing can be sent to it."""


class WebSocketState(Enum):
    CONNECTING = auto()
    OPEN = auto()
    CLOSING = auto()
    """We have closed and wait for the client's answer."""
    CLOSED = auto()


MOVES: Final[dict[WebSocketState, frozenset[WebSocketState]]] = {
    WebSocketState.CONNECTING: frozenset({WebSocketState.OPEN, WebSocketState.CLOSED}),
    WebSocketState.OPEN: frozenset({WebSocketState.CLOSING, WebSocketState.CLOSED}),
    WebSocketState.CLOSING: frozenset({WebSocketState.CLOSED}),
    WebSocketState.CLOSED: frozenset(),
}
CONNECTING, OPEN, CLOSING, CLOSED = (
    WebSocketState.CONNECTING,
    WebSocketState.OPEN,
    WebSocketState.CLOSING,
    WebSocketState.CLOSED,
)


def refuse_handshake(exchange: Exchange) -> bool:
    """Answer a handshake that is none. Over HTTP/2 (RFC 8441) there is no key."""
    if exchange.headers.get(b"sec-websocket-version") != b"13":
        headers = [(b"Sec-WebSocket-Version", b"13")]
        problem.respond(exchange, 426, "this server speaks version 13 of WebSocket", headers=headers)
        return True
    if exchange.version != "2" and _KEY.fullmatch(exchange.headers.get(b"sec-websocket-key", b"")) is None:
        problem.respond(exchange, 400, "Sec-WebSocket-Key must be 16 bytes in base64")
        return True
    return False


class WebSocketCall(AppCall):
    """One WebSocket. It ends when the application has returned and the closing handshake is over."""

    __slots__ = (
        "_alive",
        "_closed_by_app",
        "_code",
        "_greeted",
        "_inbox",
        "_inbox_bytes",
        "_leaving",
        "_limits",
        "_partial",
        "_partial_bytes",
        "_reason",
        "_timer",
        "_told",
        "_wire",
        "state",
    )

    _wire: Connection

    def __init__(self, exchange: Exchange, loop: asyncio.AbstractEventLoop, limits: WebSocketLimits) -> None:
        super().__init__(exchange, loop)
        self.state = CONNECTING
        self._limits = limits
        self._greeted = False
        self._inbox: deque[tuple[Message, int]] = deque()
        self._inbox_bytes = 0
        self._partial: io.StringIO | io.BytesIO | None = None
        """The fragments of the current message, if it has more than one."""
        self._partial_bytes = 0
        self._alive = True
        """Something has come from the client since the last ping."""
        self._timer: asyncio.TimerHandle | None = None
        self._code, self._reason = int(CloseReason.ABNORMAL_CLOSURE), ""
        self._closed_by_app = False
        self._leaving = False
        self._told = False
        """The application has received the disconnect."""
        exchange.notify = self._notified

    @property
    def left(self) -> bool:
        return self._told or self.exchange.gone

    # The application's side

    async def receive(self) -> Message:
        if not self._greeted:
            self._greeted = True
            return {"type": "websocket.connect"}
        while not self._inbox:
            if self.exchange.gone or self.state is CLOSING or self.state is CLOSED:
                self._told = True
                return {"type": "websocket.disconnect", "code": self._code, "reason": self._reason}
            await self._changed()
        message, cost = self._inbox.popleft()
        full = self._inbox_bytes >= self._limits.inbox_bytes
        self._inbox_bytes -= cost
        if full:
            self._loop.call_soon(self._notified)  # what was held back
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self.state is OPEN and not self.exchange.gone:
            await self._send_open(kind, message)
        elif self.state is CONNECTING and not self.exchange.gone:
            await self._send_connecting(kind, message)
        elif self._closed_by_app:
            raise RuntimeError(f"{kind} was sent after the WebSocket was closed")
        else:
            raise ClientGone(f"the client has closed the WebSocket ({self._code})")

    async def _send_open(self, kind: str, message: Message) -> None:
        if kind == "websocket.send":
            data = message.get("bytes")
            if data is not None:
                self._transmit(BytesMessage(data=bytes(data)))
            else:
                self._transmit(TextMessage(data=message["text"]))
            while not self.exchange.writable and self.state is OPEN:
                await self._changed()
        elif kind == "websocket.close":
            self._closed_by_app = True
            self._inbox.clear()
            code = message.get("code")
            self._close(1000 if code is None else code, message.get("reason") or "")
        else:
            raise RuntimeError(f"{kind} was sent while the WebSocket is open")

    async def _send_connecting(self, kind: str, message: Message) -> None:
        if kind == "websocket.http.response.body":
            await self._answer_body(message)
            if self.exchange.stage is DONE:
                self._closed_by_app = True
                self._move(CLOSED)
        elif kind == "websocket.http.response.start":
            self._answer_start(message)
        elif self._head is not None or self.exchange.stage is not WAITING:
            raise RuntimeError(f"{kind} was sent after websocket.http.response.start")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._closed_by_app = True
            problem.respond(self.exchange, 403, "the application does not accept this WebSocket")
            self._move(CLOSED)
        else:
            raise RuntimeError(f"{kind} was sent before websocket.accept")

    def _accept(self, message: Message) -> None:
        request = self.exchange.headers
        pairs: list[tuple[bytes, bytes]] = []
        if self.exchange.version != "2":
            digest = hashlib.sha1(request[b"sec-websocket-key"] + _GUID, usedforsecurity=False).digest()
            pairs.append((b"Sec-WebSocket-Accept", base64.b64encode(digest)))
        if message.get("subprotocol") is not None:
            pairs.append((b"Sec-WebSocket-Protocol", message["subprotocol"].encode("latin-1")))
        offers = request.get(b"sec-websocket-extensions", b"") if self._limits.compress else b""
        granted = negotiate(offers, self._limits.message_bytes)
        if granted is not None:
            pairs.append((b"Sec-WebSocket-Extensions", granted[1]))
        fields = Fields.of([*pairs, *message.get("headers", ())])
        self._wire = Connection(ConnectionType.SERVER, [granted[0]] if granted else [])
        self.exchange.tunnel(fields)
        self._move(OPEN)
        if self._limits.ping_interval_s:
            self._timer = self._loop.call_later(self._limits.ping_interval_s, self._ping)
        self._loop.call_soon(self._notified)  # frames may have come with the handshake
        if self._leaving:
            self._loop.call_soon(self.leave)

    async def conclude(self, error: BaseException | None) -> str:
        if self.state is CONNECTING:
            return self._conclude_connecting(error)
        if self.state is OPEN:
            if self.exchange.gone:
                self._ended(CloseReason.ABNORMAL_CLOSURE)
            else:
                self._inbox.clear()
                self._close(*((1000, "") if error is None else (1011, "internal error")))
        if isinstance(error, asyncio.CancelledError) and self.state is CLOSING:
            self._give_up()
        while self.state is CLOSING:
            await self._changed()
        return ""

    def _conclude_connecting(self, error: BaseException | None) -> str:
        self._move(CLOSED)
        if self.exchange.stage is DONE:
            return ""
        if isinstance(error, asyncio.CancelledError):
            problem.respond(self.exchange, 503, "the server is stopping; try again")
        else:
            problem.respond(self.exchange, 500, "the application failed; see the server's log")
        return "returned without accepting or refusing the WebSocket"

    def leave(self) -> None:
        self._leaving = True  # if it is not open yet: as soon as it is
        if self.state is OPEN and not self.exchange.gone:
            self._close(CloseReason.SERVICE_RESTART, "the server is restarting")

    # The client's side

    def _notified(self) -> None:
        if self.state is OPEN or self.state is CLOSING:
            self._pump()
        super()._notified()

    def _held(self) -> bool:
        """Whether the client has to wait: for the application, or because it does not take what we send."""
        return self._inbox_bytes >= self._limits.inbox_bytes or not self.exchange.writable

    def _pump(self) -> None:
        exchange, wire = self.exchange, self._wire
        if exchange.gone:
            self._ended(CloseReason.ABNORMAL_CLOSURE)
        while self.state is not CLOSED and not self._held():
            event = next(wire.events(), None)
            if event is not None:
                self._handle(event)
            elif data := exchange.take():
                self._alive = True
                wire.receive_data(data)
            elif exchange.ended:  # left without a close
                self._ended(CloseReason.ABNORMAL_CLOSURE)
                exchange.finish()
            else:
                return

    def _handle(self, event: Event) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            if self.state is OPEN:
                self._gather(event)
        elif isinstance(event, Ping):
            if self.state is OPEN:
                self._transmit(event.response())
        elif isinstance(event, CloseConnection):
            self._closed_by_client(event)
        else:
            assert isinstance(event, Pong)  # it has come: that is all

    def _gather(self, event: TextMessage | BytesMessage) -> None:
        data = cast("str | bytes", event.data)
        self._partial_bytes += _size(data)
        if self._partial_bytes > self._limits.message_bytes:
            self._fail(CloseReason.MESSAGE_TOO_BIG, f"a message may have {self._limits.message_bytes} bytes")
        elif not event.message_finished:
            self._put_aside(data)
        else:
            cost = self._partial_bytes + _MESSAGE_COST_BYTES
            self._inbox_bytes += cost
            kind = "text" if isinstance(event, TextMessage) else "bytes"
            self._inbox.append(({"type": "websocket.receive", kind: self._complete(data)}, cost))

    def _put_aside(self, data: str | bytes) -> None:
        """A buffer, not a list: millions of tiny fragments would weigh twenty times their bytes as objects."""
        if self._partial is None:
            self._partial = io.StringIO(newline="") if isinstance(data, str) else io.BytesIO()
        self._partial.write(data)  # type: ignore[arg-type]  # wsproto: all pieces of a message are of one type

    def _complete(self, data: str | bytes) -> str | bytes:
        self._partial_bytes = 0
        if self._partial is None:
            return data
        self._put_aside(data)
        partial, self._partial = self._partial, None
        return partial.getvalue()

    def _closed_by_client(self, event: CloseConnection) -> None:
        """The client's close, its answer to ours, or a violation that wsproto found: it looks the same."""
        if self._wire.state is ConnectionState.REMOTE_CLOSING:
            self._transmit(event.response())
        elif self._wire.state is ConnectionState.OPEN:
            self._fail(event.code, event.reason or "")
            return
        self._ended(event.code, event.reason or "")
        self.exchange.finish()

    def _fail(self, code: int, reason: str) -> None:
        """Close without waiting for the client's answer (RFC 6455 7.1.7)."""
        if self._wire.state is ConnectionState.OPEN:
            self._transmit(CloseConnection(code=code, reason=reason))
        self._ended(code, reason)
        self.exchange.finish()

    def _close(self, code: int, reason: str) -> None:
        self._transmit(CloseConnection(code=code, reason=reason))
        self._code, self._reason = int(code), reason
        self._move(CLOSING)
        self._timer = self._loop.call_later(self._limits.close_s, self._give_up)
        self._partial, self._partial_bytes, self._inbox_bytes = None, 0, 0
        self._loop.call_soon(self._notified)

    def _ended(self, code: int, reason: str = "") -> None:
        if self.state is OPEN:  # else the code of our close stands
            self._code, self._reason = int(code), reason
        self._move(CLOSED)

    def _transmit(self, event: Event) -> None:
        self.exchange.send(self._wire.send(event))

    def _move(self, state: WebSocketState) -> None:
        assert state in MOVES[self.state] or state is self.state, f"{self.state} cannot become {state}"
        self.state = state
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Time

    def _ping(self) -> None:
        """A client that is not read from cannot be judged: it gets no ping then."""
        self._alive = self._held()
        if not self._alive:
            self._transmit(Ping())
        self._timer = self._loop.call_later(self._limits.ping_timeout_s, self._judge)

    def _judge(self) -> None:
        if not self._alive and not self._held():
            self._fail(CloseReason.INTERNAL_ERROR, "no answer to a ping")
            super()._notified()
            return
        pause_s = max(self._limits.ping_interval_s - self._limits.ping_timeout_s, 0.0)
        self._timer = self._loop.call_later(pause_s, self._ping)

    def _give_up(self) -> None:
        self._move(CLOSED)
        self.exchange.finish()
        super()._notified()


def _size(data: str | bytes) -> int:
    """Bytes on the wire, inflated."""
    return len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)


NAME: Final = "permessage-deflate"
_LEVEL: Final = 1  # the loop waits meanwhile: 3x faster than 6, for answers a tenth longer
_MEMORY_LEVEL: Final = 5
_WINDOW_BITS_OUT_MAX: Final = 12  # with the memory level 32 KiB a connection instead of 256
_TAIL: Final = b"\x00\x00\xff\xff"

_PARAMETER: Final = re.compile(
    r"(server_no_context_takeover|client_no_context_takeover)"
    r"|(server_max_window_bits)=\"?(9|1[0-5])\"?|(client_max_window_bits)(?:=\"?([89]|1[0-5])\"?)?"
)


class Deflate(Extension):
    """One connection's compression, both ways."""

    name = NAME

    def __init__(self, parameters: dict[str, int], message_bytes_max: int) -> None:
        self._out_bits = min(parameters.get("server_max_window_bits", 15), _WINDOW_BITS_OUT_MAX)
        self._out_fresh = "server_no_context_takeover" in parameters
        self._in_fresh = "client_no_context_takeover" in parameters
        self._max = message_bytes_max
        self._deflater: Any = None
        self._inflater: Any = None
        self._data_frame = False
        """Whether the current frame carries data."""
        self._compressed: bool | None = None
        """Whether the current message is; None between messages."""
        self._inflated = 0
        """Bytes of the current message so far."""
        self._final_seen = False

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # a server offers nothing

    # From the client. The signatures are wsproto's: ARG002

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,  # noqa: ARG002
    ) -> CloseReason | RsvBits:
        self._data_frame = not opcode.iscontrol()
        if rsv.rsv1 and (not self._data_frame or opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR
        if self._data_frame and self._compressed is None:
            self._compressed = rsv.rsv1
            self._inflated = 0
            self._final_seen = False
            if rsv.rsv1 and self._inflater is None:
                self._inflater = zlib.decompressobj(-15)  # reads what any smaller window wrote
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        data: bytes,
    ) -> bytes | CloseReason:
        return self._inflate(data) if self._data_frame and self._compressed else data

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        fin: bool,
    ) -> bytes | CloseReason | None:
        if not fin or not self._data_frame:
            return None
        compressed, self._compressed = self._compressed, None
        if not compressed:
            return None
        rest = self._inflate(_TAIL)
        if self._in_fresh:
            self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        try:
            found: bytes = self._inflater.decompress(data, self._max - self._inflated + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._inflated += len(found)
        if self._inflated > self._max:
            return CloseReason.MESSAGE_TOO_BIG
        return found if not self._inflater.eof else self._inflate_behind_final(found)

    def _inflate_behind_final(self, found: bytes) -> bytes | CloseReason:
        """A message may have a final block (RFC 7692 7.2.3.5). One: each costs a new inflater, and clients do not send two."""
        rest = self._inflater.unused_data
        self._inflater = zlib.decompressobj(-15)
        if self._final_seen:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._final_seen = True
        more = self._inflate(rest)
        return more if isinstance(more, CloseReason) else found + more

    # To the client: always whole messages in one frame

    def frame_outbound(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        data: bytes,
        fin: bool,  # noqa: ARG002
    ) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol():
            return rsv, data
        deflater = self._deflater or zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._out_bits, _MEMORY_LEVEL)
        self._deflater = None if self._out_fresh else deflater
        return RsvBits(True, rsv.rsv2, rsv.rsv3), (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def negotiate(offers: bytes, message_bytes_max: int) -> tuple[Deflate, bytes] | None:
    """The first acceptable offer of a Sec-WebSocket-Extensions header, and the answer to it; None if there is none."""
    for offer in offers.decode("latin-1").split(","):
        name, *rest = (part.strip() for part in offer.split(";"))
        parameters = _read_parameters(rest) if name == NAME else None
        if parameters is not None:
            return Deflate(parameters, message_bytes_max), _render(parameters).encode()
    return None


def _read_parameters(parts: list[str]) -> dict[str, int] | None:
    """An unknown, repeated or invalid one declines the offer (RFC 7692 5.1); client_max_window_bits without value is 15."""
    found: dict[str, int] = {}
    for part in parts:
        match = _PARAMETER.fullmatch(part)
        if match is None:
            return None
        flag, server, server_bits, client, client_bits = match.groups()
        name = flag or server or client
        if name in found:
            return None
        found[name] = int(server_bits or client_bits or 15)
    return found


def _render(parameters: dict[str, int]) -> str:
    """Grant the requested parameters. The client's window may have any size, so it needs no answer."""
    granted = [
        f"{name}={value}" if name == "server_max_window_bits" else name
        for name, value in parameters.items()
        if name != "client_max_window_bits"
    ]
    return "; ".join([NAME, *granted])
