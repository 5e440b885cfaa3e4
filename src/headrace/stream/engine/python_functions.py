"""Python functions of users: steps over rows or batches, and scalar functions that SQL calls."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from headrace.stream import physical, plan
from headrace.stream.engine.arrow_tables import conform
from headrace.stream.engine.operator import Context, Operator, RejectedRows
from headrace.stream.schema import ORIGIN, Field, Schema, type_name

Row = dict[str, Any]


class SchemaMismatch(Exception):
    """It is not. The text names the column and what is wrong with it."""


def table_of(rows: list[Any], schema: Schema) -> pa.Table:
    """Dicts as a table. A column that may be NULL may be left out; none may be added. Raises SchemaMismatch."""
    names = set(schema.names)
    for row in rows:
        if not isinstance(row, dict):
            raise SchemaMismatch(f"the step gave a {type(row).__name__}, not a dict")
        if not row.keys() <= names:
            raise SchemaMismatch(
                f"column {min(map(str, row.keys() - names))!r} is not in the declared schema ({schema})"
            )
    columns = [_column([row.get(field.name) for row in rows], field) for field in schema.fields]
    return pa.table(columns, names=schema.names)


def conformed(given: Any, schema: Schema) -> pa.Table:
    """An Arrow table with the schema's columns, in its order and types. Raises SchemaMismatch."""
    if isinstance(given, pa.RecordBatch):
        given = pa.Table.from_batches([given])
    if not isinstance(given, pa.Table):
        raise SchemaMismatch(f"the step gave a {type(given).__name__}, not an Arrow table")
    if sorted(given.column_names) != sorted(schema.names):
        raise SchemaMismatch(f"the step gave columns {', '.join(given.column_names)}; declared are {schema}")
    return pa.table([_cast(given[field.name], field) for field in schema.fields], names=schema.names)


def _column(values: list[Any], field: Field) -> pa.Array:
    try:
        if pa.types.is_integer(field.type):
            _check_whole(values)
        column = pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise SchemaMismatch(f"column {field.name!r} is not {type_name(field.type)}: {error}") from None
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
            raise SchemaMismatch(f"column {field.name!r} is not {type_name(field.type)}: {error}") from None
    return _filled(column, field)


def _filled(column: Any, field: Field) -> Any:
    if not field.nullable and column.null_count:
        raise SchemaMismatch(f"column {field.name!r} is NULL, and is declared NOT NULL")
    return column


# --- Python steps: a user's function over rows or batches ---


Given = list[tuple[int, list[Row]]]
"""The place of each row, and what it became."""


class PythonOperator(Operator):
    """A row whose call raises, or gives what does not fit the declared schema, is dead.

    ORIGIN goes from a row to what it became; what a step over whole batches gives has none.
    """

    def __init__(self, node: physical.Python, name: str, inputs: Sequence[Schema], context: Context) -> None:
        del name
        self.schema = node.schema
        self._input = inputs[0]
        self._step = node.step
        self._context = context

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port, watermark
        if self._step.kind == "batches":
            return self._batch(rows)
        if self._step.kind == "filter":
            return self._filter(rows)
        return self._rows(rows)

    def _filter(self, rows: pa.Table) -> pa.Table:
        kept = [False] * rows.num_rows
        for place, row in enumerate(self._dicts(rows)):
            try:
                kept[place] = bool(self._step.call(row))
            except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
                self._refuse(rows.slice(place, 1), error)
        return conform(rows.filter(pa.array(kept, pa.bool_())), self.schema)

    def _rows(self, rows: pa.Table) -> pa.Table:
        given: Given = []
        for place, row in enumerate(self._dicts(rows)):
            try:
                given.append((place, self._called(row)))
            except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
                self._refuse(rows.slice(place, 1), error)
        try:
            return self._table(rows, given)
        except SchemaMismatch:
            return self._table(rows, [item for item in given if self._fits(rows, item)])

    def _called(self, row: Row) -> list[Row]:
        given = self._step.call(row)
        return [given] if self._step.kind == "map" else list(given)

    def _fits(self, rows: pa.Table, item: tuple[int, list[Row]]) -> bool:
        try:
            self._table(rows, [item])
        except SchemaMismatch as error:
            self._refuse(rows.slice(item[0], 1), error)
            return False
        return True

    def _table(self, rows: pa.Table, given: Given) -> pa.Table:
        table = table_of([row for _, found in given for row in found], self.schema)
        if ORIGIN in rows.column_names:
            places = [place for place, found in given for _ in found]
            table = table.append_column(ORIGIN, rows[ORIGIN].take(pa.array(places, pa.int64())))
        return table

    def _batch(self, rows: pa.Table) -> pa.Table | None:
        """All at once; if that fails, a row at a time."""
        try:
            return conformed(self._step.call(rows.select(self._input.names)), self.schema)
        except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
            if rows.num_rows == 1:
                self._refuse(rows, error)
                return None
        given = [self._batch(rows.slice(place, 1)) for place in range(rows.num_rows)]
        tables = [table for table in given if table is not None]
        return pa.concat_tables(tables) if tables else None

    def _dicts(self, rows: pa.Table) -> Iterable[Row]:
        dicts: list[Row] = rows.select(self._input.names).to_pylist()
        return dicts

    def _refuse(self, row: pa.Table, error: Exception) -> None:
        reason = str(error) if isinstance(error, SchemaMismatch) else f"{type(error).__name__}: {error}"
        self._context.dead.append(RejectedRows(row, reason, self._step.name))


# --- Python functions of scalars, called from DuckDB's SQL ---


def register_function(connection: duckdb.DuckDBPyConnection, function: plan.Function) -> None:
    """Let SQL call it by its name. What it raises fails the query, and names it."""
    types = [_duckdb_type(connection, kind) for kind in (*function.arguments, function.returns)]
    # The enums that the stubs ask for have moved between versions; their names have not.
    connection.create_function(  # type: ignore[call-overload]
        function.name, _by_column(function), types[:-1], types[-1], type="arrow", null_handling="special"
    )


def _by_column(function: plan.Function) -> Any:
    def call(*columns: pa.ChunkedArray) -> pa.Array:
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        return pa.array([_called(function, row) for row in rows], function.returns)

    # DuckDB counts the parameters by the signature.
    names = [f"a{place}" for place in range(len(function.arguments))]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # functions may have one
    return call


def _called(function: plan.Function, row: tuple[Any, ...]) -> Any:
    try:
        return function.call(*row)
    except Exception as error:
        # DuckDB hands on the text alone, so the type has to be in it.
        raise ValueError(f"function {function.name}: {type(error).__name__}: {error}") from error


def _duckdb_type(connection: duckdb.DuckDBPyConnection, kind: pa.DataType) -> Any:
    return connection.from_arrow(pa.table({"a": pa.array([], kind)})).types[0]
