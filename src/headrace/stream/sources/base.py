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
        body: the original body (or the row as JSON, where there is no body).
        reason: the error, as a sentence.
        message_id: the id of the message; for a file `PATH:LINE` or `PATH#ROW`.
        source: the source's name.
        step: the step that failed; empty for decoding.
    """

    body: bytes
    reason: str
    message_id: str
    source: str
    step: str = ""


class Origins(ABC):
    """The target of the ORIGIN column of a chunk's rows: it makes dead letters when there are some."""

    @abstractmethod
    def dead(self, origin: int, reason: str, step: str) -> Dead:
        """The dead letter of the message or line number `origin`."""


@dataclass(slots=True)
class Chunk:
    """Rows of a source, and the position after them.

    Attributes:
        rows: columns of the source's schema (metadata first) and ORIGIN; timestamps in UTC without zone.
        origins: the target of ORIGIN.
        dead: messages and lines that could not be decoded.
        position: where to continue after this chunk, kept in the pipeline's state; empty for sources whose position is in
            the store anyway (queues).
        claims: (queue ARN, reader, number) that the commit of these rows acknowledges.
        size_bytes: the approximate size of the bodies or the part of the file.
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
    """The progress of a source. None where unknown. `lag`: waiting messages or lines; bytes for files."""

    done: int
    lag: int | None
    unit: str


class Reader(ABC):
    """Reads a source, in one thread of its own. Chunks come in order; after a restart, chunks that were not committed
    come again, the same."""

    @abstractmethod
    def open(self, position: bytes | None) -> None:
        """Start after the last committed chunk, whose position is `position`; None at the first start."""

    @abstractmethod
    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        """The next rows, at most about `rows_max`; waits up to `wait_s` for the first. None: there are none."""

    @property
    def behind(self) -> bool:
        """Whether rows that exist already are still on their way here: a `read` that begins meanwhile and finds nothing has
        not read everything. May ask the broker."""
        return False

    @property
    def finished(self) -> bool:
        """Whether the source is finite and was read to its end."""
        return False

    @abstractmethod
    def progress(self) -> Progress: ...

    @abstractmethod
    def close(self) -> None:
        """End a `read` that waits in another thread, and close files and connections. Idempotent."""


# --- Rows of several origins combined: ORIGIN is renumbered ---


class CombinedOrigins(Origins):
    """The origins of several chunks, one after the other."""

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


# --- Open files: the contract between the reader of files and the formats ---


@dataclass(slots=True)
class FileRows:
    """Rows of one file, as a Chunk has them. `count`: lines or rows that it was."""

    rows: pa.Table
    origins: Origins
    dead: list[Dead]
    count: int


class OpenFile(ABC):
    """An open file. Raises SourceFailed if it cannot be read, or has changed."""

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
