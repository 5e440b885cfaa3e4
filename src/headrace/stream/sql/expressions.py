"""Expressions: Spark's, written as DuckDB SQL that means the same.

Expressions that are not in the table at the end are unsupported, so only reviewed expressions run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pyarrow as pa
from sqlglot import exp

from headrace.durations import DurationInvalid, duration_us
from headrace.stream import plan
from headrace.stream.errors import SchemaInvalid
from headrace.stream.schema import from_sql_type, type_name
from headrace.stream.sql import arithmetic, casts, functions, restrictions
from headrace.stream.sql.dialect import close_matches, unsupported, written
from headrace.stream.sql.relation import Scope
from headrace.stream.sql.types import literal, name, sql_type

INTERNAL: Final = "headrace_column"
"""The mark of a Column node that names a column of the relation itself, put in by a rewrite."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes expressions of one scope. `python`: the functions that SQL may call, by lower name."""

    scope: Scope
    python: dict[str, plan.Function]

    def __call__(self, node: exp.Expr) -> str:
        """DuckDB's SQL for an expression. Raises UnsupportedQuery."""
        writer = _WRITERS.get(type(node))
        if writer is None:
            reason, instead = _REFUSED.get(type(node), ("streams do not have this", ""))
            raise unsupported(node, written(node), reason, instead)
        return writer(self, node)

    def typed(self, node: exp.Expr) -> tuple[str, pa.DataType]:
        """(SQL, type) of an expression."""
        sql = self(node)
        return sql, self.scope.type_of(sql, node)

    def condition(self, node: exp.Expr) -> str:
        """SQL of what is true or false; Spark takes no number for it. Raises UnsupportedQuery."""
        sql, kind = self.typed(node)
        if not pa.types.is_boolean(kind) and not isinstance(node, exp.Null):
            raise unsupported(node, written(node), f"a condition is true or false, not {type_name(kind)}")
        return sql

    def column(self, node: exp.Expr) -> str | None:
        """The relation's column that the expression plainly is, or None."""
        if isinstance(node, exp.Paren):
            return self.column(node.this)
        if not isinstance(node, exp.Column) or isinstance(node.this, exp.Star):
            return None
        if node.meta.get(INTERNAL):
            return str(node.name)
        column, fields = self.scope.resolve(node)
        return None if fields else column


_Write: TypeAlias = Callable[[Writer, Any], str]


def internal(column: str) -> exp.Column:
    """A node for a column of the relation, whatever is visible by which name."""
    node = exp.column(exp.to_identifier(column, quoted=True))
    node.meta[INTERNAL] = True
    return node


def conjuncts(node: exp.Expr | None) -> list[exp.Expr]:
    """The conditions that are all true if `node` is."""
    if node is None:
        return []
    if isinstance(node, exp.Paren):
        return conjuncts(node.this)
    if isinstance(node, exp.And):
        return conjuncts(node.left) + conjuncts(node.right)
    return [node]


def interval_text(node: exp.Interval) -> str:
    """What stands in an INTERVAL literal: `10 minutes`."""
    if not isinstance(node.this, exp.Literal):
        raise unsupported(node, written(node), "an interval is a literal here", "INTERVAL 10 MINUTES")
    unit = node.args.get("unit")
    return f"{node.this.name} {unit.name.lower()}" if unit is not None else str(node.this.name).lower()


def interval_us(node: exp.Expr) -> int:
    """The length of a literal: INTERVAL 10 MINUTES, or '10 minutes'. Raises UnsupportedQuery."""
    text = interval_text(node) if isinstance(node, exp.Interval) else str(node.name)
    if not isinstance(node, exp.Interval) and not (isinstance(node, exp.Literal) and node.is_string):
        raise unsupported(node, written(node), "this must be a length of time, written out", "'10 seconds'")
    try:
        return duration_us(text)
    except DurationInvalid as error:
        raise unsupported(node, written(node), str(error)) from None


def _column(writer: Writer, node: exp.Column) -> str:
    if node.meta.get(INTERNAL):
        return name(node.name)
    if isinstance(node.this, exp.Star):
        raise unsupported(node, "*", "a star stands only in a SELECT list, or in count(*)")
    column, fields = writer.scope.resolve(node)
    return ".".join(name(part) for part in (column, *fields))


