"""The aggregate functions of SQL: which physical one each is, over what, and of which type (Spark's)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import pyarrow as pa
from sqlglot import exp

from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import AggregateFunction
from headrace.stream.schema import type_name
from headrace.stream.sql.arithmetic import numeric, ordered
from headrace.stream.sql.dialect import unsupported, written

TypeRule: TypeAlias = Callable[[pa.DataType], pa.DataType]


def _same(kind: pa.DataType) -> pa.DataType:
    return kind


def _sum(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(kind):
        return pa.decimal128(min(kind.precision + 10, 38), kind.scale)
    return pa.int64() if pa.types.is_integer(kind) else pa.float64()


def _avg(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(kind):
        return pa.decimal128(min(kind.precision + 4, 38), min(kind.scale + 4, 38))
    return pa.float64()


def _always(kind: pa.DataType) -> TypeRule:
    return lambda _: kind


@dataclass(frozen=True, slots=True)
class AggregateKind:
    """An aggregate of SQL. `numbers`: it takes only numbers."""

    function: AggregateFunction
    type: TypeRule
    arguments: int = 1
    numbers: bool = False


_COUNT: Final = _always(pa.int64())
_DOUBLE: Final = _always(pa.float64())
_BOOL: Final = _always(pa.bool_())

KINDS: Final[dict[str, AggregateKind]] = {
    "count": AggregateKind("count", _COUNT),
    "count_if": AggregateKind("count_all", _COUNT),
    "sum": AggregateKind("sum", _sum, numbers=True),
    "min": AggregateKind("min", _same),
    "max": AggregateKind("max", _same),
    "avg": AggregateKind("avg", _avg, numbers=True),
    "mean": AggregateKind("avg", _avg, numbers=True),
    "approx_count_distinct": AggregateKind("approx_count_distinct", _COUNT),
    "first": AggregateKind("first", _same),
    "first_value": AggregateKind("first", _same),
    "any_value": AggregateKind("first", _same),
    "last": AggregateKind("last", _same),
    "last_value": AggregateKind("last", _same),
    "stddev": AggregateKind("stddev_samp", _DOUBLE, numbers=True),
    "std": AggregateKind("stddev_samp", _DOUBLE, numbers=True),
    "stddev_samp": AggregateKind("stddev_samp", _DOUBLE, numbers=True),
    "stddev_pop": AggregateKind("stddev_pop", _DOUBLE, numbers=True),
    "variance": AggregateKind("var_samp", _DOUBLE, numbers=True),
    "var_samp": AggregateKind("var_samp", _DOUBLE, numbers=True),
    "var_pop": AggregateKind("var_pop", _DOUBLE, numbers=True),
    "median": AggregateKind("percentile", _DOUBLE, numbers=True),
    "percentile": AggregateKind("percentile", _DOUBLE, 2, numbers=True),
    "percentile_cont": AggregateKind("percentile", _DOUBLE, numbers=True),
    "approx_percentile": AggregateKind("approx_percentile", _same, 2, numbers=True),
    "percentile_approx": AggregateKind("approx_percentile", _same, 2, numbers=True),
    "collect_list": AggregateKind("collect_list", pa.list_),
    "array_agg": AggregateKind("collect_list", pa.list_),
    "collect_set": AggregateKind("collect_set", pa.list_),
    "bool_and": AggregateKind("bool_and", _BOOL),
    "every": AggregateKind("bool_and", _BOOL),
    "bool_or": AggregateKind("bool_or", _BOOL),
    "any": AggregateKind("bool_or", _BOOL),
    "some": AggregateKind("bool_or", _BOOL),
    "min_by": AggregateKind("min_by", _same, 2),
    "max_by": AggregateKind("max_by", _same, 2),
}


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """An aggregate as it was written, taken apart. `arguments` are expressions of the input."""

    node: exp.Expr
    kind: AggregateKind
    function: AggregateFunction
    arguments: tuple[exp.Expr, ...]
    where: exp.Expr | None
    parameter: float | None = None

    def type(self, kinds: list[pa.DataType]) -> pa.DataType:
        """The result's type, from those of the arguments. Raises UnsupportedQuery."""
        if self.kind.numbers and not numeric(kinds[0]):
            raise unsupported(
                self.node, written(self.node), f"it needs a number, not {type_name(kinds[0])}", "CAST(… AS double)"
            )
        if self.kind.function in {"min", "max", "min_by", "max_by"}:
            ordered(self.node, kinds[-1])
        return self.kind.type(kinds[0] if kinds else pa.int64())


def is_aggregate(node: exp.Expr) -> bool:
    """Whether the node is an aggregate call, with its FILTER or WITHIN GROUP."""
    if isinstance(node, exp.Filter | exp.WithinGroup):
        return is_aggregate(node.this)
    return isinstance(node, exp.Anonymous) and str(node.this).lower() in KINDS


