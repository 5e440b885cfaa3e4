"""Parses the responses on one connection to an upstream. No sockets, no clock.

An upstream is not an enemy, but where it and we disagree about the end of an answer, one client gets a part of another's.
So everything but the plain form is refused: the answer becomes a 502, or is cut, and the connection is closed. llhttp
splits and checks the header lines; status line, framing and bodies are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from headrace.http.chunked import ChunkedDecoder
from headrace.http.fields import FieldInvalid, Fields
from headrace.http.limits import CONTENT_LENGTH_DIGITS_MAX, Limits
from headrace.http.parse import CHUNKED, Refusal
from headrace.web.proxy.limits import ANSWER_HEAD_BYTES_MAX, ANSWER_HEADERS_MAX

UNTIL_CLOSE: Final = -2
"""`ResponseHead.length` of a body that ends where the connection does."""

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_ANY_LINE: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNK_LIMITS: Final = Limits(body_bytes=2**62)
_BODILESS: Final = frozenset({204, 304})


class InvalidResponse(Exception):
    """The upstream sent an invalid or ambiguous response."""


class ResponseHead:
    """The head of an answer."""

    __slots__ = ("fields", "keep_alive", "length", "status", "upgrade")

    status: int
    fields: Fields
    """The fields to pass on, without hop-by-hop fields."""
    length: int
    """Body bytes that follow, CHUNKED or UNTIL_CLOSE."""
    keep_alive: bool
    upgrade: bytes
    """The protocol that a 101 changes to."""


class ResponseReader:
    """Call `feed`, then `next_head` until there is one, then `read_body` until it says that the body is complete."""

    __slots__ = ("_chunks", "_left", "_searched", "buffer", "delimited")

    def __init__(self) -> None:
        self.buffer = b""
        """Take all bytes that were not read."""
        self.delimited = False
        """The body ends where the connection does."""
        self._searched = 0
        self._left = 0
        self._chunks: ChunkedDecoder | None = None

    def feed(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data

    def take(self) -> bytes:
        """All that is there, unread: the connection is a tunnel now."""
        data, self.buffer = self.buffer, b""
        return data

    def next_head(self, *, mute: bool) -> ResponseHead | None:
        """The next answer's head, interim ones too; None until all of it is here.

        Args:
            mute: this answers a HEAD, so no body follows.

        Raises: AnswerInvalid.
        """
        buffer = self.buffer
        end = buffer.find(b"\r\n\r\n", self._searched) + 4
        if end == 3:
            self._searched = max(0, len(buffer) - 3)
            _check_begin(buffer)
            return None
        if end > ANSWER_HEAD_BYTES_MAX:
            raise InvalidResponse(f"the head of the answer is longer than {ANSWER_HEAD_BYTES_MAX} bytes")
        self._searched = 0
        answer = _parse(buffer[:end])
        self.buffer = buffer[end:]
        if mute or answer.status in _BODILESS or answer.status < 200:
            answer.length = 0
        self._begin_body(answer.length)
        return answer

    def _begin_body(self, length: int) -> None:
        self.delimited = length == UNTIL_CLOSE
        self._chunks = _ResponseChunks(_CHUNK_LIMITS) if length == CHUNKED else None
        self._left = max(0, length)

    def read_body(self) -> tuple[bytes, bool]:
        """Read the body as far as it has come; and whether it is complete now. One that ends with the connection never is.

        Raises: AnswerInvalid.
        """
        if self._chunks is not None:
            return self._read_chunks(self._chunks)
        buffer, left = self.buffer, self._left
        if self.delimited or len(buffer) <= left:
            self.buffer = b""
            self._left = left - len(buffer)
            return buffer, not self.delimited and not self._left
        self.buffer = buffer[left:]
        self._left = 0
        return buffer[:left], True

    def _read_chunks(self, chunks: ChunkedDecoder) -> tuple[bytes, bool]:
        pieces: list[bytes] = []
        try:
            self.buffer = self.buffer[chunks.decode(self.buffer, pieces) :]
        except Refusal as refusal:
            raise InvalidResponse(refusal.reason) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), chunks.done


class _ResponseChunks(ChunkedDecoder):
    """An upstream may send as small chunks as it likes: events, tokens of a language model."""

    __slots__ = ()

    def _charge(self, line_bytes: int, size: int) -> None:
        pass


class _Pairs:
    """For llhttp."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value.rstrip(b" \t")))


