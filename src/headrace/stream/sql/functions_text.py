"""Strings, regular expressions, URLs."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

import pyarrow as pa

from headrace.stream.sql import casts
from headrace.stream.sql.function_base import FunctionCall, ScalarFunction, template
from headrace.stream.sql.types import literal

_JAVA_ONLY: Final = (
    (re.compile(r"\(\?(=|!|<=|<!)"), "look-around (?=…)"),
    (re.compile(r"\(\?>"), "atomic groups (?>…)"),
    (re.compile(r"(?<!\\)(?:\\\\)*\\[1-9k]"), "backreferences \\1"),
    (re.compile(r"[*+?}]\+"), "possessive quantifiers a++"),
    (re.compile(r"&&"), "intersections of classes [a&&b]"),
    (re.compile(r"\[:\^?[a-z]+:\]"), r"named classes [[:alpha:]], which Java writes \p{Alpha}"),
    (
        re.compile(r"\(\?[a-z]*i[a-z]*[:)].*[^\x00-\x7f]", re.DOTALL),
        "(?i) with letters beyond ASCII, which Java distinguishes then",
    ),
)
"""What Java's regular expressions have and RE2, which DuckDB uses to stay linear in the text, has not."""


def pattern(call: FunctionCall, place: int) -> str:
    """A regular expression as a DuckDB literal. Raises UnsupportedQuery for what only Java has."""
    text = call.text(place, "the regular expression")
    for only, what in _JAVA_ONLY:
        if only.search(text):
            raise call.unsupported(
                f"regular expressions here have no {what}", "a simpler pattern, or a Python function"
            )
    return literal(text)


def _regexp_extract(call: FunctionCall) -> str:
    # Spark's group is 1 unless it is said, and no match is the empty string: as in DuckDB.
    return f"regexp_extract({call.sql(0)}, {pattern(call, 1)}, {call.sql(2, '1')})"


def _regexp_extract_all(call: FunctionCall) -> str:
    return f"regexp_extract_all({call.sql(0)}, {pattern(call, 1)}, {call.sql(2, '1')})"


def _regexp_replace(call: FunctionCall) -> str:
    replacement = call.text(2, "the replacement")
    if re.search(r"\$\d\d|\$\{", replacement):
        raise call.unsupported("groups in the replacement are $0 to $9")
    dollars = re.sub(r"(?<!\\)\$(\d)", r"\\\1", replacement.replace("\\", "\\\\").replace("\\\\$", "\\$"))
    return f"regexp_replace({call.sql(0)}, {pattern(call, 1)}, {literal(dollars.replace(chr(92) + '$', '$'))}, 'g')"


def _regexp_count(call: FunctionCall) -> str:
    return f"CAST(len(regexp_extract_all({call.sql(0)}, {pattern(call, 1)})) AS INTEGER)"


def _split(call: FunctionCall) -> str:
    """Spark: `limit` > 0: at most that many parts; the separator is a regular expression."""
    if len(call.arguments) > 2:
        raise call.unsupported("split() has no limit here", "split(text, pattern)")
    text = call.sql(0)
    return f"CASE WHEN {text} = '' THEN [''] ELSE regexp_split_to_array({text}, {_something(call, 1)}) END"


def _something(call: FunctionCall, place: int) -> str:
    """A regular expression that does not match nothing, or is nothing: Java would give an empty part more."""
    text = call.text(place, "the regular expression")
    with suppress(re.error):
        if text and re.match(f"(?:{text})$", "") is not None:
            raise call.unsupported(f"{text!r} matches where nothing is", "a pattern of one character or more")
    return pattern(call, place)


def _substring(call: FunctionCall) -> str:
    """Counted from 1; 0 is as 1; from behind if negative (and what lies in front of the text counts)."""
    text, start = call.sql(0), call.sql(1)
    begin = f"CASE WHEN {start} = 0 THEN 1 WHEN {start} > 0 THEN {start} ELSE length({text}) + {start} + 1 END"
    if len(call.arguments) < 3:
        return f"substring({text}, {_least(begin, 1)})"
    length = _least(call.sql(2))
    return (
        f"substring({text}, CAST({_least(begin, 1)} AS BIGINT),"
        f" CAST({_least(f'{begin} + {length} - {_least(begin, 1)}')} AS BIGINT))"
    )


