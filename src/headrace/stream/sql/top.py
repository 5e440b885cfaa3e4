"""ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) with a bound: the first N rows of a group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlglot import exp

from headrace.stream import physical
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.schema import Field, Schema
from headrace.stream.sql.dialect import unsupported, written
from headrace.stream.sql.expressions import Writer
from headrace.stream.sql.relation import Item, Rank, Relation, Scope, TimeColumns, item_of, project, time_item, unique
from headrace.stream.sql.restrictions import ONLY_ROW_NUMBER

if TYPE_CHECKING:
    from headrace.stream.sql.compiler import Named, Query

_BOUNDS = {exp.LTE: 0, exp.LT: -1, exp.EQ: 0}
_MIRRORED = {exp.GTE: exp.LTE, exp.GT: exp.LT, exp.EQ: exp.EQ}


def unbounded(rank: Rank) -> UnsupportedQuery:
    return unsupported(rank.node, written(rank.node), "without a bound every row would be kept for ever",
                   f"WHERE {rank.column} <= 10 around it, or QUALIFY ROW_NUMBER() OVER (…) <= 10")  # fmt: skip


def _no_bound(node: exp.Expr) -> UnsupportedQuery:
    return unsupported(node, f"QUALIFY {written(node)}", "it bounds ROW_NUMBER(), and does nothing else",
                   "QUALIFY ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= 10")  # fmt: skip


def ranked(
    query: Query, scope: Scope, named: list[Named], conditions: list[exp.Expr], qualify: list[exp.Expr]
) -> Relation:
    """A SELECT with ROW_NUMBER() in its list or in QUALIFY."""
    window, column = _the_window(named, qualify)
    rank, below = _prepared(query, scope, named, conditions, window, column)
    if not qualify:
        return replace(below, rank=rank)
    limits = [_bound(condition, window, column) for condition in qualify]
    if len(limits) != 1 or limits[0] is None:
        raise _no_bound(qualify[0])
    keep = [name for name, _ in named]
    return top(query, replace(below, rank=rank), limits[0], keep)


def bounded(
    query: Query, relation: Relation, conditions: list[exp.Expr], used: set[str] | None
) -> tuple[Relation, list[exp.Expr]]:
    """A query with ROW_NUMBER() in its list, read by one whose WHERE bounds it; the conditions that are left.

    `used`: the names that the reading query uses, so that the Top keeps no other columns; None: all.
    """
    rank = relation.rank
    assert rank is not None
    for condition in conditions:
        limit = _bound(condition, rank.node, rank.column)
        if limit is not None:
            rest = [other for other in conditions if other is not condition]
            narrow = _narrowed(query, relation, rank, used)
            visible = [*(column for column in narrow.schema.names if column not in narrow.hidden), rank.column]
            return top(query, narrow, limit, visible), rest
    raise unbounded(rank)


def _narrowed(query: Query, relation: Relation, rank: Rank, used: set[str] | None) -> Relation:
    """Only the columns that are used, or that the Top goes by."""
    if used is None:
        return relation
    own = {
        *rank.partition,
        *(column for column, _, _ in rank.order),
        relation.roles.time,
        relation.roles.end,
        relation.roles.start,
    }
    keep = [column for column in relation.schema.names if column in own or column.lower() in used]
    scope = Scope.of(relation, "", query.compiler.types)
    return replace(project(scope, [item_of(column) for column in keep]), hidden=relation.hidden & set(keep))


def _the_window(named: list[Named], qualify: list[exp.Expr]) -> tuple[exp.Window, str]:
    found = [(item, name) for name, item in named if isinstance(item, exp.Window)]
    inside = [item for condition in qualify for item in condition.find_all(exp.Window)]
    if not found and not inside:
        raise _no_bound(qualify[0])
    window, column = found[0] if found else (inside[0], "")
    for other in [item for item, _ in found[1:]] + [item for item in inside if found or item is not inside[0]]:
        if other != window:
            raise unsupported(
                other, written(other), "a query has one ROW_NUMBER()", "a query over a query for the second"
            )
    if not isinstance(window.this, exp.Anonymous) or str(window.this.this).lower() != "row_number":
        raise unsupported(window, written(window.this) + " OVER …", ONLY_ROW_NUMBER,
                      "QUALIFY ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= N")  # fmt: skip
    return window, column


def _prepared(
    query: Query, scope: Scope, named: list[Named], conditions: list[exp.Expr], window: exp.Window, column: str
) -> tuple[Rank, Relation]:
    """The relation with what PARTITION BY and ORDER BY need as columns, hidden where the SELECT list has not got them."""
    order = window.args.get("order")
    if order is None:
        raise unsupported(window, written(window), "without ORDER BY no row is the first", "ORDER BY column")
    if window.args.get("spec"):
        raise unsupported(window, written(window), "ROW_NUMBER() has no frame", "leave ROWS BETWEEN … out")
    writer = query.writer(scope)
    visible = [(name, item) for name, item in named if not isinstance(item, exp.Window)]
    columns = {writer(item): name for name, item in visible}
    taken = {name.lower() for name, _ in named}
    hidden: list[Item] = []

    def need(node: exp.Expr, wanted: str) -> str:
        sql = writer(node)
        if sql not in columns:
            columns[sql] = unique(wanted, taken)
            hidden.append(Item(columns[sql], sql, writer.column(node)))
        return columns[sql]

    partition = tuple(need(node, _called(writer, node, "part")) for node in window.args.get("partition_by") or [])
    ordered = tuple(
        (
            need(item.this, _called(writer, item.this, "rank_by")),
            bool(item.args.get("desc")),
            bool(item.args.get("nulls_first")),
        )
        for item in order.expressions
    )
    _need_time(scope, columns, taken, hidden)
    below = query.projected(scope, visible, conditions, hidden)
    return Rank(window, column, partition, ordered), replace(below, hidden=frozenset(item.name for item in hidden))


def _called(writer: Writer, node: exp.Expr, otherwise: str) -> str:
    return writer.column(node) or otherwise


def _need_time(scope: Scope, columns: dict[str, str], taken: set[str], hidden: list[Item]) -> None:
    """Top per window goes by event time, selected or not."""
    time = time_item(scope.relation)
    if time is not None and time.sql not in columns:
        columns[time.sql] = unique(time.name, taken)
        hidden.append(replace(time, name=columns[time.sql]))


def _bound(condition: exp.Expr, window: exp.Expr, column: str) -> int | None:
    """N, if the condition says that the number is at most N (or, for the first alone, equal to 1)."""
    kind: type[exp.Expr] = type(condition)
    if kind not in _BOUNDS and kind not in _MIRRORED:
        return None
    left, right = condition.this, condition.expression
    if isinstance(left, exp.Literal):
        left, right, kind = right, left, _MIRRORED.get(kind, exp.NEQ)
    same = left == window or (isinstance(left, exp.Column) and bool(column) and left.name.lower() == column.lower())
    if not same or kind not in _BOUNDS or not isinstance(right, exp.Literal) or not str(right.name).isdigit():
        return None
    number = int(right.name) + _BOUNDS[kind]
    return None if kind is exp.EQ and number != 1 else number


def top(query: Query, relation: Relation, limit: int, keep: list[str]) -> Relation:
    """Append the Top; the relation of its rows, with the columns `keep`."""
    rank = relation.rank
    assert rank is not None
    if limit < 1:
        raise unsupported(rank.node, written(rank.node), f"at most {limit} rows are none")
    query.compiler.refuse_changes(relation, "ROW_NUMBER()")
    per_window = _final(relation, rank)
    if not per_window:
        query.compiler.unwindowed_top(rank.node, query.step.name)
    below = query.compiler.materialised(replace(relation, hidden=frozenset()), query.step.name)
    number = [Field(rank.column, pa.int32())] if rank.column else []
    schema = Schema((*below.schema.fields, *number))
    place = query.compiler.add(
        physical.Top(
            below.place,
            rank.partition,
            rank.order,
            limit,
            rank.column or None,
            per_window,
            schema,
            below.roles.time,
            query.step.name,
        )
    )
    roles = below.roles if per_window else TimeColumns()
    over = Relation(place, schema, roles, changes=not per_window)
    return project(Scope.of(over, "", query.compiler.types), [item_of(column) for column in keep])


def _final(relation: Relation, rank: Rank) -> bool:
    """Whether each partition is of one event time, so that its rows have all come when the watermark has passed it."""
    roles = relation.roles
    if roles.time is None:
        return False
    fixed = {roles.time, roles.end} | ({roles.start} if roles.size_us is not None else set())
    return bool((fixed - {None}) & set(rank.partition))
