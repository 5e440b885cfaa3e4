"""A request that came over a link, in a worker: its body arrives as frames, its answer leaves as frames."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.http.answers import BODILESS
from headrace.http.exchange import DONE, Exchange
from headrace.http.fields import Fields
from headrace.web.ipc.frames import (
    CLOSE,
    COUNT,
    DATED,
    FILE_OPENED,
    FILE_REFUSED,
    HEAD,
    PIECE_BYTES_MAX,
    SERVED,
    WINDOW_BYTES,
    File,
    Kind,
    Request,
)

if TYPE_CHECKING:
    from headrace.web.ipc.asgi_link import AsgiLink

ANSWER_BYTES_MAX: Final = 65_536
"""A longer body is streamed, so that a slow client's lies here, not in the edge's memory."""

_encode: Final = msgspec.msgpack.Encoder().encode
_ANSWER, _HEAD, _DATA, _FILE = int(Kind.ANSWER), int(Kind.HEAD), int(Kind.DATA), int(Kind.FILE)
_ENDED, _GONE, _CONSUMED, _INFORM = int(Kind.ENDED), int(Kind.GONE), int(Kind.CONSUMED), int(Kind.INFORM)


class LinkExchange(Exchange):
    """See the module.

    Invariants: at most WINDOW_BYTES of the answer are sent and not consumed; the rest waits in `_waiting`, and
    then the exchange is not writable. Every descriptor that was given to it is closed.
    """

    __slots__ = (
        "_body",
        "_ended",
        "_file",
        "_finishing",
        "_link",
        "_outstanding",
        "_stream",
        "_uninvited",
        "_waiting",
    )

    def __init__(self, link: AsgiLink, stream: int, request: Request, body: bytes) -> None:
        super().__init__()
        self._link = link
        self._stream = stream
        self.method = request.method
        self.target = request.target
        self.path, _, self.query = request.target.partition("?")
        self.headers = request.headers
        self.version = request.version
        self.secure = request.secure
        self.peer = request.peer
        self.peer_port = request.peer_port
        self.server = request.server
        self.upgrade = request.upgrade
        self.length = request.length
        self.expects = self._uninvited = request.expects
        self.root_path = request.root_path
        self.waited_s = request.waited_s
        self.began_s = time.monotonic()
        self._body: bytes | bytearray = body
        self._ended = request.ended and not request.upgrade  # for a tunnel ENDED comes later
        self._outstanding = 0
        """Bytes of DATA that the edge has not passed on."""
        self._waiting: deque[memoryview | File] | None = None
        """What the window has no room for; made when it is needed."""
        self._file: File | None = None
        """The edge has been asked to send it, and has not answered."""
        self._finishing = False
        """ENDED is due as soon as nothing waits."""

    # The request

    def take(self) -> bytes:
        data = self._body
        if data:
            self._body = b""
            if not self._ended:
                self._send_consumed(len(data))
            return bytes(data)
        if self._uninvited:
            self._send_consumed(0)
        return b""

    def _send_consumed(self, count: int) -> None:
        self._uninvited = self.expects = False
        if self.stage is not DONE:
            self._link.send(_CONSUMED, self._stream, COUNT.pack(count))

    @property
    def ended(self) -> bool:
        return self._ended

    # From the link

    def notify_changed(self) -> None:
        if self.notify is not None:
            self.notify()

    def arrived(self, data: bytes) -> None:
        if self.stage is DONE:
            return
        if not isinstance(self._body, bytearray):
            self._body = bytearray(self._body)
        self._body += data
        if len(self._body) > WINDOW_BYTES:
            raise ValueError(f"{len(self._body)} bytes of a body were not asked for; the window is {WINDOW_BYTES}")
        self.notify_changed()

    def body_ended(self) -> None:
        self._ended = True
        self.notify_changed()

    def consumed(self, count: int) -> None:
        if count in (FILE_OPENED, FILE_REFUSED) and self._file is not None:
            self._file_answered(opened=count == FILE_OPENED)
        elif count > self._outstanding:
            raise ValueError(f"{count} bytes were consumed, {self._outstanding} were sent")
        else:
            self._outstanding -= count
        self._pump()
        if self.writable:
            self.notify_changed()

    def client_left(self) -> None:
        """GONE: the stream ends with `release`; at once if the application has answered, as far as it knows."""
        self._drop()
        if self.stage is DONE:
            self._end(_GONE)
        else:
            self.lost()

    def cut(self) -> None:
        """The link is no more."""
        self._drop()
        self.lost()

    def release(self) -> None:
        if self.gone:
            self._end(_GONE)

    # The answer

    @property
    def writable(self) -> bool:
        return self.gone or (
            not self._waiting and self._file is None and self._outstanding < WINDOW_BYTES and not self._link.congested
        )

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        announced = fields.length
        if announced is None and status not in BODILESS:
            announced = length
        head = _render(status, fields, announced)
        if len(body) <= ANSWER_BYTES_MAX:
            self._end(_ANSWER, head + body)
            return
        self._link.send(_HEAD, self._stream, head)
        self._send(body)
        self._finish()

    def _start(self, status: int, fields: Fields) -> None:
        self._link.send(_HEAD, self._stream, _render(status, fields, fields.length))

    def _tunnel(self, fields: Fields) -> None:
        self._link.send(_HEAD, self._stream, _render(101, fields, None))

    def _inform(self, status: int, fields: Fields) -> None:
        self._link.send(_INFORM, self._stream, _render(status, fields, None))

    def _send(self, data: bytes) -> None:
        if not self._waiting and len(data) <= PIECE_BYTES_MAX and self._outstanding + len(data) <= WINDOW_BYTES:
            self._outstanding += len(data)
            self._link.send(_DATA, self._stream, data)
        else:
            self._wait(memoryview(data))

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        file = File(fd, offset, count)
        if self._waiting or self._file is not None:
            self._wait(file)
        else:
            self._file = file
            self._link.send(_FILE, self._stream, _encode(file))

    def _finish(self) -> None:
        self._finishing = True
        self._pump()

    def _abort(self) -> None:
        self._drop()
        self._end(_GONE)

    # Inside

    def _wait(self, piece: memoryview | File) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(piece)
        self._pump()

    def _pump(self) -> None:
        """Send what the window has room for; ENDED behind the last of it."""
        if self._file is not None:
            return
        while self._waiting:
            room = min(WINDOW_BYTES - self._outstanding, PIECE_BYTES_MAX)
            if room <= 0:
                return
            data = self._next_piece(self._waiting, room)
            if data:
                self._outstanding += len(data)
                self._link.send(_DATA, self._stream, data)
        if self._finishing:
            self._end(_ENDED)

    def _next_piece(self, waiting: deque[memoryview | File], room: int) -> bytes:
        first = waiting.popleft()
        if isinstance(first, memoryview):
            if len(first) > room:
                waiting.appendleft(first[room:])
            return bytes(first[:room])
        data = os.pread(first.fd, min(room, first.count), first.offset)
        if len(data) < first.count:
            if not data:  # it has shrunk: what was announced cannot be sent
                os.close(first.fd)
                self._fail()
                return b""
            waiting.appendleft(File(first.fd, first.offset + len(data), first.count - len(data)))
        else:
            os.close(first.fd)
        return data

    def _fail(self) -> None:
        if self.stage is DONE:
            self._abort()
        else:
            self.abort()

    def _file_answered(self, *, opened: bool) -> None:
        file, self._file = self._file, None
        assert file is not None
        if opened:
            os.close(file.fd)
        else:
            self._waiting = self._waiting or deque()
            self._waiting.appendleft(file)

    def _drop(self) -> None:
        """Drop all waiting pieces."""
        self._finishing = False
        self._body = b""
        pieces = [*(self._waiting or ()), self._file]
        self._waiting = self._file = None
        for piece in pieces:
            if isinstance(piece, File):
                os.close(piece.fd)

    def _end(self, kind: int, payload: bytes = b"") -> None:
        """This side's last frame. Idempotent: a stream ends once."""
        self._finishing = False
        if self._link.streams.get(self._stream) is self:
            self._link.send(kind, self._stream, payload)
            self._link.end(self._stream)


def _render(status: int, fields: Fields, length: int | None) -> bytes:
    flags = (DATED if fields.dated else 0) | (SERVED if fields.served else 0) | (CLOSE if fields.close else 0)
    return HEAD.pack(status, flags, -1 if length is None else length, len(fields.block)) + fields.block
