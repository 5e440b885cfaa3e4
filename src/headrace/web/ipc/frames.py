"""The wire between an edge and its workers: frames on a Unix stream socket.

A worker connects and says HELLO with its `capacity`: how many requests it will take at once on this socket. An ASGI
worker opens one socket an edge, and many requests share it as numbered streams. A WSGI worker opens one socket a
thread, with a capacity of one: each thread is a consumer that pulls. And one more an edge with a capacity of zero, its
*control thread*: there it is asked to return requests. Only to a worker that has one the edge gives short requests
ahead, more than one a thread (`prefetch_policy.py`); the thread runs them in the order in which they came.

  9 bytes: payload length (u32), stream (u32), kind (u8), little-endian; then the payload

An answer to a small request is one frame each way. Bodies and tunnels beyond that come in pieces, at most WINDOW_BYTES
ahead of what the other side has consumed, which it says with CONSUMED: a slow client holds back its own stream only.

  edge → worker                                         worker → edge
  REQUEST  u32 n, Request as n bytes of msgpack, body   HELLO     Hello as msgpack, stream 0
  BODY     more body, or bytes of a tunnel              ANSWER    Head, block, body: a whole answer
  ENDED    the body, or the client's half, is complete  HEAD      Head, block: an answer begins (101: a tunnel)
  GONE     the client disconnected; answer no more          DATA      a piece of the answer, or of a tunnel
  CONSUMED u32: bytes of the answer that were passed on FILE      File as msgpack: send this piece of a file
  PING     echoed as PONG: how late the process is      ENDED     the answer is complete; a byte: the request was long
  LEAVE    stream 0: take no more, finish what you have GONE      the answer cannot be completed: abort
  RECALL to the control thread, u32: give back what the       RETURN    the request was not begun: give it to another
           thread's socket of that number has waiting   CONSUMED  u32: bytes of the body that were taken
                                                        INFORM    Head, block: an interim answer
                                                        PONG      payload as in PING
                                                        LEAVE     stream 0: give me no more; I finish what I have

A stream ends with ANSWER, ENDED, GONE or RETURN from the worker; until then its number is in use, also after GONE from
the edge. After LEAVE from either side the worker finishes its streams and closes the socket.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Annotated, Final

import msgspec

HEADER: Final = struct.Struct("<IIB")
HEADER_BYTES: Final = HEADER.size
HEAD: Final = struct.Struct("<HBqI")
"""Status, flags, Content-Length (-1: unknown), bytes of the block; the block follows, then (in ANSWER) the body."""
HEAD_BYTES: Final = HEAD.size
COUNT: Final = struct.Struct("<I")
"""Of CONSUMED and RECALL; and of the msgpack in REQUEST, since nothing else says where the body begins."""

WINDOW_BYTES: Final = 262_144
"""A stream's bytes in one direction that the other side has not consumed. Enough for 2 GB/s at a hop of 0.1 ms."""
PIECE_BYTES_MAX: Final = 65_536
"""The longest BODY or DATA: a longer one would hold up the other streams of its socket."""
PAYLOAD_BYTES_MAX: Final = 16 * 1_048_576
"""Beyond: not ours, or a bug; the socket is closed. An ANSWER may be this long, longer bodies are streamed."""

DATED: Final = 1
SERVED: Final = 2
CLOSE: Final = 4
"""Flags of a Head: as in `headrace.http.fields.Fields`."""
LONG: Final = 8
"""And this: the request was no short one (`prefetch_policy.py`)."""


class Kind(IntEnum):
    """The kind of a frame; see the table of the module."""

    HELLO = 1
    REQUEST = 2
    BODY = 3
    ENDED = 4
    GONE = 5
    CONSUMED = 6
    ANSWER = 7
    HEAD = 8
    DATA = 9
    FILE = 10
    INFORM = 11
    PING = 12
    PONG = 13
    LEAVE = 14
    RECALL = 15
    RETURN = 16


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first frame of a worker: it identifies the process and its app."""

    pid: int
    generation: int
    """Of the code: counted up by every reload."""
    interface: str
    """`wsgi` or `asgi`."""
    capacity: int
    """Requests at once on this socket, at most; 0: a control thread, see above."""
    durable: list[tuple[str, list[str]]] = []
    """(path prefix, methods) that the application has marked with `headrace.web.durable`."""
    number: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    """Of this socket, for RECALL, where it is a COUNT; unique in the process."""


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The head of a request, as `http.exchange.Exchange` has it."""

    method: str
    target: str
    headers: dict[bytes, bytes]
    version: str
    secure: bool
    peer: str
    peer_port: int
    server: tuple[str, int]
    upgrade: bytes
    length: int
    root_path: str
    """The mount point that routing took off: SCRIPT_NAME, `root_path`."""
    ended: bool
    """Whether the bytes behind this are the whole body."""
    expects: bool
    """`Expect: 100-continue` is unanswered: the first CONSUMED (of 0 bytes) invites the body."""
    waited_s: float
    """In the queue."""


class File(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a regular file that the worker holds open: the edge opens it as `/proc/<pid>/fd/<fd>` (Linux), sends it,
    and answers CONSUMED with COUNT = 0xFFFFFFFF when it has its own descriptor, or 0xFFFFFFFE if it could not: the worker
    then sends DATA itself."""

    fd: int
    offset: int
    count: int


FILE_OPENED: Final = 0xFFFFFFFF
FILE_REFUSED: Final = 0xFFFFFFFE
