"""One link of a WSGI thread to an edge, as the channel of the request that runs on it (`frames.py`).

HELLO ──▶ idle ──REQUEST──▶ running ──ANSWER, ENDED, GONE──▶ idle
LEAVE from here: the edge answers with LEAVE; a request that was on its way before that is run still
LEAVE from there, or its end: the link is over as soon as nothing runs
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from collections import deque
from typing import Final

import msgspec

from headrace.http.fields import Fields
from headrace.web import frames
from headrace.web.frames import COUNT, HEAD, HEAD_BYTES, HEADER, HEADER_BYTES, Kind
from headrace.web.wsgi import Channel, ClientGone, Runner

_log: Final = logging.getLogger("headrace.web")

# Plain numbers: to fetch a member from its Enum costs 70 ns in Python 3.11.
_REQUEST, _BODY, _ENDED, _GONE = int(Kind.REQUEST), int(Kind.BODY), int(Kind.ENDED), int(Kind.GONE)
_CONSUMED, _ANSWER, _HEAD, _DATA = int(Kind.CONSUMED), int(Kind.ANSWER), int(Kind.HEAD), int(Kind.DATA)
_FILE, _PING, _PONG, _LEAVE = int(Kind.FILE), int(Kind.PING), int(Kind.PONG), int(Kind.LEAVE)

_FRAME_AND_HEAD: Final = struct.Struct("<IIB" + HEAD.format[1:])
"""HEADER and HEAD, packed as one."""
LEAVING: Final = HEADER.pack(0, 0, _LEAVE)
_RECEIVE_BYTES: Final = 65_536
_TOLD_BYTES: Final = 65_536
"""Body bytes taken before the edge is told: a quarter of the window, so that it never runs dry."""
_LOCK_S: Final = 0.2

_decode: Final = msgspec.msgpack.Decoder(frames.Request).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class LinkLost(ClientGone):
    """The edge has ended, or closed the link."""


class LinkBroken(LinkLost):
    """What came is not what an edge sends: nothing more is read."""


class Link(Channel):
    """One connection to an edge. One thread serves it; only `leave` is for others.

    Invariants: `_stream` is the request that runs, 0 if none; it is answered exactly once, also for an edge that is gone:
    then into the void. Nobody writes but under `_lock`, so that a LEAVE never lands inside another frame.
    """

    __slots__ = (
        "_ahead",
        "_begin",
        "_body_ended",
        "_buffer",
        "_dismissed",
        "_expects",
        "_file_answer",
        "_gone",
        "_leave_sent",
        "_leaving",
        "_lock",
        "_lost",
        "_pieces",
        "_runner",
        "_socket",
        "_stream",
        "_taken",
        "requests",
    )

    def __init__(self, connected: socket.socket, runner: Runner) -> None:
        self._socket = connected
        self._runner = runner
        self._lock = threading.Lock()
        self._buffer = b""
        self._stream = 0
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
        self._taken = 0  # bytes of the body that it has not been told of
        self._begin = b""  # the frame HEAD, until the first piece goes
        self._body_ended = True
        self._expects = False
        self._gone = False
        self._file_answer = 0

    @property
    def running(self) -> bool:
        return self._stream != 0

    # The thread

    def serve(self) -> None:
        """Run requests until the edge says LEAVE.

        Raises: LinkLost, LinkBroken.
        """
        while not self._dismissed:
            kind, stream, payload = self._next()
            if kind == _REQUEST:
                self._run(stream, payload)
            else:
                self._note(kind, stream, payload)

    def leave(self) -> None:
        """Take no more. For any thread; does not wait, and the request that runs is finished."""
        self._leaving = True
        if not self._lock.acquire(timeout=_LOCK_S):
            return  # the thread is writing; it sees the flag afterwards
        try:
            if not self._leave_sent:
                self._leave_sent = True
                self._socket.sendall(LEAVING)
        except OSError:
            self._lost = True
        finally:
            self._lock.release()

    def _run(self, stream: int, payload: bytes) -> None:
        try:
            (length,) = COUNT.unpack_from(payload)
            head = _decode(payload[4 : 4 + length])
        except (msgspec.MsgspecError, ValueError, struct.error) as error:
            raise self._broken(f"a request that cannot be read: {error}") from None
        if not stream:
            raise self._broken("a request without a number")
        body: bytes | None = payload[4 + length :]
        self._stream = stream
        if not head.ended:
            if body:
                self._pieces.append(body)
            body = None
            self._body_ended = False
            self._expects = head.expects
        self._runner.run(head, self, body)
        self.requests += 1
        self._stream = 0
        if body is None or self._begin or self._ahead or self._gone:
            self._pieces.clear()
            self._reset()
        if self._leaving and not self._leave_sent:
            self.leave()

    # Frames in

    def _next(self) -> tuple[int, int, bytes]:
        """The next frame; waits for it."""
        buffer = self._buffer
        while True:
            if len(buffer) >= HEADER_BYTES:
                length, stream, kind = HEADER.unpack_from(buffer)
                end = HEADER_BYTES + length
                if len(buffer) >= end:
                    self._buffer = buffer[end:]
                    return kind, stream, buffer[HEADER_BYTES:end]
                if length > frames.PAYLOAD_BYTES_MAX:
                    raise self._broken(f"a frame of {length} bytes")
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except OSError as error:
                raise LinkLost(str(error)) from None
            if not data:
                raise LinkLost("the edge has closed the link")
            buffer = self._buffer = buffer + data

    def _poll(self) -> None:
        """Note what has arrived, without waiting: that the client has left, above all."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise LinkLost(str(error)) from None
        if not data:
            raise LinkLost("the edge has closed the link")
        self._buffer += data
        while self._has_frame():
            self._note(*self._next())

    def _has_frame(self) -> bool:
        buffer = self._buffer
        return len(buffer) >= HEADER_BYTES and len(buffer) >= HEADER_BYTES + HEADER.unpack_from(buffer)[0]

    def _note(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == _PING:
            self._write(HEADER.pack(len(payload), stream, _PONG) + payload)
        elif kind == _LEAVE:
            self._dismissed = True
        elif kind == _REQUEST:
            raise self._broken("a second request at once")
        elif stream == self._stream:  # else it is for an answer that has ended
            self._note_own(kind, payload)

    def _note_own(self, kind: int, payload: bytes) -> None:
        if kind == _CONSUMED:
            if len(payload) != COUNT.size:
                raise self._broken(f"a count of {len(payload)} bytes")
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

    def _broken(self, reason: str) -> LinkBroken:
        """Also where the application gets the exception, and swallows it, the link is over."""
        self._dismissed = self._lost = True
        return LinkBroken(reason)

    # The request that runs: `Channel`

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
        """For the edge's next frame."""
        self._check()
        self._note(*self._next())

    def _check(self) -> None:
        if self._gone:
            raise ClientGone("the client has left")
        if self._lost:
            raise LinkLost("the edge has closed the link")

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        self._write(_begin_of(_ANSWER, self._stream, status, fields, len(body)) + fields.block + body)

    def start(self, status: int, fields: Fields) -> None:
        self._begin = _begin_of(_HEAD, self._stream, status, fields, 0) + fields.block

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
        self._write(self._take_begin() + HEADER.pack(0, self._stream, _ENDED))

    def abort(self) -> None:
        self._begin = b""
        self._write(HEADER.pack(0, self._stream, _GONE))

    def retire(self) -> None:
        self.leave()

    # Frames out

    def _write(self, data: bytes) -> None:
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            self._lost = True  # `_check` and the next `recv` say so


def _flags(fields: Fields) -> int:
    if fields.dated or fields.served or fields.close:
        return fields.dated * frames.DATED | fields.served * frames.SERVED | fields.close * frames.CLOSE
    return 0


def _begin_of(kind: int, stream: int, status: int, fields: Fields, body_bytes: int) -> bytes:
    """A frame with a Head, up to the block."""
    block_bytes = len(fields.block)
    length = -1 if fields.length is None else fields.length
    size = HEAD_BYTES + block_bytes + body_bytes
    return _FRAME_AND_HEAD.pack(size, stream, kind, status, _flags(fields), length, block_bytes)
