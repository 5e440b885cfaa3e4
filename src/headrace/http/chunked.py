"""The chunked transfer coding, read strictly (RFC 9112 7.1).

Sizes are matched by byte class, since `int()` accepts `5_0` and `+5`. Where a lenient reader and a strict one disagree
about the end of a body, the rest of it becomes somebody's next request; so everything but the plain form is refused.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from headrace.http.limits import CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_FREE_BYTES, CHUNK_SIZE_DIGITS_MAX, Limits
from headrace.http.parse import Refusal

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,%d})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n" % CHUNK_SIZE_DIGITS_MAX)
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*\r\n")
_FORBIDDEN_TRAILERS: Final = frozenset(b"connection content-length host te trailer transfer-encoding upgrade".split())


class _Part(Enum):
    """What comes next. SIZE → DATA → DATA_END → SIZE … SIZE → TRAILERS → DONE."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedDecoder:
    """Takes the chunks of one body apart.

    Invariant: never more than one incomplete line is left over, and `body_bytes` never exceeds the limit.
    """

    __slots__ = ("_left", "_limits", "_overhead_bytes", "_part", "_trailer_bytes", "body_bytes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = _Part.SIZE
        self._left = 0
        self._overhead_bytes = 0
        self._trailer_bytes = 0
        self.body_bytes = 0
        """Announced so far, the current chunk's whole size included."""

    @property
    def done(self) -> bool:
        return self._part is _Part.DONE

    def decode(self, buffer: bytes, pieces: list[bytes]) -> int:
        """Append the body bytes found in `buffer` to `pieces`; returns how many bytes of it were used.

        Call again with the rest and what arrived since, until `done`.

        Raises: Refusal.
        """
        position, before = 0, -1
        while position != before and self._part is not _Part.DONE:
            before = position
            if self._part is _Part.SIZE:
                position = self._read_size(buffer, position)
            if self._part is _Part.DATA:
                position = self._read_data(buffer, position, pieces)
            if self._part is _Part.DATA_END:
                position = self._read_data_end(buffer, position)
            if self._part is _Part.TRAILERS:
                position = self._read_trailers(buffer, position)
        return position

    def _read_size(self, buffer: bytes, position: int) -> int:
        line = _SIZE_LINE.match(buffer, position, position + CHUNK_LINE_BYTES_MAX)
        if line is None:
            return _wait_for_line(buffer, position)
        size = int(line[1], 16)
        self.body_bytes += size
        if self.body_bytes > self._limits.body_bytes:
            raise Refusal(413, f"the body is longer than {self._limits.body_bytes} bytes")
        self._charge(line.end() - position, size)
        self._left = size
        self._part = _Part.DATA if size else _Part.TRAILERS
        return line.end()

    def _charge(self, line_bytes: int, size: int) -> None:
        # A body of one-byte chunks costs six bytes and a turn of the loop each: allowed for small bodies only.
        self._overhead_bytes += line_bytes + 2
        if self._overhead_bytes > CHUNK_OVERHEAD_FREE_BYTES + self.body_bytes - size:
            raise Refusal(400, "the chunks are too small for a body of this length")

    def _read_data(self, buffer: bytes, position: int, pieces: list[bytes]) -> int:
        piece = buffer[position : position + self._left]
        if piece:
            pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._part = _Part.DATA_END
        return position + len(piece)

    def _read_data_end(self, buffer: bytes, position: int) -> int:
        end = buffer[position : position + 2]
        if not b"\r\n".startswith(end):
            raise Refusal(400, "a chunk does not end where its size says")
        if len(end) < 2:
            return position
        self._part = _Part.SIZE
        return position + 2

    def _read_trailers(self, buffer: bytes, position: int) -> int:
        while True:
            if buffer.startswith(b"\r\n", position):
                self._part = _Part.DONE
                return position + 2
            room = self._limits.trailer_bytes - self._trailer_bytes
            line = _TRAILER.match(buffer, position, position + room)
            if line is None:
                return _wait_for_trailer(buffer, position, room)
            if line[1].lower() in _FORBIDDEN_TRAILERS:
                raise Refusal(400, f"{line[1].decode()} is not allowed in trailers")
            self._trailer_bytes += line.end() - position
            position = line.end()


def _wait_for_line(buffer: bytes, position: int) -> int:
    """Right if a chunk's size line may still become one; looked at early, so that junk is refused without more bytes."""
    rest = buffer[position : position + CHUNK_LINE_BYTES_MAX]
    if b"\n" in rest or len(rest) >= CHUNK_LINE_BYTES_MAX or not _may_become_size(rest):
        raise Refusal(400, "malformed chunk size")
    return position


def _may_become_size(rest: bytes) -> bool:
    digits = rest.partition(b";")[0].removesuffix(b"\r")
    return not digits.strip(b"0123456789abcdefABCDEF") and len(digits) <= CHUNK_SIZE_DIGITS_MAX


def _wait_for_trailer(buffer: bytes, position: int, room: int) -> int:
    rest = buffer[position : position + room]
    if len(rest) >= room:
        raise Refusal(431, "the trailers are too long")
    if b"\n" in rest:
        raise Refusal(400, "malformed trailers")
    return position
