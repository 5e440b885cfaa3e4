"""HTTP/1.1 as exchanges: bodies and answers stream, one request of a connection at a time.

Theory. The head of a request makes an exchange; the target gets it at once, with whatever of the body came along. Until
the answer is out, what a pipelining client sends ahead waits in the reader, and then in the kernel. `phase` says what
the client owes us (engine.py), `_exchange` what we owe the client:

  IDLE, no exchange          between requests
  BODY, exchange             its body is on its way; held while the consumer does not take it
  IDLE, exchange             the body is here, an answer is due; or a tunnel
  HEAD, exchange, held       the same, and something of the next request waits
  BODY, no exchange          answered before its body had come: the rest is skipped, if it is small

A client that closes its sending half has mostly left, as TCP does not tell that apart from closing; but `nc`, scripts and
some proxies then wait for their answer. So its exchange is marked (the queue drops what nobody works on yet), and lost
when its answer makes no progress for a second or two. Behind half a body, in a tunnel and under TLS it has left at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, cast

from headrace.http import consumers
from headrace.http.engine import BODY, HEAD, IDLE, READING, Phase, Service
from headrace.http.exchange import DONE, TUNNEL
from headrace.http.http1_answers import SKIP_BYTES_MAX, AnsweringConnection
from headrace.http.http1_exchange import StreamedExchange, offered_upgrade
from headrace.http.liveness import peer_present
from headrace.http.parse import Refusal

_UNTAKEN_BYTES_MAX: Final = 65_536  # of a body or a tunnel; beyond, nothing is read until the consumer takes it
_HALF_CLOSED_S: Final = 1.5  # the clock ticks once a second: one to two seconds


class StreamedConnection(AnsweringConnection):
    """Makes exchanges and gives them to `service.target`, one at a time.

    Invariant: while an answer is due, nothing of the next request is read but what came in one piece with this one's end.
    """

    __slots__ = ("_address", "_closed_half_bytes", "_closed_half_s", "_in_target", "_peer_port", "_skip_left")

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._in_target = False
        self._skip_left = 0
        """Above 0: the body that is arriving has been answered, and so many bytes of it may still come."""
        self._closed_half_s = 0.0
        """When the answer to a client that has closed its sending half last made progress."""
        self._closed_half_bytes = 0
        self._peer_port = 0
        self._address: tuple[str, int] = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and self.service.http2 is not None and tls.selected_alpn_protocol() == "h2":
            successor = self.service.http2(self.service)
            cast("asyncio.Transport", transport).set_protocol(successor)
            successor.connection_made(transport)
            return
        super().connection_made(transport)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._peer_port = peer[1] if isinstance(peer, tuple) else 0
        self._address = (own[0], own[1]) if isinstance(own, tuple) else (str(own or ""), 0)

    # Requests in

    def proceed(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            if self._exchange is not None:
                self._continue(self._exchange)
            elif not self._skip_left or self._skip():
                self._take_requests()
        except Refusal as refusal:
            self.refuse(refusal)

    def _take_requests(self) -> None:
        reader = self._reader
        for _ in range(self.service.limits.pipeline_max):
            if self.congested:
                self._stand(HEAD)  # the client leaves its answers untaken; room wakes
                return
            exchange = StreamedExchange(self)
            if not reader.next_head(exchange):
                self._listen(HEAD if reader.mid_head else IDLE)
                return
            self._begin(exchange)
            if self._exchange is not None or self._skip_left or self.phase not in READING:
                return
            if not reader.buffer:
                self._listen(IDLE)
                return
        self._stand(HEAD)  # this turn's share is used up
        self.wake()

    def _begin(self, exchange: StreamedExchange) -> None:
        exchange.version = "1.1" if exchange.http11 else "1.0"
        exchange.secure = self.secure
        exchange.peer = self.peer
        exchange.peer_port = self._peer_port
        exchange.server = self._address
        exchange.upgrade = offered_upgrade(exchange) if b"upgrade" in exchange.headers else b""
        exchange.expects = exchange.expects_continue
        exchange.began_s = time.monotonic()
        if exchange.length:
            self._read_body(exchange)
        self._dispatch(exchange)

    def _dispatch(self, exchange: StreamedExchange) -> None:
        self.since_s = self.service.now_s
        self._exchange = exchange
        self._in_target = True
        consumers.give(self.service, exchange)
        self._in_target = False
        if self._exchange is not None:
            self._settle(exchange)

    def _continue(self, exchange: StreamedExchange) -> None:
        """Input of the current exchange; or of the next, which has to wait."""
        if exchange.stage is TUNNEL:
            exchange.add(self._reader.buffer)
            self._reader.clear()
        elif not exchange.whole:
            self._read_body(exchange)
        else:
            self._stand(HEAD)
            return
        self._settle(exchange)
        consumers.notify(self.service, exchange)

    def _read_body(self, exchange: StreamedExchange) -> None:
        pieces: list[bytes] = []
        exchange.whole = self._reader.read_body(pieces)
        if pieces:
            exchange.expects = False  # a client need not wait to be invited
            exchange.add(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _settle(self, exchange: StreamedExchange) -> None:
        if exchange.stage is not TUNNEL and exchange.whole:
            if self._reader.buffer:
                self._stand(HEAD)
            else:
                self._listen(IDLE)
            return
        self.move(IDLE if exchange.stage is TUNNEL else BODY)
        if exchange.untaken >= _UNTAKEN_BYTES_MAX:
            self.hold()
        else:
            self.release()

    def _listen(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.move(phase)
        if not self.reading:
            self.release()

    def _stand(self, phase: Phase) -> None:
        self.move(phase)
        self.hold()

    def _skip(self) -> bool:
        """Drop what arrives of a body whose answer is out; whether the next request may be read now."""
        pieces: list[bytes] = []
        whole = self._reader.read_body(pieces)
        self._skip_left -= sum([len(piece) for piece in pieces])
        if not whole and self._skip_left > 0:
            return False
        self._skip_left = 0
        if not whole or self.service.draining:
            self._hang_up(untidy=not whole)
            return False
        return True

    # Answers out

    def _answered(self, exchange: StreamedExchange) -> None:
        self._exchange = None
        self.since_s = self.service.now_s
        if not exchange.keep_alive or self.service.draining:
            self._hang_up(untidy=not exchange.whole, delimited=exchange.delimited)
        elif not exchange.whole:
            self._begin_skip()
        elif self._in_target:
            return  # `_take_requests` goes on
        elif self._reader.buffer:
            self.wake()
        else:
            self._listen(IDLE)

    def _begin_skip(self) -> None:
        if self._reader.body_left > SKIP_BYTES_MAX:
            self._hang_up(untidy=True)
            return
        self._skip_left = SKIP_BYTES_MAX
        self._listen(BODY)

    # The end

    def refuse(self, refusal: Refusal) -> None:
        exchange, self._exchange = self._exchange, None
        self._reader.clear()
        self.service.refused += 1
        if self._skip_left:
            self._skip_left = 0
            self._hang_up(untidy=True)
        elif exchange is not None and exchange.answered:
            self.cut(exchange)  # a second answer would be taken for a part of the first
            consumers.lose(exchange)
        else:
            self._answer_refusal(refusal)
            if exchange is not None:
                exchange.status = refusal.status
                consumers.lose(exchange)

    def busy(self) -> bool:
        """Not while a body is awaited, so that it is judged; but a two-way stream may be silent for as long as it likes."""
        exchange = self._exchange
        return exchange is not None and (self.phase is not BODY or exchange.expects or exchange.answered)

    def half_closed(self) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()
        elif exchange.stage is DONE:
            exchange.keep_alive = False  # its file is on its way still
        elif not exchange.whole or exchange.upgrade or self.secure:
            self._left(exchange)
        else:
            exchange.keep_alive = False
            self._half_close(exchange)

    def _half_close(self, exchange: StreamedExchange) -> None:
        exchange.half_closed = True
        self._closed_half_s, self._closed_half_bytes = self.service.now_s, self._written_bytes
        consumers.notify(self.service, exchange)

    def _waits_in_vain(self, now_s: float) -> bool:
        """Whether a client that has closed its sending half has got nothing for so long that it is taken to have left."""
        if self._written_bytes != self._closed_half_bytes:  # if it has left, writing fails
            self._closed_half_s, self._closed_half_bytes = now_s, self._written_bytes
        return now_s - self._closed_half_s >= _HALF_CLOSED_S and not self.transport.get_write_buffer_size()

    def _left(self, exchange: StreamedExchange) -> None:
        if exchange.stage is TUNNEL:
            exchange.whole = True
        self.cut(exchange)
        consumers.lose(exchange)

    def lost(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._stop_pump()
        self._reader.clear()
        if exchange is not None:
            if exchange.stage is TUNNEL:
                exchange.whole = True
            consumers.lose(exchange)

    def drain(self) -> None:
        if self._exchange is None:  # else its answer says that it is the last
            super().drain()

    def advance(self, now_s: float) -> None:
        exchange = self._exchange
        if self._pump is not None:
            self._judge_taking(now_s, self._written_bytes - self.transport.get_write_buffer_size())
        elif exchange is not None and exchange.half_closed and self._waits_in_vain(now_s):
            self._left(exchange)
        else:
            super().advance(now_s)
            self._look_for_end()

    def _look_for_end(self) -> None:
        """A transport that does not read does not notice that the client has closed."""
        exchange = self._exchange
        if exchange is not None and not self.reading and not exchange.half_closed and not peer_present(self._fd):
            self._half_close(exchange)
