"""Files as a source: in the order of their names, each read once; with `follow` also new files and appended lines.

The position is the name of a file and an offset in it. Files before it are read, files after it are not; so a file that
appears before it later, or one that has changed before the position, is an error: otherwise rows would be lost silently.

A log that is followed may be rotated. Renamed: the old file is read to its end, then the new one of the old name (also if
that happened while the pipeline was stopped: the renamed file is searched beside it; a second rotation is not noticed).
Truncated (copytruncate): it is read from the beginning. Both are logged.
"""

from __future__ import annotations

import glob
import logging
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from headrace.stream import limits
from headrace.stream.errors import SourceFailed
from headrace.stream.plan import FileSource
from headrace.stream.sources.base import Chunk, CombinedOrigins, FileRows, OpenFile, Progress, Reader
from headrace.stream.sources.file_listing import FileInfo, list_files
from headrace.stream.sources.lines import LineFile, matches
from headrace.stream.sources.parquet import ParquetSourceFile

_log: Final = logging.getLogger("headrace.stream")


class FilePosition(msgspec.Struct):
    """Attributes:
    file: its name; empty at the first start.
    before: the number of files before it.
    at: the position in it, as its OpenFile reports it; None: at its end, finished.
    """

    file: str = ""
    before: int = 0
    at: dict[str, Any] | None = None


