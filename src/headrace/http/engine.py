"""A connection: its phases, its deadlines, its flow control. What a request is, and how it is answered, is its subclass's.

Theory. A connection is always in one phase, and `MOVES` says which may follow. Deadlines need no timers: the listener
looks at every connection once a second and compares two numbers (10,000 idle connections: 0.3 ms); a request costs
none. Both directions push back: a client that does not take its answers, or has too many requests waiting, is not read
from.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeAlias, cast

from headrace.http.answers import AnswerWriter
from headrace.http.exchange import Exchange, Target
from headrace.http.limits import Limits
from headrace.http.liveness import has_input, peer_present
from headrace.http.messages import Handler, Request
from headrace.http.parse import HeadParser, Refusal

ErrorBody: TypeAlias = Callable[[int, str], tuple[bytes, bytes]]
"""(status, reason) → (content type, body) of an answer that the engine gives itself."""

INTERNAL: Final = "an internal error; the log has more"
"""The reason of a 500: what went wrong is nothing for clients."""


def plain_error_body(status: int, reason: str) -> tuple[bytes, bytes]:
    return b"text/plain; charset=utf-8", f"{status} {reason}\n".encode()


class Phase(Enum):
    """Where a connection stands."""

    FRESH = auto()
    """Connected; not a byte yet."""
    IDLE = auto()
    """Between requests."""
    HEAD = auto()
    """A part of a request's head has arrived."""
    BODY = auto()
    """A head has arrived, and its body has not, or not all of it."""
    LAST = auto()
    """Takes no more requests; closes after the answers that are due."""
    LINGER = auto()
    """Has answered; drops input for a moment, since closing over unread input resets the answer away."""
    CLOSING = auto()
    """Closes as soon as the client has taken what was written."""
    CLOSED = auto()


# Names of their own: to fetch a member from its Enum costs 70 ns in Python 3.11, and the phase is asked for often.
FRESH, IDLE, HEAD, BODY = Phase.FRESH, Phase.IDLE, Phase.HEAD, Phase.BODY
LAST, LINGER, CLOSING, CLOSED = Phase.LAST, Phase.LINGER, Phase.CLOSING, Phase.CLOSED

READING: Final = (IDLE, FRESH, HEAD, BODY)  # a tuple: the hash of an Enum is slow
_ENDING: Final = frozenset({CLOSING, CLOSED})
MOVES: Final[dict[Phase, frozenset[Phase]]] = {
    FRESH: frozenset({IDLE, HEAD, BODY, LAST}) | _ENDING,
    IDLE: frozenset({HEAD, BODY, LAST}) | _ENDING,
    HEAD: frozenset({IDLE, BODY, LAST}) | _ENDING,
    BODY: frozenset({IDLE, HEAD, LAST}) | _ENDING,
    LAST: frozenset({LINGER}) | _ENDING,
    LINGER: _ENDING,
    CLOSING: frozenset({CLOSED}),
    CLOSED: frozenset(),
}


class RateWindow:
    """Judges whether bytes move fast enough, over whole windows."""

    __slots__ = ("_bytes", "since_s")

    def __init__(self, *, now_s: float, total_bytes: int) -> None:
        self.since_s = now_s
        self._bytes = total_bytes

    def is_too_slow(self, limits: Limits, *, now_s: float, total_bytes: int) -> bool:
        if now_s - self.since_s < limits.rate_window_s:
            return False
        moved = total_bytes - self._bytes
        self.since_s, self._bytes = now_s, total_bytes
        return moved < limits.rate_bytes_s * limits.rate_window_s


def _no_handler(request: Request) -> None:
    raise AssertionError(f"{request.method} on a buffered connection, whose listener has no handler")


def _no_target(exchange: Exchange) -> None:
    raise AssertionError(f"{exchange.method} on a streamed connection, whose listener has no target")


