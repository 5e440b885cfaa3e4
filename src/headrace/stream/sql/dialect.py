"""Reading SQL: Spark's dialect, with every function call left as it was written.

sqlglot would turn the calls it knows into nodes of its own, with semantics of its own, for some thirty dialects. Here a
call stays a name with arguments, and `functions*.py` alone say what there is and what it means.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.spark import Spark
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.parsers.spark import SparkParser

from headrace.stream.errors import UnsupportedQuery

_WINDOW = re.compile(r"\b(window|session)\s*\(", re.IGNORECASE)
_HINT = "tumble(ts, '10 seconds'), hop(ts, '10 seconds', '2 seconds') or session_window(ts, '10 seconds')"
_MISSING = re.compile(r"Required keyword: '\w+' missing for <class '[\w.]+'>")
_KEPT = {"CAST", "TRY_CAST", "EXTRACT"}


class Dialect(Spark):
    """Spark's, without functions."""

    class Parser(SparkParser):
        STRICT_CAST = True  # CAST raises and TRY_CAST does not: ANSI mode, Spark's default
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: parser for name, parser in SparkParser.FUNCTION_PARSERS.items() if name in _KEPT
        }


def parse(text: str, step: str = "") -> exp.Expr:
    """The one statement that `text` is. Raises UnsupportedQuery for what is not SQL at all."""
    try:
        statements = [statement for statement in sqlglot.parse(text, dialect=Dialect) if statement is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        reason = _MISSING.sub("something is missing beside it", str(first.get("description", error)))
        raise UnsupportedQuery(
            str(first.get("highlight") or "the text"), f"this is not SQL: {reason}",
            _HINT if _WINDOW.search(text) else "", int(first.get("line") or 0), _column_of(first), step,
        ) from None  # fmt: skip
    except SqlglotError as error:
        raise UnsupportedQuery("the text", f"this is not SQL: {str(error).splitlines()[0]}", step=step) from None
    if len(statements) != 1:
        raise UnsupportedQuery(
            ";" if statements else "an empty text", f"a step is one SELECT, not {len(statements)} statements",
            "a step for each, the later reading the earlier", step=step,
        )  # fmt: skip
    return statements[0]


def _column_of(error: dict[str, Any]) -> int:
    """sqlglot counts a column at the end of a token; people look for its beginning."""
    return max(int(error.get("col") or 0) - len(str(error.get("highlight") or "x")) + 1, 0)


def place(node: exp.Expr) -> tuple[int, int]:
    """(line, column) at which a node begins, from 1; (0, 0) if nothing in it has a place."""
    found = [
        (item.meta["start"], item.meta["line"], item.meta["col"] - (item.meta["end"] - item.meta["start"]))
        for item in node.walk()
        if "start" in item.meta
    ]
    return min(found)[1:] if found else (0, 0)


def unsupported(node: exp.Expr, construct: str, reason: str, instead: str = "") -> UnsupportedQuery:
    """The error for a construct at the place of `node`, or of what holds it if it has none."""
    holder: exp.Expr | None = node
    while holder is not None:
        line, column = place(holder)
        if line:
            return UnsupportedQuery(construct, reason, instead, line, column)
        holder = holder.parent
    return UnsupportedQuery(construct, reason, instead)


def written(node: exp.Expr) -> str:
    """The node as Spark's SQL, in one short line."""
    text = node.sql(dialect=Spark).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "…"


# --- Suggestions for a misspelled name ---


def close_matches(word: str, names: Iterable[str]) -> str:
    """At most three of `names` that look like `word`, as text; empty if none does."""
    lower = {candidate.lower(): candidate for candidate in names}
    found = [lower[candidate] for candidate in difflib.get_close_matches(word.lower(), lower, n=3, cutoff=0.7)]
    return " or ".join(found)
