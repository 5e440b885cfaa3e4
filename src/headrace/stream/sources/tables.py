"""Static tables: read whole, from a file, SQLite, PostgreSQL, or the program's own rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from headrace.stream import limits
from headrace.stream.databases import Database, DatabaseFailed, open_database, split_table
from headrace.stream.errors import SchemaInvalid, SourceFailed, UnsupportedQuery
from headrace.stream.formats import columns
from headrace.stream.formats.conform import ValueMismatch, conform
from headrace.stream.plan import FileSource, TableRef
from headrace.stream.schema import ORIGIN
from headrace.stream.sources.file_listing import FORMATS, format_of
from headrace.stream.sources.files import FileReader


def load_table(ref: TableRef) -> pa.Table:
    """The table's rows, with the columns of its schema. Each call reads it again.

    Raises:
        SchemaInvalid: the program's rows do not match the schema.
        SourceFailed: it cannot be read, or a row does not match the schema: a table has no dead letters.
        UnsupportedQuery: unsupported URL.
        ExtraMissing: psycopg is not installed.
    """
    if ref.data is not None:
        try:
            return conform(ref.data, ref.schema)
        except ValueMismatch as error:
            raise SchemaInvalid(str(ref.schema), f"the rows of table {ref.name!r} are not of it: {error}") from None
    if "://" in ref.url:
        return _from_database(ref)
    return _from_files(ref)


def _from_files(ref: TableRef) -> pa.Table:
    form = format_of(Path(ref.url))
    if form is None:
        raise UnsupportedQuery(f"table {ref.name!r} at {ref.url!r}", "no such kind of file", f"one of {list(FORMATS)}")
    source = FileSource(ref.name, ref.url, form, ref.schema)
    reader = FileReader(source)
    tables = [ref.schema.arrow().empty_table()]
    try:
        reader.open(None)
        while (chunk := reader.read(limits.BATCH_ROWS_DEFAULT, 0)) is not None:
            if chunk.dead:
                raise SourceFailed(f"table {ref.name!r}", f"{chunk.dead[0].message_id}: {chunk.dead[0].reason}")
            tables.append(chunk.rows.drop_columns([ORIGIN]))
    finally:
        reader.close()
    return pa.concat_tables(tables).combine_chunks()


def _from_database(ref: TableRef) -> pa.Table:
    url, table = split_table(ref.url)
    try:
        database = open_database(url)
        try:
            return _select(database, ref, table)
        finally:
            database.close()
    except DatabaseFailed as error:
        raise SourceFailed(f"table {ref.name!r}", str(error)) from None


def _select(database: Database, ref: TableRef, table: str) -> pa.Table:
    names = ref.schema.names
    # With the table in front: SQLite takes a quoted name that is no column for a text.
    chosen = ", ".join(f"t.{database.quoted(name)}" for name in names)
    rows = database.run(f"SELECT {chosen} FROM {database.quoted_table(table)} AS t")
    nested = [pa.types.is_nested(field.type) for field in ref.schema.fields]
    record: Any = columns.record_type(ref.schema.arrow(), named=False)
    try:
        dicts = [{f"f{number}": _jsonlike(value, nested[number]) for number, value in enumerate(row)} for row in rows]
        records = msgspec.convert(dicts, list[record], strict=False)  # SQLite has no booleans; its decimals are texts
        arrays = [
            columns.build(field.type, [getattr(record, f"f{number}") for record in records])
            for number, field in enumerate(ref.schema.fields)
        ]
    except (msgspec.DecodeError, *columns.UNFIT) as error:
        raise SourceFailed(f"table {ref.name!r}", f"it is not of the schema {ref.schema}: {error}") from None
    return pa.table(arrays, schema=ref.schema.arrow())


def _jsonlike(value: Any, nested: bool) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if nested and isinstance(value, str):
        return msgspec.json.decode(value)
    return value
