"""The scalar functions of the subset: an explicit list, each as Spark's documentation has it.

functions_text.py   strings, regular expressions, URLs
functions_time.py   dates and timestamps
functions_math.py   numbers
functions_data.py   conditions, arrays, maps, JSON, hashes
"""

from __future__ import annotations

from typing import Final

from sqlglot import exp

from headrace.stream.sql import functions_data, functions_math, functions_text, functions_time, restrictions
from headrace.stream.sql.dialect import unsupported, written
from headrace.stream.sql.function_base import FunctionCall, ScalarFunction
from headrace.stream.sql.types import Typed

element = functions_data.element
fraction_of_minute = functions_time.fraction_of_minute

TABLE: Final[dict[str, ScalarFunction]] = {
    **functions_text.TABLE,
    **functions_time.TABLE,
    **functions_math.TABLE,
    **functions_data.TABLE,
}

UNIT_FIRST: Final = {"timestampdiff", "timestampadd", "datediff", "date_diff"}
"""Functions of three arguments whose first is a unit, written as a bare word."""

CHOOSING: Final = {"coalesce", "nvl", "ifnull", "nullif", "array", "greatest", "least"}
"""Functions whose arguments become of one type."""

_NOW = (
    "the time of the run differs from run to run, so a repeat would give other rows",
    "an event-time column, or sent_at of hs.queue(metadata=…)",
)
_RANDOM = (
    "it gives other values when a batch is repeated, so nothing could be exactly once",
    "a hash of a key: xxhash64",
)
_WINDOW = ("it is a window, which stands only in GROUP BY", "GROUP BY tumble(ts, '10 seconds')")
_GENERATOR = ("it makes many rows of one", ".flat_map(fn, schema=…)")
_FIXED_ROW = ("rows of a stream have no fixed order or number", "an event-time column, or message_id")
_RANKING = (
    restrictions.ONLY_ROW_NUMBER,
    "QUALIFY ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= N",
)

REFUSED: Final[dict[str, tuple[str, str]]] = {
    **dict.fromkeys(("now", "current_timestamp", "current_date", "curdate", "localtimestamp"), _NOW),
    **dict.fromkeys(("rand", "random", "randn", "uuid", "shuffle", "randstr", "uniform"), _RANDOM),
    **dict.fromkeys(("tumble", "hop", "session_window", "window", "session"), _WINDOW),
    **dict.fromkeys(("explode", "explode_outer", "posexplode", "inline", "stack", "json_tuple"), _GENERATOR),
    **dict.fromkeys(("monotonically_increasing_id", "spark_partition_id", "input_file_name"), _FIXED_ROW),
    **dict.fromkeys(
        ("row_number", "rank", "dense_rank", "ntile", "lag", "lead", "percent_rank", "cume_dist"), _RANKING
    ),
}
"""Functions that Spark has and streams do not: why, and what to write."""


def call(name: str, arguments: list[Typed], node: exp.Expr) -> str:
    """The call of a function of TABLE in DuckDB's SQL. Raises UnsupportedQuery."""
    function = TABLE.get(name)
    if function is None:
        raise unsupported(node, written(node), f"unknown function {name!r}")
    if not function.least <= len(arguments) <= (len(arguments) if function.most is None else function.most):
        raise unsupported(node, f"{name}()", f"it takes {_count(function)}, not {len(arguments)}")
    anonymous = node if isinstance(node, exp.Anonymous) else exp.Anonymous(this=name, expressions=_operands(node))
    if anonymous is not node:
        anonymous.parent = node
    return function.write(FunctionCall(anonymous, arguments))


def _operands(node: exp.Expr) -> list[exp.Expr]:
    return [item.copy() for item in (node.args.get("this"), node.args.get("expression")) if isinstance(item, exp.Expr)]


def _count(function: ScalarFunction) -> str:
    if function.most is None:
        return f"{function.least} arguments or more"
    if function.least == function.most:
        return f"{function.least} argument{'' if function.least == 1 else 's'}"
    return f"{function.least} to {function.most} arguments"
