"""Two small things of a link: reading an answer's Head, and who is at the other end."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

from headrace.http.fields import Fields
from headrace.web import frames
from headrace.web.frames import HEAD, HEAD_BYTES
from headrace.web.stream_flow import MalformedFrame

_PEER: Final = struct.Struct("3i")
_FLAGS: Final = [(bool(f & frames.DATED), bool(f & frames.SERVED), bool(f & frames.CLOSE)) for f in range(8)]


def read_head(payload: bytes) -> tuple[int, Fields, int]:
    """Status and fields of an answer, and where its body begins."""
    status, flags, length, size = HEAD.unpack_from(payload)
    end = HEAD_BYTES + size
    if end > len(payload):
        raise MalformedFrame(f"a block of {size} bytes in a frame of {len(payload)}")
    dated, served, close = _FLAGS[flags & 7]
    fields = Fields(payload[HEAD_BYTES:end], length if length >= 0 else None, dated=dated, served=served, close=close)
    return status, fields, end


def peer_pid(peer: socket.socket) -> int:
    """Who has connected; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    pid: int = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
    return pid
