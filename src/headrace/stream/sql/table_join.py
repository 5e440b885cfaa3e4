"""A stream joined with a table that stands still: a projection that reads the table by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from headrace.stream import plan
from headrace.stream.physical import INPUT
from headrace.stream.schema import Field, Schema
from headrace.stream.sql.dialect import refused
from headrace.stream.sql.relation import Relation, Scope, item_of, merged, unique
from headrace.stream.sql.types import ORIGIN_PLACE, name

if TYPE_CHECKING:
    from headrace.stream.sql.query import Query


def join_table(
    query: Query, scope: Scope, table: plan.TableRef, alias: str, kind: str, on: list[exp.Expr], used: set[str] | None
) -> Scope:
    """The scope of `scope JOIN table ON …`. Raises UnsupportedQuery for kinds of joins that need the stream's end."""
    node = on[0] if on else exp.column(alias)
    if kind not in ("inner", "left"):
        raise refused(node, f"{kind.upper()} JOIN {table.name}", "which rows of a table never find a partner is known only at"
                      " the end of the stream", "JOIN or LEFT JOIN")  # fmt: skip
    if table.name.lower() == INPUT:
        raise refused(node, table.name, "a table cannot have this name", "another name")
    if not on:
        raise refused(node, f"JOIN {table.name}", "without ON every row would meet every other", "ON a.id = b.id")
    taken = {column.lower() for column in scope.relation.schema.names}
    renamed = {
        column: unique(column if column.lower() not in taken else f"{alias}_{column}", taken)
        for column in table.schema.names
        if used is None or column.lower() in used
    }
    return _scope(query, scope, table, alias, kind, on, renamed)


def _scope(
    query: Query, scope: Scope, table: plan.TableRef, alias: str, kind: str, on: list[exp.Expr], renamed: dict[str, str]
) -> Scope:
    left = scope.relation
    right = [replace(field, name=renamed[field.name]) for field in table.schema.fields if field.name in renamed]
    schema = Schema((*left.schema.fields, *(Field(field.name, field.type) for field in right)))
    names = (*scope.names, (alias, renamed))
    virtual = Scope(Relation(scope.types.virtual(schema), schema), names, scope.types)
    writer = query.writer(virtual)
    condition = " AND ".join(writer.condition(item) for item in on)
    columns = ", ".join(item_of(column).sql for column in schema.names)
    inner = ", ".join(f"{name(column)} AS {name(internal)}" for column, internal in renamed.items())
    word = "LEFT JOIN" if kind == "left" else "JOIN"
    sql = f"SELECT {columns}{ORIGIN_PLACE} FROM {left.query} {word} (SELECT {inner} FROM {name(table.name)}) ON {condition}"
    relation = replace(
        left,
        query=f"({sql})",
        schema=schema,
        renames=None,
        tables=(*(one for one in left.tables if one.name != table.name), table),
        functions=merged(left.functions, query.step.functions),
    )
    return Scope(relation, names, scope.types)