def _literal(_: Writer, node: exp.Literal) -> str:
    if node.is_string:
        return literal(node.name)
    number = node.name.lower()
    if "e" in number:
        return f"CAST({number} AS DOUBLE)"
    whole, _point, fraction = number.partition(".")
    if fraction and not whole.strip("0"):  # DuckDB counts the zero in front of the point as a digit
        return f"CAST({number} AS DECIMAL({len(fraction)},{len(fraction)}))"
    return number


def _logical(operator: str) -> _Write:
    return lambda writer, node: f"({writer.condition(node.left)} {operator} {writer.condition(node.right)})"


def _compared(writer: Writer, one: exp.Expr, operator: str, other: exp.Expr) -> str:
    left, right = writer.typed(one), writer.typed(other)
    arithmetic.mixed([(one, left[1]), (other, right[1])])
    if operator not in _EQUAL:
        arithmetic.ordered(one, left[1])
    left, right = arithmetic.doubled([left, right])
    return f"({left[0]} {operator} {right[0]})"


_EQUAL: Final = {"=", "<>", "IS NOT DISTINCT FROM", "IS DISTINCT FROM"}


def _comparison(operator: str) -> _Write:
    return lambda writer, node: _compared(writer, node.left, operator, node.right)


def _is(writer: Writer, node: exp.Is) -> str:
    return f"({writer(node.this)} IS {writer(node.expression)})"


def _not(writer: Writer, node: exp.Not) -> str:
    return f"(NOT {writer.condition(node.this)})"


def _between(writer: Writer, node: exp.Between) -> str:
    """Two comparisons, as in Spark: each has its own common type."""
    if node.args.get("symmetric"):
        raise unsupported(node, "BETWEEN SYMMETRIC", "streams do not have this", "BETWEEN least(…) AND greatest(…)")
    least, most = (
        _compared(writer, node.this, *bound) for bound in ((">=", node.args["low"]), ("<=", node.args["high"]))
    )
    return f"({least} AND {most})"


def _in(writer: Writer, node: exp.In) -> str:
    if not node.expressions:
        raise unsupported(node, "IN (SELECT …)", "a subquery in a condition has no meaning on a stream that goes on",
                      "a JOIN with it")  # fmt: skip
    nodes = [node.this, *node.expressions]
    typed = [writer.typed(item) for item in nodes]
    arithmetic.mixed(zip(nodes, [kind for _, kind in typed], strict=True))
    sql, *items = [sql for sql, _ in arithmetic.doubled(typed)]
    return f"({sql} IN ({', '.join(items)}))"


def _like(operator: str) -> _Write:
    # A backslash escapes in Spark without being asked; in DuckDB nothing does.
    return lambda writer, node: f"({writer(node.this)} {operator} {writer(node.expression)} ESCAPE '\\')"


def _escape(writer: Writer, node: exp.Escape) -> str:
    operator = "ILIKE" if isinstance(node.this, exp.ILike) else "LIKE"
    like = node.this
    return f"({writer(like.this)} {operator} {writer(like.expression)} ESCAPE {writer(node.expression)})"


def _alike(writer: Writer, values: Iterable[exp.Expr | None]) -> list[str]:
    """The branches that there are, of one type. Raises UnsupportedQuery if theirs do not go together."""
    there = [value for value in values if value is not None]
    typed = [writer.typed(value) for value in there]
    arithmetic.mixed(zip(there, [kind for _, kind in typed], strict=True))
    return [sql for sql, _ in arithmetic.widened(typed)]


def _case(writer: Writer, node: exp.Case) -> str:
    ifs, default = node.args["ifs"], node.args.get("default")
    values = _alike(writer, [*(item.args["true"] for item in ifs), default])
    subject = node.this
    whens = [
        writer.condition(item.this) if subject is None else _compared(writer, subject, "=", item.this) for item in ifs
    ]
    branches = "".join(f" WHEN {when} THEN {value}" for when, value in zip(whens, values, strict=False))
    return f"CASE{branches}{f' ELSE {values[-1]}' if default is not None else ''} END"