def _least(sql: str, bound: int = 0) -> str:
    """Not less than the bound. NULL stays NULL, which greatest() leaves out."""
    return f"CASE WHEN ({sql}) < {bound} THEN {bound} ELSE ({sql}) END"


def _concat(call: FunctionCall) -> str:
    """NULL if one is NULL (DuckDB's concat leaves it out)."""
    if call.arguments and all(pa.types.is_list(kind) for _, kind in call.arguments):
        return "(" + " || ".join(sql for sql, _ in call.arguments) + ")"
    return "(" + " || ".join(casts.text(sql, kind) for sql, kind in call.arguments) + ")" if call.arguments else "''"


def _concat_ws(call: FunctionCall) -> str:
    parts = [
        f"CASE WHEN list_count({sql}) > 0 THEN array_to_string({sql}, {call.sql(0)}) END"
        if pa.types.is_list(kind)
        else casts.text(sql, kind)
        for sql, kind in call.arguments[1:]
    ]
    return f"concat_ws({', '.join([call.sql(0), *parts])})" if parts else "''"


def _locate(call: FunctionCall) -> str:
    """locate(sub, text[, from]): counted from 1, 0 if it is not there."""
    if len(call.arguments) < 3:
        return f"CAST(instr({call.sql(1)}, {call.sql(0)}) AS INTEGER)"
    start = call.sql(2)
    found = f"instr(substring({call.sql(1)}, {start}), {call.sql(0)})"
    return f"CAST(CASE WHEN {start} < 1 THEN 0 WHEN {call.sql(0)} = '' AND {found} IS NOT NULL THEN 1 WHEN {found} = 0 THEN 0 ELSE {found} + {start} - 1 END AS INTEGER)"


def _pad(side: str) -> ScalarFunction:
    def write(call: FunctionCall) -> str:
        text, length, fill = call.sql(0), call.sql(1), call.sql(2, "' '")
        count = f"CAST({_least(length)} AS INTEGER)"
        return f"CASE WHEN {fill} = '' THEN left({text}, {count}) ELSE {side}({text}, {count}, {fill}) END"

    return ScalarFunction(2, 3, write)


_INITCAP: Final = "list_aggregate(list_transform(string_split({0}, ' '), lambda w: upper(left(w, 1)) || lower(substring(w, 2))), 'string_agg', ' ')"

