"""Buffers request bodies until they are complete, so that a slow client holds no thread.

A body is kept in memory up to SPOOL_MEMORY_BYTES, then in a temporary file that has no name, so nothing is left behind
whatever happens. All bodies together are bounded as well. A body that is cut is dropped with its request. Afterwards
the request is an exchange like any other, whose body can be read again for another worker.

Files are written and read on the loop: data that was just written is in the kernel's memory, 64 KiB take about 20 µs.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from headrace.http import problem
from headrace.http.exchange import Exchange, Target
from headrace.http.fields import Fields
from headrace.web.dispatch.limits import (
    SPOOL_BUDGET_BYTES,
    SPOOL_BUDGET_MEMORY_BYTES,
    SPOOL_MEMORY_BYTES,
    SPOOL_PIECE_BYTES,
)

_log: Final = logging.getLogger("headrace.web")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BudgetExhausted(OSError):
    """All bodies together are as long as they may be."""


class Spooler:
    """Collects bodies and passes their requests on. Knows how much all of them take.

    Invariant: `memory_bytes` and `file_bytes` are the sums over the bodies that are kept now.
    """

    def __init__(
        self,
        then: Target,
        *,
        on_refused: Callable[[str], None] = lambda _: None,
        folder: Path | None = None,
        budget_bytes: int = SPOOL_BUDGET_BYTES,
        budget_memory_bytes: int = SPOOL_BUDGET_MEMORY_BYTES,
    ) -> None:
        """Create.

        Args:
            then: gets each exchange when its body is whole.
            on_refused: called with the reason why a body could not be kept (`spool-full`, `spool-failed`).
            folder: for the files; the system's for temporary files by default.
            budget_bytes: of all bodies; `budget_memory_bytes`: of those, in memory: beyond it they go to files at once.
        """
        self.then = then
        self.on_refused = on_refused
        self.folder = folder
        self.memory_bytes = 0
        self.file_bytes = 0
        self._budget_bytes = budget_bytes
        self._budget_memory_bytes = budget_memory_bytes

    def collect(self, exchange: Exchange) -> None:
        """Begin with a body; `Expect: 100-continue` is answered at once."""
        SpooledExchange(exchange, self).collect()

    def has_room(self, size: int) -> bool:
        return self.memory_bytes + self.file_bytes + size <= self._budget_bytes

    def has_memory(self, size: int) -> bool:
        return self.memory_bytes + size <= self._budget_memory_bytes


class Spool:
    """The bytes of one body: appended, then read from the start, as often as wanted."""

    __slots__ = ("_file", "_memory", "_offset", "_spooler", "size")

    def __init__(self, spooler: Spooler) -> None:
        self.size = 0
        self._spooler = spooler
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._offset = 0

    def append(self, data: bytes) -> None:
        """Raises: OSError: the disk is full or broken, no descriptor is left, or the budget is exhausted."""
        spooler = self._spooler
        if not spooler.has_room(len(data)):
            raise BudgetExhausted(errno.ENOSPC, "the space for request bodies is used up")
        if self._file is None:
            if self.size + len(data) <= SPOOL_MEMORY_BYTES and spooler.has_memory(len(data)):
                self._memory += data
                spooler.memory_bytes += len(data)
                self.size += len(data)
                return
            self._spill()
        self._write(data)

    def read(self) -> bytes:
        """The next piece; empty at the end.

        Raises: OSError.
        """
        if self._file is None:
            data = bytes(self._memory[self._offset : self._offset + SPOOL_PIECE_BYTES])
        else:
            data = os.pread(self._file.fileno(), min(SPOOL_PIECE_BYTES, self.size - self._offset), self._offset)
            if not data and self._offset < self.size:
                raise OSError(errno.EIO, "a spooled body has become shorter")
        self._offset += len(data)
        return data

    def rewind(self) -> None:
        self._offset = 0

    @property
    def last(self) -> bool:
        """Whether what `read` gives next is the last."""
        return self.size - self._offset <= SPOOL_PIECE_BYTES

    def close(self) -> None:
        """Give everything back. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._spooler.file_bytes -= self.size
        else:
            self._spooler.memory_bytes -= self.size
        self._memory = bytearray()
        self.size = self._offset = 0

    def _spill(self) -> None:
        """Move from memory to a file."""
        spooler = self._spooler
        self._file = tempfile.TemporaryFile(buffering=0, dir=spooler.folder)  # noqa: SIM115  # `close` closes it
        kept, self._memory = self._memory, bytearray()
        spooler.memory_bytes -= len(kept)
        self.size = 0
        self._write(kept)

    def _write(self, data: bytes | bytearray) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            written = os.write(self._file.fileno(), view)
            self.size += written
            self._spooler.file_bytes += written
            view = view[written:]


