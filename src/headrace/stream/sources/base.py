"""The contracts of sources: a reader gives chunks of rows with their origins, the messages or lines that become dead letters;
a file of a folder is read through an `OpenFile`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream.schema import ORIGIN


@dataclass(slots=True)
class Dead:
    """One message or line that cannot be processed, for the dead letters.

    Attributes:
        body: as it came (or the row as JSON, where that is all there is).
        reason: a sentence that names what is wrong with it.
        message_id: of the message that it was; for a file `PATH:LINE` or `PATH#ROW`.
        source: the source's name.
        step: which step failed; empty for decoding.
    """

    body: bytes
    reason: str
    message_id: str
    source: str
    step: str = ""


class Origins(ABC):
    """What the ORIGIN column of a chunk's rows points into: for dead letters, made only when there are some."""

    @abstractmethod
    def dead(self, origin: int, reason: str, step: str) -> Dead:
        """The dead letter of the message or line number `origin`."""


@dataclass(slots=True)
class Chunk:
    """Rows of a source, and what is true once they are processed.

    Attributes:
        rows: columns of the source's schema (metadata first) and ORIGIN; timestamps in UTC without zone.
        origins: what ORIGIN points into.
        dead: what could not be decoded.
        position: where to go on behind this chunk, kept in the pipeline's state; empty for sources whose position is in
            the store anyway (queues).
        claims: (queue ARN, reader, number) that the commit of these rows acknowledges.
        size_bytes: about how many bytes it was, of bodies or file.
        traces: the `traceparent`s of its messages, a bounded number; none without a tracer.
    """

    rows: pa.Table
    origins: Origins
    dead: list[Dead] = field(default_factory=list)
    position: bytes = b""
    claims: Sequence[tuple[str, str, int]] = ()
    size_bytes: int = 0
    traces: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source is. None where unknown. `lag`: waiting messages or lines; bytes for files."""

    done: int
    lag: int | None
    unit: str


class Reader(ABC):
    """A source being read, by one thread of its own. Chunks come in order; what was given and not committed before a
    restart comes again, the same."""

    @abstractmethod
    def open(self, position: bytes | None) -> None:
        """Begin, behind what was committed: `position` is the last chunk's, None at the very beginning."""

    @abstractmethod
    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        """The next rows, about `rows_max` at most; waits up to `wait_s` for the first. None: nothing came."""

    @property
    def behind(self) -> bool:
        """Whether rows that exist already are still on their way here: a `read` that begins meanwhile and finds nothing has
        not read everything. May ask the broker."""
        return False

    @property
    def finished(self) -> bool:
        """Whether no row will ever come again: a finite source that was read to its end."""
        return False

    @abstractmethod
    def progress(self) -> Progress: ...

    @abstractmethod
    def close(self) -> None:
        """End a `read` that waits in another thread, and give up files and connections. Idempotent."""


# --- Rows of several origins put together: ORIGIN is counted through ---


class CombinedOrigins(Origins):
    """Origins one behind the other."""

    def __init__(self) -> None:
        self._known: list[tuple[int, Origins]] = []
        self._next = 0

    def add(self, rows: pa.Table, origins: Origins) -> pa.Table:
        """The rows, their ORIGIN behind those that were added before. Rows without ORIGIN stay as they are."""
        first = self._next
        self._known.append((first, origins))
        place = rows.schema.get_field_index(ORIGIN)
        if place < 0:
            return rows
        last = pc.max(rows.column(place)).as_py()
        self._next += 0 if last is None else last + 1
        if first == 0:
            return rows
        shifted = pc.add(rows.column(place), pa.scalar(first, pa.int32()))
        return rows.set_column(place, rows.schema.field(place), shifted)

    def dead(self, origin: int, reason: str, step: str) -> Dead:
        first, origins = next(item for item in reversed(self._known) if item[0] <= origin)
        return origins.dead(origin - first, reason, step)


# --- One file being read: the contract between the reader of many files and the formats ---


@dataclass(slots=True)
class FileRows:
    """Rows of one file, as a Chunk has them. `count`: lines or rows that it was."""

    rows: pa.Table
    origins: Origins
    dead: list[Dead]
    count: int


class OpenFile(ABC):
    """An open file. Raises SourceFailed where it cannot be read, or is not what it was."""

    @abstractmethod
    def read(self, rows_max: int, *, whole: bool) -> FileRows | None:
        """The next rows; None: there are none now.

        Args:
            whole: nothing will be appended any more: an unfinished line at the end is one.
        """

    @abstractmethod
    def position(self) -> dict[str, Any]:
        """Where the next row is, as plain data, so that the file can be opened there."""

    @property
    @abstractmethod
    def done_bytes(self) -> int:
        """About how many bytes of the file are read."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""
