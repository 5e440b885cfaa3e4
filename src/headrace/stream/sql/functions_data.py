"""Conditions, arrays, maps, JSON, hashes."""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa

from headrace.stream.sql import arithmetic
from headrace.stream.sql.function_base import FunctionCall, ScalarFunction, template
from headrace.stream.sql.types import literal, sql_type


def element(array: str, index: str) -> str:
    """`array[index]`, from 0. Beyond the end: an error, as in Spark."""
    wrong = f"error('array index ' || CAST({index} AS VARCHAR) || ' is out of bounds; use get(array, index)')"
    return (
        f"CASE WHEN {array} IS NULL OR {index} IS NULL THEN NULL"
        f" WHEN {index} >= 0 AND {index} < len({array}) THEN {array}[CAST({index} AS BIGINT) + 1] ELSE {wrong} END"
    )


def _element_at(call: FunctionCall) -> str:
    """From 1, from behind if negative; beyond the end an error; of a map its value or NULL."""
    collection, index = call.sql(0), call.sql(1)
    if pa.types.is_map(call.type(0)):
        return f"{collection}[{index}]"
    wrong = f"error('array index ' || CAST({index} AS VARCHAR) || ' is out of bounds; use try_element_at')"
    return (
        f"CASE WHEN {collection} IS NULL OR {index} IS NULL THEN NULL"
        f" WHEN {index} <> 0 AND abs({index}) <= len({collection}) THEN {collection}[CAST({index} AS BIGINT)]"
        f" ELSE {wrong} END"
    )


def _try_element_at(call: FunctionCall) -> str:
    collection, index = call.sql(0), call.sql(1)
    if pa.types.is_map(call.type(0)):
        return f"{collection}[{index}]"
    return f"CASE WHEN {index} = 0 THEN error('array index 0: it counts from 1') ELSE {collection}[{index}] END"


def _slice(call: FunctionCall) -> str:
    """So many from a place on, which counts from 1, or from behind if it is negative; none, if that is before the first."""
    array, start, length = (call.sql(place) for place in range(3))
    first = f"CASE WHEN {start} > 0 THEN {start} ELSE len({array}) + {start} + 1 END"
    return (
        f"CASE WHEN {array} IS NULL THEN NULL WHEN {start} = 0 OR {length} < 0 THEN error('slice: the start is not 0, the length not negative')"
        f" WHEN {first} < 1 THEN list_slice({array}, 1, 0)"
        f" ELSE list_slice({array}, CAST({first} AS BIGINT), CAST({first} + {length} - 1 AS BIGINT)) END"
    )


_PATH: Final = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_]*|\[\d+\]|\['[^'\"]+'\])*")


def _get_json_object(call: FunctionCall) -> str:
    """The text of a value; objects and arrays as JSON; NULL if it is not there or the text is no JSON."""
    path = call.text(1, "the path")
    if not _PATH.fullmatch(path):
        raise call.unsupported(f"the path {path!r} is not in the subset", "$.field, $.field[0], $['field']")
    path = re.sub(r"\['([^']+)'\]", r'."\1"', path)
    text = call.sql(0)
    return f"CASE WHEN json_valid({text}) THEN json_extract_string({text}, {literal(path)}) END"


def _nullif(call: FunctionCall) -> str:
    one, other = arithmetic.doubled(call.arguments)
    return f"CASE WHEN {one[0]} = {other[0]} THEN NULL ELSE {call.sql(0)} END"


def _nvl2(call: FunctionCall) -> str:
    there, absent = (sql for sql, _ in arithmetic.widened(call.arguments[1:]))
    return f"CASE WHEN {call.sql(0)} IS NOT NULL THEN {there} ELSE {absent} END"


def _struct(call: FunctionCall) -> str:
    if len(call.arguments) % 2:
        raise call.unsupported("it takes pairs of name and value")
    pairs = [
        f"{literal(call.text(place, 'the field'))}: {call.sql(place + 1)}" for place in range(0, len(call.arguments), 2)
    ]
    return "{" + ", ".join(pairs) + "}"


def _sequence(call: FunctionCall) -> str:
    if not pa.types.is_integer(call.type(0)):
        raise call.unsupported("it counts integers here")
    first, last = call.sql(0), call.sql(1)
    step = f"CASE WHEN {first} <= {last} THEN 1 ELSE -1 END"
    return f"CAST(generate_series({first}, {last}, {step}) AS {sql_type(call.type(0))}[])"


def _map(call: FunctionCall) -> str:
    if len(call.arguments) % 2:
        raise call.unsupported("it takes pairs of key and value")
    keys = [sql for sql, _ in call.arguments[::2]]
    values = [sql for sql, _ in call.arguments[1::2]]
    return f"MAP([{', '.join(keys)}], [{', '.join(values)}])"


def _reverse_or(call: FunctionCall) -> str:
    return f"list_reverse({call.sql(0)})" if pa.types.is_list(call.type(0)) else _characters_reversed(call.sql(0))


