"""The bytes of one connection, taken apart into heads and bodies. No sockets, no clock, no answers.

A body comes in pieces, as it arrives: who wants it whole joins them (`buffered.py`), who streams passes them on.
"""

from __future__ import annotations

from headrace.http.chunked import ChunkedDecoder
from headrace.http.limits import Limits
from headrace.http.parse import CHUNKED, AnyHead, HeadParser, Refusal


class Reader:
    """Call `feed`, then in turn: `next_head` until there is one, `read_body` until it says the body is complete.

    Invariant: outside a body, what is buffered is at most one read of the transport and one head that is within limits.
    """

    __slots__ = ("_chunks", "_left", "_limits", "_parser", "_searched", "buffer")

    def __init__(self, parser: HeadParser, limits: Limits) -> None:
        self._parser = parser
        self._limits = limits
        self.buffer = b""
        """Bytes not yet taken: the begin of a head, or what a pipelining client has sent ahead."""
        self._searched = 0  # no head ends before this offset: a head that trickles in is searched once
        self._left = 0
        self._chunks: ChunkedDecoder | None = None

    def feed(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data

    @property
    def mid_head(self) -> bool:
        """Whether a request has begun, though not all of its head is here. An empty line begins none."""
        return self.buffer not in (b"", b"\r", b"\r\n")

    @property
    def body_left(self) -> int:
        """Bytes of the body that have not been read; CHUNKED (-1) if nobody knows."""
        return self._left if self._chunks is None else CHUNKED

    def clear(self) -> None:
        """Forget what is buffered: the connection is ending."""
        self.buffer = b""

    def next_head(self, head: AnyHead) -> bool:
        """Fill `head` with the next request's; False until all of it has arrived.

        Raises: Refusal.
        """
        buffer = self.buffer
        end = buffer.find(b"\r\n\r\n", self._searched) + 4
        if end == 3:
            if buffer:
                self._wait_for_head()
            return False
        if end > self._limits.header_bytes:
            raise self._head_too_long()
        self._parser.parse(buffer[:end], head)
        self.buffer = buffer[end:]
        self._searched = 0
        self._begin_body(head.length)
        return True

    def rest_of_body(self) -> bytes | None:
        """What is still missing of the body, if all of it is here, as mostly; else None: `read_body` reads what is."""
        buffer, left = self.buffer, self._left
        if self._chunks is not None or len(buffer) < left:
            return None
        self._left = 0
        if len(buffer) == left:
            self.buffer = b""
            return buffer
        self.buffer = buffer[left:]
        return buffer[:left]

    def read_body(self, pieces: list[bytes]) -> bool:
        """Append what has arrived of the body to `pieces`; whether the body is complete now.

        Raises: Refusal.
        """
        if self._chunks is not None:
            return self._read_chunks(self._chunks, pieces)
        buffer = self.buffer
        if self._left and buffer:
            piece = buffer if len(buffer) <= self._left else buffer[: self._left]
            self.buffer = buffer[len(piece) :]
            self._left -= len(piece)
            pieces.append(piece)
        return not self._left

    def _begin_body(self, length: int) -> None:
        if length == CHUNKED:
            self._chunks = ChunkedDecoder(self._limits)
        elif length > self._limits.body_bytes:
            raise Refusal(413, f"the body has {length} bytes; at most {self._limits.body_bytes} are read")
        else:
            self._left = length

    def _read_chunks(self, chunks: ChunkedDecoder, pieces: list[bytes]) -> bool:
        self.buffer = self.buffer[chunks.decode(self.buffer, pieces) :]
        if chunks.done:
            self._chunks = None
        return chunks.done

    def _wait_for_head(self) -> None:
        """Look at what is there of a head, so that what cannot become one is refused without waiting for more."""
        buffer = self.buffer
        self._searched = max(0, len(buffer) - 3)
        if len(buffer) >= self._limits.header_bytes:
            raise self._head_too_long()
        if buffer[0] != 13 and not 32 < buffer[0] < 127:
            raise Refusal(400, "this is not HTTP")  # TLS on a plain port, say
        if buffer.count(b"\n") != buffer.count(b"\r\n"):
            raise Refusal(400, "a line ends with LF alone")
        if b"\r\n" in buffer[2:]:
            self._parser.read_line(buffer)

    def _head_too_long(self) -> Refusal:
        limit = self._limits.header_bytes
        if b"\r\n" not in self.buffer[2:limit]:
            return Refusal(414, f"the request line is longer than {self._limits.target_bytes} bytes")
        return Refusal(431, f"the headers are longer than {limit} bytes")