def _if(writer: Writer, node: exp.If) -> str:
    true, *false = _alike(writer, [node.args["true"], node.args.get("false")])
    return f"CASE WHEN {writer.condition(node.this)} THEN {true}{f' ELSE {false[0]}' if false else ''} END"


def _cast(writer: Writer, node: exp.Cast) -> str:
    try:
        target = from_sql_type(node.to)
    except SchemaInvalid as error:
        raise unsupported(node, written(node), str(error.reason)) from None
    if isinstance(node.this, exp.Literal) and node.this.is_string and not node.this.name:
        raise unsupported(node, written(node), "an empty text cannot be cast to this type")
    sql, source = writer.typed(node.this)
    if not isinstance(node.this, exp.Null) and not casts.castable(source, target):
        raise unsupported(node, written(node), f"{type_name(source)} is not cast to {type_name(target)}")
    return casts.cast(sql, source, target, strict=not isinstance(node, exp.TryCast))


def _arithmetic(operator: str) -> _Write:
    def write(writer: Writer, node: exp.Binary) -> str:
        left, right = node.left, node.right
        if isinstance(left, exp.Interval) or isinstance(right, exp.Interval):
            return _shifted(writer, operator, left, right)
        return arithmetic.write(operator, writer.typed(left), writer.typed(right), node)

    return write


def _shifted(writer: Writer, operator: str, left: exp.Expr, right: exp.Expr) -> str:
    """A time and a length. A date and whole days are a date."""
    interval, other = (left, right) if isinstance(left, exp.Interval) else (right, left)
    shifted = f"({writer(left)} {operator} {writer(right)})"
    units = re.findall("[a-z]+", interval_text(interval)) if isinstance(interval, exp.Interval) else []
    whole = all(unit.removesuffix("s") in _WHOLE_DAYS for unit in units)
    if whole and not isinstance(other, exp.Interval) and pa.types.is_date(writer.typed(other)[1]):
        return f"CAST({shifted} AS DATE)"
    return shifted


_WHOLE_DAYS: Final = {"day", "week", "month", "quarter", "year"}


def _bits(pattern: str) -> _Write:
    def write(writer: Writer, node: exp.Binary) -> str:
        left, right = arithmetic.widened([writer.typed(node.left), writer.typed(node.right)])
        return pattern.format(left[0], right[0])

    return write


def _interval(_: Writer, node: exp.Interval) -> str:
    return f"INTERVAL {literal(interval_text(node))}"


def _bracket(writer: Writer, node: exp.Bracket) -> str:
    sql, kind = writer.typed(node.this)
    (index,) = node.expressions
    if pa.types.is_map(kind):
        return f"{sql}[{writer(index)}]"
    if not pa.types.is_list(kind):
        raise unsupported(node, written(node), "only arrays and maps have elements")
    return functions.element(sql, writer(index))


def _dot(writer: Writer, node: exp.Dot) -> str:
    return f"({writer(node.this)}).{name(node.expression.name)}"


def _extract(writer: Writer, node: exp.Extract) -> str:
    if str(node.this.name).lower() == "second":  # with its fraction, which second() cuts
        return functions.fraction_of_minute(writer.typed(node.expression))
    return functions.call(str(node.this.name).lower(), [writer.typed(node.expression)], node)


def _call(writer: Writer, node: exp.Anonymous) -> str:
    called = str(node.this).lower()
    own = writer.python.get(called)
    if own is not None:
        return _python(writer, node, own)
    if called in functions.REFUSED:
        reason, instead = functions.REFUSED[called]
        raise unsupported(node, written(node), reason, instead)
    if called not in functions.TABLE:
        names = [*functions.TABLE, *writer.python]
        raise unsupported(node, f"{node.this}()", "unknown function", close_matches(called, names))
    unit = called in functions.UNIT_FIRST and len(node.expressions) == 3
    typed = [writer.typed(argument) for argument in node.expressions[unit:]]
    if called in functions.CHOOSING:
        arithmetic.mixed(zip(node.expressions, [kind for _, kind in typed], strict=True))
        typed = arithmetic.widened(typed) if called != "nullif" else typed
    return functions.call(called, [("''", pa.string()), *typed] if unit else typed, node)


