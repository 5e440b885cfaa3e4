"""Files to clients, a piece at a time: by sendfile(2) where the socket is plain, by reading and writing under TLS.

uvloop has no `loop.sendfile`, and does not watch a descriptor that belongs to one of its transports: a duplicate of it
is watched instead. A pump starts only when the transport has nothing left to write, as both write the same socket.
"""

from __future__ import annotations

import asyncio
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, TypeAlias

TURN_BYTES: Final = 512 * 1024  # about 0.1 ms from the page cache; then the other connections have their turn
_COPY_BYTES: Final = 64 * 1024
_COPY_TURN_BYTES: Final = 256 * 1024  # TLS encrypts about 1 GB/s: 0.3 ms

OnEnd: TypeAlias = Callable[[OSError | None], None]


class FileShort(OSError):
    """The file ends before the bytes that were promised of it: somebody has cut it."""


class FilePiece:
    """A part of a file that is still to be sent, for who reads it. Owns its descriptor."""

    __slots__ = ("_fd", "_offset", "left")

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self._fd = fd
        self._offset = offset
        self.left = count

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end, or when the file has been cut."""
        data = os.pread(self._fd, min(size, self.left), self._offset)
        self._offset += len(data)
        self.left -= len(data)
        return data

    def close(self) -> None:
        """Idempotent; also when nobody refers to it any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class FilePump(ABC):
    """Owns `fd` and closes it. Call `step` to begin, and `on_end` is called once: with None when all is sent.

    Invariant: after `on_end` or `stop` it holds no descriptor and watches nothing.
    """

    __slots__ = ("_left", "_offset", "_on_end", "_on_sent", "fd")

    def __init__(self, *, fd: int, offset: int, count: int, on_sent: Callable[[int], None], on_end: OnEnd) -> None:
        self.fd = fd
        self._offset = offset
        self._left = count
        self._on_sent = on_sent
        self._on_end = on_end

    @abstractmethod
    def step(self) -> None:
        """Send what can be sent in this turn; no effect after the end."""

    def stop(self) -> None:
        """Give up what is not sent. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _moved(self, count: int) -> None:
        self._offset += count
        self._left -= count
        self._on_sent(count)

    def _end(self, error: OSError | None) -> None:
        self.stop()
        self._on_end(error)

    def _short(self) -> FileShort:
        return FileShort(f"the file ends at byte {self._offset}, {self._left} bytes too early")


class KernelPump(FilePump):
    """sendfile(2). The transport's buffer must be empty whenever `step` is called."""

    __slots__ = ("_loop", "_socket", "_watched")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket_fd: int,
        *,
        fd: int,
        offset: int,
        count: int,
        on_sent: Callable[[int], None],
        on_end: OnEnd,
    ) -> None:
        super().__init__(fd=fd, offset=offset, count=count, on_sent=on_sent, on_end=on_end)
        self._loop = loop
        self._socket = socket_fd
        self._watched = -1

    def step(self) -> None:
        if self.fd < 0:
            return
        room = TURN_BYTES
        while self._left and room > 0:
            try:
                sent = os.sendfile(self._socket, self.fd, self._offset, min(self._left, room))
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._end(error)
                return
            if not sent:
                self._end(self._short())
                return
            room -= sent
            self._moved(sent)
        if self._left:
            self._watch()
        else:
            self._end(None)

    def stop(self) -> None:
        super().stop()
        if self._watched >= 0:
            self._loop.remove_writer(self._watched)
            os.close(self._watched)
            self._watched = -1

    def _watch(self) -> None:
        """Go on when the socket takes more: in the loop's next turn, if only this turn's share is used up."""
        if self._watched < 0:
            self._watched = os.dup(self._socket)
            self._loop.add_writer(self._watched, self.step)


class CopyPump(FilePump):
    """Reads and writes, for transports that change the bytes on their way. Call `step` when they take more."""

    __slots__ = ("_is_full", "_loop", "_write")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[bytes], None],
        is_full: Callable[[], bool],
        *,
        fd: int,
        offset: int,
        count: int,
        on_end: OnEnd,
    ) -> None:
        super().__init__(fd=fd, offset=offset, count=count, on_sent=lambda _: None, on_end=on_end)
        self._loop = loop
        self._write = write
        self._is_full = is_full

    def step(self) -> None:
        if self.fd < 0 or self._is_full():
            return
        for _ in range(_COPY_TURN_BYTES // _COPY_BYTES):
            try:
                piece = os.pread(self.fd, min(self._left, _COPY_BYTES), self._offset) if self._left else b""
            except OSError as error:
                self._end(error)
                return
            if self._left and not piece:
                self._end(self._short())
                return
            self._moved(len(piece))
            self._write(piece)
            if not self._left:
                self._end(None)
                return
            if self._is_full():
                return  # whoever owns the transport calls again
        self._loop.call_soon(self.step)


def kernel_sends(fd: int) -> bool:
    """Whether sendfile(2) can be used: with regular files, on systems that have it."""
    return hasattr(os, "sendfile") and stat.S_ISREG(os.fstat(fd).st_mode)
