"""Files of lines: CSV, JSONL, access logs; plain ones may grow, compressed ones (`.gz`, `.zst`) do not."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from headrace.stream import limits
from headrace.stream.errors import SourceFailed
from headrace.stream.formats.access_log import AccessLogDecoder
from headrace.stream.formats.conform import ValueMismatch
from headrace.stream.formats.csv_rows import CsvDecoder
from headrace.stream.formats.decoding import Decoder, JsonDecoder
from headrace.stream.plan import FileSource
from headrace.stream.sources.base import Dead, FileRows, OpenFile, Origins
from headrace.stream.sources.file_listing import COMPRESSED


class LineOrigins(Origins):
    """The lines of a chunk. `numbers`: their numbers in the file, from 1."""

    def __init__(self, source: str, path: Path, lines: Sequence[bytes], numbers: Sequence[int]) -> None:
        self._source = source
        self._path = path
        self._lines = lines
        self._numbers = numbers

    def dead(self, origin: int, reason: str, step: str) -> Dead:
        return Dead(self._lines[origin], reason, f"{self._path}:{self._numbers[origin]}", self._source, step)


class Lines:
    """The lines of a file from a byte on. `offset` and `number` are those of the next line."""

    def __init__(self, path: Path, *, offset: int = 0, number: int = 1) -> None:
        self._path = path
        self.offset = offset
        self.number = number
        self._raw: BinaryIO = path.open("rb")
        compression = COMPRESSED.get(path.suffix)
        self._unpacked = pa.CompressedInputStream(self._raw, compression) if compression else None
        self._lines: list[bytes] = []
        self._tail = b""
        self._read_bytes = 0  # of the file as it is on the disk
        self._seek(offset)

    def take(self, count: int, *, whole: bool) -> list[bytes]:
        """At most `count` lines, without their ends; fewer if there are no more, or if they are long."""
        size_bytes = sum(map(len, self._lines))
        while len(self._lines) < count and size_bytes < limits.BATCH_BYTES_MAX:
            block = self._read()
            if not block:
                self._end(whole)
                break
            size_bytes += len(block)
            self._add(block)
        taken, self._lines = self._lines[:count], self._lines[count:]
        self.offset += sum(map(len, taken)) + len(taken)
        self.number += len(taken)
        return taken

    def give_back(self, lines: list[bytes]) -> None:
        """Lines that were taken last are the next ones again."""
        self._lines = lines + self._lines
        self.offset -= sum(map(len, lines)) + len(lines)
        self.number -= len(lines)

    def first_bytes(self, count: int) -> bytes:
        """The first bytes of the file, as stored on the disk."""
        return os.pread(self._raw.fileno(), count, 0)

    def status(self) -> os.stat_result:
        """Of the file that is open, whatever its name is by now."""
        return os.fstat(self._raw.fileno())

    @property
    def packed(self) -> bool:
        return self._unpacked is not None

    @property
    def done_bytes(self) -> int:
        """For any thread, and when it is closed, too."""
        return self._read_bytes if self.packed else self.offset

    def close(self) -> None:
        self._raw.close()

    def _add(self, block: bytes) -> None:
        *lines, self._tail = (self._tail + block).split(b"\n")
        self._lines += lines
        if len(self._tail) > limits.LINE_BYTES_MAX:
            line = self.number + len(self._lines)
            raise SourceFailed(str(self._path), f"line {line} is longer than {limits.LINE_BYTES_MAX} bytes: no text")

    def _end(self, whole: bool) -> None:
        if whole and self._tail:
            self._lines.append(self._tail)
            self._tail = b""
            self.offset -= 1  # it has no line end, which would count

    def _read(self, size_bytes: int = limits.READ_BLOCK_BYTES) -> bytes:
        try:
            block: bytes = (self._unpacked or self._raw).read(size_bytes)
            self._read_bytes = self._raw.tell()
        except (OSError, pa.ArrowException) as error:
            raise SourceFailed(str(self._path), f"it cannot be read: {error}") from None
        return block

    def _seek(self, offset: int) -> None:
        """To a byte of what the file holds; what is packed is read up to there."""
        if not self.packed:
            self._raw.seek(offset)
        while self.packed and offset > 0:
            block = self._read(min(offset, limits.READ_BLOCK_BYTES))
            if not block:
                self.close()
                raise SourceFailed(str(self._path), "it is shorter than when it was read")
            offset -= len(block)


class LineFile(OpenFile):
    """See OpenFile. A position is a byte and a line number, and the checksum of the file's beginning, which identifies
    the file."""

    def __init__(self, source: FileSource, path: Path, at: dict[str, Any]) -> None:
        self._source = source
        self.path = path
        self._opened = path  # `path` may become another: the name that it had before it was rotated
        self.lines = _open(path, at)
        self._decoder = _decoder(source)

    def read(self, rows_max: int, *, whole: bool) -> FileRows | None:
        lines: list[bytes] = []
        numbers: Sequence[int] = ()
        while not lines:  # a header, or lines that are empty, are no rows
            first = self.lines.number
            lines, numbers = self._records(rows_max, whole) if self._csv else self._plain(rows_max, whole)
            if self.lines.number == first:
                return None
        decoded = (self._decoder or self._csv_decoder()).decode(lines)
        origins = LineOrigins(self._source.name, self.path, lines, numbers)
        return FileRows(decoded.rows, origins, [origins.dead(*bad, "") for bad in decoded.bad], len(lines))

    def position(self) -> dict[str, Any]:
        size_bytes = min(limits.PRINT_BYTES, self.lines.status().st_size if self.lines.packed else self.lines.offset)
        checksum = zlib.crc32(self.lines.first_bytes(size_bytes))
        return {
            "offset": self.lines.offset, "line": self.lines.number, "print": checksum, "print_bytes": size_bytes,
        }  # fmt: skip

    @property
    def done_bytes(self) -> int:
        return self.lines.done_bytes

    def close(self) -> None:
        self.lines.close()

    @property
    def _csv(self) -> bool:
        return self._source.format == "csv"

    def _plain(self, count: int, whole: bool) -> tuple[list[bytes], Sequence[int]]:
        first = self.lines.number
        lines = self.lines.take(count, whole=whole)
        if all(line and not line.isspace() for line in lines):
            return lines, range(first, first + len(lines))
        numbers = [number for number, line in enumerate(lines, first) if line and not line.isspace()]
        return [lines[number - first] for number in numbers], numbers

    def _records(self, count: int, whole: bool) -> tuple[list[bytes], Sequence[int]]:
        """CSV: lines, joined where a quote is open at their end."""
        if self.lines.number == 1:
            self.lines.take(1, whole=whole)  # the header, which the decoder reads for itself
        lines, numbers = self._plain(count, whole)
        if not any(line.count(b'"') % 2 for line in lines):
            return lines, numbers
        joined = Joined()
        for line, number in zip(lines, numbers, strict=True):
            joined.add(line, number)
        while joined.open and (more := self.lines.take(1, whole=whole)):
            joined.add(more[0], self.lines.number - 1)
        if joined.open and whole:
            joined.finish()  # never closed: the decoder says so
        self.lines.give_back(joined.open)
        return joined.records, joined.numbers

    def _csv_decoder(self) -> CsvDecoder:
        head = Lines(self._opened)
        try:
            self._decoder = CsvDecoder(self._source.schema, b"".join(head.take(1, whole=True)))
        except ValueMismatch as error:
            raise SourceFailed(str(self.path), str(error)) from None
        finally:
            head.close()
        return self._decoder


class Joined:
    """Records of CSV from lines: a line break within quotes belongs to the field."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.numbers: list[int] = []
        self.open: list[bytes] = []
        """Lines of a record whose quote is not closed yet."""
        self._number = 0
        self._quotes = 0

    def add(self, line: bytes, number: int) -> None:
        if not self.open:
            self._number = number
        self.open.append(line)
        self._quotes += line.count(b'"')
        if self._quotes % 2 == 0 or len(self.open) == limits.RECORD_LINES_MAX:
            self.finish()

    def finish(self) -> None:
        self.records.append(b"\n".join(self.open))
        self.numbers.append(self._number)
        self.open = []
        self._quotes = 0


def matches(path: Path, at: dict[str, Any]) -> bool:
    """Whether the file has the same beginning as the one that was read up to `at`, and is at least as long."""
    try:
        with path.open("rb") as file:
            begins = file.read(at["print_bytes"])
        size_bytes = path.stat().st_size
    except OSError:
        return False
    long_enough = path.suffix in COMPRESSED or size_bytes >= at["offset"]
    return zlib.crc32(begins) == at["print"] and len(begins) == at["print_bytes"] and long_enough


def _open(path: Path, at: dict[str, Any]) -> Lines:
    if at and not matches(path, at):
        raise SourceFailed(
            str(path), f"it has changed since it was read up to byte {at['offset']}: it was truncated or rewritten"
        )
    try:
        return Lines(path, offset=int(at.get("offset", 0)), number=int(at.get("line", 1)))
    except OSError as error:
        raise SourceFailed(str(path), f"it cannot be opened: {error.strerror}") from None


def _decoder(source: FileSource) -> Decoder | None:
    """None for CSV: its header is read with the first record."""
    if source.format == "csv":
        return None
    return JsonDecoder(source.schema) if source.format == "jsonl" else AccessLogDecoder(source.schema)
