"""+, -, *, /, %, div with Spark's types: decimals grow by its rules, `/` never gives integers, nothing divides by zero."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import pyarrow as pa
from sqlglot import exp

from headrace.stream.schema import type_name
from headrace.stream.sql.dialect import unsupported, written
from headrace.stream.sql.types import Typed, literal, sql_type

_PRECISION_MAX: Final = 38
_INTEGERS: Final = {pa.int8(): 3, pa.int16(): 5, pa.int32(): 10, pa.int64(): 20}
"""How many decimal digits Spark gives an integer type."""
_INTEGER: Final = re.compile(r"\(?-?(\d+)\)?")
"""One that is written out, as it is written for DuckDB."""
_NARROW: Final = {pa.int8(), pa.int16()}


def write(operator: str, left: Typed, right: Typed, node: exp.Expr) -> str:
    """The operation in DuckDB's SQL. Raises UnsupportedQuery for types that Spark does not combine."""
    left, right = widened([left, right])
    (one, one_type), (other, other_type) = left, right
    if _dates(operator, one_type, other_type):
        return f"({one} {operator} {other})"
    for kind in (one_type, other_type):
        if not numeric(kind):
            raise unsupported(node, written(node), f"{operator} needs numbers, not {type_name(kind)}",
                          "a CAST; for time: ts + INTERVAL 10 MINUTES, or timestampdiff(SECOND, a, b)")  # fmt: skip
    if operator == "div" and (pa.types.is_floating(one_type) or pa.types.is_floating(other_type)):
        raise unsupported(node, written(node), "div is for whole numbers and decimals", "CAST(a / b AS bigint)")
    if operator in {"/", "%", "div"}:
        return _divided(operator, left, right)
    result = _decimal_type(operator, left, right)
    if operator == "*" and result is not None and pa.types.is_decimal(one_type):
        one = f"CAST({one} AS DECIMAL(38,{one_type.scale}))"  # DuckDB would multiply within 18 digits, and raise beyond
    elif operator == "*" and result is not None:
        other = f"CAST({other} AS DECIMAL(38,{other_type.scale}))"
    return f"({one} {operator} {other})" if result is None else _decimal(operator, one, other, result)


def positive_rest(left: Typed, right: Typed, node: exp.Expr) -> str:
    """pmod: the rest, which a negative divisor leaves negative."""
    rest = write("%", left, right, node)
    kind = _decimal_type("%", *widened([left, right]))
    above = f"({rest} + {right[0]}) % {right[0]}" if kind is None else f"CAST({rest} + {right[0]} AS {sql_type(kind)})"
    return f"CASE WHEN {rest} < 0 AND {right[0]} > 0 THEN {above} ELSE {rest} END"


def widened(values: Sequence[Typed]) -> list[Typed]:
    """An integer written out is an int in Spark, so what it meets becomes one; in DuckDB it takes the other's type."""
    if any(_INTEGER.fullmatch(sql) for sql, _ in values):
        values = [(f"CAST({sql} AS INTEGER)", pa.int32()) if kind in _NARROW else (sql, kind) for sql, kind in values]
    return doubled(values)


def doubled(values: Sequence[Typed]) -> list[Typed]:
    """A float meets something exact: all become doubles, in Spark, since a float would lose digits of the other."""
    kinds = [kind for _, kind in values]
    exact = any(kind in _INTEGERS or pa.types.is_decimal(kind) for kind in kinds)
    if not exact or not any(map(pa.types.is_float32, kinds)):
        return list(values)
    return [(f"CAST({sql} AS DOUBLE)", pa.float64()) for sql, _ in values]


def mixed(values: Iterable[tuple[exp.Expr, pa.DataType]]) -> None:
    """Refuses values that are compared, or chosen from, and that Spark does not bring to one type, or another than DuckDB:
    a boolean and a number, a text that is not written out and anything else."""
    known = [(node, kind) for node, kind in values if not isinstance(node, exp.Null | exp.Literal)]
    for node, kind in known[1:]:
        first = known[0][1]
        text = pa.types.is_string(kind) != pa.types.is_string(first)
        if text or _flag_and_number(kind, first) or _flag_and_number(first, kind):
            raise unsupported(node, written(node), f"{type_name(kind)} does not go with {type_name(first)}", "a CAST")


