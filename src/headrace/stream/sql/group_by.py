"""GROUP BY: its windows (tumble, hop, session_window), a projection of what the groups need, an Aggregate over plain columns,
and the expressions over its results.

    SELECT origin, sum(x + 1) / count(*) AS m FROM s WHERE … GROUP BY tumble(ts, '1 hour'), origin HAVING count(*) > 2

becomes Project(ts, origin, x + 1 AS argument) → Aggregate(window_*, origin, sum, count) → sum / count AS m, HAVING.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeGuard

import pyarrow as pa
from sqlglot import exp

from headrace.stream import physical
from headrace.stream.physical import Hop, Session, Tumble, Window
from headrace.stream.schema import Field, Schema
from headrace.stream.sql.aggregate_functions import AggregateCall, is_aggregate, nested, take_apart
from headrace.stream.sql.dialect import unsupported, written
from headrace.stream.sql.expressions import INTERNAL, Writer, conjuncts, internal, interval_us
from headrace.stream.sql.relation import Item, Relation, Scope, TimeColumns, item_of, project, time_item, unique
from headrace.stream.sql.types import name

if TYPE_CHECKING:
    from headrace.stream.sql.compiler import Named, Query


_ARGUMENTS: Final = {"tumble": 2, "hop": 3, "session_window": 2}
_EXAMPLES: Final = {
    "tumble": "tumble(ts, '10 seconds')",
    "hop": "hop(ts, '10 seconds', '2 seconds') (size, then slide)",
    "session_window": "session_window(ts, '10 seconds')",
}
SAME_WINDOW: Final = Tumble(1)
"""GROUP BY window_start, window_end: each window's rows have one event time, so a microsecond holds exactly them."""


@dataclass(frozen=True, slots=True)
class GroupWindow:
    """A window of a GROUP BY. `node` is the call, or None for GROUP BY window_start, window_end."""

    window: Window
    node: exp.Expr | None = None

    def roles(self) -> TimeColumns:
        """The roles of the aggregate's own columns, if it was a call."""
        if isinstance(self.window, Session):
            return TimeColumns("window_time", "window_start", "window_end")
        size = self.window.size_us
        slide = self.window.slide_us if isinstance(self.window, Hop) else size
        return TimeColumns("window_time", "window_start", "window_end", size, slide)


def is_window(node: exp.Expr) -> TypeGuard[exp.Anonymous]:
    return isinstance(node, exp.Anonymous) and str(node.this).lower() in {*_ARGUMENTS, "window"}


def read_window(node: exp.Anonymous, writer: Writer) -> GroupWindow:
    """Read a window call of GROUP BY. Raises UnsupportedQuery."""
    function = str(node.this).lower()
    if function == "window":
        raise unsupported(
            node, written(node), "window() is spelled differently here", f"{_EXAMPLES['tumble']} or {_EXAMPLES['hop']}"
        )
    if len(node.expressions) != _ARGUMENTS[function]:
        raise unsupported(
            node, written(node), f"{function} takes {_ARGUMENTS[function]} arguments", _EXAMPLES[function]
        )
    lengths = [interval_us(argument) for argument in node.expressions[1:]]
    for length in lengths:
        if length <= 0:
            raise unsupported(node, written(node), "a window must be longer than nothing", _EXAMPLES[function])
    window = _window(node, function, lengths)
    _check_time(node, writer, window)
    return GroupWindow(window, node)


def _window(node: exp.Expr, function: str, lengths: list[int]) -> Window:
    if function == "tumble":
        return Tumble(lengths[0])
    if function == "session_window":
        return Session(lengths[0])
    size, slide = lengths
    if slide > size:
        raise unsupported(node, written(node), "the slide is greater than the size, so rows would fall between windows",
                      "hop(ts, size, slide) with slide ≤ size")  # fmt: skip
    return Tumble(size) if size == slide else Hop(size, slide)


def _check_time(node: exp.Anonymous, writer: Writer, window: Window) -> None:
    """Check that a window is over the event time, which the watermark refers to."""
    roles = writer.scope.relation.roles
    column = writer.column(node.expressions[0])
    if column is not None and column == roles.time:
        return
    if column is not None and column == roles.start and _within(window, roles):
        return
    if column is not None and column in {roles.start, roles.end}:
        raise unsupported(
            node, written(node), "a window of windows stands on window_time, the last moment of the inner window: by its"
            " start or end it could fall into another outer window", f"{node.this}(window_time, …)",
        )  # fmt: skip
    time = roles.time or ("window_time" if roles.end else None)
    raise unsupported(
        node, written(node), "a window stands on the event time, which alone says when it is over",
        f"{node.this}({time}, …)" if time else ".with_watermark(column, delay=…) on the source, and the column in every query between",
    )  # fmt: skip


