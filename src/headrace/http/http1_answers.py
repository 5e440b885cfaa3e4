"""What an HTTP/1.1 connection writes: answers whole and in pieces, files, tunnels, and ends that can be told from cuts."""

from __future__ import annotations

import logging
import os
import socket
import struct
from abc import abstractmethod
from typing import Final

from headrace.http import consumers
from headrace.http.answers import CLOSE, CONTINUE, END, KEEP_ALIVE, interim
from headrace.http.engine import CLOSED, CLOSING, LAST, Connection, Service
from headrace.http.exchange import WAITING
from headrace.http.fields import Fields
from headrace.http.http1_exchange import StreamedExchange, bodiless_framing
from headrace.http.parse import Refusal
from headrace.http.reader import Reader
from headrace.http.sendfile import CopyPump, FilePump, KernelPump, kernel_sends

_log: Final = logging.getLogger("headrace.http")

SKIP_BYTES_MAX: Final = 65_536  # of a body whose answer is out: cheaper to read than a new connection is to make
_JOINED_BYTES_MAX: Final = 65_536  # pieces that are copied into one write; beyond, two writes are cheaper
_LAST_CHUNK: Final = b"0\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing resets the connection


class AnsweringConnection(Connection):
    """The half that `StreamedExchange` calls. `http1.py` has the other half.

    Invariants: `_exchange` is the one whose answer is not complete. `_pump` is there while a file is on its way, and only
    then. `_held` is empty again after the turn of the loop in which an answer has begun.
    """

    __slots__ = ("_exchange", "_finishing", "_held", "_in_send_file", "_pump", "_reader")

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._reader = Reader(service.parser, service.limits)
        self._exchange: StreamedExchange | None = None
        self._held = b""
        """The begin of an answer: what its first turn brings leaves in one write."""
        self._pump: FilePump | None = None
        self._in_send_file = False
        self._finishing = False
        """The answer ends with the file that is on its way."""

    # What the other half does

    @abstractmethod
    def _answered(self, exchange: StreamedExchange) -> None:
        """The answer is complete, and all of it is written: on to the next request, or to the end."""

    @abstractmethod
    def _settle(self, exchange: StreamedExchange) -> None:
        """What the connection waits for, now that `exchange` is under way."""

    # Answers

    @property
    def writable(self) -> bool:
        return not self.congested and self._pump is None

    def invite(self, exchange: StreamedExchange) -> None:
        """The consumer wants the body: say so to a client that waits for that (RFC 9110 10.1.1)."""
        if exchange.stage is WAITING:
            self.write(CONTINUE)
            self.since_s = self.service.now_s
            self._sending = None

    def inform(self, exchange: StreamedExchange, status: int, fields: Fields) -> None:
        if exchange.http11:
            self.write(interim(status, fields.block))

    def respond(self, exchange: StreamedExchange, status: int, fields: Fields, body: bytes, *, length: int) -> None:
        if exchange.mute:
            framing = bodiless_framing(status, fields, length)
        else:
            framing = b"Content-Length: %d\r\n" % length
        if not exchange.whole and (exchange.expects or self._reader.body_left > SKIP_BYTES_MAX):
            exchange.keep_alive = False
        head = self._render_head(exchange, status, fields, framing)
        if len(body) <= _JOINED_BYTES_MAX:
            self.write(head + body)
        else:
            self.write(head)
            self.write(body)
        self._answered(exchange)

    def _render_head(self, exchange: StreamedExchange, status: int, fields: Fields, framing: bytes) -> bytes:
        service = self.service
        begin = service.answers.begin(status, dated=fields.dated, served=fields.served)
        if not exchange.keep_alive or fields.close or service.draining:
            exchange.keep_alive = False
            end = CLOSE
        else:
            end = END if exchange.http11 else KEEP_ALIVE
        return begin + fields.block + framing + end

    def start(self, exchange: StreamedExchange, status: int, fields: Fields) -> None:
        if exchange.mute:
            framing = bodiless_framing(status, fields, 0)
        elif fields.length is not None:
            framing = b"Content-Length: %d\r\n" % fields.length
        elif exchange.http11:
            exchange.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            exchange.delimited = True
            framing = b""
        if exchange.delimited or exchange.expects:
            exchange.keep_alive = False
        self._held = self._render_head(exchange, status, fields, framing)
        self.service.loop.call_soon(self._flush)

    def _flush(self) -> None:
        if held := self._take_held():
            self.write(held)

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def send(self, exchange: StreamedExchange, data: bytes) -> None:
        assert self._pump is None, "a file is still on its way: wait until writable"
        if len(data) > _JOINED_BYTES_MAX:
            self._send_large(exchange, data)
            return
        if exchange.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if not self._held:
            self.write(data)
        elif len(self._held) + len(data) <= _JOINED_BYTES_MAX:
            self._held += data
        else:
            self.write(self._take_held() + data)

    def _send_large(self, exchange: StreamedExchange, data: bytes) -> None:
        before = self._take_held() + (b"%x\r\n" % len(data) if exchange.chunked else b"")
        if before:
            self.write(before)
        self.write(data)
        if exchange.chunked:
            self.write(b"\r\n")

    def finish(self, exchange: StreamedExchange) -> None:
        if self._pump is not None:
            self._finishing = True
            return
        end = self._take_held() + (_LAST_CHUNK if exchange.chunked else b"")
        if end:
            self.write(end)
        if exchange.status == 101:
            self._end_tunnel()
        else:
            self._answered(exchange)

    # Files

    def send_file(self, exchange: StreamedExchange, fd: int, *, offset: int, count: int) -> None:
        assert self._pump is None, "a file is still on its way: wait until writable"
        if not count:
            os.close(fd)
            return
        before = self._take_held() + (b"%x\r\n" % count if exchange.chunked else b"")
        self._in_send_file = True
        if self.secure or not kernel_sends(fd):
            self._send_by_copy(before, fd, offset=offset, count=count)
        else:
            self._send_by_kernel(before, fd, offset=offset, count=count)
        self._in_send_file = False

    def _send_by_copy(self, before: bytes, fd: int, *, offset: int, count: int) -> None:
        if before:
            self.write(before)
        self._pump = CopyPump(
            self.service.loop,
            self.write,
            lambda: self.congested,
            fd=fd,
            offset=offset,
            count=count,
            on_end=self._file_ended,
        )
        self._pump.step()

    def _send_by_kernel(self, before: bytes, fd: int, *, offset: int, count: int) -> None:
        if before:
            self._write_at_once(before)
        self._pump = KernelPump(
            self.service.loop,
            self._fd,
            fd=fd,
            offset=offset,
            count=count,
            on_sent=self._count_sent,
            on_end=self._file_ended,
        )
        if self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(high=0)  # `resume_writing` comes when all is out
        else:
            self._pump.step()
        if self._pump is not None:
            self.congested = True

    def _write_at_once(self, data: bytes) -> None:
        """Past the transport, if it has nothing to write itself; it would keep `data` until the turn's end."""
        sent = 0
        if not self.transport.get_write_buffer_size() and not self.transport.is_closing():
            try:
                sent = os.write(self._fd, data)
            except OSError:
                sent = 0  # the socket is full, or broken: the transport knows what to do
        self._written_bytes += sent
        if sent < len(data):
            self.write(data[sent:])

    def _count_sent(self, count: int) -> None:
        self._written_bytes += count

    def _file_ended(self, error: OSError | None) -> None:
        if error is not None and self._in_send_file:
            self.service.loop.call_soon(self._file_ended, error)  # never from inside the consumer's call
            return
        if self._pump is None or (exchange := self._exchange) is None:
            return
        self._stop_pump()
        if error is not None:
            self._file_failed(exchange, error)
            return
        if exchange.chunked:
            self.write(b"\r\n")
        if self._finishing:
            self._finishing = False
            self.finish(exchange)
        elif not self._in_send_file:
            consumers.notify(self.service, exchange)

    def _file_failed(self, exchange: StreamedExchange, error: OSError) -> None:
        if not isinstance(error, ConnectionError):
            _log.warning(
                "a file was not sent whole: %s", error, extra={"action": "http.file.cut", "path": exchange.path}
            )
        self.cut(exchange)
        consumers.lose(exchange)

    def _stop_pump(self) -> None:
        pump, self._pump = self._pump, None
        if pump is None:
            return
        pump.stop()
        self._taking = None
        if isinstance(pump, KernelPump) and not self.transport.is_closing():
            self.congested = False
            self.transport.set_write_buffer_limits(high=self.service.limits.write_buffer_bytes)

    def resume_writing(self) -> None:
        self.congested = False
        self._taking = None
        self.service.loop.call_soon(self._go_on)  # not at once: TLS transports may say so inside of a write

    def _go_on(self) -> None:
        """There is room again: for the file, or the consumer, or requests whose answers would have had none."""
        if self._pump is not None:
            self._go_on_with(self._pump)
        elif self._exchange is not None:
            consumers.notify(self.service, self._exchange)
        else:
            self._proceed_held()

    def _go_on_with(self, pump: FilePump) -> None:
        if not isinstance(pump, KernelPump):
            pump.step()
        elif not self.transport.get_write_buffer_size():  # else this was due before the file came: its own turn comes
            self.congested = True
            pump.step()

    # Tunnels

    def tunnel(self, exchange: StreamedExchange, fields: Fields) -> None:
        begin = self.service.answers.begin(101, dated=fields.dated, served=fields.served)
        self.write(b"%b%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (begin, fields.block, exchange.upgrade))
        exchange.whole = False
        if self._reader.buffer:
            exchange.add(self._reader.buffer)
            self._reader.clear()
            self.service.loop.call_soon(consumers.notify, self.service, exchange)
        self._settle(exchange)

    def _end_tunnel(self) -> None:
        self._exchange = None
        self.move(LAST)
        if self.secure:
            self.close()  # TLS has no half-close
        else:
            self.linger()  # the last frame must not be reset away by one of the client's that crosses it

    # Ends

    def _hang_up(self, *, untidy: bool, delimited: bool = False) -> None:
        """Close once the client has its answer.

        Args:
            untidy: the client may be sending still: a plain close would reset the answer away.
            delimited: the answer ends where the connection does.
        """
        untidy = untidy or self.dropped_input or bool(self._reader.buffer) or not self.reading
        self._reader.clear()
        self.move(LAST)
        if untidy and not (delimited and self.secure):
            self.linger()
        else:
            self.close()

    def _answer_refusal(self, refusal: Refusal) -> None:
        service = self.service
        content_type, body = service.error_body(refusal.status, refusal.reason)
        self.write(
            service.answers.render(refusal.status, body, content_type, service.error_fields, end=CLOSE, to_head=False)
        )
        self._hang_up(untidy=True)

    def cut(self, exchange: StreamedExchange) -> None:
        """End the connection so that the client sees that something is missing."""
        self._exchange = None
        self._held = b""
        self._stop_pump()
        self._reader.clear()
        if exchange.delimited and not self.transport.is_closing():
            # A plain close would be this answer's proper end.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if self.phase is not CLOSED:
            self.move(CLOSING)
        self.transport.abort()
