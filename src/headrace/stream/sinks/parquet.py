"""Rows as Parquet files of a folder. A file appears whole and once: it is written under a hidden name, synced, and renamed
when its batch is committed.

Timestamps are written as UTC. Rows of a partition are in `column=value/` as Hive writes it; the columns themselves are not
in the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.stream.errors import SinkFailed, UnsupportedQuery
from headrace.stream.formats.hive_partitions import folder_of
from headrace.stream.plan import ParquetSink
from headrace.stream.schema import Schema, type_name
from headrace.stream.sinks.base import Outbox, new_token


class ParquetOutbox(Outbox):
    """See Outbox. It stages the names of files, relative to the folder. Exactly once.

    Files are named `PIPELINE.SINK.SLOT.BATCH.TOKEN.parquet`. A batch that is delivered again finds its files renamed, or
    removed by a reader of the folder: both count as delivered.
    """

    def __init__(self, sink: ParquetSink, schema: Schema, *, owner: str) -> None:
        """Args: owner: `PIPELINE.SINK.SLOT`; no other process writes under it.

        Raises UnsupportedQuery: a partition column is not there, or of a type that makes no folder names; SinkFailed.
        """
        self.name = f"folder {sink.path}"
        self._folder = sink.path
        self._partition_by = sink.partition_by
        self._owner = owner
        _check(sink, schema)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkFailed(self.name, f"it cannot be made: {error.strerror}") from None

    def stage(self, batch: int, rows: pa.Table, *, token: str | None = None) -> bytes:
        name = f"{self._owner}.{batch:08}.{(token or new_token())[:12]}.parquet"
        finals = []
        try:
            for folder, part in self._parts(_in_utc(rows)):
                final = self._folder / folder / name
                final.parent.mkdir(parents=True, exist_ok=True)
                _write(part, _hidden(final))
                finals.append(final.relative_to(self._folder).as_posix())
        except OSError as error:
            raise SinkFailed(self.name, f"a file cannot be written: {error}") from None
        return msgspec.json.encode(finals)

    def deliver(self, batch: int, staged: bytes) -> None:
        del batch
        finals = [self._folder / name for name in msgspec.json.decode(staged, type=list[str])]
        try:
            for final in finals:
                if _hidden(final).exists():
                    _hidden(final).rename(final)
            for folder in {above for final in finals for above in _folders(final, self._folder)}:
                _sync(folder)
        except OSError as error:
            raise SinkFailed(self.name, f"a file cannot be renamed: {error}") from None

    def collect(self, staged: Sequence[bytes]) -> None:
        wanted = {self._folder / name for one in staged for name in msgspec.json.decode(one, type=list[str])}
        for hidden in self._folder.rglob(f".{self._owner}.*.parquet.tmp"):
            if hidden.with_name(hidden.name.removeprefix(".").removesuffix(".tmp")) not in wanted:
                hidden.unlink(missing_ok=True)

    def close(self) -> None:
        pass

    def _parts(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """(the folder, its rows), a partition at a time."""
        if not self._partition_by:
            yield "", rows
            return
        keys = list(self._partition_by)
        texts = pa.table([pc.cast(rows.column(key), pa.string()) for key in keys], names=keys)
        numbered = texts.append_column("row", pa.array(range(len(rows))))
        inner = rows.drop_columns(keys)
        for found in numbered.group_by(keys).aggregate([("row", "list")]).to_pylist():
            yield folder_of({key: found[key] for key in keys}), inner.take(pa.array(sorted(found["row_list"])))


def _check(sink: ParquetSink, schema: Schema) -> None:
    place = f"folder {str(sink.path)!r}"
    for key in sink.partition_by:
        field = schema.find(key)
        if field is None or field.name != key:
            raise UnsupportedQuery(place, f"unknown column {key!r} to partition by", f"one of {schema.names}")
        if pa.types.is_nested(field.type) or pa.types.is_floating(field.type) or pa.types.is_binary(field.type):
            raise UnsupportedQuery(place, f"{type_name(field.type)} ({key!r}) makes no folder names", "another column")
    if schema.fields and len(set(sink.partition_by)) == len(schema.fields):
        raise UnsupportedQuery(place, "every column is a partition: nothing is left for the files", "fewer columns")


def _in_utc(rows: pa.Table) -> pa.Table:
    """Timestamps with the zone that they mean: without it other programs take them for local times."""
    fields = [
        field.with_type(pa.timestamp("us", "UTC")) if pa.types.is_timestamp(field.type) else field
        for field in rows.schema
    ]
    return rows.cast(pa.schema(fields))


def _hidden(final: Path) -> Path:
    return final.with_name(f".{final.name}.tmp")


def _write(rows: pa.Table, path: Path) -> None:
    with path.open("wb") as file:
        pq.write_table(rows, file)
        file.flush()
        os.fsync(file.fileno())


def _folders(final: Path, root: Path) -> Iterator[Path]:
    """The folders whose entries a new file may have changed: its own, up to the root."""
    for folder in final.parents:
        yield folder
        if folder == root:
            return


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