class Service:
    """What the connections of one listener share. `now_s` is coarse on purpose: set once a second by the listener."""

    __slots__ = (
        "accepted",
        "answers",
        "connections",
        "draining",
        "error_body",
        "error_fields",
        "handler",
        "http2",
        "limits",
        "loop",
        "now_s",
        "on_closed",
        "parser",
        "refused",
        "requests",
        "target",
    )

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        limits: Limits,
        target: Target | None = None,
        http2: Callable[[Service], Connection] | None = None,
        error_body: ErrorBody = plain_error_body,
        error_fields: tuple[tuple[bytes, bytes], ...] = (),
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            handler: what buffered connections call with whole requests.
            target: what streamed connections call with exchanges. One of the two.
            http2: makes the connection of a client that has chosen `h2` by ALPN.
        """
        self.handler = handler or _no_handler
        self.target = target or _no_target
        self.http2 = http2
        self.limits = limits
        self.error_body = error_body
        self.error_fields = error_fields
        self.on_closed = on_closed
        self.loop = asyncio.get_running_loop()
        self.parser = HeadParser(limits)
        self.answers = AnswerWriter()
        self.connections: set[Connection] = set()
        self.draining = False
        self.now_s = 0.0
        self.accepted = 0
        self.requests = 0
        self.refused = 0

    def advance(self, *, now_s: float, unix_s: float) -> None:
        """Tell the time: ends connections whose client is too slow, renews the Date."""
        self.now_s = now_s
        self.answers.refresh(unix_s)
        idle_since_s = now_s - self.limits.idle_s
        for connection in tuple(self.connections):
            # Nearly all are idle and may be so a little longer: seen here, they cost 0.1 µs each instead of 0.5.
            if connection.phase is not IDLE or connection.congested or connection.since_s <= idle_since_s:
                connection.advance(now_s)

    def drain(self) -> None:
        """Let every connection end: idle ones at once, the others after the answers that are due."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.drain()


