"""One link of a WSGI thread to an edge, as the channel of the request that runs on it (`frames.py`).

HELLO ──▶ idle ──REQUEST──▶ running ──ANSWER, ENDED, GONE──▶ idle
LEAVE from here: the edge answers with LEAVE; a request that was on its way before that is run still
LEAVE from there, or its end: the link is over as soon as nothing runs

Requests may come ahead (`prefetch_policy.py`). They are run in order, and while there are more the answers are held back a
moment, so that several leave as one. Those that were not begun go back when the edge asks for them, when the thread has
to wait for a client, and when it leaves.

`Inbox` holds the requests that have arrived and were not begun, and the frames that belong to them. The link's thread
takes requests out in order. Any other thread may take out those that wait and return them, and may read the bytes that are
still in the socket for that; so taking out is atomic, and reading is under a lock.

`Stopwatch` measures how long a request took by itself: without the time for which its thread was ready to run and had no
processor. On a busy machine a thread stands still for some milliseconds again and again, and its request is not to blame.
What the request itself waits for counts: a database, a lock, another thread's interpreter.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections import deque
from typing import Final

import msgspec

from headrace.http.fields import Fields
from headrace.web.apps.wsgi import ClientGone, RequestChannel, WsgiRunner
from headrace.web.dispatch.limits import FAST_S
from headrace.web.dispatch.prefetch_policy import is_repeatable, may_hold
from headrace.web.ipc import frames
from headrace.web.ipc.frames import COUNT, HEAD, HEAD_BYTES, HEADER, HEADER_BYTES, Kind

# Plain numbers: to fetch a member from its Enum costs 70 ns in Python 3.11.
_BODY, _ENDED, _GONE, _RETURN = int(Kind.BODY), int(Kind.ENDED), int(Kind.GONE), int(Kind.RETURN)
_CONSUMED, _ANSWER, _HEAD, _DATA = int(Kind.CONSUMED), int(Kind.ANSWER), int(Kind.HEAD), int(Kind.DATA)
_FILE, _PING, _PONG, _LEAVE = int(Kind.FILE), int(Kind.PING), int(Kind.PONG), int(Kind.LEAVE)

_FRAME_AND_HEAD: Final = struct.Struct("<IIB" + HEAD.format[1:])
"""HEADER and HEAD, packed as one."""
LEAVING: Final = HEADER.pack(0, 0, _LEAVE)
_TOLD_BYTES: Final = 65_536
"""Body bytes taken before the edge is notified: a quarter of the window, so that it never runs dry."""
_LOCK_S: Final = 0.2

_decode: Final = msgspec.msgpack.Decoder(frames.Request).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class WsgiLink(RequestChannel):
    """One connection to an edge. One thread serves it; only `leave` and `return_unstarted` are for others.

    Invariants: `_stream` is the request that runs, 0 if none; it is answered exactly once, also for an edge that is gone:
    then into the void. All writes hold `_lock`, so that a LEAVE never lands inside another frame. While a request
    that must not be repeated runs, no answer is held back: it is the edge's first unanswered one.
    """

    __slots__ = (
        "_ahead",
        "_begin",
        "_body_ended",
        "_dismissed",
        "_early",
        "_expects",
        "_file_answer",
        "_gone",
        "_held",
        "_held_bytes",
        "_held_s",
        "_inbox",
        "_leave_sent",
        "_leaving",
        "_lock",
        "_lost",
        "_pieces",
        "_repeatable",
        "_runner",
        "_socket",
        "_stopwatch",
        "_stream",
        "_taken",
        "requests",
    )

    def __init__(self, connected: socket.socket, runner: WsgiRunner) -> None:
        self._socket = connected
        self._runner = runner
        self._lock = threading.Lock()
        self._inbox = Inbox(connected)
        self._early: dict[int, list[tuple[int, bytes]]] = {}  # frames of requests that were not begun
        self._held: list[bytes] = []  # answers; under `_lock`, as the next two
        self._held_bytes = 0
        self._held_s = 0.0
        self._stream = 0
        self._repeatable = True
        self._stopwatch = Stopwatch(FAST_S)
        self._pieces: deque[bytes] = deque()
        self._leaving = False
        self._leave_sent = False
        self._dismissed = False  # the edge has said LEAVE
        self._lost = False
        self._reset()
        self.requests = 0
        """Answered on this link."""

    def _reset(self) -> None:
        self._ahead = 0  # bytes of the answer that the edge has not passed on
        self._taken = 0  # bytes of the body that it has not been notified of
        self._begin = b""  # the frame HEAD, until the first piece goes
        self._body_ended = True
        self._expects = False
        self._gone = False
        self._file_answer = 0

    @property
    def in_flight(self) -> int:
        """Requests that are here, begun or not."""
        return (self._stream != 0) + len(self._inbox.requests)

    # The thread

    def serve(self) -> None:
        """Run requests until the edge says LEAVE.

        Raises: LinkLost, LinkBroken.
        """
        inbox = self._inbox
        requests = inbox.requests
        try:
            while True:
                if inbox.others:
                    self._note_others()
                try:
                    stream, payload = requests.popleft()
                except IndexError:
                    if not self._await():
                        return
                    continue
                self._run(stream, payload)
        finally:
            inbox.close()

    def _await(self) -> bool:
        """More to do; False: there will be nothing more."""
        if self._held:
            self._write(b"")
        self._early.clear()
        if not self._dismissed:
            self._receive()
        return not self._dismissed or bool(self._inbox.requests)

    def leave(self) -> None:
        """Take no more. For any thread; does not wait, and the request that runs is finished."""
        self._leaving = True
        self._send_control(leave=True)

    def return_unstarted(self) -> None:
        """Return requests that were not begun, and send answers that are held back. For any thread; does not wait."""
        self._inbox.receive_nowait()
        self._send_control(leave=False)

    def _send_control(self, *, leave: bool) -> None:
        if not self._lock.acquire(timeout=_LOCK_S):
            return  # the thread is writing; it sees `_leaving` afterwards, and the edge asks again
        try:
            frames_out = []
            if leave and not self._leave_sent:
                self._leave_sent = True
                frames_out.append(LEAVING)  # first, so that what is returned does not come here again
            frames_out += [HEADER.pack(0, stream, _RETURN) for stream in self._inbox.take_all()]
            if frames_out or self._held:
                self._send_with_held(b"".join(frames_out))
        finally:
            self._lock.release()

    def _run(self, stream: int, payload: bytes) -> None:
        try:
            (length,) = COUNT.unpack_from(payload)
            head = _decode(payload[4 : 4 + length])
        except (msgspec.MsgspecError, ValueError, struct.error) as error:
            raise self._broken(LinkBroken(f"a request that cannot be read: {error}")) from None
        body: bytes | None = payload[4 + length :]
        self._repeatable = is_repeatable(head)
        if self._held and not self._repeatable:
            self._write(b"")
            self._check()
        if not head.ended:
            self._open_body(stream, body or b"", head.expects)
            body = None
        self._stream = stream
        self._stopwatch.started_s = time.perf_counter()
        self._runner.run(head, self, body)
        self.requests += 1
        self._stream = 0
        if body is None or self._begin or self._ahead or self._gone:
            self._pieces.clear()
            self._reset()
        if self._leaving and not self._leave_sent:
            self.leave()

    def _open_body(self, stream: int, piece: bytes, expects: bool) -> None:
        if piece:
            self._pieces.append(piece)
        self._body_ended = False
        self._expects = expects
        for kind, payload in self._early.pop(stream, ()):
            self._note_own(kind, payload)

    # Frames in

    def _receive(self, flags: int = 0) -> None:
        try:
            self._inbox.receive(flags)
        except LinkBroken as error:
            raise self._broken(error) from None
        except LinkLost:
            self._inbox.take_all()  # their answers would reach no client
            raise

    def _poll(self) -> None:
        """Handle frames that have arrived, without waiting: above all that the client disconnected."""
        try:
            self._receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._note_others()

    def _note_others(self) -> None:
        others = self._inbox.others
        while others:
            self._note(*others.popleft())

    def _note(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == _PING:
            self._write(HEADER.pack(len(payload), stream, _PONG) + payload)
        elif kind == _LEAVE:
            self._dismissed = True
        elif stream == self._stream:
            self._note_own(kind, payload)
        elif kind == _GONE:
            if self._inbox.take(stream):
                self._write(HEADER.pack(0, stream, _GONE))
        elif self._inbox.has(stream):  # else it is for an answer that has ended
            self._early.setdefault(stream, []).append((kind, payload))

    def _note_own(self, kind: int, payload: bytes) -> None:
        if kind == _CONSUMED:
            if len(payload) != COUNT.size:
                raise self._broken(LinkBroken(f"a count of {len(payload)} bytes"))
            (count,) = COUNT.unpack(payload)
            if count >= frames.FILE_REFUSED:
                self._file_answer = count
            else:
                self._ahead = max(0, self._ahead - count)
        elif kind == _BODY:
            self._pieces.append(payload)
        elif kind == _ENDED:
            self._body_ended = True
        elif kind == _GONE:
            self._gone = True

    def _broken(self, error: LinkBroken) -> LinkBroken:
        """Also where the application gets the exception, and swallows it, the link is over."""
        self._dismissed = self._lost = True
        self._inbox.take_all()
        return error

    # The request that runs: `RequestChannel`

    def read(self) -> bytes:
        if self._expects:
            self._expects = False
            self._consumed()
        while not self._pieces:
            if self._body_ended:
                return b""
            self._wait()
        piece = self._pieces.popleft()
        self._taken += len(piece)
        if self._taken >= _TOLD_BYTES:
            self._consumed()
        return piece

    def _consumed(self) -> None:
        self._write(HEADER.pack(4, self._stream, _CONSUMED) + COUNT.pack(self._taken))
        self._taken = 0

    def _wait(self) -> None:
        """Wait for the edge's next frame. Requests that wait behind this one are returned first."""
        self._check()
        if not self._inbox.others:
            if self._inbox.requests or self._held:
                self.return_unstarted()
            self._receive()
        self._note_others()

    def _check(self) -> None:
        if self._gone:
            raise ClientGone("the client disconnected")
        if self._lost:
            raise LinkLost("the edge has closed the link")

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        now_s = time.perf_counter()
        flags = _flags(fields) | (frames.LONG if self._stopwatch.is_long(now_s) else 0)
        answer = _begin_of(_ANSWER, self._stream, status, fields, len(body), flags) + fields.block + body
        if self._inbox.requests and self._repeatable:
            self._hold(answer, now_s)
        else:
            self._write(answer)

    def start(self, status: int, fields: Fields) -> None:
        self._begin = _begin_of(_HEAD, self._stream, status, fields, 0, _flags(fields)) + fields.block

    def send(self, data: bytes) -> None:
        if len(data) <= frames.PIECE_BYTES_MAX:
            self._send_piece(data)
            return
        for start in range(0, len(data), frames.PIECE_BYTES_MAX):
            self._send_piece(data[start : start + frames.PIECE_BYTES_MAX])

    def _send_piece(self, piece: bytes) -> None:
        self._poll()
        while self._ahead + len(piece) > frames.WINDOW_BYTES:
            self._wait()
        self._check()
        self._ahead += len(piece)
        self._write(self._take_begin() + HEADER.pack(len(piece), self._stream, _DATA) + piece)

    def _take_begin(self) -> bytes:
        begin, self._begin = self._begin, b""
        return begin

    def send_file(self, fd: int, offset: int, count: int) -> None:
        self._file_answer = 0
        payload = _encode(frames.File(fd, offset, count))
        self._write(self._take_begin() + HEADER.pack(len(payload), self._stream, _FILE) + payload)
        while not self._file_answer:
            self._wait()
        if self._file_answer == frames.FILE_REFUSED:
            self._read_file(fd, offset, count)

    def _read_file(self, fd: int, offset: int, count: int) -> None:
        """Where the edge cannot open the worker's descriptors: another user's, or not on Linux."""
        end = offset + count
        while offset < end:
            piece = os.pread(fd, min(frames.PIECE_BYTES_MAX, end - offset), offset)
            if not piece:
                raise OSError(f"the file was cut while it was sent: {end - offset} bytes are missing")
            self._send_piece(piece)
            offset += len(piece)

    def finish(self) -> None:
        long = b"\x01" if self._stopwatch.is_long(time.perf_counter()) else b""
        self._write(self._take_begin() + HEADER.pack(len(long), self._stream, _ENDED) + long)

    def abort(self) -> None:
        self._begin = b""
        self._write(HEADER.pack(0, self._stream, _GONE))

    def retire(self) -> None:
        self.leave()

    # Frames out

    def _hold(self, answer: bytes, now_s: float) -> None:
        """Let it leave together with the next one, unless that takes too long."""
        with self._lock:
            if not self._held:
                self._held_s = now_s
            self._held.append(answer)
            self._held_bytes += len(answer)
            if not may_hold(held_s=now_s - self._held_s, held_bytes=self._held_bytes):
                self._send_with_held(b"")

    def _write(self, data: bytes) -> None:
        with self._lock:
            self._send_with_held(data)

    def _send_with_held(self, data: bytes) -> None:
        """Under `_lock`."""
        if self._held:
            data = b"".join(self._held) + data
            self._held.clear()
            self._held_bytes = 0
        try:
            self._socket.sendall(data)
        except OSError:
            self._lost = True  # `_check` and the next `recv` say so
            self._inbox.take_all()


