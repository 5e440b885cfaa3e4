"""Dates and timestamps. Everything is UTC."""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa

from headrace.stream.sql import casts
from headrace.stream.sql.function_base import FunctionCall, ScalarFunction, template
from headrace.stream.sql.types import Typed, literal

_UNITS: Final = {
    "MICROSECOND": "microseconds", "MILLISECOND": "milliseconds", "SECOND": "second", "MINUTE": "minute",
    "HOUR": "hour", "DAY": "day", "DD": "day", "WEEK": "week", "MONTH": "month", "MON": "month", "MM": "month",
    "QUARTER": "quarter", "YEAR": "year", "YYYY": "year", "YY": "year",
}  # fmt: skip

_JAVA_PATTERN: Final = {
    "yyyy": "%Y", "yy": "%y", "MM": "%m", "M": "%-m", "MMM": "%b", "MMMM": "%B", "dd": "%d", "d": "%-d",
    "HH": "%H", "H": "%-H", "hh": "%I", "h": "%-I", "mm": "%M", "m": "%-M", "ss": "%S", "s": "%-S", "SSS": "%g",
    "SSSSSS": "%f", "a": "%p", "EEEE": "%A", "EEE": "%a", "E": "%a", "DDD": "%j", "D": "%-j",
}  # fmt: skip
"""Letters of Java's DateTimeFormatter → strftime's."""
_TOKEN: Final = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")


def strftime_format(call: FunctionCall, place: int, default: str | None = None) -> str:
    """A pattern as a DuckDB literal. Raises UnsupportedQuery for letters that have no counterpart."""
    pattern = call.text(place, "the pattern", default)
    found = []
    for token in _TOKEN.finditer(pattern):
        text = token.group(0)
        if token.group(1) is not None:
            found.append((token.group(1).replace("''", "'") or "'").replace("%", "%%"))
        elif token.group(2):
            if text not in _JAVA_PATTERN:
                raise call.unsupported(
                    f"the pattern's {text!r} is not in the subset", f"one of {', '.join(_JAVA_PATTERN)}"
                )
            found.append(_JAVA_PATTERN[text])
        else:
            found.append(text.replace("%", "%%"))
    return literal("".join(found))


def _unit(call: FunctionCall, place: int) -> str:
    node = call.node.expressions[place]
    unit = str(node.name).upper()
    found = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("S"))
    if found is None:
        raise call.unsupported(f"unknown unit {node.name!r}", ", ".join(_UNITS))
    return found


def _date_trunc(call: FunctionCall) -> str:
    return f"CAST(date_trunc('{_unit(call, 0)}', {_timestamp(call, 1)}) AS TIMESTAMP)"


def _trunc(call: FunctionCall) -> str:
    unit = _unit(call, 1)
    if unit not in {"week", "month", "quarter", "year"}:
        raise call.unsupported(f"trunc() cuts a date to a week or more, not to {unit}", "date_trunc('hour', ts)")
    return f"CAST(date_trunc('{unit}', {_date(call, 0)}) AS DATE)"


def _timestamp(call: FunctionCall, place: int) -> str:
    sql, kind = call.arguments[place]
    return casts.cast(sql, kind, pa.timestamp("us"), strict=True)


def _date(call: FunctionCall, place: int = 0) -> str:
    sql, kind = call.arguments[place]
    return casts.cast(sql, kind, pa.date32(), strict=True)


def _part(part: str) -> ScalarFunction:
    return ScalarFunction(1, 1, lambda call: f"CAST({part.format(_timestamp(call, 0))} AS INTEGER)")


def _date_format(call: FunctionCall) -> str:
    return f"strftime({_timestamp(call, 0)}, {strftime_format(call, 1)})"


def _to_date(call: FunctionCall) -> str:
    if len(call.arguments) == 1:
        return _date(call)
    return f"CAST({_parsed(call.sql(0), _strptime_format(call))} AS DATE)"


def _to_timestamp(call: FunctionCall) -> str:
    if len(call.arguments) == 1:
        return _timestamp(call, 0)
    return _parsed(call.sql(0), _strptime_format(call))


def _strptime_format(call: FunctionCall) -> str:
    found = strftime_format(call, 1)
    if "%y" in found:
        raise call.unsupported("'yy' does not say which century", "yyyy")
    return found


def _parsed(sql: str, pattern: str) -> str:
    """DuckDB would also take fewer digits, blanks around it, and words that are times to it whatever the pattern."""
    parsed = f"strptime({sql}, {pattern})"
    if "%-" in pattern:  # these take one digit or two
        right = rf"NOT regexp_matches({sql}, '^\s|\s$|^(?i:epoch|-?infinity)$')"
    else:
        right = f"strftime({parsed}, {pattern}) = {sql}"
    return f"CASE WHEN {sql} IS NULL OR {right} THEN {parsed} ELSE error('invalid time for this format: ' || {sql}) END"


def _unix_timestamp(call: FunctionCall) -> str:
    parsed = _to_timestamp(call) if pa.types.is_string(call.type(0)) else _timestamp(call, 0)
    if pa.types.is_string(call.type(0)) and len(call.arguments) == 1:
        parsed = _parsed(call.sql(0), "'%Y-%m-%d %H:%M:%S'")
    return casts.whole_seconds(parsed)


def _from_unixtime(call: FunctionCall) -> str:
    pattern = strftime_format(call, 1, "yyyy-MM-dd HH:mm:ss")
    return f"strftime(make_timestamp(CAST({call.sql(0)} AS BIGINT) * 1000000), {pattern})"


