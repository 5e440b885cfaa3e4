"""FROM with JOIN: two streams (an operator with state), or a stream and a static table (a projection that reads the table by
its name).

The conjuncts of ON, and for inner joins those of WHERE, are sorted into the parts of a Join: filters of one side, equal keys,
bounds on the difference of the two event times, and the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import pyarrow as pa
from sqlglot import exp

from headrace.stream import physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import INPUT
from headrace.stream.schema import Field, Schema
from headrace.stream.sql import restrictions, top
from headrace.stream.sql.dialect import unsupported
from headrace.stream.sql.expressions import Writer, conjuncts, interval_us
from headrace.stream.sql.group_by import is_window
from headrace.stream.sql.relation import Item, Relation, Scope, TimeColumns, item_of, merged, project, time_item, unique
from headrace.stream.sql.types import ORIGIN_PLACE, name, sql_type

if TYPE_CHECKING:
    from headrace.stream.sql.compiler import Query


@dataclass(frozen=True, slots=True)
class Bounds:
    """The right's event time less the left's lies between these (µs, inclusive); None: open."""

    lower_us: int | None = None
    upper_us: int | None = None

    def both(self, other: Bounds) -> Bounds:
        """The intersection of both."""
        lower = [bound for bound in (self.lower_us, other.lower_us) if bound is not None]
        upper = [bound for bound in (self.upper_us, other.upper_us) if bound is not None]
        return Bounds(max(lower, default=None), min(upper, default=None))


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a join: its columns and roles, as they are called in the condition."""

    columns: frozenset[str]
    roles: TimeColumns


def read_bound(node: exp.Expr, writer: Writer, left: Side, right: Side) -> Bounds | None:
    """The bounds that a conjunct sets; None if it is not a bound on time."""
    if not isinstance(node, exp.EQ | exp.LT | exp.LTE | exp.GT | exp.GTE):
        return None
    one, other = _Point.read(node.this, writer, left, right), _Point.read(node.expression, writer, left, right)
    if one is None or other is None or one.side == other.side:
        return None
    return _bounds_of(type(node), one, other) if one.side == 1 else _bounds_of(_MIRRORED[type(node)], other, one)


_MIRRORED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.EQ: exp.EQ,
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
}


def _bounds_of(comparison: type[exp.Expr], right: _Point, left: _Point) -> Bounds:
    """right + r ∘ left + l: the difference of the times is compared with l - r."""
    bound = left.offset_us - right.offset_us
    if comparison is exp.EQ:
        return Bounds(bound, bound)
    if comparison in (exp.GT, exp.GTE):
        return Bounds(bound + (comparison is exp.GT), None)
    return Bounds(None, bound - (comparison is exp.LT))


@dataclass(frozen=True, slots=True)
class _Point:
    """The event time of a side (0: left, 1: right), plus an offset."""

    side: int
    offset_us: int

    @classmethod
    def read(cls, node: exp.Expr, writer: Writer, left: Side, right: Side) -> _Point | None:
        if isinstance(node, exp.Paren):
            return cls.read(node.this, writer, left, right)
        if isinstance(node, exp.Add | exp.Sub):
            return cls._shifted(node, writer, left, right)
        column = writer.column(node)
        if column is None:
            return None
        side = 0 if column in left.columns else 1
        offset = _offset(column, (left, right)[side].roles)
        return None if offset is None else cls(side, offset)

    @classmethod
    def _shifted(cls, node: exp.Add | exp.Sub, writer: Writer, left: Side, right: Side) -> _Point | None:
        base, length = node.this, node.expression
        if isinstance(base, exp.Interval) and isinstance(node, exp.Add):
            base, length = length, base
        point = cls.read(base, writer, left, right)
        if point is None or not isinstance(length, exp.Interval):
            return None
        try:
            shift = interval_us(length)
        except UnsupportedQuery:  # months: no length, so no bound
            return None
        return cls(point.side, point.offset_us + (shift if isinstance(node, exp.Add) else -shift))


def _offset(column: str, roles: TimeColumns) -> int | None:
    if column == roles.time:
        return 0
    if column == roles.end:
        return 1
    if column == roles.start and roles.size_us is not None:
        return 1 - roles.size_us
    return None


