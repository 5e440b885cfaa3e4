"""Numbers."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from headrace.stream.schema import type_name
from headrace.stream.sql import arithmetic, casts
from headrace.stream.sql.function_base import FunctionCall, ScalarFunction, template
from headrace.stream.sql.types import sql_type


def _round(half: str) -> ScalarFunction:
    """Round to a number of digits after the point (negative: before it). The type stays; the scale of a decimal shrinks."""

    def write(call: FunctionCall) -> str:
        kind, digits = call.type(0), call.sql(1, "0")
        if pa.types.is_decimal(kind):
            return _rounded_decimal(f"{half}({call.sql(0)}, {digits})", kind, digits)
        if pa.types.is_floating(kind) and digits.removeprefix("-").isdigit():
            return _rounded_as_written(half, call.sql(0), digits, sql_type(kind))
        return f"CAST({half}({call.sql(0)}, {digits}) AS {sql_type(kind)})"

    return ScalarFunction(1, 2, write)


def _rounded_decimal(sql: str, kind: pa.Decimal128Type, digits: str) -> str:
    """Spark's type: as many digits in front of the point as before and one, and only those behind it that can be there."""
    if not digits.strip("()").removeprefix("-").isdigit():
        return sql
    wanted = int(digits.strip("()"))
    scale = max(min(kind.scale, wanted), 0)
    precision = max(kind.precision - kind.scale + 1, -wanted + 1) + scale
    return f"CAST({sql} AS DECIMAL({min(precision, 38)},{scale}))"


def _bit_count(call: FunctionCall) -> str:
    """Of 64 bits, whatever the type."""
    if not (pa.types.is_integer(call.type(0)) or pa.types.is_boolean(call.type(0))):
        raise call.unsupported(f"it counts the bits of integers, not of {type_name(call.type(0))}", "CAST(… AS bigint)")
    return f"CAST(bit_count(CAST({call.sql(0)} AS BIGINT)) AS INTEGER)"


def _hex(call: FunctionCall) -> str:
    """Of a text or binary its bytes; of a number without what is behind its point."""
    kind = call.type(0)
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_integer(kind):
        return f"hex({call.sql(0)})"
    return f"hex(CAST(trunc({call.sql(0)}) AS BIGINT))"


def _rounded_as_written(half: str, sql: str, digits: str, kind: str) -> str:
    """Java rounds the shortest decimal that is the number: 1.005 to 1.01, although it is a little less in binary."""
    exact = f"CAST({half}(CAST({casts.as_written(sql)} AS DECIMAL(38,22)), {digits}) AS {kind})"
    return f"CASE WHEN abs({sql}) < 1e15 THEN {exact} ELSE CAST({half}({sql}, {digits}) AS {kind}) END"


def _whole(function: str) -> ScalarFunction:
    """ceil and floor give integers, of NaN 0, and raise where there is none; of a decimal a decimal without fraction."""

    def write(call: FunctionCall) -> str:
        kind = call.type(0)
        if pa.types.is_decimal(kind):
            return f"CAST({function}({call.sql(0)}) AS DECIMAL({min(kind.precision - kind.scale + 1, 38)},0))"
        if pa.types.is_integer(kind):
            return f"CAST({call.sql(0)} AS BIGINT)"
        whole = f"{function}(CAST({call.sql(0)} AS DOUBLE))"
        return f"CASE WHEN isnan({whole}) THEN 0 ELSE CAST({whole} AS BIGINT) END"

    return ScalarFunction(1, 1, write)


def _double(pattern: str, count: int = 1) -> ScalarFunction:
    def write(call: FunctionCall) -> str:
        return pattern.format(*(f"CAST({sql} AS DOUBLE)" for sql, _ in call.arguments))

    return ScalarFunction(count, count, write)


def _log(call: FunctionCall) -> str:
    """log(x) is the natural one; log(base, x). Of what is not positive: NULL."""
    if len(call.arguments) == 1:
        return _positive(f"CAST({call.sql(0)} AS DOUBLE)", "ln({0})")
    base, value = (f"CAST({sql} AS DOUBLE)" for sql, _ in call.arguments)
    return f"CASE WHEN {base} > 0 AND {value} > 0 THEN ln({value}) / ln({base}) END"


def _positive(sql: str, pattern: str) -> str:
    return f"CASE WHEN {sql} > 0 THEN {pattern.format(sql)} END"


def _logarithm(pattern: str) -> ScalarFunction:
    return ScalarFunction(1, 1, lambda call: _positive(f"CAST({call.sql(0)} AS DOUBLE)", pattern))


def _mod(call: FunctionCall) -> str:
    return arithmetic.write("%", call.arguments[0], call.arguments[1], call.node)


def _pmod(call: FunctionCall) -> str:
    return arithmetic.positive_rest(call.arguments[0], call.arguments[1], call.node)


def _try_divide(call: FunctionCall) -> str:
    quotient = arithmetic.write("/", call.arguments[0], call.arguments[1], call.node)
    return f"CASE WHEN {call.sql(1)} <> 0 THEN {quotient} END"


def _extreme(function: str) -> ScalarFunction:
    """The greatest or least of what is not NULL; all in the widest type."""

    def write(call: FunctionCall) -> str:
        arithmetic.ordered(call.node, call.type(0))
        return f"{function}({', '.join(sql for sql, _ in call.arguments)})"

    return ScalarFunction(2, None, write)


