"""Arrow tables from outside → the columns of a schema: by name, and cast where nothing is lost."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import limits
from headrace.stream.formats.columns import UNFIT
from headrace.stream.schema import ORIGIN, Field, Schema, type_name

_FAMILIES: Final = (
    pa.types.is_boolean,
    lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind),
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind),
    lambda kind: (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    ),
    lambda kind: pa.types.is_timestamp(kind) or pa.types.is_date(kind),
    lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind),
    pa.types.is_map,
    pa.types.is_struct,
)
"""Types between which a cast keeps the meaning. Texts are not parsed, and numbers are no timestamps: what they mean would
be a guess."""


class ValueMismatch(ValueError):
    """A table is not of the schema; the text names the column."""


@functools.lru_cache(maxsize=32)  # small files are read by the hundred
def nullable(schema: Schema) -> Schema:
    """The schema without NOT NULL: for rows whose NULLs are sought by `split_nulls`."""
    return Schema(tuple(dataclasses.replace(field, nullable=True) for field in schema.fields))


def split_nulls(rows: pa.Table, schema: Schema) -> tuple[pa.Table, list[tuple[int, str]]]:
    """(the rows that have a value where the schema says NOT NULL, (ORIGIN, reason) of the others). Rows have ORIGIN."""
    bad: dict[int, str] = {}
    needed = [field for field in schema.fields if not field.nullable]
    if not needed:
        return rows, []
    for field in needed:
        if rows.column(field.name).null_count:
            absent = rows.filter(pc.is_null(rows.column(field.name)))
            reason = f"column {field.name!r} is NOT NULL and has no value"
            bad |= dict.fromkeys(absent.column(ORIGIN).to_pylist(), reason)
            rows = rows.filter(pc.is_valid(rows.column(field.name)))
    return rows.cast(schema.arrow().append(rows.schema.field(ORIGIN))), sorted(bad.items())


def conform(table: pa.Table, schema: Schema) -> pa.Table:
    """The table's columns as the schema has them; others are left out, missing ones are NULL.

    Integers become floats, floats integers if they are whole, timestamps with a zone UTC; what is finer than a microsecond
    is cut off. A table that fits already is not copied.

    Raises:
        ValueMismatch: a column cannot be cast without loss, is of another kind, or has no value where it must have one.
    """
    return pa.table([_column(table, field) for field in schema.fields], schema=schema.arrow())


def _column(table: pa.Table, field: Field) -> pa.ChunkedArray:
    found = table.schema.get_all_field_indices(field.name)
    if len(found) > 1:
        raise ValueMismatch(f"column {field.name!r} stands twice")
    column = _cast(table.column(found[0]), field) if found else pa.chunked_array([_nulls(len(table), field.type)])
    if not field.nullable and column.null_count:
        raise ValueMismatch(f"column {field.name!r} is NOT NULL and has {column.null_count} rows without a value")
    return column


def _nulls(count: int, kind: pa.DataType) -> pa.Array:
    """Cached over batches: columns that the plan does not read are NULL in each."""
    return _kept_nulls(kind).slice(0, count) if count <= limits.BATCH_ROWS_DEFAULT else pa.nulls(count, kind)


@functools.lru_cache(maxsize=32)
def _kept_nulls(kind: pa.DataType) -> pa.Array:
    return pa.nulls(limits.BATCH_ROWS_DEFAULT, kind)


def _cast(column: pa.ChunkedArray, field: Field) -> pa.ChunkedArray:
    kind = column.type
    if kind == field.type:
        return column
    if pa.types.is_dictionary(kind):
        return _cast(column.cast(kind.value_type), field)
    if not _related(kind, field.type):
        raise ValueMismatch(f"column {field.name!r} is {kind}, not {type_name(field.type)}")
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(field.type):
        return column.cast(field.type, safe=False)
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ValueMismatch(f"column {field.name!r} is {kind}, not {type_name(field.type)}: {error}") from None


def _related(kind: pa.DataType, wanted: pa.DataType) -> bool:
    return pa.types.is_null(kind) or any(of(kind) and of(wanted) for of in _FAMILIES)


# --- Columns of which some values may not fit: the fast way first; only if it fails, the rows to blame are sought ---


Build: TypeAlias = Callable[[int, Sequence[int]], pa.Array]
"""(number of a column, rows) → the column of these rows; raises UNFIT."""


def fit(schema: Schema, count: int, build: Build) -> tuple[list[pa.Array], dict[int, str]]:
    """(the columns of the rows that fit, why each of the others does not)."""
    rows = range(count)
    try:
        return _all(schema, rows, build), {}
    except UNFIT:
        unfit = _unfit(schema, rows, build)
        return _all(schema, [row for row in rows if row not in unfit], build), unfit


def _all(schema: Schema, rows: Sequence[int], build: Build) -> list[pa.Array]:
    return [build(number, rows) for number in range(len(schema.fields))]


def _unfit(schema: Schema, rows: Sequence[int], build: Build) -> dict[int, str]:
    """By halving: a few among many are found in a few steps."""
    try:
        _all(schema, rows, build)
    except UNFIT:
        if len(rows) == 1:
            return {rows[0]: _why(schema, rows, build)}
        half = len(rows) // 2
        return _unfit(schema, rows[:half], build) | _unfit(schema, rows[half:], build)
    return {}


def _why(schema: Schema, row: Sequence[int], build: Build) -> str:
    for number, field in enumerate(schema.fields):
        try:
            build(number, row)
        except UNFIT as error:
            return f"column {field.name!r}: {error}"
    raise AssertionError("a row that does not fit has a column that does not")