def _flags(fields: Fields) -> int:
    if fields.dated or fields.served or fields.close:
        return fields.dated * frames.DATED | fields.served * frames.SERVED | fields.close * frames.CLOSE
    return 0


def _begin_of(kind: int, stream: int, status: int, fields: Fields, body_bytes: int, flags: int) -> bytes:
    """A frame with a Head, up to the block."""
    block_bytes = len(fields.block)
    length = -1 if fields.length is None else fields.length
    size = HEAD_BYTES + block_bytes + body_bytes
    return _FRAME_AND_HEAD.pack(size, stream, kind, status, flags, length, block_bytes)


_REQUEST: Final = int(Kind.REQUEST)
_RECEIVE_BYTES: Final = 65_536
_AHEAD_MAX: Final = 64
"""Requests at once; the edge gives fewer (`limits.PREFETCH_MAX`)."""
_READS_MAX: Final = 4  # what an edge writes ahead fits into fewer


class LinkLost(ClientGone):
    """The edge has ended, or closed the link."""


class LinkBroken(LinkLost):
    """The edge has violated the protocol: nothing more is read."""


class Inbox:
    """Invariants: `requests` are in the order in which they came; each is taken out once."""

    __slots__ = ("_buffer", "_closed", "_reading", "_socket", "others", "requests")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""  # the begin of a frame whose end has not arrived
        self._reading = threading.Lock()
        self._closed = False
        self.requests: deque[tuple[int, bytes]] = deque()
        """Stream and payload of each REQUEST that was not begun."""
        self.others: deque[tuple[int, int, bytes]] = deque()
        """Kind, stream and payload of all other frames. For the link's thread only."""

    def receive(self, flags: int = 0) -> None:
        """Read what there is; wait for it, unless `flags` say otherwise.

        Raises: LinkLost, LinkBroken; BlockingIOError.
        """
        with self._reading:
            self._read(flags)

    def receive_nowait(self) -> None:
        """For any thread: read what there is, unless another thread reads it already. Errors are left to the link's thread."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            for _ in range(0 if self._closed else _READS_MAX):
                self._read(socket.MSG_DONTWAIT)
        except (LinkLost, BlockingIOError):
            return
        finally:
            self._reading.release()

    def close(self) -> None:
        """The socket is about to be closed: no thread may read from another file that gets its number."""
        with self._reading:
            self._closed = True

    def has(self, stream: int) -> bool:
        """Whether that request waits."""
        return any(stream == waiting for waiting, _ in tuple(self.requests))

    def take(self, stream: int) -> bool:
        """Take that request out; whether it was there."""
        for request in tuple(self.requests):
            if request[0] == stream:
                try:
                    self.requests.remove(request)
                except ValueError:
                    return False  # another thread was quicker
                return True
        return False

    def take_all(self) -> list[int]:
        """Take all requests out; their streams, in order."""
        streams: list[int] = []
        try:
            while True:
                streams.append(self.requests.pop()[0])  # from the end: the thread takes from the other
        except IndexError:
            streams.reverse()
            return streams

    def _read(self, flags: int) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise LinkLost(str(error)) from None
        if not data:
            raise LinkLost("the edge has closed the link")
        self._split(self._buffer + data if self._buffer else data)

    def _split(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at + HEADER_BYTES <= end:
            length, stream, kind = HEADER.unpack_from(data, at)
            if length > frames.PAYLOAD_BYTES_MAX:
                raise LinkBroken(f"a frame of {length} bytes")
            begin = at + HEADER_BYTES
            if begin + length > end:
                break
            at = begin + length
            if kind == _REQUEST:
                self._add(stream, data[begin:at])
            else:
                self.others.append((kind, stream, data[begin:at]))
        self._buffer = data[at:]

    def _add(self, stream: int, payload: bytes) -> None:
        if not stream:
            raise LinkBroken("a request without a number")
        if len(self.requests) >= _AHEAD_MAX:
            raise LinkBroken(f"more than {_AHEAD_MAX} requests at once")
        self.requests.append((stream, payload))


_PATH: Final = "/proc/thread-self/schedstat"
"""Linux: nanoseconds on a processor, nanoseconds ready to run without one, turns."""


class Stopwatch:
    """Measures requests of one thread. Asks the system, which costs some 5 µs, only if a request seems to have been long."""

    __slots__ = ("_stood_ns", "_threshold_s", "started_s")

    def __init__(self, threshold_s: float) -> None:
        self._threshold_s = threshold_s
        self._stood_ns = 0
        self.started_s = 0.0
        """Set it to `time.perf_counter()` when a request begins."""

    def is_long(self, now_s: float) -> bool:
        """Whether what began at `started_s` has taken longer than the threshold. The benefit of the doubt is given: the
        time without a processor is that since the last one that seemed long."""
        took_s = now_s - self.started_s
        if took_s <= self._threshold_s:
            return False
        stood_ns, self._stood_ns = self._stood_ns, stood_still_ns()
        return took_s - (self._stood_ns - stood_ns) / 1e9 > self._threshold_s


def stood_still_ns() -> int:
    """For how long, since it began, the calling thread was ready to run and had no processor; 0 where the system does
    not report it."""
    try:
        fd = os.open(_PATH, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 128).split()[1])
    finally:
        os.close(fd)
