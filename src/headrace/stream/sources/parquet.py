"""Reads a Parquet file by row groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.stream import limits
from headrace.stream.errors import SourceFailed
from headrace.stream.formats.columns import UNFIT
from headrace.stream.formats.conform import ValueMismatch, conform, nullable, split_nulls
from headrace.stream.formats.csv_rows import parse
from headrace.stream.formats.decoding import numbered
from headrace.stream.formats.hive_partitions import values_of
from headrace.stream.plan import FileSource
from headrace.stream.schema import Schema
from headrace.stream.sources.base import FileRows, OpenFile
from headrace.stream.sources.memory import RowOrigins


class ParquetSourceFile(OpenFile):
    """See OpenFile. A position is the number of the next row; the file's size shows whether it is still the same.

    Columns that the plan does not read are NULL: a columnar file need not read them. Columns that are NOT
    NULL are read always.
    """

    def __init__(
        self, source: FileSource, path: Path, name: str, at: dict[str, Any], columns: frozenset[str] | None = None
    ) -> None:
        """Args: columns: the columns to read; None: all."""
        self._source = source
        self._path = path
        self._file = _open(path)
        self._row = int(at.get("row", 0))
        self._size_bytes = path.stat().st_size
        if at.get("size_bytes", self._size_bytes) != self._size_bytes:
            raise SourceFailed(str(path), "it was rewritten since it was read; restore the old file")
        self._partitions = values_of(name)
        inside = set(self._file.schema_arrow.names)
        self._columns = [
            field.name
            for field in source.schema.fields
            if field.name in inside and (columns is None or field.name in columns or not field.nullable)
        ]
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rest: pa.Table | None = None

    def read(self, rows_max: int, *, whole: bool) -> FileRows | None:
        del whole  # a Parquet file does not grow
        table = self._take(rows_max)
        if table is None:
            return None
        rows = self._conform(table)
        origins = RowOrigins(self._source.name, rows, place=str(self._path), first=self._row)
        good, bad = split_nulls(numbered(rows), self._source.schema)
        self._row += len(table)
        return FileRows(good, origins, [origins.dead(*row, "") for row in bad], len(table))

    def position(self) -> dict[str, Any]:
        return {"row": self._row, "size_bytes": self._size_bytes}

    @property
    def done_bytes(self) -> int:
        rows: int = self._file.metadata.num_rows
        return self._size_bytes * self._row // max(1, rows)

    def close(self) -> None:
        self._file.close(force=True)

    def _take(self, rows_max: int) -> pa.Table | None:
        try:
            if self._rest is None or not len(self._rest):
                self._batches = self._batches or self._open_at(rows_max)
                self._rest = pa.Table.from_batches([next(self._batches)])
        except StopIteration:
            return None
        except (pa.ArrowException, OSError) as error:
            raise SourceFailed(str(self._path), f"it is not a complete Parquet file: {error}") from None
        table, self._rest = self._rest.slice(0, rows_max), self._rest.slice(rows_max)
        return table

    def _open_at(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """The batches from the next row on: earlier row groups are not read."""
        skip = self._row
        groups = list(range(self._file.num_row_groups))
        while groups and skip >= self._file.metadata.row_group(groups[0]).num_rows:
            skip -= self._file.metadata.row_group(groups.pop(0)).num_rows
        many = min(rows_max, self._file.metadata.num_rows) >= limits.DECODED_BY_THREADS_ROWS
        for batch in self._file.iter_batches(rows_max, row_groups=groups, columns=self._columns, use_threads=many):
            if skip < len(batch):
                yield batch.slice(skip)
            skip = max(0, skip - len(batch))

    def _conform(self, table: pa.Table) -> pa.Table:
        schema = self._source.schema
        try:
            for name in schema.names:
                if name in self._partitions and name not in table.column_names:
                    table = table.append_column(name, _repeated(schema, name, self._partitions[name], len(table)))
            return conform(table, nullable(schema))
        except ValueMismatch as error:
            raise SourceFailed(str(self._path), f"it does not have the schema {schema}: {error}") from None


def _repeated(schema: Schema, name: str, value: str | None, count: int) -> pa.Array:
    field = schema.fields[schema.names.index(name)]
    try:
        return pa.repeat(parse(field.type, pa.array([value], pa.string()))[0], count)
    except UNFIT as error:
        raise ValueMismatch(f"the folder {name}={value}: {error}") from None


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.OSFile(str(path)))  # by its path it would be asked first what kind of place it is
    except (pa.ArrowException, OSError) as error:
        raise SourceFailed(str(path), f"it is no Parquet file: {error}") from None
