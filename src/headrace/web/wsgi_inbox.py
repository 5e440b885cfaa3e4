"""What has come on a WSGI thread's link and was not begun: requests, and what belongs to them.

The link's thread takes requests out in order. Any other thread may take out those that wait and give them back, and may
read what is still in the socket for that; so taking out is atomic, and reading is under a lock.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from typing import Final

from headrace.web import frames
from headrace.web.frames import HEADER, HEADER_BYTES, Kind
from headrace.web.wsgi import ClientGone

_REQUEST: Final = int(Kind.REQUEST)
_RECEIVE_BYTES: Final = 65_536
_AHEAD_MAX: Final = 64
"""Requests at once; the edge gives fewer (`limits.PREFETCH_MAX`)."""
_READS_MAX: Final = 4  # what an edge writes ahead fits into fewer


class LinkLost(ClientGone):
    """The edge has ended, or closed the link."""


class LinkBroken(LinkLost):
    """What came is not what an edge sends: nothing more is read."""


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
        """For any thread: read what there is, unless somebody reads it already. Errors are left to the link's thread."""
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
        """The socket is about to be closed: nobody may read from whatever gets its number."""
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