def ordered(node: exp.Expr, kind: pa.DataType) -> None:
    """Refuses to order what has parts: a NULL in an array is its least in Spark, its greatest in DuckDB."""
    if pa.types.is_nested(kind):
        raise unsupported(node, written(node), f"{type_name(kind)} has no order", "one of its elements or fields")


def _flag_and_number(one: pa.DataType, other: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(one) and numeric(other))


def numeric(kind: pa.DataType) -> bool:
    return bool(kind in _INTEGERS or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _decimal_type(operator: str, left: Typed, right: Typed) -> pa.DataType | None:
    """The decimal type that Spark gives the result; None if it is no decimal."""
    kinds = (left[1], right[1])
    if not any(map(pa.types.is_decimal, kinds)) or any(map(pa.types.is_floating, kinds)):
        return None
    (p1, s1), (p2, s2) = _digits(*left), _digits(*right)
    return _bounded(*_RESULTS[operator](p1, s1, p2, s2))


def _digits(sql: str, kind: pa.DataType) -> tuple[int, int]:
    """(precision, scale). An integer written out has no more digits than one sees; a column as many as its type."""
    if kind in _INTEGERS:
        written_out = _INTEGER.fullmatch(sql)
        return (len(written_out[1]) if written_out else _INTEGERS[kind]), 0
    return kind.precision, kind.scale


_RESULTS: Final[dict[str, Callable[[int, int, int, int], tuple[int, int]]]] = {
    "+": lambda p1, s1, p2, s2: (max(s1, s2) + max(p1 - s1, p2 - s2) + 1, max(s1, s2)),
    "-": lambda p1, s1, p2, s2: (max(s1, s2) + max(p1 - s1, p2 - s2) + 1, max(s1, s2)),
    "*": lambda p1, s1, p2, s2: (p1 + p2 + 1, s1 + s2),
    "/": lambda p1, s1, p2, s2: (p1 - s1 + s2 + max(6, s1 + p2 + 1), max(6, s1 + p2 + 1)),
    "%": lambda p1, s1, p2, s2: (min(p1 - s1, p2 - s2) + max(s1, s2), max(s1, s2)),
}


def _bounded(precision: int, scale: int) -> pa.DataType:
    """Spark keeps at least six digits behind the point when the whole does not fit (DecimalType.adjustPrecisionScale)."""
    if precision <= _PRECISION_MAX:
        return pa.decimal128(precision, scale)
    return pa.decimal128(_PRECISION_MAX, max(_PRECISION_MAX - (precision - scale), min(scale, 6)))


def _decimal(operator: str, one: str, other: str, result: pa.DataType) -> str:
    return f"CAST(({one} {operator} {other}) AS {sql_type(result)})"


def _divided(operator: str, left: Typed, right: Typed) -> str:
    one, other = left[0], right[0]
    result = _decimal_type("/" if operator == "div" else operator, left, right)
    if operator == "div":
        quotient = f"CAST(trunc({one} / {other}) AS BIGINT)" if result else (
            f"(CAST({one} AS BIGINT) // CAST({other} AS BIGINT))"
        )  # fmt: skip
    elif operator == "%":
        quotient = f"({one} % {other})" if result is None else _decimal("%", one, other, result)
    else:
        quotient = f"(CAST({one} AS DOUBLE) / {other})" if result is None else _decimal("/", one, other, result)
    if _surely_not_zero(other):
        return quotient
    return f"CASE WHEN {other} = 0 AND {one} IS NOT NULL THEN {_BY_ZERO} ELSE {quotient} END"


_BY_ZERO: Final = f"error({literal('division by zero; use try_divide, or nullif(divisor, 0)')})"


def _surely_not_zero(sql: str) -> bool:
    try:
        return float(sql.removeprefix("CAST(").partition(" ")[0]) != 0
    except ValueError:
        return False


def _dates(operator: str, left: pa.DataType, right: pa.DataType) -> bool:
    """A date plus or minus days, as Spark has it."""
    return operator in {"+", "-"} and pa.types.is_date(left) and right in {pa.int8(), pa.int16(), pa.int32()}