def _within(window: Window, roles: TimeColumns) -> bool:
    """Whether an inner window always lies in the same outer windows by its start as by its last moment."""
    if isinstance(window, Session) or roles.size_us is None or roles.size_us != roles.slide_us:
        return False
    lengths = [window.size_us, window.slide_us if isinstance(window, Hop) else window.size_us]
    return all(length % roles.size_us == 0 for length in lengths)


# --- GROUP BY ---


_OWN: Final = ("window_start", "window_end", "window_time")


def is_aggregate_query(node: exp.Select) -> bool:
    """Whether a SELECT aggregates."""
    if node.args.get("group") or node.args.get("having"):
        return True
    return any(_aggregates(item) for item in node.expressions)


def _aggregates(node: exp.Expr) -> bool:
    if isinstance(node, exp.Select | exp.Window):
        return False
    return is_aggregate(node) or any(_aggregates(child) for child in node.iter_expressions())


@dataclass(slots=True)
class Group:
    """A GROUP BY being compiled.

    Attributes:
        inputs: the columns that the Aggregate reads, by their SQL; `taken`: their names.
        results: the names of what it gives.
        keys: key column → its SQL.
        calls: the SQL of an aggregate → its result column.
    """

    query: Query
    scope: Scope
    writer: Writer
    window: GroupWindow | None = None
    inputs: dict[str, Item] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    results: set[str] = field(default_factory=lambda: set(_OWN))
    keys: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    aggregations: list[physical.Aggregation] = field(default_factory=list)

    def input(self, item: Item) -> str:
        """The input column for an expression; made if it is not there."""
        if item.sql not in self.inputs:
            self.inputs[item.sql] = replace(item, name=unique(item.name, self.taken))
        return self.inputs[item.sql].name

    def key(self, item: Item) -> None:
        """A key has the same name in the input and the output."""
        if item.sql not in self.keys.values():
            before = self.inputs.pop(item.sql, item)
            named = replace(item, name=unique(item.name, self.results), time=before.time)
            self.keys[self.input(named)] = item.sql


def compile_group_by(
    query: Query, node: exp.Select, scope: Scope, named: list[Named], conditions: list[exp.Expr]
) -> tuple[Scope, list[Named], list[exp.Expr], list[exp.Expr]]:
    """The scope of the groups; the SELECT list, HAVING and QUALIFY over it."""
    group = Group(query, scope, query.writer(scope))
    _read_keys(group, node, named)
    having = node.args.get("having")
    over = conjuncts(having.this if having is not None else None)
    rewritten = [(column, _rewrite(group, item, column)) for column, item in named]
    over = [_rewrite(group, item, "") for item in over]
    qualify = (
        [_rewrite_rank(group, item) for item in conjuncts(node.args["qualify"].this)]
        if node.args.get("qualify")
        else []
    )
    return Scope.of(_aggregate(group, conditions), "", query.compiler.types), rewritten, over, qualify


def _rewrite_rank(group: Group, node: exp.Expr) -> exp.Expr:
    """A conjunct of QUALIFY: of columns, it names only the number itself."""
    return _with_children(group, node) if node.find(exp.Window) else node


def _read_keys(group: Group, node: exp.Select, named: list[Named]) -> None:
    clause = node.args.get("group")
    if clause is None:
        return
    for key in ("rollup", "cube", "grouping_sets", "totals", "all"):
        if clause.args.get(key):
            raise unsupported(
                clause, f"GROUP BY {key.upper().replace('_', ' ')}", "one grouping a query", "UNION ALL of queries"
            )
    plain: list[tuple[exp.Expr, str]] = []
    for item in clause.expressions:
        if isinstance(item, exp.Rollup | exp.Cube | exp.GroupingSets) or written(item).upper().startswith(
            ("ROLLUP(", "CUBE(")
        ):
            raise unsupported(item, f"GROUP BY {written(item)}", "one grouping a query", "UNION ALL of queries")
        expression, alias = _meant(group, item, named)
        if is_window(expression):
            if group.window is not None:
                raise unsupported(item, written(item), "a query has one window", "a query over a query for the second")
            group.window = read_window(expression, group.writer)
        else:
            plain.append((expression, alias))
    _add_keys(group, plain)


