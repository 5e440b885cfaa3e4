"""HTTP/2 as exchanges: many requests of one connection at a time, each a stream (`h2_exchange.py`). RFC = RFC 9113.

Theory. The protocol is the `h2` library's; this is what becomes of its events. Input reaches it frame by frame
(`h2_reader.py`); a request reaches its target when the frames that came with it have been looked at, so that its body
comes along, and one that is cancelled in the same packet reaches nobody. Output is gathered and written once a turn of
the loop. What waits for a window or for the client stays with its stream; streams send in turns, a frame each
(`h2_sender.py`). An error ends its stream (StreamFault), or all (ConnectionFault, and whatever the library raises).

A connection with streams is in phase BODY, without in IDLE or HEAD. It ends by GOAWAY: at once after a fault, else after
its streams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from headrace.http import consumers
from headrace.http import h2_frames as frames
from headrace.http.engine import BODY, CLOSED, CLOSING, HEAD, IDLE, LAST, LINGER, READING, Connection, Service
from headrace.http.exchange import DONE, WAITING
from headrace.http.fields import Fields
from headrace.http.h2_budget import CUT_STREAMS_MAX, CUT_STREAMS_PER_S, Budget
from headrace.http.h2_exchange import Http2Exchange
from headrace.http.h2_fields import Pairs, check_trailers, read_request
from headrace.http.h2_frames import Code, ConnectionFault, StreamFault
from headrace.http.h2_protocol import STREAMS_MAX, TABLE_BYTES_MAX, new_protocol
from headrace.http.h2_reader import FrameReader
from headrace.http.h2_sender import Sender
from headrace.http.liveness import has_input
from headrace.http.parse import Refusal

_log: Final = logging.getLogger("headrace.http")

_OVER: Final = (LAST, LINGER, CLOSING, CLOSED)


class Http2Connection(Connection):
    """See the module.

    Invariant: `streams` has every stream on which either side may still send, at most STREAMS_MAX of them.
    """

    __slots__ = (
        "_cuts",
        "_fresh",
        "_h2",
        "_promised",
        "_reader",
        "_touched",
        "peer_port",
        "sender",
        "server",
        "streams",
    )

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.streams: dict[int, Http2Exchange] = {}
        self._h2 = new_protocol(service.limits)
        self.sender = Sender(self._h2, self, self._flush)
        self.peer_port = 0
        self.server = ("", 0)
        self._reader = FrameReader(self._h2, self, self.streams, service.limits, now_s=service.now_s)
        self._fresh: list[Http2Exchange] = []  # read in this turn, not yet given to the target
        self._touched: list[Http2Exchange] = []  # to be notified in this turn
        self._cuts = Budget(CUT_STREAMS_MAX, CUT_STREAMS_PER_S, now_s=service.now_s)
        self._promised: int | None = None  # the last stream that we will answer: GOAWAY has said so

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer, name = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.peer_port = peer[1] if isinstance(peer, tuple) else 0
        self.server = (str(name[0]), int(name[1])) if isinstance(name, tuple) else (str(name or ""), 0)
        self.sender.flush()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.sender.waiting:
            self.sender.schedule()

    def proceed(self, data: bytes) -> None:
        reader = self._reader
        reader.now_s = self.service.now_s
        self.sender.scheduled = True  # all that this turn brings is written at its end
        try:
            reader.feed(data, blocks_max=self.service.limits.pipeline_max)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        if self._fresh:
            self._dispatch()
        if self._touched:
            self._notify()
        self._flush()
        if self.phase is not BODY:
            self._settle_phase()
        if not self.reading or self.congested or reader.waiting:
            self._settle_reading()

    def _settle_phase(self) -> None:
        if self._reader.greeted and self.phase in READING:
            self.move(HEAD if self._reader.mid_head else IDLE)

    def _settle_reading(self) -> None:
        if self.phase not in READING:
            return
        if not self.congested and not self._reader.waiting:
            self.release()
            return
        self.hold()
        if not self.congested:
            self.wake()

    def _dispatch(self) -> None:
        fresh, self._fresh = self._fresh, []
        for exchange in fresh:
            exchange.touched = False
            if exchange.stage is not DONE:  # else cancelled already, or refused
                consumers.give(self.service, exchange)

    def _notify(self) -> None:
        touched, self._touched = self._touched, []
        for exchange in touched:
            exchange.touched = False
            consumers.notify(self.service, exchange)

    def _touch(self, exchange: Http2Exchange) -> None:
        if not exchange.touched and exchange.notify is not None:
            exchange.touched = True
            self._touched.append(exchange)

    # What frames say (h2_reader.Sink)

    def on_request(self, stream: int, pairs: Pairs, *, ended: bool) -> None:
        if len(self.streams) >= STREAMS_MAX or (self._promised is not None and stream > self._promised):
            raise StreamFault(Code.REFUSED_STREAM, "too many streams, or the connection is ending")
        exchange = Http2Exchange(self, stream)
        exchange.whole = ended
        exchange.began_s = time.monotonic()
        try:
            read_request(exchange, pairs, self.service.limits, ended=ended)
        except Refusal as refusal:
            self._enter(exchange)
            self._refuse(exchange, refusal)
        else:
            self._enter(exchange)
            self._fresh.append(exchange)

    def _enter(self, exchange: Http2Exchange) -> None:
        self.streams[exchange.id] = exchange
        if self.phase is not BODY:
            self.move(BODY)

    def on_trailers(self, stream: int, pairs: Pairs) -> None:
        check_trailers(pairs)
        self._end_request(self.streams[stream])

    def _end_request(self, exchange: Http2Exchange) -> None:
        exchange.end()
        if exchange.over:
            self._remove(exchange)
        else:
            self._touch(exchange)

    def on_data(self, stream: int, data: bytes, size: int, *, ended: bool) -> None:
        exchange = self.streams[stream]
        try:
            exchange.add(data, size, self.service.limits)
        except (StreamFault, Refusal) as fault:
            self.sender.acknowledge(stream, size)
            if isinstance(fault, StreamFault):
                raise
            self._refuse(exchange, fault)
            return
        if ended:
            self._end_request(exchange)
        elif data:
            self._touch(exchange)

    def on_reset(self, stream: int) -> None:
        exchange = self.streams.get(stream)
        if exchange is not None:
            self._spend_cut()
            self._remove(exchange)
            consumers.lose(exchange)

    def on_settings(self) -> None:
        # The library's encoder grows its table to whatever size the client names. Not set if it is small enough: a size
        # that is set twice is not announced.
        named = self._h2.encoder.header_table_size
        if named > TABLE_BYTES_MAX:
            self._h2.encoder.header_table_size = TABLE_BYTES_MAX
        for exchange in self.streams.values():  # the windows of all may have moved (RFC 6.9.2)
            self.sender.enqueue(exchange)
        self.sender.schedule()

    def on_goaway(self) -> None:
        """The client opens no more streams; those that are open are answered still (RFC 6.8)."""
        self._promise()

    def on_window_update(self, stream: int) -> None:
        if not stream:
            self.sender.widen()
            return
        exchange = self.streams.get(stream)
        if exchange is not None:
            self.sender.enqueue(exchange)

    def on_stream_fault(self, stream: int, fault: StreamFault) -> None:
        self._spend_cut()
        self.service.refused += 1
        self.sender.put_reset(stream, fault.code)
        exchange = self.streams.get(stream)
        if exchange is not None:
            self._remove(exchange)
            consumers.lose(exchange)

    def _spend_cut(self) -> None:
        if not self._cuts.spend(self.service.now_s):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many streams that end before their answer")

    # Streams end

    def _refuse(self, exchange: Http2Exchange, refusal: Refusal) -> None:
        """Answer with an error, unless an answer has begun."""
        self.service.refused += 1
        if exchange.stage is not WAITING:
            self.cut(exchange, Code.CANCEL)
            consumers.lose(exchange)
            return
        content_type, body = self.service.error_body(refusal.status, refusal.reason)
        exchange.refuse(refusal.status, Fields.of([(b"content-type", content_type), *self.service.error_fields]), body)

    def finished(self, exchange: Http2Exchange) -> None:
        """Our side of the stream has ended. A body that is still on its way may come to its end: nobody takes it any more."""
        exchange.over = True
        if exchange.whole:
            self._remove(exchange)
        else:
            self._give_back(exchange)

    def cut(self, exchange: Http2Exchange, code: Code) -> None:
        """End the stream so that nobody takes it for whole. Idempotent."""
        if exchange.id in self.streams:
            self.sender.put_reset(exchange.id, code)
            self._remove(exchange)

    def broken(self, exchange: Http2Exchange) -> None:
        """What it sends cannot be had any more."""
        _log.error("a file became shorter while it was sent", extra={"action": "http.file.cut", "path": exchange.path})
        self.cut(exchange, Code.INTERNAL_ERROR)
        consumers.lose(exchange)

    def _remove(self, exchange: Http2Exchange) -> None:
        exchange.over = True
        del self.streams[exchange.id]
        self.sender.forget(exchange)
        self._give_back(exchange)
        if not self.streams and self.phase is BODY:
            self.move(IDLE)

    def _give_back(self, exchange: Http2Exchange) -> None:
        """The windows' room for what nobody will take."""
        untaken = exchange.drop()
        if untaken:
            self.sender.acknowledge(exchange.id, untaken)

    # The connection ends

    def _flush(self) -> None:
        """Once a turn: write, tell those who may write again, and end if there is nothing more to do."""
        sender = self.sender
        if self.phase in _OVER:
            sender.discard()
            return
        for exchange in sender.run():
            consumers.notify(self.service, exchange)
        ending = self._promised is not None or self.service.draining
        if ending and not self.streams and not self._reader.waiting:
            self._end(Code.NO_ERROR, told=self._promised is not None)

    def _promise(self) -> None:
        """Say which streams will be answered: those that there are."""
        if self._promised is None:
            self._promised = self._h2.highest_inbound_stream_id
            self.sender.put_raw(frames.goaway(self._h2.highest_inbound_stream_id, Code.NO_ERROR))

    def _end(self, code: Code, reason: str = "", *, told: bool = False) -> None:
        """GOAWAY, and give the client a moment to read it."""
        if not told:
            self.sender.put_raw(frames.goaway(self._h2.highest_inbound_stream_id, code, reason))
        self.sender.flush()
        self._reader.clear()
        self.move(LAST)
        self.linger()

    def _fail(self, fault: ConnectionFault) -> None:
        _log.debug("an HTTP/2 connection was ended: %s", fault.reason, extra={"action": "http.h2.failed"})
        self.service.refused += 1
        self._fresh.clear()
        self._touched.clear()
        self.lost()
        self._end(fault.code, fault.reason, told=fault.told)

    def refuse(self, refusal: Refusal) -> None:
        self._fail(ConnectionFault(Code.ENHANCE_YOUR_CALM, refusal.reason))

    def lost(self) -> None:
        streams = tuple(self.streams.values())
        self.streams.clear()
        for exchange in streams:
            exchange.over = True
            exchange.drop()
        for exchange in streams:
            consumers.lose(exchange)

    def half_closed(self) -> None:
        """The client has left: TCP does not tell this from one that only stops sending, and HTTP/2 has no use for that."""
        self.sender.flush()
        self.lost()
        self.close()

    def busy(self) -> bool:
        return bool(self.streams)

    def close(self) -> None:
        if self.phase not in _OVER:
            if self._promised is None:
                self.sender.put_raw(frames.goaway(self._h2.highest_inbound_stream_id, Code.NO_ERROR))
            self.sender.flush()
        super().close()

    def drain(self) -> None:
        """First a GOAWAY that refuses nothing, so that what is on its way is served; the real one a second later."""
        if self.phase in _OVER or self._promised is not None:
            return
        if self.streams:
            self.sender.put_raw(frames.goaway(frames.STREAM_ID_MAX, Code.NO_ERROR))
        elif not has_input(self._fd):
            self.close()

    def advance(self, now_s: float) -> None:
        super().advance(now_s)
        if self.phase in _OVER:
            return
        limits = self.service.limits
        if self.reading and self._reader.waits_for_s(now_s) >= limits.headers_s:
            self.refuse(Refusal(408, f"a frame took longer than {limits.headers_s:g} s"))
            return
        if not self.congested:  # else the engine judges the pace of the whole connection
            for exchange in tuple(self.streams.values()):
                self._judge(exchange, now_s)
        if self.service.draining:
            self._promise()
            self.sender.schedule()

    def _judge(self, exchange: Http2Exchange, now_s: float) -> None:
        limits = self.service.limits
        if exchange.takes_too_slowly(limits, now_s):
            self.cut(exchange, Code.CANCEL)
            consumers.lose(exchange)
        elif exchange.sends_too_slowly(limits, now_s):
            self._refuse(exchange, Refusal(408, f"the body came slower than {limits.rate_bytes_s} bytes/s"))
