"""CAST with Spark's ANSI meaning: what cannot be said in the target raises, and fractions are cut, not rounded."""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa

from headrace.stream.sql.types import literal, sql_type

_TARGETS: Final[dict[str, set[str]]] = {
    "text": {"text", "number", "boolean", "date", "timestamp", "binary"},
    "number": {"text", "number", "boolean", "timestamp"},
    "boolean": {"text", "number", "boolean"},
    "date": {"text", "date", "timestamp"},
    "timestamp": {"text", "number", "date", "timestamp"},
    "binary": {"text", "binary"},
    "nested": {"nested"},
}
"""What Spark casts to what, by family."""

_HOURS: Final = r"(?:[01]?\d|2[0-3]):.*"
_PATTERNS: Final = {
    "DATE": r"\d{4}-\d{1,2}-\d{1,2}(?:[ T].*)?",
    "TIMESTAMPTZ": rf"\d{{4}}-\d{{1,2}}-\d{{1,2}}(?:[ T](?:{_HOURS})?)?",
}
"""Which texts are days and times. DuckDB takes more: `epoch`, `infinity`, 24:00:00."""
_PLAIN: Final = re.compile(r"'\d{4}-\d\d-\d\d(?:[ T](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?)?'")
"""A literal that needs no check."""


def castable(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether Spark casts the one to the other, be it that single values cannot be."""
    return _family(target) in _TARGETS[_family(source)]


def _family(kind: pa.DataType) -> str:
    names = {pa.string(): "text", pa.bool_(): "boolean", pa.binary(): "binary", pa.date32(): "date"}
    if pa.types.is_timestamp(kind):
        return "timestamp"
    return names.get(kind, "nested" if pa.types.is_nested(kind) else "number")


def cast(sql: str, source: pa.DataType, target: pa.DataType, *, strict: bool) -> str:
    """`sql` of type `source` as `target`. Not `strict`: NULL instead of an error."""
    if source == target:
        return sql
    word = "CAST" if strict else "TRY_CAST"
    wanted = sql_type(target)
    if pa.types.is_timestamp(source) and _family(target) == "number":
        return _of_timestamp(sql, target, word)
    if pa.types.is_integer(target):
        return _integer(sql, source, wanted, word)
    if pa.types.is_timestamp(target) and _family(source) == "number":
        return _timestamp(sql, source)
    if pa.types.is_string(target):
        return text(sql, source)
    if pa.types.is_string(source):
        return _of_text(sql, target, word)
    if pa.types.is_decimal(target) and pa.types.is_floating(source):
        return f"CASE WHEN isfinite({sql}) THEN {word}({as_written(sql)} AS {wanted}) END"
    return f"{word}({sql} AS {wanted})"


def text(sql: str, source: pa.DataType) -> str:
    """A value as Spark prints it."""
    if pa.types.is_string(source):
        return sql
    if pa.types.is_floating(source):
        return _floating_text(sql)
    if pa.types.is_binary(source):
        return f"decode({sql})"
    return f"CAST({sql} AS VARCHAR)"


def as_written(sql: str) -> str:
    """A float as the shortest text that is this double: what Java takes for its exact value where it makes decimals of it."""
    return f"CAST(CAST({sql} AS DOUBLE) AS VARCHAR)"


def whole_seconds(sql: str) -> str:
    """Seconds since 1970 of a timestamp, cut down; exact in all years."""
    return f"(epoch_us(date_trunc('second', {sql})) // 1000000)"


def _of_timestamp(sql: str, target: pa.DataType, word: str) -> str:
    if pa.types.is_integer(target):
        return f"{word}({whole_seconds(sql)} AS {sql_type(target)})"
    seconds = f"(CAST(epoch_us({sql}) AS DOUBLE) / 1000000)"
    return cast(seconds, pa.float64(), target, strict=word == "CAST") if target != pa.float64() else seconds


def _timestamp(sql: str, source: pa.DataType) -> str:
    """Of seconds since 1970."""
    if pa.types.is_decimal(source):
        return f"make_timestamp(CAST(CAST({sql} AS DECIMAL(30,6)) * CAST(1000000 AS DECIMAL(7,0)) AS BIGINT))"
    if pa.types.is_floating(source):
        return f"make_timestamp(CAST(trunc(CAST({sql} AS DOUBLE) * 1000000) AS BIGINT))"
    return f"make_timestamp(CAST({sql} AS BIGINT) * 1000000)"


def _of_text(sql: str, target: pa.DataType, word: str) -> str:
    wanted = sql_type(target)
    if pa.types.is_binary(target):
        return f"encode({sql})"  # a CAST would read \\x41 as a byte
    if pa.types.is_boolean(target):
        return _boolean(sql, strict=word == "CAST")
    if pa.types.is_timestamp(target):
        return f"CAST({_moment(sql, 'TIMESTAMPTZ', word)} AS TIMESTAMP)"  # with an offset in it: by that; else UTC
    if pa.types.is_date(target):
        return _moment(sql, "DATE", word)
    return f"{word}(replace(trim({sql}), '_', '?') AS {wanted})"  # DuckDB would take 1_000


def _moment(sql: str, wanted: str, word: str) -> str:
    """A date or timestamp; a year or month alone is its first day."""
    if _PLAIN.fullmatch(sql):
        return f"{word}({sql} AS {wanted})"
    trimmed = f"trim({sql})"
    for alone in (r"^(\d{4})$", r"^(\d{4}-\d{1,2})$"):
        trimmed = f"regexp_replace({trimmed}, '{alone}', '\\1-01')"
    known = f"{sql} IS NULL OR regexp_full_match({trimmed}, '{_PATTERNS[wanted]}')"
    day = f"regexp_extract({trimmed}, '^[^ T]*')" if wanted == "DATE" else trimmed
    return f"CASE WHEN {known} THEN {word}({day} AS {wanted}) ELSE {_wrong(sql, wanted.removesuffix('TZ'), word)} END"


def _integer(sql: str, source: pa.DataType, wanted: str, word: str) -> str:
    if pa.types.is_floating(source) or pa.types.is_decimal(source):
        return f"{word}(trunc({sql}) AS {wanted})"
    if pa.types.is_string(source):
        return (
            f"CASE WHEN {sql} IS NULL OR regexp_full_match(trim({sql}), '[+-]?[0-9]+')"
            f" THEN {word}(trim({sql}) AS {wanted}) ELSE {_wrong(sql, wanted, word)} END"
        )
    return f"{word}({sql} AS {wanted})"


def _wrong(sql: str, wanted: str, word: str) -> str:
    return f"error({literal(f'cannot cast to {wanted}: ')} || {sql})" if word == "CAST" else "NULL"


def _boolean(sql: str, *, strict: bool) -> str:
    wrong = _wrong(sql, "BOOLEAN", "CAST" if strict else "TRY_CAST")
    lower = f"lower(trim({sql}))"
    return (
        f"CASE WHEN {lower} IN ('t', 'true', 'y', 'yes', '1') THEN TRUE"
        f" WHEN {lower} IN ('f', 'false', 'n', 'no', '0') THEN FALSE WHEN {sql} IS NULL THEN NULL ELSE {wrong} END"
    )


def _floating_text(sql: str) -> str:
    """Java writes 1.0E10 where DuckDB writes 10000000000.0 or 1e+10, from 10^7 up and from 10^-3 down. By the digits that
    DuckDB has found: to divide would change them."""
    plain = f"CAST(abs({sql}) AS VARCHAR)"
    digits = f"trim(replace(regexp_replace({plain}, 'e.*', ''), '.', ''), '0')"
    exponent = (
        f"CASE WHEN contains({plain}, 'e') THEN CAST(regexp_extract({plain}, 'e(.*)', 1) AS INTEGER)"
        f" WHEN abs({sql}) >= 1 THEN length(split_part({plain}, '.', 1)) - 1"
        f" ELSE -1 - length(regexp_extract({plain}, '^0.(0*)', 1)) END"
    )
    return (
        f"CASE WHEN isnan({sql}) THEN 'NaN' WHEN isinf({sql}) THEN if({sql} > 0, 'Infinity', '-Infinity')"
        f" WHEN {sql} <> 0 AND (abs({sql}) >= 1e7 OR abs({sql}) < 1e-3) THEN if({sql} < 0, '-', '')"
        f" || left({digits}, 1) || '.' || if(length({digits}) > 1, substring({digits}, 2), '0')"
        f" || 'E' || CAST({exponent} AS VARCHAR) ELSE CAST({sql} AS VARCHAR) END"
    )