def _meant(group: Group, item: exp.Expr, named: list[Named]) -> tuple[exp.Expr, str]:
    """(expression, its name): GROUP BY 1 and GROUP BY alias mean items of the SELECT list."""
    if isinstance(item, exp.Literal) and not item.is_string:
        place = int(item.name)
        if not 1 <= place <= len(named):
            raise unsupported(item, f"GROUP BY {item.name}", f"the SELECT list has {len(named)} columns")
        return named[place - 1][1], named[place - 1][0]
    if isinstance(item, exp.Column) and not item.table and not group.scope.find(item.name):
        for alias, expression in named:
            if alias.lower() == item.name.lower():
                return expression, alias
    sql = None
    for alias, expression in named:
        if expression == item:
            sql = alias
    return item, sql or (item.name if isinstance(item, exp.Column) else "key")


def _add_keys(group: Group, plain: list[tuple[exp.Expr, str]]) -> None:
    roles = group.scope.relation.roles
    columns = {group.writer.column(expression) for expression, _ in plain}
    if group.window is None and _same_window(roles, columns):
        group.window = GroupWindow(SAME_WINDOW)
    if group.window is not None:
        time = time_item(group.scope.relation)
        assert time is not None
        group.input(time)
    for expression, alias in plain:
        if _aggregates(expression):
            raise nested(expression)
        _not_ambiguous(group, expression)
        column = group.writer.column(expression)
        if group.window is not None and column is not None and column == roles.time and group.window.node is None:
            group.keys["window_time"] = group.writer(expression)
            continue
        sql = group.writer(expression)
        group.scope.type_of(sql, expression)
        group.key(Item(alias, sql, column))


def _not_ambiguous(group: Group, expression: exp.Expr) -> None:
    """A key that has a name of the window's own columns: the SELECT list would mean the window's."""
    own = group.window is not None and group.window.node is not None
    if own and isinstance(expression, exp.Column) and not expression.table and expression.name.lower() in _OWN:
        raise unsupported(expression, written(expression), "it is a column of the input and one of the window's",
                      "another name for the input's: SELECT … AS other in a query below")  # fmt: skip


def _same_window(roles: TimeColumns, columns: set[str | None]) -> bool:
    """Whether a GROUP BY says the windows of the query below: their end, or their start if that fixes it."""
    if roles.end is not None and roles.end in columns:
        return True
    if roles.start is not None and roles.start in columns and roles.size_us is not None and roles.timed:
        return True
    windowed = roles.start is not None or roles.end is not None or roles.size_us is not None
    return windowed and roles.time is not None and roles.time in columns


def _rewrite(group: Group, node: exp.Expr, alias: str) -> exp.Expr:
    """The expression over the Aggregate's columns. Raises UnsupportedQuery for a column that is not in a group."""
    if is_aggregate(node):
        return internal(_call(group, node, alias))
    if isinstance(node, exp.Column) and node.name.lower() in _OWN and _own(group, node):
        return internal(node.name.lower())
    key = _key(group, node)
    if key is not None:
        return internal(key)
    if isinstance(node, exp.Column):
        raise unsupported(
            node,
            written(node),
            "it is neither in GROUP BY nor in an aggregate",
            f"GROUP BY …, {written(node)}, or max({written(node)})",
        )
    if is_window(node):
        raise unsupported(
            node, written(node), "a window stands only in GROUP BY", "window_start, window_end, window_time"
        )
    return _with_children(group, node)


def _with_children(group: Group, node: exp.Expr) -> exp.Expr:
    """A copy of the node whose children are rewritten. The original stays, for its places in the text."""
    copy = node.copy()
    for old, new in zip(list(node.iter_expressions()), list(copy.iter_expressions()), strict=True):
        if not (isinstance(node, exp.Window) and old is node.this):
            new.replace(_rewrite(group, old, ""))
    return copy


def _own(group: Group, node: exp.Column) -> bool:
    """Whether window_start, window_end or window_time means the window of this GROUP BY."""
    return (
        group.window is not None
        and (group.window.node is not None or node.name.lower() == "window_time")
        and not node.table
    )


def _key(group: Group, node: exp.Expr) -> str | None:
    if isinstance(node, _PARTS) or not group.keys:
        return None
    sql = _sql_or_none(group, node)
    return next((key for key, stands_for in group.keys.items() if stands_for == sql), None)