class SpooledExchange(Exchange):
    """An exchange whose body is buffered here; `inner` has everything else, and gets the response as it comes."""

    __slots__ = ("_inner", "_spool", "_spooler")

    def __init__(self, inner: Exchange, spooler: Spooler) -> None:
        self._inner = inner
        super().__init__()
        self._spooler = spooler
        self._spool = Spool(spooler)
        self.method, self.target, self.path, self.query = inner.method, inner.target, inner.path, inner.query
        self.headers, self.version, self.secure = inner.headers, inner.version, inner.secure
        self.peer, self.peer_port, self.server = inner.peer, inner.peer_port, inner.server
        self.upgrade, self.length, self.began_s = inner.upgrade, inner.length, inner.began_s
        self.root_path, self.route, self.priority = inner.root_path, inner.route, inner.priority
        self.expects = False

    # What the queue notes is for the access log of the inner one, too.

    @property
    def waited_s(self) -> float:
        return self._inner.waited_s

    @waited_s.setter
    def waited_s(self, seconds: float) -> None:
        self._inner.waited_s = seconds

    @property
    def refused(self) -> str:
        return self._inner.refused

    @refused.setter
    def refused(self, reason: str) -> None:
        self._inner.refused = reason

    # The body

    def collect(self) -> None:
        """Store the bytes that have arrived; pass the request on when the body is complete."""
        self._inner.notify = self._collect
        self._collect()

    def _collect(self) -> None:
        inner = self._inner
        if inner.gone:
            self.lost()
            return
        whole = inner.ended
        try:
            while data := inner.take():
                self._spool.append(data)
                whole = inner.ended
        except OSError as error:
            self._refuse(error)
            return
        if whole and not inner.gone:
            self.length = self._spool.size  # a chunked body's is known now
            inner.notify = self._changed
            self._spooler.then(self)

    def _refuse(self, error: OSError) -> None:
        """There is no space for this body."""
        full = error.errno in _FULL
        self.refused = "spool-full" if full else "spool-failed"
        self._spooler.on_refused(self.refused)
        _log.warning(
            "a request body cannot be kept: %s", error, extra={"action": "web.spool.refused", "reason": self.refused}
        )
        detail = "there is no space for this request's body; try again later"
        status = 507 if full and not isinstance(error, BudgetExhausted) else 503
        problem.respond(self, status, detail, kind=self.refused, headers=((b"Retry-After", b"10"),))

    def take(self) -> bytes:
        try:
            return self._spool.read()
        except OSError as error:
            _log.error("a kept request body cannot be read: %s", error, extra={"action": "web.spool.unreadable"})
            problem.respond(self, 500, "the request's body was lost")
            return b""

    def rewind(self) -> None:
        """Read the body from its start again."""
        self._spool.rewind()

    @property
    def ended(self) -> bool:
        return self._spool.last

    def _changed(self) -> None:
        self.half_closed = self._inner.half_closed
        if self._inner.gone:
            self.lost()
        elif self.notify is not None:
            self.notify()

    # The answer

    @property
    def writable(self) -> bool:
        return self._inner.writable

    def release(self) -> None:
        self._inner.release()

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        if self.method == "HEAD" and fields.length is None:
            fields = Fields(fields.block, length, dated=fields.dated, served=fields.served, close=fields.close)
        self._inner.respond(status, fields, body)

    def _start(self, status: int, fields: Fields) -> None:
        self._inner.start(status, fields)

    def _send(self, data: bytes) -> None:
        self._inner.send(data)

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        self._inner.send_file(fd, offset, count)

    def _finish(self) -> None:
        self._inner.finish()

    def _tunnel(self, fields: Fields) -> None:
        self._inner.tunnel(fields)

    def _inform(self, status: int, fields: Fields) -> None:
        self._inner.inform(status, fields)

    def _abort(self) -> None:
        self._inner.abort()

    def _done(self) -> None:
        self._spool.close()
        super()._done()