class FileReader(Reader):
    """See Reader."""

    def __init__(self, source: FileSource, columns: frozenset[str] | None = None) -> None:
        """Args: columns: the columns to read, None: all. Parquet gives NULLs for the others."""
        self._source = source
        self._columns = columns
        self._files: list[FileInfo] = []
        self._at = FilePosition()
        self._read_to = self._at  # behind the last rows that were given: their file may have been left since
        self._part: OpenFile | None = None
        self._finished = False
        self._closed = threading.Event()
        self._reading = threading.Lock()

    def open(self, position: bytes | None) -> None:
        self._at = msgspec.json.decode(position, type=FilePosition) if position else FilePosition()
        self._list()
        if not self._files and not self._source.follow:
            raise SourceFailed(self._source.path, "no such file")
        if self._at.at is not None:
            self._part = self._reopen(self._at.file, self._at.at)

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        with self._reading:
            return self._next_chunk(rows_max, wait_s)

    def _next_chunk(self, rows_max: int, wait_s: float) -> Chunk | None:
        deadline_s, over = time.monotonic() + wait_s, wait_s <= 0
        while not self._closed.is_set() and not self._finished:
            pieces = self._pieces(rows_max)
            if pieces:
                return self._chunk(pieces)
            more = self._next() if self._part is None else self._rotated()
            if not more:
                if over or self._finished:
                    break
                over = self._wait(deadline_s)
        return None

    @property
    def finished(self) -> bool:
        return self._finished

    def progress(self) -> Progress:
        done = sum(file.size_bytes for file in self._files if file.name < self._at.file)
        part = self._part
        if part is not None:
            done += part.done_bytes
        elif self._at.file:
            done += sum(file.size_bytes for file in self._files if file.name == self._at.file)
        return Progress(done, max(0, sum(file.size_bytes for file in self._files) - done), "bytes")

    def close(self) -> None:
        self._closed.set()
        with self._reading:  # no file is taken from under who reads it
            self._close_part()

    def _pieces(self, rows_max: int) -> list[FileRows]:
        """The next rows; of files that end one after the other, as many as fill a batch: small ones cost as much. One that is
        nearly full gets no beginning of a further file, so that files as large as batches are not cut up."""
        pieces: list[FileRows] = []
        rows = size_bytes = 0
        while rows < rows_max * limits.BATCH_FULL_SHARE and size_bytes < limits.BATCH_BYTES_MAX:
            piece = self._read(rows_max - rows)
            if piece is not None:
                pieces.append(piece)
                self._read_to = self._position()
                rows += piece.count
                size_bytes += piece.rows.nbytes
            elif not pieces or self._source.follow or self._closed.is_set() or not self._next():
                break
        return pieces

    # ------------------------------------------------------------------------------------------------- one file

    def _read(self, rows_max: int) -> FileRows | None:
        """The next rows of the file that is open; None: it has no more, now or ever."""
        if self._part is None:
            return None
        piece = self._part.read(rows_max, whole=not self._grows())
        if piece is None and not self._grows():
            self._leave()
        return piece

    def _grows(self) -> bool:
        """Whether lines may be appended to the file that is open: it is followed, and the last one; or it was written a
        moment ago (a writer of daily logs may have lines for the old one when the new one is there)."""
        if not self._source.follow or not isinstance(self._part, LineFile) or self._part.lines.packed:
            return False
        last = not self._files or self._at.file >= self._files[-1].name
        return last or time.time() - self._part.lines.status().st_mtime < limits.SETTLED_S

    def _leave(self) -> None:
        self._close_part()
        self._at = FilePosition(self._at.file, self._at.before, None)

    def _close_part(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None

    def _position(self) -> FilePosition:
        """In the file that is open."""
        assert self._part is not None
        return FilePosition(self._at.file, self._at.before, self._part.position())

    def _chunk(self, pieces: list[FileRows]) -> Chunk:
        origins = CombinedOrigins()
        rows = pa.concat_tables([origins.add(piece.rows, piece.origins) for piece in pieces])
        dead = [dead for piece in pieces for dead in piece.dead]
        return Chunk(rows, origins, dead, msgspec.json.encode(self._read_to), size_bytes=rows.nbytes)

    # ------------------------------------------------------------------------------------------------- many files

    def _next(self) -> bool:
        """Open the file behind the position. False: there is none; without `follow` that is the end."""
        behind = [file for file in self._files if file.name > self._at.file]
        if not behind:
            self._finished = not self._source.follow
            return False
        self._at = FilePosition(behind[0].name, len(self._files) - len(behind), {})
        self._part = self._open(behind[0].path, {})
        return True

    def _open(self, path: Path, at: dict[str, Any]) -> OpenFile:
        if self._source.format == "parquet":
            return ParquetSourceFile(self._source, path, self._at.file, at, self._columns)
        return LineFile(self._source, path, at)

    def _list(self) -> None:
        self._files = list_files(self._source.path, self._source.format)
        before = sum(file.name < self._at.file for file in self._files)
        if before > self._at.before:
            raise SourceFailed(
                self._source.path,
                f"{before - self._at.before} files came with names in front of {self._at.file!r}, which is read already;"
                " give new files names that sort behind",
            )
        self._at = FilePosition(self._at.file, before, self._at.at)

    def _wait(self, deadline_s: float) -> bool:
        """Wait a little, then look what there is. Returns whether that was the last look: however late it is, there is one,
        or a thread that stood still would say that nothing has come."""
        left_s = deadline_s - time.monotonic()
        self._closed.wait(min(max(left_s, 0), limits.LIST_EVERY_S))
        self._list()
        return left_s <= limits.LIST_EVERY_S

    # ------------------------------------------------------------------------------------------------- rotation

    def _rotated(self) -> bool:
        """Whether the file that is open, and read to its end, is not what its name means any more: then go on in the new
        one."""
        part = self._part
        assert isinstance(part, LineFile)
        try:
            now = part.path.stat()
        except FileNotFoundError:  # renamed, and the new one is not there yet
            return False
        opened = part.lines.status()
        if now.st_ino == opened.st_ino and now.st_size >= part.lines.offset:
            return False
        self._tell("rotated" if now.st_ino != opened.st_ino else "cut", part.path)
        current = self._current_path(part.path)
        self._close_part()
        self._part = self._open(current, {})
        return True

    def _current_path(self, path: Path) -> Path:
        return next((file.path for file in self._files if file.name == self._at.file), path)

    def _reopen(self, name: str, at: dict[str, Any]) -> OpenFile:
        """The file of the position, or, if it was rotated meanwhile, the one beside it that it is now."""
        path = next((file.path for file in self._files if file.name == name), None)
        if path is None and not self._source.follow:
            raise SourceFailed(self._source.path, f"{name!r} is gone, and was not read to its end")
        if path is not None and (self._source.format == "parquet" or not self._source.follow or matches(path, at)):
            return self._open(path, at)
        beside = path if path is not None else Path(self._source.path)
        old = next(
            (file for file in sorted(beside.parent.glob(f"{glob.escape(beside.name)}?*")) if matches(file, at)), None
        )
        if old is None:
            raise SourceFailed(str(beside), "it was cut, or rotated away, before it was read to its end")
        self._tell("rotated", beside)
        part = LineFile(self._source, old, at)
        part.path = beside  # whose name it had: behind its end the new one is read
        return part

    def _tell(self, what: str, path: Path) -> None:
        _log.info("%s was %s: going on in the new file", path, what, extra={"action": "stream.file.rotated"})
