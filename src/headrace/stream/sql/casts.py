"""CAST with Spark's ANSI meaning: what cannot be said in the target raises, and fractions are cut, not rounded."""

from __future__ import annotations

import pyarrow as pa

from headrace.stream.sql.types import literal, sql_type


def cast(sql: str, source: pa.DataType, target: pa.DataType, *, strict: bool) -> str:
    """`sql` of type `source` as `target`. Not `strict`: NULL instead of an error."""
    if source == target:
        return sql
    word = "CAST" if strict else "TRY_CAST"
    wanted = sql_type(target)
    if pa.types.is_integer(target):
        return _integer(sql, source, wanted, word)
    if pa.types.is_timestamp(target) and pa.types.is_integer(source):
        return f"make_timestamp(CAST({sql} AS BIGINT) * 1000000)"  # Spark: seconds since 1970
    if pa.types.is_timestamp(target) and pa.types.is_decimal(source):
        return f"make_timestamp(CAST(CAST({sql} AS DECIMAL(30,6)) * CAST(1000000 AS DECIMAL(7,0)) AS BIGINT))"
    if pa.types.is_timestamp(target) and pa.types.is_floating(source):
        return f"make_timestamp(CAST(CAST({sql} AS DOUBLE) * 1000000 AS BIGINT))"
    if pa.types.is_string(target):
        return text(sql, source)
    if pa.types.is_binary(target) and pa.types.is_string(source):
        return f"encode({sql})"  # a CAST would read \\x41 as a byte
    if pa.types.is_boolean(target) and pa.types.is_string(source):
        return _boolean(sql, strict=strict)
    if pa.types.is_string(source) and pa.types.is_timestamp(target):
        return f"CAST({word}(trim({sql}) AS TIMESTAMPTZ) AS TIMESTAMP)"  # with an offset in it: by that; else UTC
    if pa.types.is_string(source):
        return f"{word}(trim({sql}) AS {wanted})"
    return f"{word}({sql} AS {wanted})"


def text(sql: str, source: pa.DataType) -> str:
    """A value as Spark prints it."""
    if pa.types.is_string(source):
        return sql
    if pa.types.is_floating(source):
        return _floating_text(sql, sql_type(source))
    if pa.types.is_binary(source):
        return f"decode({sql})"
    return f"CAST({sql} AS VARCHAR)"


def _integer(sql: str, source: pa.DataType, wanted: str, word: str) -> str:
    if pa.types.is_timestamp(source):
        return f"{word}(floor(epoch_us({sql}) / 1000000) AS {wanted})"
    if pa.types.is_floating(source) or pa.types.is_decimal(source):
        return f"{word}(trunc({sql}) AS {wanted})"
    if pa.types.is_string(source):
        wrong = f"error({literal('cannot cast to ' + wanted + ': ')} || {sql})" if word == "CAST" else "NULL"
        return (
            f"CASE WHEN {sql} IS NULL OR regexp_full_match(trim({sql}), '[+-]?[0-9]+')"
            f" THEN {word}(trim({sql}) AS {wanted}) ELSE {wrong} END"
        )
    return f"{word}({sql} AS {wanted})"


def _boolean(sql: str, *, strict: bool) -> str:
    wrong = f"error('cannot cast to BOOLEAN: ' || {sql})" if strict else "NULL"
    lower = f"lower(trim({sql}))"
    return (
        f"CASE WHEN {lower} IN ('t', 'true', 'y', 'yes', '1') THEN TRUE"
        f" WHEN {lower} IN ('f', 'false', 'n', 'no', '0') THEN FALSE WHEN {sql} IS NULL THEN NULL ELSE {wrong} END"
    )


def _floating_text(sql: str, kind: str) -> str:
    """Java writes 1.0E10 where DuckDB writes 10000000000.0 or 1e+10, from 10^7 up and from 10^-3 down."""
    exponent = f"floor(log10(abs({sql})))"
    mantissa = f"CAST(CAST({sql} / pow(10.0, {exponent}) AS {kind}) AS VARCHAR)"
    return (
        f"CASE WHEN isnan({sql}) THEN 'NaN' WHEN isinf({sql}) THEN if({sql} > 0, 'Infinity', '-Infinity')"
        f" WHEN {sql} <> 0 AND (abs({sql}) >= 1e7 OR abs({sql}) < 1e-3)"
        f" THEN {mantissa} || 'E' || CAST(CAST({exponent} AS BIGINT) AS VARCHAR)"
        f" ELSE CAST({sql} AS VARCHAR) END"
    )
