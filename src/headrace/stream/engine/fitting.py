"""Whether what a user's function gave is what its schema declares."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from headrace.stream.schema import Field, Schema, type_name

Row = dict[str, Any]


class Misfit(Exception):
    """It is not. The text names the column and what is wrong with it."""


def table_of(rows: list[Any], schema: Schema) -> pa.Table:
    """Dicts as a table. A column that may be NULL may be left out; none may be added. Raises Misfit."""
    names = set(schema.names)
    for row in rows:
        if not isinstance(row, dict):
            raise Misfit(f"the step gave a {type(row).__name__}, not a dict")
        if not row.keys() <= names:
            raise Misfit(f"column {min(map(str, row.keys() - names))!r} is not in the declared schema ({schema})")
    columns = [_column([row.get(field.name) for row in rows], field) for field in schema.fields]
    return pa.table(columns, names=schema.names)


def fitted(given: Any, schema: Schema) -> pa.Table:
    """An Arrow table with the schema's columns, in its order and types. Raises Misfit."""
    if isinstance(given, pa.RecordBatch):
        given = pa.Table.from_batches([given])
    if not isinstance(given, pa.Table):
        raise Misfit(f"the step gave a {type(given).__name__}, not an Arrow table")
    if sorted(given.column_names) != sorted(schema.names):
        raise Misfit(f"the step gave columns {', '.join(given.column_names)}; declared are {schema}")
    return pa.table([_cast(given[field.name], field) for field in schema.fields], names=schema.names)


def _column(values: list[Any], field: Field) -> pa.Array:
    try:
        if pa.types.is_integer(field.type):
            _check_whole(values)
        column = pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Misfit(f"column {field.name!r} is not {type_name(field.type)}: {error}") from None
    return _filled(column, field)


def _check_whole(values: list[Any]) -> None:
    """Arrow would cut fractions off."""
    for value in values:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{value} is not a whole number")


def _cast(column: pa.ChunkedArray, field: Field) -> pa.ChunkedArray:
    if not column.type.equals(field.type):
        try:
            column = column.cast(field.type)
        except pa.ArrowException as error:
            raise Misfit(f"column {field.name!r} is not {type_name(field.type)}: {error}") from None
    return _filled(column, field)


def _filled(column: Any, field: Field) -> Any:
    if not field.nullable and column.null_count:
        raise Misfit(f"column {field.name!r} is NULL, and is declared NOT NULL")
    return column