_PARTS: Final = (exp.Window, exp.Order, exp.Ordered, exp.DataType, exp.Identifier, exp.Literal, exp.Var, exp.Interval)


def _sql_or_none(group: Group, node: exp.Expr) -> str | None:
    """The SQL over the input, if the node has one without aggregates in it."""
    if _aggregates(node) or any(isinstance(item, exp.Window) for item in node.walk()):
        return None
    return group.writer(node) if _only_known(group, node) else None


def _known(group: Group, node: exp.Column) -> bool:
    parts = [part.name for part in node.parts]
    return bool(group.scope.find(parts[0]) or len(parts) > 1)


def _only_known(group: Group, node: exp.Expr) -> bool:
    return all(item.meta.get(INTERNAL) or _known(group, item) for item in node.find_all(exp.Column))


def _call(group: Group, node: exp.Expr, alias: str) -> str:
    """The result column of an aggregate call."""
    call = take_apart(node)
    for argument in (*call.arguments, *([call.where] if call.where is not None else [])):
        if _aggregates(argument):
            raise nested(node)
    arguments = [group.writer.typed(argument) for argument in call.arguments]
    where = group.writer.condition(call.where) if call.where is not None else None
    key = f"{call.function} {arguments} {where} {call.parameter}"
    if key not in group.calls:
        group.calls[key] = _added(group, call, alias, where)
    return group.calls[key]


def _added(group: Group, call: AggregateCall, alias: str, where: str | None) -> str:
    typed = [group.writer.typed(argument) for argument in call.arguments]
    columns = tuple(
        group.input(Item(group.writer.column(argument) or "argument", sql, group.writer.column(argument)))
        for (sql, _), argument in zip(typed, call.arguments, strict=True)
    )
    filtered = group.input(Item("counts", where)) if where is not None else None
    result = unique(alias or call.function, group.results)
    kind = call.type([kind for _, kind in typed])
    group.aggregations.append(physical.Aggregation(call.function, columns, result, kind, filtered, call.parameter))
    return result


def _aggregate(group: Group, conditions: list[exp.Expr]) -> Relation:
    """Append the operators; the relation of the groups."""
    query, compiler = group.query, group.query.compiler
    compiler.refuse_changes(group.scope.relation, "GROUP BY")
    where = [group.writer.condition(condition) for condition in conditions]
    below = query.materialised(_inputs(group, where))
    keys = tuple(key for key in group.keys if key != "window_time")
    own = [Field(column, below_type) for column, below_type in _own_fields(group)]
    kinds = [Field(key, below.kind(key)) for key in keys]
    results = [Field(item.name, item.type) for item in group.aggregations]
    schema = Schema((*own, *kinds, *results))
    window = group.window.window if group.window else None
    mode = compiler.mode or ("append" if window else "update")
    place = compiler.add(
        physical.Aggregate(
            below.place,
            window,
            below.roles.time if window else None,
            keys,
            tuple(group.aggregations),
            mode if window else "update",
            schema,
            query.step.name,
        )
    )
    if group.window is not None and group.window.node is not None:
        compiler.session(place, group.window.node, query.step.name)
    if window is None:
        compiler.unwindowed(query.step.name)
    return Relation(place, schema, _roles(group), changes=window is None)


def _inputs(group: Group, where: list[str]) -> Relation:
    """The input of the Aggregate: only the columns that it needs; unchanged if nothing is computed."""
    relation, items = group.scope.relation, list(group.inputs.values())
    plain = [item.column == item.name for item in items]
    if not where and all(plain) and items and relation.query == physical.INPUT and not relation.hidden:
        return relation
    if not items:  # count(*) alone: rows need a column
        items = (
            [item_of(relation.schema.names[0])] if relation.schema.names[0].lower() not in _OWN else [Item("one", "1")]
        )
    return project(group.scope, items, where, group.query.step.functions)


def _own_fields(group: Group) -> list[tuple[str, pa.DataType]]:
    return [(column, pa.timestamp("us")) for column in _OWN] if group.window is not None else []


def _roles(group: Group) -> TimeColumns:
    """Own window columns; or, for GROUP BY window_start, window_end, the keys that are these."""
    if group.window is None:
        return TimeColumns()
    if group.window.node is not None:
        return group.window.roles()
    below = group.scope.relation.roles
    keys = {sql: key for key, sql in group.keys.items()}
    start = keys.get(name(below.start)) if below.start else None
    end = keys.get(name(below.end)) if below.end else None
    return TimeColumns("window_time", start, end, below.size_us, below.slide_us)
