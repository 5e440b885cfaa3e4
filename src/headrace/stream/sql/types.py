"""Types of expressions: DuckDB says them, by running the query over no rows. Exact, and no rules are written twice.

What it has said is remembered for the process: a query is compiled when it is written and again when it is run, and DuckDB
takes 10 ms to begin and 1.5 ms a query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self, TypeAlias

import duckdb
import pyarrow as pa

from headrace.stream import limits, plan
from headrace.stream.physical import INPUT
from headrace.stream.schema import Schema, normal

ORIGIN_PLACE: Final = "/*origin*/"
"""Where the engine puts the hidden column, see physical.Project."""

Typed: TypeAlias = tuple[str, pa.DataType]
"""An expression: DuckDB's SQL, and its type."""


def name(text: str) -> str:
    """An identifier of DuckDB's."""
    return '"' + text.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sql_type(kind: pa.DataType) -> str:
    """The DuckDB name of a type."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_list(kind):
        return sql_type(kind.value_type) + "[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return "STRUCT(" + ", ".join(f"{name(field.name)} {sql_type(field.type)}" for field in kind) + ")"
    return _NAMES[kind]


_NAMES: Final[dict[pa.DataType, str]] = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
}


class Untyped(Exception):
    """DuckDB does not take the query; the text says why, in its words without its decoration."""


_Key: TypeAlias = tuple[str, tuple[tuple[str, Schema], ...], tuple[str, ...]]
"""A query, the tables that it may read, and the functions that it may call."""

_known: Final[dict[_Key, pa.Schema]] = {}
"""The columns of queries that DuckDB has accepted. Two threads may compute the same entry; the results are equal."""


class Types:
    """A DuckDB without data, for the time of a compilation, begun when something is not known. Not for use by several
    threads."""

    def __init__(self) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._functions: dict[str, str] = {}
        self._sources: dict[int, Schema] = {}
        self._virtual = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def declare(self, functions: Iterable[plan.Function]) -> None:
        """Let Python functions be known by what they return."""
        for function in functions:
            arguments = ", ".join(f"a{place}" for place in range(len(function.arguments)))
            self._functions[function.name.lower()] = (  # DuckDB knows them without regard to case
                f"CREATE OR REPLACE TEMP MACRO {name(function.name)}({arguments}) AS"
                f" CAST(NULL AS {sql_type(function.returns)})"
            )

    def add(self, place: int, schema: Schema) -> None:
        """The operator at `place` gives these columns."""
        self._sources[place] = schema

    def virtual(self, schema: Schema) -> int:
        """A place for columns that no operator gives: the two sides of a join, while its condition is read."""
        self._virtual -= 1
        self._sources[self._virtual] = schema
        return self._virtual

    def source(self, place: int) -> Schema:
        """The columns of an operator."""
        return self._sources[place]

    def schema_of(self, sql: str, schema: Schema, tables: Iterable[plan.TableRef] = ()) -> pa.Schema:
        """The columns that a query gives, in the types that pipelines use; it reads INPUT. Raises Untyped."""
        return pa.schema([field.with_type(usable(field.type)) for field in self.raw(sql, schema, tables)])

    def raw(self, sql: str, schema: Schema, tables: Iterable[plan.TableRef] = ()) -> pa.Schema:
        """The columns that a query gives, in DuckDB's own types. Raises Untyped."""
        read = ((INPUT, schema), *((table.name, table.schema) for table in tables))
        key = (sql, read, tuple(self._functions.values()))
        found = _known.get(key)
        if found is None:
            found = self._described(sql, read)
            if len(_known) >= limits.TYPES_REMEMBERED:
                _known.clear()
            _known[key] = found
        return found

    def _described(self, sql: str, tables: tuple[tuple[str, Schema], ...]) -> pa.Schema:
        connection = self._connected()
        for table, schema in tables:
            connection.register(table, schema.arrow().empty_table())
        try:
            return connection.sql(sql.replace(ORIGIN_PLACE, "")).to_arrow_table().schema
        except duckdb.Error as error:
            raise Untyped(_plain(str(error))) from None
        finally:
            for table, _ in tables:
                connection.unregister(table)

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = duckdb.connect(config={"threads": 1})  # there are no rows
            self._connection.execute("SET TimeZone='UTC'")
        for function in self._functions.values():
            self._connection.execute(function)
        return self._connection


def usable(kind: pa.DataType) -> pa.DataType:
    """NULL without a type is a string, as when Spark writes it."""
    return pa.string() if pa.types.is_null(kind) else normal(kind)


def _plain(text: str) -> str:
    """DuckDB's message without the class, the candidates, and the excerpt of a generated text."""
    first = re.split(r"\n\s*\n?\s*(LINE \d+:|Candidate|Did you mean)", text)[0]
    return re.sub(r"^\w+ Error:\s*", "", first).strip().replace("\n", " ")
