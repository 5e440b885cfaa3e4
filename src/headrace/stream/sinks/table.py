"""Rows of an SQL table: SQLite or PostgreSQL. Rows and the batch's token are one transaction: exactly once.

Numbers, texts, booleans and binary have their own types. Timestamps and dates are ISO 8601 text in SQLite and types of their
own in PostgreSQL; decimals are text in SQLite, whose numbers are floats; arrays, maps and structs are JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import pyarrow as pa

from headrace.stream import limits
from headrace.stream.databases import Database, DatabaseFailed, Row, open_database
from headrace.stream.errors import SinkFailed, UnsupportedQuery
from headrace.stream.formats.columns import plain
from headrace.stream.plan import TableSink
from headrace.stream.schema import Schema, type_name
from headrace.stream.sinks.base import RowsOutbox, unpack

BATCHES: Final = "headrace_batches"
"""The table of batches that were taken, by which one that comes again is known."""

_json: Final = msgspec.json.Encoder(decimal_format="number")


class TableOutbox(RowsOutbox):
    """See Outbox. With a key the last row of it stays; its columns cannot be NULL."""

    def __init__(self, sink: TableSink, schema: Schema, *, owner: str) -> None:
        """Args: owner: `PIPELINE.SINK.SLOT`, in the table of batches.

        Raises UnsupportedQuery: the key is not among the columns; SinkFailed: the table cannot be opened or made.
        """
        self.name = f"table {sink.table}"
        self._sink = sink
        self._schema = schema
        self._owner = owner
        self._database: Database | None = None
        for key in sink.key:
            if key not in schema.names:
                raise UnsupportedQuery(self.name, f"unknown column {key!r} for the key", f"one of {schema.names}")
        self._guard(self._open)

    def deliver(self, batch: int, staged: bytes) -> None:
        token, rows = unpack(staged)
        self._guard(lambda: self._put(batch, token, rows))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _guard(self, work: Callable[[], object]) -> None:
        """Do it; what fails breaks the connection, so that the next try begins with a new one."""
        try:
            work()
        except DatabaseFailed as error:
            self.close()
            raise SinkFailed(self.name, str(error)) from None

    def _open(self) -> Database:
        if self._database is None:
            self._database = open_database(self._sink.url)
            self._make_tables(self._database)
        return self._database

    def _make_tables(self, database: Database) -> None:
        columns = [_column(database, self._sink, field.name, field.type) for field in self._schema.fields]
        if self._sink.key:
            columns.append(f"PRIMARY KEY ({_list(database, self._sink.key)})")
        with database.transaction():
            database.run(f"CREATE TABLE IF NOT EXISTS {database.quoted_table(self._sink.table)} ({', '.join(columns)})")
            database.run(
                f"CREATE TABLE IF NOT EXISTS {BATCHES}"
                " (owner TEXT NOT NULL, token TEXT NOT NULL, batch BIGINT NOT NULL, PRIMARY KEY (owner, token))"
            )

    def _put(self, batch: int, token: str, rows: pa.Table) -> None:
        database = self._open()
        mark = database.mark
        with database.transaction():
            if not database.run(
                f"INSERT INTO {BATCHES} VALUES ({mark}, {mark}, {mark}) ON CONFLICT DO NOTHING RETURNING batch",
                (self._owner, token, batch),
            ):
                return
            database.run_many(self._insert(database), _values(rows))
            database.run(
                f"DELETE FROM {BATCHES} WHERE owner = {mark} AND (batch > {mark} OR batch < {mark})",
                (self._owner, batch, batch - limits.BATCHES_REMEMBERED),
            )

    def _insert(self, database: Database) -> str:
        names = self._schema.names
        marks = ", ".join([database.mark] * len(names))
        table = database.quoted_table(self._sink.table)
        insert = f"INSERT INTO {table} ({_list(database, names)}) VALUES ({marks})"
        return insert + self._on_conflict(database)

    def _on_conflict(self, database: Database) -> str:
        if not self._sink.key:
            return ""
        others = [database.quoted(name) for name in self._schema.names if name not in self._sink.key]
        update = "UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in others) if others else "NOTHING"
        return f" ON CONFLICT ({_list(database, self._sink.key)}) DO {update}"


def _column(database: Database, sink: TableSink, name: str, kind: pa.DataType) -> str:
    required = " NOT NULL" if name in sink.key else ""
    return f"{database.quoted(name)} {database.type_of(kind, type_name(kind))}{required}"


def _list(database: Database, names: Iterable[str]) -> str:
    return ", ".join(map(database.quoted, names))


def _values(rows: pa.Table) -> list[Row]:
    return list(zip(*(_plain(column.combine_chunks()) for column in rows.columns), strict=True))


def _plain(column: pa.Array) -> list[Any]:
    values = plain(column)
    if pa.types.is_nested(column.type):
        return [None if value is None else _json.encode(value).decode() for value in values]
    if pa.types.is_decimal(column.type) or pa.types.is_date(column.type):
        return [None if value is None else str(value) for value in values]
    return values