def take_apart(node: exp.Expr) -> AggregateCall:
    """The parts of an aggregate call. Raises UnsupportedQuery."""
    where = node.expression.this if isinstance(node, exp.Filter) else None
    inner = node.this if isinstance(node, exp.Filter) else node
    ordered = inner.expression if isinstance(inner, exp.WithinGroup) else None
    call = inner.this if isinstance(inner, exp.WithinGroup) else inner
    if not isinstance(call, exp.Anonymous):
        raise unsupported(node, written(node), "this is not an aggregate function")
    name = str(call.this).lower()
    arguments = list(call.expressions)
    if ordered is not None or name == "percentile_cont":
        arguments = _within_group(node, name, arguments, ordered)
    return _call(node, name, arguments, where)


def _within_group(node: exp.Expr, name: str, arguments: list[exp.Expr], ordered: exp.Expr | None) -> list[exp.Expr]:
    if name != "percentile_cont" or not isinstance(ordered, exp.Order) or len(arguments) != 1:
        raise unsupported(node, written(node), "only percentile_cont has WITHIN GROUP, with one order",
                      "percentile_cont(0.9) WITHIN GROUP (ORDER BY x), or percentile(x, 0.9)")  # fmt: skip
    (item,) = ordered.expressions
    fraction = _number(node, arguments[0])
    if item.args.get("desc"):
        fraction = 1 - fraction
    return [item.this, exp.Literal.number(repr(fraction))]


def _call(node: exp.Expr, name: str, arguments: list[exp.Expr], where: exp.Expr | None) -> AggregateCall:
    kind = KINDS[name]
    if len(arguments) == 1 and isinstance(arguments[0], exp.Distinct):
        return _distinct(node, name, list(arguments[0].expressions), where)
    if name == "count" and len(arguments) == 1 and isinstance(arguments[0], exp.Star | exp.Literal):
        return AggregateCall(node, kind, "count_all", (), where)
    if name == "count_if":
        _counted(node, arguments, 1)
        return AggregateCall(
            node, kind, "count_all", (), arguments[0] if where is None else exp.and_(where, arguments[0])
        )
    if kind.function in {"first", "last"}:
        arguments, where = _ignoring_nulls(arguments, where)
    if name == "approx_count_distinct" and len(arguments) == 2:
        arguments = arguments[:1]  # the error is the engine's
    if kind.function == "approx_percentile" and len(arguments) == 3:
        arguments = arguments[:2]  # same
    if name == "median":
        arguments = [*arguments, exp.Literal.number("0.5")]
    if kind.function in {"percentile", "approx_percentile"}:
        _counted(node, arguments, 2)
        return AggregateCall(node, kind, kind.function, (arguments[0],), where, _fraction(node, arguments[1]))
    _counted(node, arguments, kind.arguments)
    return AggregateCall(node, kind, kind.function, tuple(arguments), where)


def _counted(node: exp.Expr, arguments: list[exp.Expr], count: int) -> None:
    if len(arguments) != count:
        raise unsupported(
            node, written(node), f"it takes {count} argument{'' if count == 1 else 's'}, not {len(arguments)}"
        )


def _distinct(node: exp.Expr, name: str, arguments: list[exp.Expr], where: exp.Expr | None) -> AggregateCall:
    if name != "count":
        raise unsupported(
            node, written(node), "DISTINCT stands only in count(DISTINCT …)", "collect_set(…), or .dedup(…)"
        )
    if len(arguments) > 1:
        arguments = [_together(arguments)]
    return AggregateCall(node, KINDS["count"], "count_distinct", tuple(arguments), where)


def _together(arguments: list[exp.Expr]) -> exp.Expr:
    """Several columns as one text that differs if they do; NULL if one is: such rows do not count."""
    parts: list[exp.Expr] = []
    for argument in arguments:
        text = exp.Cast(this=argument.copy(), to=exp.DataType.build("string"))
        parts += [exp.Anonymous(this="length", expressions=[text]), exp.Literal.string(":"), text.copy()]
    return exp.Anonymous(this="concat", expressions=parts)


def _ignoring_nulls(arguments: list[exp.Expr], where: exp.Expr | None) -> tuple[list[exp.Expr], exp.Expr | None]:
    """first(x, true) and first(x IGNORE NULLS): only rows that have x."""
    ignores = len(arguments) == 2 and isinstance(arguments[1], exp.Boolean) and bool(arguments[1].this)
    if len(arguments) == 2 and isinstance(arguments[1], exp.Boolean):
        arguments = arguments[:1]
    if len(arguments) == 1 and isinstance(arguments[0], exp.IgnoreNulls):
        arguments, ignores = [arguments[0].this], True
    if not ignores:
        return arguments, where
    there = exp.Not(this=exp.Is(this=arguments[0].copy(), expression=exp.Null()))
    return arguments, there if where is None else exp.and_(where, there)


def _number(node: exp.Expr, argument: exp.Expr) -> float:
    if not isinstance(argument, exp.Literal) or argument.is_string:
        raise unsupported(node, written(node), "the fraction must be one number, written out", "percentile(x, 0.9)")
    return float(argument.name)


def _fraction(node: exp.Expr, argument: exp.Expr) -> float:
    fraction = _number(node, argument)
    if not 0 <= fraction <= 1:
        raise unsupported(node, written(node), f"the fraction {fraction} is not between 0 and 1")
    return fraction


def nested(node: exp.Expr) -> UnsupportedQuery:
    return unsupported(node, written(node), "an aggregate stands within an aggregate", "a query over a query")