def _shift(operator: str) -> ScalarFunction:
    """Java's: by the last bits of the count alone, and what leaves the type is lost."""

    def write(call: FunctionCall) -> str:
        value, bits = call.sql(0), 64 if call.type(0) == pa.int64() else 32
        count = f"CAST({call.sql(1)} & {bits - 1} AS INTEGER)"
        kind = sql_type(call.type(0)) if bits == 64 else "INTEGER"
        if operator == ">>":
            return f"(CAST({value} AS {kind}) >> {count})"
        half, all_ = f"CAST({2 ** (bits - 1)} AS HUGEINT)", f"CAST({2**bits} AS HUGEINT)"
        shifted = f"CAST({value} AS HUGEINT) * (CAST(1 AS HUGEINT) << {count})"
        return f"CAST((({shifted} + {half}) % {all_} + {all_}) % {all_} - {half} AS {kind})"

    return ScalarFunction(2, 2, write)


_BUCKET: Final = (
    "CASE WHEN NOT isfinite({1}) OR NOT isfinite({2}) OR isnan({0}) OR {1} = {2} OR {3} <= 0 THEN NULL"
    " WHEN ({0} < {1}) = ({1} < {2}) AND {0} <> {1} THEN 0"
    " WHEN ({0} < {2}) <> ({1} < {2}) OR {0} = {2} THEN {3} + 1"
    " ELSE floor(({0} - {1}) * {3} / ({2} - {1})) + 1 END"
)
"""Between bounds that may also fall."""


_SMALL: Final = 1e-5
"""Below, 1 + x has lost digits of x, and three terms of the series have not."""

TABLE: Final[dict[str, ScalarFunction]] = {
    "abs": template("abs({0})"),
    "sign": _double("CASE WHEN isnan({0}) OR {0} = 0 THEN {0} ELSE CAST(sign({0}) AS DOUBLE) END"),
    "signum": _double("CASE WHEN isnan({0}) OR {0} = 0 THEN {0} ELSE CAST(sign({0}) AS DOUBLE) END"),
    "negative": template("(-{0})"),
    "positive": template("({0})"),
    "round": _round("round"),
    "bround": _round("round_even"),
    "ceil": _whole("ceil"),
    "ceiling": _whole("ceil"),
    "floor": _whole("floor"),
    "rint": _double("round_even({0}, 0)"),
    "sqrt": _double("CASE WHEN {0} < 0 THEN CAST('NaN' AS DOUBLE) ELSE sqrt(abs({0})) END"),
    "cbrt": _double("cbrt({0})"),
    "exp": _double("exp({0})"),
    "expm1": _double(
        f"CASE WHEN abs({{0}}) < {_SMALL} THEN {{0}} * (1 + {{0}} / 2 + {{0}} * {{0}} / 6) ELSE exp({{0}}) - 1 END"
    ),
    "ln": _logarithm("ln({0})"),
    "log": ScalarFunction(1, 2, _log),
    "log10": _logarithm("log10({0})"),
    "log2": _logarithm("log2({0})"),
    "log1p": _double(
        f"CASE WHEN abs({{0}}) < {_SMALL} THEN {{0}} * (1 - {{0}} / 2 + {{0}} * {{0}} / 3) WHEN {{0}} > -1 THEN ln(1 + {{0}}) END"
    ),
    "pow": _double("pow({0}, {1})", 2),
    "power": _double("pow({0}, {1})", 2),
    "sin": _double("sin({0})"),
    "cos": _double("cos({0})"),
    "tan": _double("tan({0})"),
    "cot": _double("cot({0})"),
    "asin": _double("CASE WHEN abs({0}) > 1 THEN CAST('NaN' AS DOUBLE) ELSE asin({0}) END"),
    "acos": _double("CASE WHEN abs({0}) > 1 THEN CAST('NaN' AS DOUBLE) ELSE acos({0}) END"),
    "atan": _double("atan({0})"),
    "atan2": _double("atan2({0}, {1})", 2),
    "sinh": _double("sinh({0})"),
    "cosh": _double("cosh({0})"),
    "tanh": _double("tanh({0})"),
    "degrees": _double("degrees({0})"),
    "radians": _double("radians({0})"),
    "hypot": _double(
        "CASE WHEN {0} IS NULL OR {1} IS NULL THEN NULL WHEN isinf({0}) OR isinf({1}) THEN CAST('inf' AS DOUBLE) WHEN abs({0}) > abs({1})"
        " THEN abs({0}) * sqrt(1 + pow({1} / {0}, 2)) WHEN {1} = 0 THEN abs({0}) ELSE abs({1}) * sqrt(1 + pow({0} / {1}, 2)) END",
        2,
    ),
    "pi": template("pi()", 0),
    "e": template("exp(CAST(1 AS DOUBLE))", 0),
    "mod": ScalarFunction(2, 2, _mod),
    "pmod": ScalarFunction(2, 2, _pmod),
    "try_divide": ScalarFunction(2, 2, _try_divide),
    "greatest": _extreme("greatest"),
    "least": _extreme("least"),
    "isnan": _double("coalesce(isnan({0}), FALSE)"),
    "nanvl": _double("CASE WHEN isnan({0}) THEN {1} ELSE {0} END", 2),
    "shiftleft": _shift("<<"),
    "shiftright": _shift(">>"),
    "bit_count": ScalarFunction(1, 1, _bit_count),
    "bin": template("bin(CAST(trunc({0}) AS BIGINT))"),
    "hex": ScalarFunction(1, 1, _hex),
    "width_bucket": ScalarFunction(4, 4, lambda call: f"CAST({_double(_BUCKET, 4).write(call)} AS BIGINT)"),
}