_HOST: Final = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]*)"
_URL_PARTS: Final = {
    "HOST": _HOST,
    "PATH": r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*([^?#]*)",
    "QUERY": r"^[^?#]*\?([^#]*)",
    "REF": r"#(.*)$",
    "PROTOCOL": r"^([a-zA-Z][a-zA-Z0-9+.-]*)://",
    "AUTHORITY": r"^[a-zA-Z][a-zA-Z0-9+.-]*://([^/?#]*)",
    "FILE": r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*([^#]*)",
    "USERINFO": r"^[a-zA-Z][a-zA-Z0-9+.-]*://([^/?#@]*)@",
}


def _parse_url(call: FunctionCall) -> str:
    """parse_url(url, part[, key]): NULL if the part is not there."""
    part = call.text(1, "the part of the URL")
    if part not in _URL_PARTS:
        raise call.unsupported(f"a URL has no part {part!r}", ", ".join(_URL_PARTS))
    if len(call.arguments) > 2:
        key = re.escape(call.text(2, "the name in the query"))
        return _matched(call.sql(0), rf"\?(?:[^#]*&)?{key}=([^&#]*)")
    return _matched(call.sql(0), _URL_PARTS[part])


def _matched(sql: str, regexp: str) -> str:
    return f"CASE WHEN regexp_matches({sql}, {literal(regexp)}) THEN regexp_extract({sql}, {literal(regexp)}, 1) END"


TABLE: Final[dict[str, ScalarFunction]] = {
    "upper": template("upper({0})"),
    "ucase": template("upper({0})"),
    "lower": template("lower({0})"),
    "lcase": template("lower({0})"),
    "length": template("CAST(length({0}) AS INTEGER)"),
    "len": template("CAST(length({0}) AS INTEGER)"),
    "char_length": template("CAST(length({0}) AS INTEGER)"),
    "character_length": template("CAST(length({0}) AS INTEGER)"),
    "octet_length": template("CAST(strlen({0}) AS INTEGER)"),
    "trim": template("trim({0}, ' ')"),
    "ltrim": template("ltrim({0}, ' ')"),
    "rtrim": template("rtrim({0}, ' ')"),
    "btrim": template("trim({0}, {1})", 1, 2, "' '"),
    "initcap": template(_INITCAP),
    "repeat": template(f"repeat({{0}}, CAST({_least('{1}')} AS BIGINT))", 2),
    "replace": template("replace({0}, {1}, {2})", 2, 3, "''"),
    "translate": template("translate({0}, {1}, {2})", 3),
    "left": template(f"left({{0}}, CAST({_least('{1}')} AS BIGINT))", 2),
    "right": template(f"right({{0}}, CAST({_least('{1}')} AS BIGINT))", 2),
    "lpad": _pad("lpad"),
    "rpad": _pad("rpad"),
    "substring": ScalarFunction(2, 3, _substring),
    "substr": ScalarFunction(2, 3, _substring),
    "substring_index": template(
        "CASE WHEN {0} IS NULL OR {2} IS NULL THEN NULL WHEN {1} = '' THEN ''"
        " WHEN {2} > 0 THEN array_to_string(list_slice(string_split({0}, {1}), 1, CAST({2} AS BIGINT)), {1})"
        " WHEN {2} < 0 THEN array_to_string(list_slice(string_split({0}, {1}), CAST({2} AS BIGINT), -1), {1})"
        " ELSE '' END",
        3,
    ),
    "split_part": template("split_part({0}, {1}, CAST({2} AS BIGINT))", 3),
    "instr": template("CAST(instr({0}, {1}) AS INTEGER)", 2),
    "locate": ScalarFunction(2, 3, _locate),
    "position": ScalarFunction(2, 3, _locate),
    "startswith": template("starts_with({0}, {1})", 2),
    "endswith": template("ends_with({0}, {1})", 2),
    "contains": template("contains({0}, {1})", 2),
    "ascii": template("ascii({0})"),
    "chr": template("CASE WHEN {0} < 0 THEN '' ELSE chr(CAST({0} % 256 AS INTEGER)) END"),
    "char": template("CASE WHEN {0} < 0 THEN '' ELSE chr(CAST({0} % 256 AS INTEGER)) END"),
    "concat": ScalarFunction(0, None, _concat),
    "concat_ws": ScalarFunction(1, None, _concat_ws),
    "levenshtein": template("CAST(levenshtein({0}, {1}) AS INTEGER)", 2),
    "rlike": ScalarFunction(2, 2, lambda call: f"regexp_matches({call.sql(0)}, {pattern(call, 1)})"),
    "regexp": ScalarFunction(2, 2, lambda call: f"regexp_matches({call.sql(0)}, {pattern(call, 1)})"),
    "regexp_like": ScalarFunction(2, 2, lambda call: f"regexp_matches({call.sql(0)}, {pattern(call, 1)})"),
    "regexp_extract": ScalarFunction(2, 3, _regexp_extract),
    "regexp_extract_all": ScalarFunction(2, 3, _regexp_extract_all),
    "regexp_replace": ScalarFunction(3, 3, _regexp_replace),
    "regexp_count": ScalarFunction(2, 2, _regexp_count),
    "split": ScalarFunction(2, 3, _split),
    "parse_url": ScalarFunction(2, 3, _parse_url),
    "url_decode": template(
        "CASE WHEN contains(regexp_replace({0}, '%[0-9A-Fa-f]{{2}}', '', 'g'), '%') THEN error('not URL-encoded: ' || {0})"
        " ELSE url_decode(replace({0}, '+', ' ')) END"
    ),
    "url_encode": template("replace(url_encode({0}), '%20', '+')"),
}
