"""FROM, with JOIN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from headrace.stream import plan
from headrace.stream.sql import top
from headrace.stream.sql.dialect import refused
from headrace.stream.sql.relation import Relation, Scope

if TYPE_CHECKING:
    from headrace.stream.sql.query import Query


def from_clause(
    query: Query, node: exp.Select, known: dict[str, Relation], conditions: list[exp.Expr]
) -> tuple[Scope, list[exp.Expr]]:
    """The scope of a SELECT, and the WHERE conjuncts that are left."""
    clause = node.args.get("from_")
    assert clause is not None
    first = query.table(clause.this, known)
    if isinstance(first, plan.TableRef):
        raise refused(
            clause,
            first.name,
            "a table stands still: only a stream makes a stream",
            f"FROM a stream JOIN {first.name} ON …",
        )
    if first.rank is not None:
        first, conditions = top.bounded(query, first, conditions)
    return Scope.of(first, clause.this.alias_or_name, query.compiler.types), conditions