def _python(writer: Writer, node: exp.Anonymous, function: plan.Function) -> str:
    if len(node.expressions) != len(function.arguments):
        raise unsupported(
            node, f"{function.name}()", f"it takes {len(function.arguments)} arguments, not {len(node.expressions)}"
        )
    arguments = [
        f"CAST({writer(argument)} AS {sql_type(kind)})"
        for argument, kind in zip(node.expressions, function.arguments, strict=True)
    ]
    return f"{name(function.name)}({', '.join(arguments)})"


_WRITERS: Final[dict[type[exp.Expr], _Write]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Boolean: lambda _, node: "TRUE" if node.this else "FALSE",
    exp.Null: lambda *_: "NULL",
    exp.Paren: lambda writer, node: f"({writer(node.this)})",
    exp.And: _logical("AND"),
    exp.Or: _logical("OR"),
    exp.Not: _not,
    exp.EQ: _comparison("="),
    exp.NEQ: _comparison("<>"),
    exp.LT: _comparison("<"),
    exp.LTE: _comparison("<="),
    exp.GT: _comparison(">"),
    exp.GTE: _comparison(">="),
    exp.NullSafeEQ: _comparison("IS NOT DISTINCT FROM"),
    exp.NullSafeNEQ: _comparison("IS DISTINCT FROM"),
    exp.Is: _is,
    exp.Between: _between,
    exp.In: _in,
    exp.Like: _like("LIKE"),
    exp.ILike: _like("ILIKE"),
    exp.Escape: _escape,
    exp.RegexpLike: lambda writer, node: functions.call(
        "rlike", [writer.typed(node.this), writer.typed(node.expression)], node
    ),
    exp.Add: _arithmetic("+"),
    exp.Sub: _arithmetic("-"),
    exp.Mul: _arithmetic("*"),
    exp.Div: _arithmetic("/"),
    exp.Mod: _arithmetic("%"),
    exp.IntDiv: _arithmetic("div"),
    exp.Neg: lambda writer, node: f"(-{writer(node.this)})",
    exp.DPipe: lambda writer, node: (
        f"({casts.text(*writer.typed(node.left))} || {casts.text(*writer.typed(node.right))})"
    ),
    exp.BitwiseAnd: _bits("({} & {})"),
    exp.BitwiseOr: _bits("({} | {})"),
    exp.BitwiseXor: _bits("xor({}, {})"),
    exp.BitwiseNot: lambda writer, node: f"(~{writer(node.this)})",
    exp.Case: _case,
    exp.If: _if,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Interval: _interval,
    exp.Bracket: _bracket,
    exp.Dot: _dot,
    exp.Extract: _extract,
    exp.Anonymous: _call,
}

_SUBQUERY = ("a subquery in an expression has no meaning on a stream that goes on", "a JOIN with it")
_REFUSED: Final[dict[type[exp.Expr], tuple[str, str]]] = {
    exp.Subquery: _SUBQUERY,
    exp.Select: _SUBQUERY,
    exp.Exists: _SUBQUERY,
    exp.Window: (
        restrictions.ONLY_ROW_NUMBER,
        "QUALIFY ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= N, or an aggregate with GROUP BY tumble(…)",
    ),
    exp.Star: ("a star stands only in a SELECT list, or in count(*)", "the names of the columns"),
    exp.Lambda: ("SQL functions as arguments are not in the subset", "a Python function: @hs.function(returns=…)"),
    exp.Distinct: ("DISTINCT stands only in count(DISTINCT …)", "count(DISTINCT …), collect_set(…)"),
    exp.Filter: ("FILTER belongs to an aggregate", "CASE WHEN … THEN … END"),
    exp.WithinGroup: ("only percentile_cont(…) has WITHIN GROUP", "percentile(column, fraction)"),
    exp.CurrentTimestamp: (
        "the time of the run differs from run to run, so a repeat would give other rows", "an event-time column",
    ),
}  # fmt: skip