def _timestampdiff(call: FunctionCall) -> str:
    """Whole units between two times, cut towards zero (DuckDB's date_sub)."""
    unit = _unit(call, 0)
    if unit in _MONTHS:
        return f"({_months(_timestamp(call, 1), _timestamp(call, 2))} // {_MONTHS[unit]})"
    return f"CAST(date_sub('{unit}', {_timestamp(call, 1)}, {_timestamp(call, 2)}) AS BIGINT)"


_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}


def _months(first: str, last: str) -> str:
    """Whole months between two times, as Java counts them: days first, of which one is not whole if its time of day is not
    reached. DuckDB takes the ends of months for equal."""
    from_day, to_day = f"CAST({first} AS DATE)", f"CAST({last} AS DATE)"
    sooner = f"(CAST({last} AS TIME) < CAST({first} AS TIME))"
    later = f"(CAST({last} AS TIME) > CAST({first} AS TIME))"
    to_day = (
        f"({to_day} + CASE WHEN {to_day} > {from_day} AND {sooner} THEN -1"
        f" WHEN {to_day} < {from_day} AND {later} THEN 1 ELSE 0 END)"
    )
    months, rest = f"date_diff('month', {from_day}, {to_day})", f"(day({to_day}) - day({from_day}))"
    return (
        f"({months} - CASE WHEN {months} > 0 AND {rest} < 0 THEN 1 WHEN {months} < 0 AND {rest} > 0 THEN -1 ELSE 0 END)"
    )


def fraction_of_minute(argument: Typed) -> str:
    """EXTRACT(SECOND FROM ts)."""
    sql, kind = argument
    micros = f"microsecond({casts.cast(sql, kind, pa.timestamp('us'), strict=True)})"
    return f"CAST(CAST({micros} AS DECIMAL(8,0)) * CAST(0.000001 AS DECIMAL(6,6)) AS DECIMAL(8,6))"


def _timestampadd(call: FunctionCall) -> str:
    return f"({_timestamp(call, 2)} + to_{_unit(call, 0).removesuffix('s')}s(CAST({call.sql(1)} AS INTEGER)))"


def _datediff(call: FunctionCall) -> str:
    if len(call.arguments) == 3:
        return _timestampdiff(call)
    return f"CAST(date_diff('day', {_date(call, 1)}, {_date(call, 0)}) AS INTEGER)"


def _date_add(sign: str) -> ScalarFunction:
    def write(call: FunctionCall) -> str:
        return f"({_date(call)} {sign} CAST({call.sql(1)} AS INTEGER))"

    return ScalarFunction(2, 2, write)


def _from_utc(sign: str) -> ScalarFunction:
    """Shift between UTC and a zone's wall clock."""

    def write(call: FunctionCall) -> str:
        zones = (literal("UTC"), call.sql(1)) if sign == "+" else (call.sql(1), literal("UTC"))
        return f"timezone({zones[1]}, timezone({zones[0]}, {_timestamp(call, 0)}))"

    return ScalarFunction(2, 2, write)


TABLE: Final[dict[str, ScalarFunction]] = {
    "year": _part("year({0})"),
    "quarter": _part("quarter({0})"),
    "month": _part("month({0})"),
    "weekofyear": _part("week({0})"),
    "day": _part("day({0})"),
    "dayofmonth": _part("day({0})"),
    "dayofyear": _part("dayofyear({0})"),
    "dayofweek": _part("dayofweek({0}) + 1"),  # Spark: 1 is Sunday; DuckDB: 0 is
    "weekday": _part("isodow({0}) - 1"),  # Spark: 0 is Monday
    "hour": _part("hour({0})"),
    "minute": _part("minute({0})"),
    "second": _part("second({0})"),
    "date": ScalarFunction(1, 1, _date),
    "to_date": ScalarFunction(1, 2, _to_date),
    "timestamp": ScalarFunction(1, 1, _to_timestamp),
    "to_timestamp": ScalarFunction(1, 2, _to_timestamp),
    "date_format": ScalarFunction(2, 2, _date_format),
    "date_trunc": ScalarFunction(2, 2, _date_trunc),
    "trunc": ScalarFunction(2, 2, _trunc),
    "date_add": _date_add("+"),
    "date_sub": _date_add("-"),
    "datediff": ScalarFunction(2, 3, _datediff),
    "date_diff": ScalarFunction(2, 3, _datediff),
    "timestampdiff": ScalarFunction(3, 3, _timestampdiff),
    "timestampadd": ScalarFunction(3, 3, _timestampadd),
    "add_months": ScalarFunction(
        2, 2, lambda call: f"CAST({_date(call)} + to_months(CAST({call.sql(1)} AS INTEGER)) AS DATE)"
    ),
    "last_day": ScalarFunction(1, 1, lambda call: f"last_day({_date(call)})"),
    "make_date": template("make_date(CAST({0} AS BIGINT), CAST({1} AS BIGINT), CAST({2} AS BIGINT))", 3),
    "unix_timestamp": ScalarFunction(1, 2, _unix_timestamp),
    "to_unix_timestamp": ScalarFunction(1, 2, _unix_timestamp),
    "from_unixtime": ScalarFunction(1, 2, _from_unixtime),
    "unix_seconds": ScalarFunction(1, 1, lambda call: casts.whole_seconds(_timestamp(call, 0))),
    "unix_millis": template("(epoch_us(date_trunc('millisecond', {0})) // 1000)"),
    "unix_micros": template("epoch_us({0})"),
    "unix_date": template("CAST({0} - DATE '1970-01-01' AS INTEGER)"),
    "timestamp_seconds": template("make_timestamp(CAST({0} * 1000000 AS BIGINT))"),
    "timestamp_millis": template("make_timestamp(CAST({0} AS BIGINT) * 1000)"),
    "timestamp_micros": template("make_timestamp(CAST({0} AS BIGINT))"),
    "from_utc_timestamp": _from_utc("+"),
    "to_utc_timestamp": _from_utc("-"),
}
