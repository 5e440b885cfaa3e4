"""A step's SQL for Spark: the text as it was written, but for windows.

    tumble(ts, '10 s'), hop(ts, '10 s', '2 s')   window(ts, '10 seconds'[, '2 seconds'])
    window_start, window_end, window_time        window.start, window.end, and in a SELECT around: window_time(window)
    GROUP BY window_start, window_end            … and window(_window_time, '1 microsecond'), see below
    a.window_end = b.window_end                  a._window_time = b._window_time
    count(DISTINCT x), first(x), last(x)         size(collect_set(x)), min_by(x, ts), max_by(x, ts)

Spark knows by a column's metadata that a watermark holds for it, and `window.start` has lost them. So each windowed query
also gives `_window_time` = window_time(window), which has not, and what stands on its windows goes by that column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlglot import exp
from sqlglot.dialects.spark import Spark

from headrace.durations import duration_text
from headrace.stream import plan
from headrace.stream.sql.dialect import parse
from headrace.stream.sql.expressions import conjuncts, interval_us
from headrace.stream.sql.group_by import is_window

WINDOW_TIME: Final = "_window_time"
"""The hidden column of windowed queries."""
_OWN: Final = {
    "window_start": "{}.start",
    "window_end": "{}.end",
    "window_time": "({}.end - INTERVAL '1' MICROSECOND)",
}


@dataclass(frozen=True, slots=True)
class SparkQuery:
    """A step for Spark.

    Attributes:
        text: the SQL.
        views: the names that it reads: temporary views of inputs and tables.
        columns: what it gives, in order. It may give WINDOW_TIME behind them, which a sink must not see.
        time: the event-time column, or None.
        functions: Python functions to register before.
    """

    text: str
    views: tuple[str, ...]
    columns: tuple[str, ...]
    time: str | None
    functions: tuple[plan.Function, ...]
    windowed: bool = False


def rewritten(step: plan.SqlStep) -> tuple[str, bool]:
    """(text, whether it gives WINDOW_TIME)."""
    inputs = {alias.lower() for alias, item in step.inputs if isinstance(item, plan.SqlStep) and rewritten(item)[1]}
    tree = parse(step.text, step.name)
    windowed = _Rewrite(inputs).query(tree, set())
    return tree.sql(dialect=Spark, pretty=True), windowed


@dataclass(slots=True)
class _Rewrite:
    """Rewrites a tree in place. `windowed`: the names of inputs that have WINDOW_TIME."""

    windowed: set[str]

    def query(self, node: exp.Expr, known: set[str]) -> bool:
        """Rewrite a query; whether it gives WINDOW_TIME. `known`: names of WITH that do."""
        if isinstance(node, exp.Subquery):
            return self.query(node.this, known)
        clause = node.args.get("with_")
        for item in clause.expressions if clause is not None else []:
            known = (known | {item.alias.lower()}) if self.query(item.this, known) else known - {item.alias.lower()}
        if isinstance(node, exp.Union):
            return self._union(node, known)
        return self._select(node, known) if isinstance(node, exp.Select) else False

    def _union(self, node: exp.Union, known: set[str]) -> bool:
        """The sides must have the same columns, so either both keep WINDOW_TIME or none."""
        left, right = self.query(node.left, known), self.query(node.right, known)
        if left and right:
            return True
        for side, windowed in ((node.left, left), (node.right, right)):
            if windowed and isinstance(side, exp.Select):
                side.set("expressions", [item for item in side.expressions if item.alias_or_name != WINDOW_TIME])
        return False

    def _select(self, node: exp.Select, known: set[str]) -> bool:
        sources = [node.args["from_"].this, *(join.this for join in node.args.get("joins") or [])]
        windowed = [source.alias_or_name for source in sources if self._windowed(source, known)]
        group = node.args.get("group")
        own = _window_of(node, group.expressions if group is not None else [])
        if own is not None:
            return _windowed_select(node, own)
        for join in node.args.get("joins") or []:
            _window_join(node, join, windowed)
        if group is not None:
            return bool(windowed) and _same_window(node, group, windowed[0])
        _aggregates(node, "")
        return bool(windowed) and _passed(node, windowed[0])

    def _windowed(self, source: exp.Expr, known: set[str]) -> bool:
        if isinstance(source, exp.Subquery):
            return self.query(source.this, known)
        return source.name.lower() in known | self.windowed


def _window_of(node: exp.Select, items: Iterable[exp.Expr]) -> exp.Anonymous | None:
    """The window function of a GROUP BY, also if that names it by place or alias."""
    for item in items:
        meant = item
        if isinstance(item, exp.Literal) and not item.is_string:
            meant = node.expressions[int(item.name) - 1].unalias()
        if is_window(meant):
            return meant
    return None


def _windowed_select(node: exp.Select, window: exp.Anonymous) -> bool:
    """A query with a window of its own."""
    function = "session_window" if str(window.this).lower() == "session_window" else "window"
    lengths = [exp.Literal.string(duration_text(interval_us(item))) for item in window.expressions[1:]]
    time = window.expressions[0].sql(dialect=Spark)
    window.replace(exp.Anonymous(this=function, expressions=[window.expressions[0], *lengths]))
    _aggregates(node, time)
    times = {place for place, item in enumerate(node.expressions) if _is_window_time(item.unalias())}
    for item in list(node.expressions):
        _own_columns(item, function)
    having = node.args.get("having")
    if having is not None:
        _own_columns(having.this, function)
    _around(node, function, times)
    return True


def _is_window_time(item: exp.Expr) -> bool:
    return isinstance(item, exp.Column) and item.name.lower() == "window_time" and not item.table


def _around(node: exp.Select, function: str, times: set[int]) -> None:
    """Put a SELECT around, that gives WINDOW_TIME: Spark refuses window_time(window) in the SELECT that aggregates.

    `times`: the places of items that are nothing but window_time: they keep the watermark, too.
    """
    names = []
    for place, item in enumerate(node.expressions):
        names.append(item.alias_or_name or f"_{place}")
        if not item.alias_or_name:
            item.replace(exp.alias_(item.copy(), names[-1], quoted=True))
    inner = node.copy()
    inner.set("with_", None)
    inner.append("expressions", exp.column(function))
    for key in [key for key in node.args if key != "with_"]:
        node.set(key, None)
    time = _expression(f"window_time({function})")
    outer = [
        exp.alias_(time.copy(), name, quoted=True) if place in times else exp.column(name, quoted=True)
        for place, name in enumerate(names)
    ]
    node.set("expressions", [*outer, exp.alias_(time, WINDOW_TIME)])
    node.set(
        "from_", exp.From(this=exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier("_windowed"))))
    )


def _own_columns(item: exp.Expr, function: str) -> None:
    for column in [item] if isinstance(item, exp.Column) else list(item.find_all(exp.Column)):
        pattern = _OWN.get(column.name.lower()) if not column.table else None
        if pattern is None:
            continue
        new = _expression(pattern.format(function))
        alone = column is item and not isinstance(column.parent, exp.Having)
        column.replace(exp.alias_(new, column.name) if alone else new)


def _expression(text: str) -> exp.Expr:
    query = parse(f"SELECT {text}")
    return query.expressions[0].copy()  # type: ignore[no-any-return] # sqlglot's lists are of anything


def _same_window(node: exp.Select, group: exp.Group, source: str) -> bool:
    """GROUP BY window_start, window_end of the query below: WINDOW_TIME distinguishes the windows as well."""
    names = {item.name.lower() for item in group.expressions if isinstance(item, exp.Column)}
    if not names & {"window_start", "window_end", "window_time"}:
        _aggregates(node, "")
        return False
    time = exp.column(WINDOW_TIME, source or None)
    _aggregates(node, time.sql(dialect=Spark))
    group.append("expressions", exp.Anonymous(this="window", expressions=[time, exp.Literal.string("1 microsecond")]))
    _around(node, "window", set())
    return True


def _window_join(node: exp.Select, join: exp.Join, windowed: list[str]) -> None:
    """Bounds of windows in a condition go by WINDOW_TIME, which has the watermark."""
    where = node.args.get("where")
    alias = {source.lower() for source in windowed}
    for condition in conjuncts(join.args.get("on")) + (conjuncts(where.this) if where is not None else []):
        if not isinstance(condition, exp.EQ | exp.LT | exp.LTE | exp.GT | exp.GTE | exp.Between):
            continue
        for column in list(condition.find_all(exp.Column)):
            if column.name.lower() == "window_end" and column.table.lower() in alias:
                column.replace(_end(condition, column))


def _end(condition: exp.Expr, column: exp.Column) -> exp.Expr:
    time = exp.column(WINDOW_TIME, column.table or None)
    sides = list(condition.find_all(exp.Column))
    if isinstance(condition, exp.EQ) and all(side.name.lower() in ("window_end", WINDOW_TIME) for side in sides):
        return time
    return exp.paren(
        exp.Add(this=time, expression=exp.Interval(this=exp.Literal.string("1"), unit=exp.var("MICROSECOND")))
    )


def _passed(node: exp.Select, source: str) -> bool:
    """A query without GROUP BY hands WINDOW_TIME on; a star has it already."""
    if not node.is_star:
        node.append("expressions", exp.alias_(exp.column(WINDOW_TIME, source or None), WINDOW_TIME))
    return True


def _aggregates(node: exp.Select, time: str) -> None:
    """What Spark's streams refuse or do by arrival, by its other aggregates. `time`: the event time's SQL, or empty."""
    roots = [*node.expressions, *([node.args["having"].this] if node.args.get("having") else [])]
    for call in [call for root in roots for call in root.find_all(exp.Anonymous)]:
        function = str(call.this).lower()
        if function == "count" and len(call.expressions) == 1 and isinstance(call.expressions[0], exp.Distinct):
            _distinct(call)
        elif (
            function in ("first", "first_value", "any_value", "last", "last_value")
            and time
            and len(call.expressions) == 1
        ):
            by = "max_by" if function.startswith("last") else "min_by"
            call.set("this", by)
            call.append("expressions", _expression(time))


def _distinct(call: exp.Anonymous) -> None:
    """count(DISTINCT a, b): rows with a NULL among them do not count, so the struct is NULL then."""
    values = [item.copy() for item in call.expressions[0].expressions]
    value = values[0]
    if len(values) > 1:
        there = exp.and_(*(exp.Not(this=exp.Is(this=item.copy(), expression=exp.Null())) for item in values))
        value = exp.Case(ifs=[exp.If(this=there, true=exp.Anonymous(this="struct", expressions=values))])
    filtered = call.parent if isinstance(call.parent, exp.Filter) else None
    collected: exp.Expr = exp.Anonymous(this="collect_set", expressions=[value])
    if filtered is not None:
        collected = exp.Filter(this=collected, expression=filtered.expression.copy())
    size = exp.cast(exp.Anonymous(this="size", expressions=[collected]), "bigint")
    (filtered or call).replace(size)
