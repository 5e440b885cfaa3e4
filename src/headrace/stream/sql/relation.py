"""A query in FROM while it is compiled: an operator, and a stateless query over it that is not an operator yet; and what is
known of its rows without running it: columns and event time.

Stateless queries are nested and become one Project when something needs rows: each operator costs DuckDB about 1 ms a
batch, and its optimiser flattens nested queries anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
from sqlglot import exp

from headrace.stream import physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import INPUT
from headrace.stream.schema import Field, Schema
from headrace.stream.sql.dialect import close_matches, unsupported, written
from headrace.stream.sql.types import ORIGIN_PLACE, Types, Untyped, name, sql_type, usable


@dataclass(frozen=True, slots=True)
class TimeColumns:
    """Which columns say when.

    Attributes:
        time: the event time in the sense of the watermark; None if there is none any more.
        start, end: the bounds of a closed window, from which `window_time` follows (its last microsecond).
        size_us: how long each of these windows is; None if they differ (sessions) or it is not known.
        slide_us: how far apart they begin; the size, if they do not overlap.
    """

    time: str | None = None
    start: str | None = None
    end: str | None = None
    size_us: int | None = None
    slide_us: int | None = None

    def renamed(self, names: dict[str, str]) -> TimeColumns:
        """The roles after a projection: `names` old column → new column, of the columns that pass unchanged."""
        return replace(
            self,
            time=names.get(self.time) if self.time else None,
            start=names.get(self.start) if self.start else None,
            end=names.get(self.end) if self.end else None,
        )

    @property
    def timed(self) -> bool:
        return bool(self.time or self.end)


NO_TIME_COLUMNS: Final = TimeColumns()


@dataclass(frozen=True, slots=True)
class Analysis:
    """A node's output: its columns, and its event-time column, or None."""

    schema: Schema
    roles: TimeColumns = NO_TIME_COLUMNS

    @property
    def time(self) -> str | None:
        return self.roles.time


def is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind))


# --- Relations and scopes ---


