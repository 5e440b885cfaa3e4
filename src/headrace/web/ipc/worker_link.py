"""The edge's end of a link to a worker: reads and writes frames (`frames`).

A worker connects and says HELLO; from then on its dispatcher gives it requests, and it brings their answers. Frames that
are written during one turn of the loop leave as one, at its end: a system call and a wake-up for each would cost more than
all the rest of a request. A worker that violates the protocol loses its link, as if it had died.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final, cast

import msgspec

from headrace.http import problem
from headrace.http.exchange import DONE, WAITING, LengthMismatch
from headrace.http.fields import FieldInvalid
from headrace.web.dispatch.concurrency_limit import ConcurrencyLimit
from headrace.web.dispatch.limits import CONCURRENCY_MIN, HELLO_S, PING_S
from headrace.web.dispatch.queued_request import QueuedRequest, ReplayableBody
from headrace.web.dispatch.worker_pool import WorkerProcess
from headrace.web.ipc import frames
from headrace.web.ipc.frames import (
    COUNT,
    HEADER,
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    PIECE_BYTES_MAX,
    Hello,
    Kind,
    Request,
)
from headrace.web.ipc.stream_flow import UNREADABLE, MalformedFrame, StreamFlow, open_of_process, read_head

if TYPE_CHECKING:
    from headrace.web.ipc.link_server import LinkServer

_log: Final = logging.getLogger("headrace.web")

_FIRST: Final = struct.Struct("<IIBI")
"""HEADER of a REQUEST, and the length of its msgpack."""
_PEER: Final = struct.Struct("3i")
_FLAGS_AT: Final = 2  # in a HEAD
_WRITE_BUFFER_BYTES: Final = 1_048_576  # never paused: windows and concurrency limits bound what is written

# Plain numbers: to fetch a member from its Enum costs 70 ns in Python 3.11.
_HELLO, _REQUEST, _GONE, _LEAVE = int(Kind.HELLO), int(Kind.REQUEST), int(Kind.GONE), int(Kind.LEAVE)
_ANSWER, _HEAD, _DATA, _ENDED = int(Kind.ANSWER), int(Kind.HEAD), int(Kind.DATA), int(Kind.ENDED)
_CONSUMED, _FILE, _INFORM = int(Kind.CONSUMED), int(Kind.FILE), int(Kind.INFORM)
_PING, _PONG, _RETURN = int(Kind.PING), int(Kind.PONG), int(Kind.RETURN)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_hello: Final = msgspec.msgpack.Decoder(Hello).decode


class WorkerLink(asyncio.Protocol):
    """One connection from a worker.

    Invariants: `streams` has each request from REQUEST to the worker's last frame of it, in the order in which they were
    given; `busy` of them are no tunnels.
    """

    __slots__ = (
        "_buffer",
        "_certain",
        "_concurrency_limit",
        "_left",
        "_needed",
        "_number",
        "_out",
        "_pid",
        "_ping_due",
        "_pinged_s",
        "_server",
        "_timer",
        "_unproven",
        "_used_up",
        "busy",
        "dispatcher",
        "hello",
        "is_control",
        "leaving",
        "limit",
        "listed",
        "load",
        "moved_s",
        "seen_s",
        "serial",
        "streams",
        "transport",
        "worker",
    )

    transport: asyncio.Transport
    worker: WorkerProcess

    def __init__(self, server: LinkServer) -> None:
        self._server = server
        self.dispatcher = server.dispatcher
        self.hello: Hello | None = None
        self.streams: dict[int, QueuedRequest] = {}
        self.busy = 0
        self.limit = 0
        self.leaving = False
        self.listed = False
        self.is_control = False
        """Gets no requests: gives them back."""
        self.serial = False
        self.load = 0
        """What its request adds to its worker's."""
        self.moved_s = 0.0
        """Of a serial link: when its first request began to be that, at the latest."""
        self.seen_s = -1.0
        """`moved_s` at the last check."""
        self._unproven: tuple[Hello, int] | None = None  # has said HELLO; its losses when it was asked whether it lives
        self._certain = True  # all that the worker has said was read
        self._left = False  # LEAVE was said
        self._number = 0
        self._out: list[bytes] = []  # to be written at the end of this turn
        self._pid = 0
        self._buffer = bytearray()  # the begin of a frame whose end has not arrived
        self._needed = 0  # bytes that the buffer needs before it is read again
        self._concurrency_limit: ConcurrencyLimit | None = None
        self._used_up = False
        self._ping_due = False
        self._pinged_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # To the worker

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self._write(HEADER.pack(len(payload), number, kind) + payload)

    def _write(self, data: bytes) -> None:
        out = self._out
        if not out:
            self.dispatcher.loop.call_soon(self._flush)
        out.append(data)

    def _flush(self) -> None:
        out = self._out
        if out and not self.transport.is_closing():  # uvloop raises where asyncio only warns
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def give(self, queued: QueuedRequest) -> None:
        """Send a request."""
        exchange = queued.exchange
        self._number = number = self._number % 0xFFFFFFFF + 1
        self.streams[number] = queued
        queued.link, queued.number = self, number
        self.busy += 1
        piece, ended, flow = b"", True, None
        if exchange.length:
            piece, ended, flow = self._open_body(queued, number)
        head = _encode(
            Request(
                exchange.method,
                exchange.target,
                exchange.headers,
                exchange.version,
                exchange.secure,
                exchange.peer,
                exchange.peer_port,
                exchange.server,
                exchange.upgrade,
                exchange.length,
                exchange.root_path,
                ended,
                exchange.expects,
                exchange.waited_s,
            )
        )
        size = len(head)
        self._write(_FIRST.pack(4 + size + len(piece), number, _REQUEST, size) + head + piece)
        if flow is not None:
            queued.flow = flow
            flow.pump()
        if self._concurrency_limit is not None:
            self._used_up = self._used_up or self.busy >= self.limit
            if not self._ping_due:
                self._plan_ping()

    def _open_body(self, queued: QueuedRequest, number: int) -> tuple[bytes, bool, StreamFlow | None]:
        body = queued.body
        if body is None:
            body = queued.body = ReplayableBody(queued.exchange, keep=self.serial or queued.may_be_repeated())
        invited = not queued.exchange.expects
        data = body.read() if invited else b""
        if body.ended and len(data) <= PIECE_BYTES_MAX:
            return data, True, None
        flow = StreamFlow(self, queued, number)
        flow.open_body(data[:PIECE_BYTES_MAX], data[PIECE_BYTES_MAX:], invited=invited)
        return data[:PIECE_BYTES_MAX], False, flow

    def cancel(self, number: int) -> None:
        """Tell the worker that the client no longer waits for this answer."""
        if number in self.streams:
            self.send(_GONE, number)

    def leave(self) -> None:
        """Say LEAVE: this was the last request. Idempotent."""
        self.leaving = True
        if not self._left:
            self._left = True
            self.send(_LEAVE, 0)

    def close(self) -> None:
        self.leaving = True
        self._flush()
        self.transport.close()

    def abort(self) -> None:
        """Close at once, whatever has not been read."""
        self._certain = False
        self.transport.abort()

    def open_file(self, file: frames.File) -> tuple[int, int, int] | None:
        """Only of the process that is at the other end, by the kernel's word."""
        if self.hello is None or self._pid != self.hello.pid:
            return None
        return open_of_process(self._pid, file)

    # How late its loop is

    def _plan_ping(self) -> None:
        self._ping_due = True
        wait_s = self._pinged_s + PING_S - self.dispatcher.now_s()
        if wait_s > 0:
            self._timer = self.dispatcher.loop.call_later(wait_s, self._ping)
        else:
            self._ping()

    def _ping(self) -> None:
        self._timer = None
        self._pinged_s = self.dispatcher.now_s()
        self.send(_PING, 0)

    def ask_how_late(self) -> None:
        """Measure how late the interpreter of a control thread's process is; `AdaptiveThreadLimit` gets the result. At most one
        measurement at a time."""
        if not self._ping_due:
            self._ping_due = True
            self._ping()

    def _on_pong(self) -> None:
        concurrency_limit = self._concurrency_limit
        if not self._ping_due or self._timer is not None:
            raise MalformedFrame("a PONG without a PING")
        self._ping_due = False
        if concurrency_limit is None:
            self.dispatcher.control_thread_was_late(self, self.dispatcher.now_s() - self._pinged_s)
            return
        now_s = self.dispatcher.now_s()
        lag_s = now_s - self._pinged_s
        concurrency_limit.lag(lag_s, used_up=self._used_up)
        self.limit = concurrency_limit.count
        if self.busy >= concurrency_limit.count:
            self.limit = concurrency_limit.room(
                (queued.is_quiet(now_s) for queued in self.streams.values()), lag_s=lag_s
            )
        self._used_up = self.busy >= self.limit
        self.dispatcher.resettled(self)
        if self._used_up and not self._ping_due:
            self._plan_ping()

    # From the worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._pid = peer_pid(transport.get_extra_info("socket"))
        self._timer = self.dispatcher.loop.call_later(HELLO_S, self.transport.abort)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.hello is not None:
            # After a failed write nothing more was read: what the worker has answered at the end is not known.
            certain = self._certain and (exc is None or isinstance(exc, ConnectionResetError))
            self.dispatcher.link_lost(self, certain=certain)
        self._server.closed(self)

    def eof_received(self) -> None:
        return None  # close: a worker does not half-close

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        try:
            used = self._read(data)
        except (MalformedFrame, FieldInvalid, LengthMismatch, struct.error, *UNREADABLE) as error:
            self._expel(str(error))
            return
        if used < len(data):
            self._buffer += data[used:]

    def _read(self, data: bytes) -> int:
        """Take the whole frames of `data`; returns where the next one begins."""
        at, end = 0, len(data)
        self._needed = HEADER_BYTES
        while at + HEADER_BYTES <= end:
            length, number, kind = HEADER.unpack_from(data, at)
            if length > PAYLOAD_BYTES_MAX:
                raise MalformedFrame(f"a payload of {length} bytes; at most {PAYLOAD_BYTES_MAX}")
            begin = at + HEADER_BYTES
            if begin + length > end:
                self._needed = HEADER_BYTES + length
                break
            at = begin + length
            queued = self.streams.get(number)
            if queued is None:
                self._take_other(kind, number, data[begin:at])
            elif kind == _ANSWER:
                self._on_answer(number, queued, data[begin:at])
            else:
                self._take(kind, number, queued, data[begin:at])
        return at

    def _take(self, kind: int, number: int, queued: QueuedRequest, payload: bytes) -> None:
        """A frame of a request's stream, other than ANSWER."""
        if kind == _DATA:
            self._flow_of(queued).data(payload)
        elif kind == _ENDED:
            flow = self._flow_of(queued)
            self._end(number, queued, long=bool(payload))
            flow.end()
        elif kind == _HEAD:
            self._on_head(number, queued, payload)
        elif kind == _CONSUMED:
            if queued.flow is not None:
                queued.active_s = self.dispatcher.now_s()
                cast("StreamFlow", queued.flow).consumed(COUNT.unpack(payload)[0])
        elif kind == _FILE:
            self._flow_of(queued).file(payload)
        elif kind == _GONE:
            self._on_gone(number, queued)
        elif kind == _RETURN:
            self._on_return(number, queued)
        elif kind == _INFORM:
            status, fields, _ = read_head(payload)
            queued.exchange.inform(status, fields)
        else:
            raise MalformedFrame(f"a frame of kind {kind} for stream {number}")

    def _take_other(self, kind: int, number: int, payload: bytes) -> None:
        """A frame of no stream: of the link, or for one that has ended."""
        if self.hello is None:
            self._introduce(kind, number, payload)
        elif kind == _PONG:
            self._on_pong()
        elif kind == _LEAVE and not number:
            self.leave()
            self.dispatcher.resettled(self)
        elif kind != _CONSUMED or not 0 < number <= self._number:
            # Of an answer that has begun with ANSWER nothing may follow but what the body was owed.
            raise MalformedFrame(f"a frame of kind {kind} for stream {number}, which is not open")

    def _introduce(self, kind: int, number: int, payload: bytes) -> None:
        """Read HELLO. If the process has lost links, HELLO may be older than its death: then a PONG must follow, which cannot be."""
        known = 0
        if self._unproven is None and kind == _HELLO and not number:
            hello = _decode_hello(payload)
        elif self._unproven is not None and kind == _PONG:
            hello, known = self._unproven
        elif self._unproven is not None and kind == _LEAVE:
            self.close()
            return
        else:
            raise MalformedFrame(f"a frame of kind {kind} before {'HELLO' if self._unproven is None else 'PONG'}")
        losses = self.dispatcher.workers.losses_of(hello.pid)
        if losses == known:
            self._on_hello(hello)
        else:
            self._unproven = hello, losses
            self.send(_PING, 0)

    def _on_hello(self, hello: Hello) -> None:
        if hello.capacity < (hello.interface == "asgi") or hello.interface not in ("wsgi", "asgi"):
            raise MalformedFrame(f"HELLO with capacity {hello.capacity} and interface {hello.interface!r}")
        assert self._timer is not None
        self._timer.cancel()
        self._timer = None
        self.hello = hello
        self.limit = hello.capacity
        self.is_control = not hello.capacity
        self.serial = hello.interface == "wsgi"
        if hello.interface == "asgi":
            self._concurrency_limit = ConcurrencyLimit(hello.capacity, least=CONCURRENCY_MIN)
            self.limit = self._concurrency_limit.count
        self.dispatcher.link_ready(self, hello)

    def _on_answer(self, number: int, queued: QueuedRequest, payload: bytes) -> None:
        status, fields, at = read_head(payload)
        exchange = queued.exchange
        if queued.begun:
            raise MalformedFrame(f"a second answer on stream {number}")
        if exchange.stage is WAITING:
            exchange.respond(status, fields, payload[at:])
        self._end(number, queued, long=payload[_FLAGS_AT] >= frames.LONG)
        exchange.notify = None
        queued.flow = None

    def _on_head(self, number: int, queued: QueuedRequest, payload: bytes) -> None:
        status, fields, _ = read_head(payload)
        if queued.begun:
            raise MalformedFrame(f"a second answer on stream {number}")
        exchange = queued.exchange
        if queued.flow is None:
            queued.flow = StreamFlow(self, queued, number)
        if exchange.stage is WAITING:
            if status != 101:
                exchange.start(status, fields)
            elif exchange.upgrade:
                queued.tunnel = True
                self.busy -= 1
                self.dispatcher.tunnelled(self)
                cast("StreamFlow", queued.flow).begin_tunnel(fields)
            else:
                raise MalformedFrame("a tunnel that was not requested")
        queued.begun = True

    def _on_gone(self, number: int, queued: QueuedRequest) -> None:
        """The worker gives up; or has let go of a request whose client left."""
        self._end(number, queued, long=False)
        if queued.exchange.stage is not DONE:
            problem.respond(queued.exchange, 502, "the application aborted this request")
        queued.exchange.notify = None
        queued.flow = None

    def _on_return(self, number: int, queued: QueuedRequest) -> None:
        """The worker has not begun with it."""
        if queued.begun or not self.serial:
            raise MalformedFrame(f"a request returned on stream {number}, whose answer has begun")
        del self.streams[number]
        self.busy -= 1
        self.dispatcher.returned(self, queued)

    def _end(self, number: int, queued: QueuedRequest, *, long: bool) -> None:
        """The stream is free, though the client may not have taken all."""
        del self.streams[number]
        if queued.tunnel:
            self.dispatcher.ended(self, queued, counted=False, long=long)
        else:
            self.busy -= 1
            self.dispatcher.ended(self, queued, counted=True, long=long)

    def _flow_of(self, queued: QueuedRequest) -> StreamFlow:
        if not queued.begun:
            raise MalformedFrame("a piece of an answer that has not begun")
        return cast("StreamFlow", queued.flow)

    def _expel(self, reason: str) -> None:
        pid = self.hello.pid if self.hello is not None else self._pid
        _log.error("worker %d sent %s", pid, reason, extra={"action": "web.link.malformed", "pid": pid})
        self.abort()


def peer_pid(peer: socket.socket) -> int:
    """The process id of the peer; 0 where the system does not report it."""
    if sys.platform != "linux":
        return 0
    pid: int = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
    return pid
