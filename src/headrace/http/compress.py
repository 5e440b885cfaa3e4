"""Compression of answers: middleware that packs what is text, in whole bodies and in streams.

Every piece that the application sends can be read by the client at once (the stream is flushed), so that server-sent
events and progress work. A turn of the loop packs at most PIECE_BYTES; what is longer waits for the next turns, and the
application is told to wait (`writable`). Answers that depend on secrets and repeat the client's input should not be
packed over TLS (BREACH): `Cache-Control: no-transform` keeps an answer as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from headrace.http.codings import PACKED_BYTES_MIN, choose, is_packable
from headrace.http.exchange import WAITING, Exchange, LengthMismatch
from headrace.http.fields import Fields
from headrace.http.packing import CODINGS, Stream, pack
from headrace.http.sendfile import FilePiece
from headrace.http.wrapped import Wrapped

_log: Final = logging.getLogger("headrace.http")

PIECE_BYTES: Final = 65_536  # 0.3 ms of CPU with zstd, 0.9 ms with gzip
WHOLE_BYTES_MAX: Final = 2 * PIECE_BYTES  # packed in one go; beyond in pieces
PACKED_BYTES_MAX: Final = (
    64 * 1_048_576
)  # an announced length beyond stays plain: a second of CPU, ranges are worth more
STREAMS_MAX: Final = 512  # at once, in one process, at 0.2 to 0.8 MB; beyond: plain

_PLAIN_STATUSES: Final = frozenset({204, 205, 206, 304})


def compressed(exchange: Exchange) -> Exchange:
    """`exchange`, with its answer packed if the client takes that and it is worth it.

    An answer to a client that takes no coding is not marked with Vary: it is right for every other client, too.
    """
    accept = exchange.headers.get(b"accept-encoding")
    if accept is None or exchange.upgrade:
        return exchange
    coding = choose(accept, CODINGS)
    return Compressed(exchange, coding) if coding else exchange


def is_worth_packing(status: int, fields: Fields, length: int | None) -> bool:
    """Whether an answer gets shorter, and nothing forbids it. `length` is None if unknown."""
    if length is not None and not PACKED_BYTES_MIN <= length <= PACKED_BYTES_MAX:
        return False
    if status in _PLAIN_STATUSES:
        return False
    low = b"\r\n" + fields.block.lower()
    # A digest is one of the plain bytes. (It is enough that these words stand anywhere.)
    if b"content-encoding:" in low or b"no-transform" in low or b"digest:" in low or b"content-md5:" in low:
        return False
    _, found, rest = low.partition(b"\r\ncontent-type:")
    return bool(found) and is_packable(rest[: rest.index(b"\r\n")])


def packed_fields(fields: Fields, coding: str) -> Fields:
    """The same, of the packed body: of unknown length, without ranges; its ETag is weak, as packing is not exact."""
    lines = []
    varies = False
    for line in fields.block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        label = name.lower()
        if label == b"accept-ranges":
            continue
        if label == b"etag" and not value.lstrip().startswith(b"W/"):
            line = b"%b: W/%b" % (name, value.strip())  # noqa: PLW2901  # it is this line, changed
        elif label == b"vary" and (b"accept-encoding" in value.lower() or b"*" in value):
            varies = True
        lines.append(line)
    lines.append(b"Content-Encoding: " + coding.encode())
    if not varies:
        lines.append(b"Vary: Accept-Encoding")
    block = b"\r\n".join(lines) + b"\r\n"
    return Fields(block, dated=fields.dated, served=fields.served, close=fields.close)


class Compressed(Wrapped):
    """See the module. Decides when the answer begins.

    What is passed on goes through the public methods of `inner`, which checks and counts it.

    Invariant: while `_backlog` has something, a turn is scheduled or waits for room (`_waits`); the exchange is
    ANSWERING, not `writable`, and its `notify` is ours.
    """

    __slots__ = ("_backlog", "_coding", "_consumer", "_ending", "_remaining", "_stream", "_waits")

    def __init__(self, inner: Exchange, coding: str) -> None:
        super().__init__(inner)
        self._coding = coding
        self._stream: Stream | None = None
        self._remaining: int | None = None
        """Bytes of the plain body that have been announced and not been sent; None if unknown."""
        self._backlog: deque[_Part] | None = None
        """Exists once a piece was too long for one turn."""
        self._consumer: Callable[[], None] | None = None
        """The consumer's `notify`, while there is a backlog."""
        self._ending = False
        self._waits = False

    # The answer

    def respond(self, status: int, fields: Fields, body: bytes = b"") -> None:
        to_head = self.method == "HEAD"
        length = fields.length if to_head and not body else len(body)
        in_pieces = to_head or len(body) > WHOLE_BYTES_MAX
        matches = to_head or fields.length in (None, length)
        if not matches or not self._is_packed(status, fields, length, in_pieces=in_pieces):
            self.inner.respond(status, fields, body)
        elif in_pieces:
            self.start(
                status, Fields(fields.block, length, dated=fields.dated, served=fields.served, close=fields.close)
            )
            self.send(body)
            self.finish()
        else:
            self.inner.respond(status, packed_fields(fields, self._coding), pack(self._coding, body))

    def start(self, status: int, fields: Fields) -> None:
        if not self._is_packed(status, fields, fields.length, in_pieces=True):
            self.inner.start(status, fields)
            return
        self.inner.start(status, packed_fields(fields, self._coding))
        if self.method != "HEAD":
            self._stream = Stream(self._coding)
            self._remaining = fields.length

    def send(self, data: bytes) -> None:
        if self._stream is None or self.gone or not data:
            self.inner.send(data)
            return
        excess = self._spend(len(data))
        if excess:
            data = data[: len(data) - excess]
        self._put(_Piece(data))
        if excess:
            raise LengthMismatch(f"the body is {excess} bytes longer than its Content-Length")

    def send_file(self, fd: int, offset: int, count: int) -> None:
        if self._stream is None or self.gone:
            self.inner.send_file(fd, offset, count)
            return
        part = FilePiece(fd, offset, count)
        if self._remaining is not None and count > self._remaining:
            raise LengthMismatch(f"the file has {count} bytes, {self._remaining} are still announced")
        self._spend(count)
        if count:
            self._put(part)

    def finish(self) -> None:
        if self._stream is None or self.gone:
            self.inner.finish()
        elif self._remaining:
            missing = self._remaining
            self.abort()
            raise LengthMismatch(f"{missing} bytes of the announced Content-Length were not sent")
        elif self._backlog:
            self._ending = True
        else:
            self._end()

    @property
    def notify(self) -> Callable[[], None] | None:
        return self.inner.notify if self._backlog is None else self._consumer

    @notify.setter
    def notify(self, notify: Callable[[], None] | None) -> None:
        if self._backlog is None:
            self.inner.notify = notify
        else:
            self._consumer = notify

    @property
    def writable(self) -> bool:
        return self.inner.writable and (not self._backlog or self.gone)

    # Inside

    def _is_packed(self, status: int, fields: Fields, length: int | None, *, in_pieces: bool) -> bool:
        if self.gone or self.stage is not WAITING or (in_pieces and Stream.open_count >= STREAMS_MAX):
            return False
        return is_worth_packing(status, fields, length)

    def _spend(self, count: int) -> int:
        """Take `count` bytes off what was announced; answers how many are too many."""
        if self._remaining is None:
            return 0
        excess = max(0, count - self._remaining)
        self._remaining -= count - excess
        return excess

    def _put(self, part: _Part) -> None:
        if self._backlog is None:
            if part.left <= PIECE_BYTES and isinstance(part, _Piece):
                self._pack(part.read(PIECE_BYTES))
                return
            self._backlog = deque()
            self._consumer, self.inner.notify = self.inner.notify, self._wake
            asyncio.get_running_loop().call_soon(self._turn)
        self._backlog.append(part)

    def _turn(self) -> None:
        """Called by the loop, so that nobody else would end a request whose consumer fails when it is notified."""
        try:
            self._advance()
        except Exception:  # noqa: BLE001  # a consumer's, whatever it is
            _log.exception("a consumer failed", extra={"action": "http.target.failed", "path": self.path})
            self.abort()

    def _advance(self) -> None:
        """Pack one piece of the backlog."""
        backlog = self._backlog
        if backlog is None:
            return  # the client has left
        if self.gone:
            self._close_backlog()
        elif not self.inner.writable:
            self._waits = True
        else:
            self._pack_next(backlog)

    def _pack_next(self, backlog: deque[_Part]) -> None:
        data = backlog[0].read(PIECE_BYTES)
        if not data and backlog[0].left:
            _log.warning("a file was cut while it was sent", extra={"action": "http.compress.cut"})
            self.abort()
            self._wake()
            return
        self._pack(data)
        if not backlog[0].left:
            backlog.popleft()
        if backlog:
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._close_backlog()

    def _close_backlog(self) -> None:
        """All is packed: what the consumer wanted meanwhile."""
        self._backlog = None
        self.inner.notify = self._consumer
        if self._ending and not self.gone:
            self._end()
        elif self._consumer is not None:
            self._consumer()

    def _wake(self) -> None:
        """Our `notify`: there is room, or the client has left; or the body goes on, which is the consumer's."""
        if self.gone:
            self._close_backlog()
            return
        if self._waits:
            self._waits = False
            asyncio.get_running_loop().call_soon(self._turn)
        if self._consumer is not None:
            self._consumer()

    def _pack(self, data: bytes) -> None:
        assert self._stream is not None, "only a packed answer has parts to pack"
        self.inner.send(self._stream.pack(data))

    def _end(self) -> None:
        assert self._stream is not None, "as in _pack"
        rest = self._stream.end()
        self._stream = None
        self.inner.send(rest)
        self.inner.finish()


class _Piece:
    """Bytes that wait to be packed."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._offset

    def read(self, count: int) -> bytes:
        if self._offset == 0 and len(self._data) <= count:
            data = self._data
        else:
            data = self._data[self._offset : self._offset + count]
        self._offset += len(data)
        return data


_Part = _Piece | FilePiece