@dataclass(frozen=True, slots=True)
class Rank:
    """ROW_NUMBER() as a column that a condition must still bound."""

    node: exp.Expr
    column: str
    partition: tuple[str, ...]
    order: tuple[tuple[str, bool, bool], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows. `place` is the operator that `query` reads as INPUT; `schema` and `roles` are the query's.

    `changes`: rows are results that change (update mode), which nothing stateful can stand on. `hidden`: columns that only
    the compiler sees. `renames`: (column, column of INPUT), if the query does nothing but choose and rename.
    """

    place: int
    schema: Schema
    roles: TimeColumns = NO_TIME_COLUMNS
    query: str = INPUT
    tables: tuple[plan.TableRef, ...] = ()
    functions: tuple[plan.Function, ...] = ()
    rank: Rank | None = None
    changes: bool = False
    hidden: frozenset[str] = frozenset()
    renames: tuple[tuple[str, str], ...] | None = None

    def kind(self, column: str) -> pa.DataType:
        field = self.schema.find(column)
        assert field is not None, column
        return field.type


@dataclass(frozen=True, slots=True)
class Item:
    """A column of a SELECT list: its name, its SQL, and, if it is a plain column of the relation, which. `time`: it is the
    event time from here on."""

    name: str
    sql: str
    column: str | None = None
    time: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean in a SELECT: aliases, each with its visible columns and what they are called in the relation."""

    relation: Relation
    names: tuple[tuple[str, dict[str, str]], ...]
    types: Types

    @classmethod
    def of(cls, relation: Relation, alias: str, types: Types) -> Scope:
        visible = {column: column for column in relation.schema.names if column not in relation.hidden}
        return cls(relation, ((alias, visible),), types)

    def type_of(self, sql: str, node: exp.Expr) -> pa.DataType:
        """The type of an expression. Raises UnsupportedQuery if there is none."""
        query = f"SELECT {sql} AS x FROM {self.relation.query}"
        try:
            return self.types.schema_of(query, source_schema(self), self.relation.tables)[0].type
        except Untyped as error:
            raise unsupported(node, written(node), f"the types do not fit: {error}", "a CAST") from None

    def columns(self, table: str = "") -> Iterator[tuple[str, str]]:
        """(visible name, column) of one alias, or of all."""
        for alias, names in self.names:
            if not table or alias.lower() == table.lower():
                yield from names.items()

    def find(self, column: str, table: str = "") -> list[str]:
        return [internal for visible, internal in self.columns(table) if visible.lower() == column.lower()]

    def resolve(self, node: exp.Column) -> tuple[str, list[str]]:
        """(column, fields within it) that a name with dots means. Raises UnsupportedQuery."""
        parts = [part.name for part in node.parts]
        aliases = {alias.lower() for alias, _ in self.names}
        if len(parts) > 1 and parts[0].lower() in aliases:
            found, fields = self.find(parts[1], parts[0]), parts[2:]
        else:
            found, fields = self.find(parts[0]), parts[1:]
        if len(set(found)) == 1:
            return found[0], fields
        if found:
            raise unsupported(node, written(node), "more than one table has such a column", "its table in front of it")
        raise self._unknown(node, parts, aliases)

    def _unknown(self, node: exp.Column, parts: list[str], aliases: set[str]) -> UnsupportedQuery:
        visible = [column for column, _ in self.columns()]
        if len(parts) > 1 and parts[0].lower() not in aliases:
            return unsupported(
                node, written(node), f"there is no table or column {parts[0]!r} here", close_matches(parts[0], aliases)
            )
        hint = close_matches(parts[-1], visible) or f"one of {', '.join(visible[:20])}"
        if parts[-1].lower() in {"window_start", "window_end", "window_time"}:
            hint = "GROUP BY tumble(…), hop(…) or session_window(…), or select it in the query that this one reads"
        return unsupported(node, written(node), "there is no such column", hint)


def source_schema(scope: Scope) -> Schema:
    """The schema of the operator that the scope's relation reads."""
    return scope.types.source(scope.relation.place)


def project(
    scope: Scope, items: Iterable[Item], where: Iterable[str] = (), functions: Iterable[plan.Function] = ()
) -> Relation:
    """The relation that SELECT items FROM scope WHERE all of `where` is."""
    relation, items, where = scope.relation, list(items), list(where)
    relation, items = _flattened(relation, source_schema(scope), items, where)
    plain = [item.column for item in items]
    if not where and plain == relation.schema.names and [item.name for item in items] == plain:
        return replace(relation, hidden=frozenset())
    raw = scope.types.raw(_select(relation.query, items, where), source_schema(scope), relation.tables)
    fields = [Field(found.name, usable(found.type)) for found in raw]
    cast = [
        item if found.type == field.type else replace(item, sql=f"CAST({item.sql} AS {sql_type(field.type)})")
        for item, found, field in zip(items, raw, fields, strict=True)
    ]
    names: dict[str, str] = {}
    for item in items:
        if item.column:
            names.setdefault(item.column, item.name)
    return replace(
        relation,
        query=f"({_select(relation.query, cast, where)})",
        schema=Schema(tuple(fields)),
        roles=_roles(relation, items, names),
        functions=merged(relation.functions, functions),
        hidden=frozenset(),
        renames=_renames(relation, items, where),
    )


def _flattened(relation: Relation, source: Schema, items: list[Item], where: list[str]) -> tuple[Relation, list[Item]]:
    """Without the query below, where that only chooses columns: over the operator itself."""
    if relation.renames is None:
        return relation, items
    sources = dict(relation.renames)
    same = all(column == below for column, below in relation.renames)
    if not same and (where or not all(item.column for item in items)):
        return relation, items
    roles = relation.roles.renamed(sources)
    found = [
        replace(item, sql=name(sources[item.column]), column=sources[item.column]) if item.column else item
        for item in items
    ]
    return replace(relation, query=INPUT, schema=source, roles=roles, renames=None), found


def _renames(relation: Relation, items: list[Item], where: list[str]) -> tuple[tuple[str, str], ...] | None:
    if relation.query != INPUT or where:
        return None
    pairs = [(item.name, item.column) for item in items if item.column]
    return tuple(pairs) if len(pairs) == len(items) else None


def _roles(relation: Relation, items: list[Item], names: dict[str, str]) -> TimeColumns:
    roles = relation.roles.renamed(names)
    marked = next((item.name for item in items if item.time), None)
    return roles if marked is None else replace(roles, time=marked)


def time_item(relation: Relation) -> Item | None:
    """The relation's event time as a column: its own, or that of the window whose end it still has."""
    roles = relation.roles
    if roles.time is not None:
        return Item(roles.time, name(roles.time), roles.time, time=True)
    if roles.end is not None:
        return Item("window_time", f"({name(roles.end)} - INTERVAL '1 microsecond')", time=True)
    return None


def item_of(column: str, named: str = "") -> Item:
    """A column of the relation, as it is."""
    return Item(named or column, name(column), column)


def _select(source: str, items: list[Item], where: list[str]) -> str:
    columns = ", ".join(
        item.sql if item.sql == name(item.name) else f"{item.sql} AS {name(item.name)}" for item in items
    )
    condition = " WHERE " + " AND ".join(where) if where else ""
    return f"SELECT {columns}{ORIGIN_PLACE} FROM {source}{condition}"


def merged(first: tuple[plan.Function, ...], second: Iterable[plan.Function]) -> tuple[plan.Function, ...]:
    return tuple({function.name: function for function in (*first, *second)}.values())


def project_operator(relation: Relation, step: str) -> physical.Project:
    """The operator that a relation's query is."""
    return physical.Project(
        relation.place,
        relation.query.removeprefix("(").removesuffix(")"),
        relation.schema,
        relation.roles.time,
        relation.tables,
        relation.functions,
        step,
    )


def unique(wanted: str, taken: set[str]) -> str:
    """`wanted`, or that with a number, so that no other column has the name; it is then taken."""
    found, number = wanted, 2
    while found.lower() in taken:
        found, number = f"{wanted}_{number}", number + 1
    taken.add(found.lower())
    return found
