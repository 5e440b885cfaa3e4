"""Python functions of scalars, called from DuckDB's SQL."""

from __future__ import annotations

import inspect
from typing import Any

import duckdb
import pyarrow as pa

from headrace.stream import plan


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