def _check_begin(buffer: bytes) -> None:
    """Check an incomplete head, so that an invalid one is refused without waiting for more."""
    if len(buffer) > ANSWER_HEAD_BYTES_MAX:
        raise InvalidResponse(f"the head of the answer is longer than {ANSWER_HEAD_BYTES_MAX} bytes")
    if not buffer.startswith(b"HTTP/1."[: len(buffer)]):
        raise InvalidResponse("the response is not HTTP/1")


def _parse(raw: bytes) -> ResponseHead:
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise InvalidResponse("malformed status line")
    pairs = _split(raw[line.end() :])
    answer = ResponseHead()
    answer.status = int(line[2])
    _frame(answer, pairs, http11=line[1] == b"1")
    return answer


def _split(lines: bytes) -> list[tuple[bytes, bytes]]:
    count = lines.count(b"\n") - 1
    if count > ANSWER_HEADERS_MAX:
        raise InvalidResponse(f"the answer has {count} headers; at most {ANSWER_HEADERS_MAX} are read")
    sink = _Pairs()
    try:
        HttpResponseParser(sink).feed_data(_ANY_LINE + lines)
    except HttpParserUpgrade:
        pass  # all headers have been read
    except HttpParserError as error:
        raise InvalidResponse(f"malformed headers: {error}") from None
    if len(sink.pairs) != count:
        raise InvalidResponse("malformed headers: stray line ends")
    return sink.pairs


def _frame(answer: ResponseHead, pairs: list[tuple[bytes, bytes]], *, http11: bool) -> None:
    """Find out where the body ends and what becomes of the connection, and what is passed on."""
    length: int | None = None
    coding = connection = answer.upgrade = b""
    kept: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        name = pair[0].lower()
        if name == b"content-length":
            length = _read_length(pair[1], length)
        elif name == b"transfer-encoding":
            coding = coding + b"," + pair[1] if coding else pair[1]
        elif name == b"connection":
            connection = connection + b"," + pair[1] if connection else pair[1]
        elif name == b"upgrade":
            answer.upgrade = pair[1].lower()
        else:
            kept.append(pair)
    if coding:
        _check_coding(coding, length, http11=http11)
    answer.length = CHUNKED if coding else UNTIL_CLOSE if length is None else length
    options = _options(connection) if connection else frozenset()
    answer.keep_alive = b"close" not in options and (http11 or b"keep-alive" in options)
    answer.fields = _fields(kept, options)
    answer.fields.length = length


def _fields(pairs: Iterable[tuple[bytes, bytes]], options: frozenset[bytes]) -> Fields:
    if options:
        pairs = [pair for pair in pairs if pair[0].lower() not in options]
    try:
        return Fields.of(pairs)
    except FieldInvalid as error:
        raise InvalidResponse(str(error)) from None


@lru_cache(maxsize=64)
def _options(connection: bytes) -> frozenset[bytes]:
    return frozenset(option.strip() for option in connection.lower().split(b","))


def _read_length(digits: bytes, before: int | None) -> int:
    if before is not None or not digits.isdigit() or len(digits) > CONTENT_LENGTH_DIGITS_MAX:
        raise InvalidResponse("invalid Content-Length")
    return int(digits)


def _check_coding(coding: bytes, length: int | None, *, http11: bool) -> None:
    if length is not None:
        raise InvalidResponse("Content-Length and Transfer-Encoding exclude each other")
    if not http11:
        raise InvalidResponse("HTTP/1.0 has no Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise InvalidResponse("the only Transfer-Encoding understood is chunked")