def _characters_reversed(sql: str) -> str:
    """DuckDB's reverse() leaves accents with their letters."""
    return f"array_to_string(list_reverse(string_split({sql}, '')), '')"


def _decode(call: FunctionCall) -> str:
    """decode(x, search, result, …[, default]): a CASE in which NULL equals NULL."""
    pairs = call.arguments[1:]
    branches = "".join(
        f" WHEN {call.sql(0)} IS NOT DISTINCT FROM {pairs[place][0]} THEN {pairs[place + 1][0]}"
        for place in range(0, len(pairs) - 1, 2)
    )
    return f"CASE{branches}{f' ELSE {pairs[-1][0]}' if len(pairs) % 2 else ''} END"


def _size(call: FunctionCall) -> str:
    function = "cardinality" if pa.types.is_map(call.type(0)) else "len"
    return f"CAST({function}({call.sql(0)}) AS INTEGER)"


TABLE: Final[dict[str, ScalarFunction]] = {
    "coalesce": ScalarFunction(1, None, lambda call: f"coalesce({', '.join(sql for sql, _ in call.arguments)})"),
    "nvl": template("coalesce({0}, {1})", 2),
    "ifnull": template("coalesce({0}, {1})", 2),
    "nvl2": ScalarFunction(3, 3, _nvl2),
    "nullif": ScalarFunction(2, 2, _nullif),
    "zeroifnull": template("coalesce({0}, 0)"),
    "nullifzero": template("nullif({0}, 0)"),
    "isnull": template("({0} IS NULL)"),
    "isnotnull": template("({0} IS NOT NULL)"),
    "equal_null": template("({0} IS NOT DISTINCT FROM {1})", 2),
    "decode": ScalarFunction(3, None, _decode),
    "array": ScalarFunction(0, None, lambda call: f"[{', '.join(sql for sql, _ in call.arguments)}]"),
    "size": ScalarFunction(1, 1, _size),
    "cardinality": ScalarFunction(1, 1, _size),
    "array_size": ScalarFunction(1, 1, _size),
    "array_contains": template(
        "CASE WHEN {0} IS NULL OR {1} IS NULL THEN NULL WHEN list_contains({0}, {1}) THEN TRUE"
        " WHEN list_count({0}) < len({0}) THEN NULL ELSE FALSE END",
        2,
    ),
    "array_position": template(
        "CASE WHEN {0} IS NOT NULL AND {1} IS NOT NULL THEN CAST(coalesce(list_position({0}, {1}), 0) AS BIGINT) END", 2
    ),
    "array_distinct": template("list_filter({0}, lambda x, i: list_position({0}, x) = i)"),
    "array_max": template("list_max({0})"),
    "array_min": template("list_min({0})"),
    "array_join": template("array_to_string({0}, {1})", 2),
    "array_append": template("CASE WHEN {0} IS NOT NULL THEN list_append({0}, {1}) END", 2),
    "array_prepend": template("CASE WHEN {0} IS NOT NULL THEN list_prepend({1}, {0}) END", 2),
    "arrays_overlap": template(
        "CASE WHEN list_has_any({0}, {1}) THEN TRUE WHEN len({0}) > 0 AND len({1}) > 0"
        " AND (list_count({0}) < len({0}) OR list_count({1}) < len({1})) THEN NULL ELSE list_has_any({0}, {1}) END",
        2,
    ),
    "flatten": template("CASE WHEN list_count({0}) = len({0}) THEN flatten({0}) END"),
    "sort_array": template(
        "CASE WHEN {1} THEN list_sort({0}, 'ASC', 'NULLS FIRST') ELSE list_sort({0}, 'DESC', 'NULLS LAST') END",
        1,
        2,
        "TRUE",
    ),
    "slice": ScalarFunction(3, 3, _slice),
    "get": template("{0}[CASE WHEN {1} >= 0 THEN CAST({1} AS BIGINT) + 1 END]", 2),
    "element_at": ScalarFunction(2, 2, _element_at),
    "try_element_at": ScalarFunction(2, 2, _try_element_at),
    "sequence": ScalarFunction(2, 2, _sequence),
    "map": ScalarFunction(2, None, _map),
    "map_keys": template("map_keys({0})"),
    "map_values": template("map_values({0})"),
    "map_contains_key": template("map_contains({0}, {1})", 2),
    "named_struct": ScalarFunction(2, None, _struct),
    "reverse": ScalarFunction(1, 1, _reverse_or),
    "get_json_object": ScalarFunction(2, 2, _get_json_object),
    "json_array_length": template(
        "CASE WHEN json_valid({0}) THEN CASE WHEN json_type({0}) = 'ARRAY'"
        " THEN CAST(json_array_length({0}) AS INTEGER) END END"
    ),
    "md5": template("md5({0})"),
    "sha1": template("sha1({0})"),
    "sha": template("sha1({0})"),
    "base64": template("base64(CAST({0} AS BLOB))"),
    "unbase64": template("from_base64({0})"),
}
