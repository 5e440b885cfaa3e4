"""Rows given by the program, as a source."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from headrace.stream.errors import SchemaInvalid
from headrace.stream.formats.conform import ValueMismatch, conform
from headrace.stream.formats.decoding import numbered
from headrace.stream.formats.encoding import JsonEncoder
from headrace.stream.plan import MemorySource
from headrace.stream.schema import Schema
from headrace.stream.sources.base import Chunk, Dead, Origins, Progress, Reader


class RowOrigins(Origins):
    """Rows of which nothing but themselves is left: a dead letter is the row as JSON, named `PLACE#ROW`."""

    def __init__(self, source: str, rows: pa.Table, *, place: str, first: int) -> None:
        self._source = source
        self._rows = rows
        self._place = place
        self._first = first

    def dead(self, origin: int, reason: str, step: str) -> Dead:
        body = JsonEncoder(self._rows.schema).rows(self._rows.slice(origin, 1))[0]
        return Dead(body, reason, f"{self._place}#{self._first + origin}", self._source, step)


class MemoryPosition(msgspec.Struct):
    """The next row: the number of its batch, and its own in it."""

    batch: int = 0
    row: int = 0


class MemoryReader(Reader):
    """See Reader. A chunk never holds rows of two batches, so the program decides which rows are processed together."""

    def __init__(self, source: MemorySource) -> None:
        self._name = source.name
        self._batches = [_conform(batch, source.schema) for batch in source.batches if len(batch)]
        self._at = MemoryPosition()
        self._done = 0

    def open(self, position: bytes | None) -> None:
        self._at = msgspec.json.decode(position, type=MemoryPosition) if position else MemoryPosition()
        self._done = sum(len(batch) for batch in self._batches[: self._at.batch]) + self._at.row

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        del wait_s  # what there is, is there
        if self.finished:
            return None
        batch = self._batches[self._at.batch]
        rows = batch.slice(self._at.row, rows_max)
        origins = RowOrigins(self._name, rows, place=self._name, first=self._done)
        end = self._at.row + len(rows)
        self._at = MemoryPosition(self._at.batch, end) if end < len(batch) else MemoryPosition(self._at.batch + 1)
        self._done += len(rows)
        position = msgspec.json.encode(self._at)
        return Chunk(numbered(rows), origins, position=position, size_bytes=rows.nbytes)

    @property
    def finished(self) -> bool:
        return self._at.batch >= len(self._batches)

    def progress(self) -> Progress:
        return Progress(self._done, sum(map(len, self._batches)) - self._done, "rows")

    def close(self) -> None:
        pass


def _conform(batch: pa.Table, schema: Schema) -> pa.Table:
    try:
        return conform(batch, schema)
    except ValueMismatch as error:
        raise SchemaInvalid(str(schema), f"the rows given are not of it: {error}") from None