# --- A stream joined with a static table: a projection that reads the table by its name ---


def join_table(
    query: Query, scope: Scope, table: plan.TableRef, alias: str, kind: str, on: list[exp.Expr], used: set[str] | None
) -> Scope:
    """The scope of `scope JOIN table ON …`. Raises UnsupportedQuery for kinds of joins that need the stream's end."""
    node = on[0] if on else exp.column(alias)
    if kind not in ("inner", "left"):
        raise unsupported(node, f"{kind.upper()} JOIN {table.name}", "which rows of a table never find a partner is known only at"
                      " the end of the stream", "JOIN or LEFT JOIN")  # fmt: skip
    if table.name.lower() == INPUT:
        raise unsupported(node, table.name, "a table cannot have this name", "another name")
    if not on:
        raise unsupported(node, f"JOIN {table.name}", "without ON every row would meet every other", "ON a.id = b.id")
    taken = {column.lower() for column in scope.relation.schema.names}
    renamed = {
        column: unique(column if column.lower() not in taken else f"{alias}_{column}", taken)
        for column in table.schema.names
        if used is None or column.lower() in used
    }
    return _table_scope(query, scope, table, alias, kind, on, renamed)


def _table_scope(
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


# --- FROM and JOIN ---


Kind = Literal["inner", "left", "right", "full"]
_BOUND_EXAMPLE: Final = "b.ts BETWEEN a.ts AND a.ts + INTERVAL 10 MINUTES, or a.window_end = b.window_end"


def from_clause(
    query: Query, node: exp.Select, known: dict[str, Relation], conditions: list[exp.Expr]
) -> tuple[Scope, list[exp.Expr]]:
    """The scope of a SELECT, and the remaining WHERE conjuncts."""
    clause = node.args["from_"]
    first = query.table(clause.this, known)
    if isinstance(first, plan.TableRef):
        raise unsupported(clause, first.name, "a static table alone is not a stream",
                      f"FROM a stream JOIN {first.name} ON …")  # fmt: skip
    first, conditions = _bounded(query, first, conditions, _used(node))
    scope = Scope.of(first, clause.this.alias_or_name, query.compiler.types)
    for join in node.args.get("joins") or []:
        scope, conditions = _joined(query, node, scope, join, known, conditions)
    return scope, conditions


def _bounded(
    query: Query, relation: Relation, conditions: list[exp.Expr], used: set[str] | None
) -> tuple[Relation, list[exp.Expr]]:
    return (relation, conditions) if relation.rank is None else top.bounded(query, relation, conditions, used)


def _joined(
    query: Query, node: exp.Select, scope: Scope, join: exp.Join, known: dict[str, Relation], conditions: list[exp.Expr]
) -> tuple[Scope, list[exp.Expr]]:
    kind = restrictions.join_kind(join)
    right = query.table(join.this, known)
    alias = join.this.alias_or_name
    on = conjuncts(join.args.get("on")) + _using(join, scope, alias)
    if isinstance(right, plan.TableRef):
        return join_table(query, scope, right, alias, kind, on, _used(node)), conditions
    used = _used(node, join)
    right, conditions = _bounded(query, right, conditions, _used(node))
    return _Join(query, node, scope, right, alias, kind, used).compiled(join, on, conditions)


def _using(join: exp.Join, scope: Scope, alias: str) -> list[exp.Expr]:
    """USING (a, b) as conditions."""
    found: list[exp.Expr] = []
    for column in join.args.get("using") or []:
        tables = [table for table, names in scope.names if column.name.lower() in {one.lower() for one in names}]
        if len(tables) != 1:
            raise unsupported(
                join, f"USING ({column.name})", "exactly one table on the left must have it", "ON a.x = b.x"
            )
        found.append(exp.EQ(this=exp.column(column.name, tables[0]), expression=exp.column(column.name, alias)))
    return found


def _used(node: exp.Select, join: exp.Join | None = None) -> set[str] | None:
    """The names that a SELECT uses, so that joins keep no other columns; None: a star, all. With `join`, only those beside
    its condition and WHERE, of which the join itself may need no more than a part."""
    for item in node.expressions:
        if item.is_star:
            return None
    beside: list[exp.Expr | None] = [] if join is None else [node.args.get("where"), join]
    found = _names([item for item in node.iter_expressions() if not any(item is one for one in beside)])
    using = [item for join in node.args.get("joins") or [] for item in join.args.get("using") or []]
    return found | {item.name.lower() for item in using}


def _apart(conditions: list[exp.Expr]) -> list[exp.Expr]:
    """BETWEEN as two comparisons, of which one may be a bound on time and the other not."""
    found: list[exp.Expr] = []
    for node in conditions:
        if isinstance(node, exp.Between) and not node.args.get("symmetric"):
            found.append(exp.GTE(this=node.this.copy(), expression=node.args["low"].copy()))
            found.append(exp.LTE(this=node.this.copy(), expression=node.args["high"].copy()))
        else:
            found.append(node)
    return found


def _names(nodes: Iterable[exp.Expr]) -> set[str]:
    columns = [column for node in nodes for column in node.find_all(exp.Column)]
    return {part.name.lower() for column in columns for part in column.parts}


@dataclass(slots=True)
class _Join:
    """A join of two streams being compiled. `both`: a scope of the columns of both sides, for reading conditions."""

    query: Query
    node: exp.Select
    left: Scope
    right: Relation
    alias: str
    kind: Kind
    used: set[str] | None
    both: Scope = field(init=False)
    writer: Writer = field(init=False)
    renamed: dict[str, str] = field(init=False)
    bounds: Bounds = field(default_factory=Bounds)
    filters: tuple[list[exp.Expr], list[exp.Expr]] = field(default_factory=lambda: ([], []))
    keys: list[tuple[exp.Expr, exp.Expr]] = field(default_factory=list)
    rest: list[exp.Expr] = field(default_factory=list)

    def __post_init__(self) -> None:
        taken = {column.lower() for column in self.left.relation.schema.names}
        self.renamed = {
            column: unique(column if column.lower() not in taken else f"{self.alias}_{column}", taken)
            for column in self.right.schema.names
        }
        right = [Field(self.renamed[one.name], one.type) for one in self.right.schema.fields]
        schema = Schema((*self.left.relation.schema.fields, *right))
        types = self.query.compiler.types
        relation = Relation(types.virtual(schema), schema)
        visible = {
            column: self.renamed[column] for column in self.right.schema.names if column not in self.right.hidden
        }
        self.both = Scope(relation, (*self.left.names, (self.alias, visible)), types)
        self.writer = self.query.writer(self.both)

    def compiled(self, join: exp.Join, on: list[exp.Expr], conditions: list[exp.Expr]) -> tuple[Scope, list[exp.Expr]]:
        """The scope of the joined rows, and the remaining WHERE conjuncts."""
        self.query.compiler.refuse_changes(self.left.relation, "JOIN")
        self.query.compiler.refuse_changes(self.right, "JOIN")
        for condition in _apart(on):
            self._sort(condition)
        left_over = [condition for condition in _apart(conditions) if not self._takes(condition)]
        self._check(join)
        if self.used is not None:
            self.used |= _names([*left_over, *self.rest])
        return self._operator(), left_over

    def _takes(self, condition: exp.Expr) -> bool:
        """Whether a WHERE conjunct can be done in the join or before it: it must mean the same there."""
        sides = self._sides(condition)
        if sides is None:
            return False
        if self.kind == "inner" or (self.kind == "left" and sides == {0}) or (self.kind == "right" and sides == {1}):
            self._sort(condition, outside=True)
            return True
        return False

    def _sides(self, node: exp.Expr) -> set[int] | None:
        """0 and 1 for the sides that an expression reads; None if it reads what is not there yet."""
        left = set(self.left.relation.schema.names)
        found = set()
        for column in node.find_all(exp.Column):
            parts = [part.name for part in column.parts]
            if len(parts) > 1 and parts[0].lower() not in {alias.lower() for alias, _ in self.both.names}:
                return None
            internal, _ = self.both.resolve(column)
            found.add(0 if internal in left else 1)
        return found

    def _sort(self, condition: exp.Expr, *, outside: bool = False) -> None:
        """Sort a conjunct into the parts of the join."""
        sides = self._sides(condition)
        if sides is None:
            self.both.resolve(next(condition.find_all(exp.Column)))  # raises
            return
        if len(sides) == 1 and (outside or self._filters(next(iter(sides)))):
            self.filters[next(iter(sides))].append(condition)
        elif not self._bound(condition) and not self._key(condition):
            self.rest.append(condition)

    def _filters(self, side: int) -> bool:
        """Whether a condition in ON on one side alone may be done before the join: not on a side whose rows all come out."""
        return self.kind == "inner" or (self.kind == "left" and side == 1) or (self.kind == "right" and side == 0)

    def _bound(self, condition: exp.Expr) -> bool:
        found = read_bound(condition, self.writer, self._side(0), self._side(1))
        if found is not None:
            self.bounds = self.bounds.both(found)
        return found is not None

    def _side(self, side: int) -> Side:
        if side == 0:
            return Side(frozenset(self.left.relation.schema.names), self.left.relation.roles)
        return Side(frozenset(self.renamed.values()), self.right.roles.renamed(self.renamed))

    def _key(self, condition: exp.Expr) -> bool:
        if not isinstance(condition, exp.EQ):
            return False
        sides = (self._sides(condition.left), self._sides(condition.right))
        if sides == ({0}, {1}):
            self.keys.append((condition.left, condition.right))
        elif sides == ({1}, {0}):
            self.keys.append((condition.right, condition.left))
        else:
            return False
        return True

    def _check(self, join: exp.Join) -> None:
        """Raises UnsupportedQuery for outer joins without bounds."""
        bounds, timed = self.bounds, self.left.relation.roles.timed and self.right.roles.timed
        if not self.keys and bounds == Bounds():
            word = "CROSS JOIN" if join.args.get("kind") == "CROSS" else "JOIN without equality"
            raise unsupported(
                join, word, "every row would meet every other for ever", "ON a.id = b.id AND bounds on time"
            )
        for kinds, bound, which in (
            (("left", "full"), bounds.upper_us, "how long after a left row its partner may come"),
            (("right", "full"), bounds.lower_us, "how long after a right row its partner may come"),
        ):
            if self.kind in kinds and (bound is None or not timed):
                raise unsupported(join, f"{self.kind.upper()} JOIN", f"nothing says {which}, so no row would ever be without one",
                              _BOUND_EXAMPLE)  # fmt: skip
        if bounds.lower_us is not None and bounds.upper_us is not None and bounds.lower_us > bounds.upper_us:
            raise unsupported(join, "JOIN", "its bounds on time exclude each other")
        if None in (bounds.lower_us, bounds.upper_us):
            self.query.compiler.warn(
                f"step {self.query.step.name!r} joins without {'bounds' if bounds == Bounds() else 'a bound'} on time:"
                f" rows are kept for ever (bounds look so: {_BOUND_EXAMPLE})"
            )

    def _operator(self) -> Scope:
        left_keys, right_keys = self._key_items()
        left = self._prepared(0, left_keys)
        right = self._prepared(1, right_keys)
        schema = Schema((*left.schema.fields, *right.schema.fields))
        roles = self._roles(left, right)
        condition = " AND ".join(self.writer.condition(item) for item in self.rest) or None
        bounded = self.left.relation.roles.timed and self.right.roles.timed
        place = self.query.compiler.add(
            physical.Join(
                left.place,
                right.place,
                self.kind,
                tuple(item.name for item in left_keys),
                tuple(item.name for item in right_keys),
                left.roles.time,
                right.roles.time,
                self.bounds.lower_us if bounded else None,
                self.bounds.upper_us if bounded else None,
                condition,
                schema,
                roles.time,
                self.query.step.name,
            )
        )
        kept = set(schema.names)
        names = tuple((alias, {a: b for a, b in columns.items() if b in kept}) for alias, columns in self.both.names)
        visible = {internal for _, columns in names for internal in columns.values()}
        return Scope(Relation(place, schema, roles, hidden=frozenset(kept - visible)), names, self.both.types)

    def _key_items(self) -> tuple[list[Item], list[Item]]:
        """The key columns of both sides, of one type each; computed ones get a column."""
        taken = {column.lower() for column in self.both.relation.schema.names}
        left, right = [], []
        for one, other in self.keys:
            (one_sql, one_type), (other_sql, other_type) = self.writer.typed(one), self.writer.typed(other)
            common = one_type if one_type == other_type else self.both.type_of(f"coalesce({one_sql}, {other_sql})", one)
            left.append(self._key_item(one, one_sql, one_type, common, taken))
            right.append(self._key_item(other, other_sql, other_type, common, taken))
        return left, right

    def _key_item(self, node: exp.Expr, sql: str, kind: pa.DataType, common: pa.DataType, taken: set[str]) -> Item:
        column = self.writer.column(node)
        if kind == common and column is not None:
            return item_of(column)
        return Item(unique("key", taken), sql if kind == common else f"CAST({sql} AS {sql_type(common)})")

    def _prepared(self, side: int, keys: list[Item]) -> Relation:
        """One side as an operator: filtered, only the columns that are needed, named as in the join."""
        relation = self.left.relation if side == 0 else self.right
        names = {column: column for column in relation.schema.names} if side == 0 else self.renamed
        needed = self._needed(side) | {item.column for item in keys if item.column}
        items = [item_of(column, names[column]) for column in relation.schema.names if names[column] in needed]
        time = time_item(relation)
        if time is not None and time.column is not None and names[time.column] not in needed:
            items.append(item_of(time.column, names[time.column]))
        elif time is not None and time.column is None:
            taken = {column.lower() for column in self.both.relation.schema.names}
            items.append(replace(time, name=unique("window_time" if side == 0 else f"{self.alias}_window_time", taken)))
        own = replace(self.both, relation=relation, names=self._own_names(side))
        where = [self.query.writer(own).condition(condition) for condition in self.filters[side]]
        computed = [item for item in keys if not item.column]
        first = project(own, items, where, self.query.step.functions)
        if computed:
            over = Scope.of(first, "", self.both.types)
            first = project(over, [*(item_of(one) for one in first.schema.names), *computed])
        return self.query.materialised(replace(first, hidden=frozenset()))

    def _own_names(self, side: int) -> tuple[tuple[str, dict[str, str]], ...]:
        visible = {column: column for column in self.right.schema.names if column not in self.right.hidden}
        return self.left.names if side == 0 else ((self.alias, visible),)

    def _needed(self, side: int) -> set[str]:
        """Columns of the join that the SELECT, or what is left of the condition, names."""
        names: Iterable[tuple[str, dict[str, str]]] = self.left.names if side == 0 else (self.both.names[-1],)
        pairs = [(visible, internal) for _, columns in names for visible, internal in columns.items()]
        needed = {internal for visible, internal in pairs if self.used is None or visible.lower() in self.used}
        computed = [pair[side] for pair in self.keys]
        for node in computed:
            needed |= {self.both.resolve(column)[0] for column in node.find_all(exp.Column)}
        return needed

    def _roles(self, left: Relation, right: Relation) -> TimeColumns:
        """The event time of the joined rows: one side's; the one that the SELECT uses, if it is an inner join."""
        if self.kind == "full" or not (left.roles.timed and right.roles.timed):
            return TimeColumns()
        if self.kind == "inner" and self._uses(left.roles, right.roles):
            return right.roles
        return right.roles if self.kind == "right" else left.roles

    def _uses(self, left: TimeColumns, right: TimeColumns) -> bool:
        """Whether the SELECT uses the right's event time rather than the left's."""
        group = self.node.args.get("group")
        windows = [item for item in (group.expressions if group else []) if is_window(item)]
        for item in [*windows, *self.node.expressions]:
            for column in item.find_all(exp.Column):
                if isinstance(column.this, exp.Star) or not self.both.find(column.name):
                    continue
                internal, _ = self.both.resolve(column)
                if internal in {left.time, left.end, left.start}:
                    return False
                if internal in {right.time, right.end, right.start}:
                    return True
        return False