class Connection(asyncio.Protocol, ABC):
    """One client. Subclasses read requests in `proceed`, refuse in `refuse`, and learn of the end in `lost`.

    Invariant: `phase` only moves along MOVES; from LAST on no byte of input has any effect.
    """

    __slots__ = (
        "_fd",
        "_received_bytes",
        "_sending",
        "_taking",
        "_written_bytes",
        "congested",
        "dropped_input",
        "peer",
        "phase",
        "reading",
        "secure",
        "service",
        "since_s",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self.service = service
        self.phase = FRESH
        self.peer = ""
        self.secure = False
        self._fd = -1
        self.reading = True
        self.congested = False
        """The client leaves so much of its answers untaken that its requests have to wait."""
        self.dropped_input = False
        """There was input that nobody will read: a plain close would reset the connection, the answer with it."""
        self.since_s = service.now_s
        """When what the connection waits for began to be waited for."""
        self._received_bytes = 0
        self._written_bytes = 0
        self._sending: RateWindow | None = None
        self._taking: RateWindow | None = None

    # What a subclass decides

    @abstractmethod
    def proceed(self, data: bytes) -> None:
        """Input has arrived; or, when empty, there is room again for input that has arrived before."""

    @abstractmethod
    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, after the answers that are due, and take no more requests."""

    @abstractmethod
    def lost(self) -> None:
        """The client has left; nothing can be answered any more."""

    @abstractmethod
    def half_closed(self) -> None:
        """The client will send nothing more; it may have left, or wait for the answers that are due."""

    @abstractmethod
    def busy(self) -> bool:
        """Whether an answer is due."""

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = self.transport = cast("asyncio.Transport", transport)  # uvloop's is one, though no subclass
        transport.set_write_buffer_limits(high=self.service.limits.write_buffer_bytes)
        self._fd = transport.get_extra_info("socket").fileno()
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else "unix"
        self.secure = transport.get_extra_info("ssl_object") is not None
        self.service.connections.add(self)
        self.service.accepted += 1

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self.phase in READING:
            self.proceed(data)
        else:
            self.dropped_input = True

    def eof_received(self) -> bool:
        if self.phase in READING:
            self.move(LAST)
            self.half_closed()
        return self.phase is LAST and not self.secure

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self.move(CLOSED)
        self.service.connections.discard(self)
        self.lost()
        self.service.on_closed()

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._taking = None  # nobody looks between two congestions: the next is judged by a window of its own
        self.wake()

    # For the subclass

    def move(self, phase: Phase) -> None:
        if phase is not self.phase:
            assert phase in MOVES[self.phase], f"{self.phase} cannot become {phase}"
            self.phase = phase
            self.since_s = self.service.now_s
            self._sending = None

    def write(self, data: bytes) -> None:
        self._written_bytes += len(data)
        self.transport.write(data)

    def hold(self) -> None:
        """Stop reading: the client has to wait."""
        if self.reading:
            self.reading = False
            self.transport.pause_reading()

    def wake(self) -> None:
        """Go on with input that was held back, in the loop's next turn: never inside a handler's call."""
        if not self.reading:
            self.service.loop.call_soon(self._proceed_held)

    def release(self) -> None:
        """Read again."""
        if not self.reading and self.phase not in _ENDING:
            self.reading = True
            self.since_s = self.service.now_s
            self._sending = None
            self.transport.resume_reading()

    def _proceed_held(self) -> None:
        if not self.reading and self.phase in READING:
            self.proceed(b"")

    def client_present(self) -> bool:
        return self.phase not in _ENDING and not self.transport.is_closing() and peer_present(self._fd)

    def linger(self) -> None:
        """All is answered: say so to the client, drop what it still sends, and close when it does."""
        self.move(LINGER)
        self.release()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self) -> None:
        if self.phase not in _ENDING:
            self.move(CLOSING)
            self.transport.close()

    # From the listener

    def drain(self) -> None:
        """Close if nothing is due; a request that is in the kernel already is due."""
        if self.phase in (FRESH, IDLE):
            if self.busy():
                self.move(LAST)
            elif not has_input(self._fd):
                self.close()

    def idle_for_s(self) -> float:
        """How long the client has kept this connection for nothing; 0 while something is due."""
        return self.service.now_s - self.since_s if self.phase is IDLE and not self.busy() else 0.0

    def advance(self, now_s: float) -> None:
        """End the connection if its client keeps it waiting for too long."""
        untaken = self.transport.get_write_buffer_size()
        if untaken:
            self._judge_taking(now_s, self._written_bytes - untaken)
            return
        self._taking = None
        if self.phase is LINGER or self.phase is CLOSING:
            if now_s - self.since_s >= self.service.limits.linger_s:
                self.transport.abort()
        elif self.reading:
            self._judge_sending(now_s, now_s - self.since_s)

    def _judge_taking(self, now_s: float, taken_bytes: int) -> None:
        if self._taking is None:
            self._taking = RateWindow(now_s=now_s, total_bytes=taken_bytes)
        elif self._taking.is_too_slow(self.service.limits, now_s=now_s, total_bytes=taken_bytes):
            self.transport.abort()

    def _judge_sending(self, now_s: float, waited_s: float) -> None:
        limits = self.service.limits
        if self.phase is IDLE:
            if waited_s >= limits.idle_s and not self.busy():
                self.close()
        elif self.phase is FRESH:
            if waited_s >= limits.headers_s:
                self.close()
        elif self.phase is HEAD:
            if waited_s >= limits.headers_s:
                self.refuse(Refusal(408, f"the headers took longer than {limits.headers_s:g} s"))
        elif self.phase is BODY and not self.busy():  # it may be waiting to be invited (Expect)
            self._judge_body(now_s)

    def _judge_body(self, now_s: float) -> None:
        if self._sending is None:
            self._sending = RateWindow(now_s=now_s, total_bytes=self._received_bytes)
        elif self._sending.is_too_slow(self.service.limits, now_s=now_s, total_bytes=self._received_bytes):
            self.refuse(Refusal(408, f"the body came slower than {self.service.limits.rate_bytes_s} bytes/s"))
