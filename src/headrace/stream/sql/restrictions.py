"""What a SELECT must not have on a stream, what Spark's Structured Streaming cannot run, why, and what to write instead."""

from __future__ import annotations

from typing import Final, Literal

from sqlglot import exp

from headrace.stream import physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.sql.dialect import unsupported

ONLY_ROW_NUMBER: Final = "of the window functions streams have only ROW_NUMBER(), and only with a bound on it"
SET_OPERATIONS: Final = {exp.Except, exp.Intersect}

_ORDER: Final = (
    "a stream has no end after which it could be sorted",
    "for the first N of a group: QUALIFY ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= N",
)
_CLAUSES: Final[dict[str, tuple[str, str, str]]] = {
    "distinct": ("DISTINCT", "removing duplicates needs every row for ever", ".dedup(key, within='10 minutes')"),
    "order": ("ORDER BY", *_ORDER),
    "limit": ("LIMIT", "a stream has no end, so the first N rows would be the only ones for ever", _ORDER[1]),
    "offset": ("OFFSET", "a stream has no end, so rows have no number", ""),
    "sort": ("SORT BY", *_ORDER),
    "cluster": ("CLUSTER BY", *_ORDER),
    "distribute": ("DISTRIBUTE BY", "how rows are spread is the engine's business", "shards= of hs.pipeline"),
    "hint": ("a hint", "hints are for one engine, and a pipeline runs on two", "nothing: leave it out"),
    "laterals": ("LATERAL VIEW", "it makes many rows of one", ".flat_map(fn, schema=…)"),
    "pivots": ("PIVOT", "its columns depend on the data", "sum(x) FILTER (WHERE kind = 'a') AS a, …"),
    "windows": ("WINDOW", "of the window functions streams have only ROW_NUMBER(), with its window written out", ""),
    "sample": ("TABLESAMPLE", "it gives other rows when a batch is repeated", "WHERE pmod(hash of a key, 100) < 10"),
    "match": ("MATCH_RECOGNIZE", "streams do not have this", "a Python step"),
    "into": ("INTO", "what becomes of the rows is the pipeline's business", "sink= of hs.pipeline"),
    "connect": ("CONNECT BY", "a stream has no end to recurse to", ""),
    "kind": ("SELECT AS", "rows are rows here", "named_struct(…) AS name"),
    "prewhere": ("PREWHERE", "streams do not have this", "WHERE"),
}


def select(node: exp.Select) -> None:
    """Raises UnsupportedQuery for a clause that streams do not have."""
    for key, (construct, reason, instead) in _CLAUSES.items():
        value = node.args.get(key)
        if value:
            raise unsupported(_first(value, node), construct, reason, instead)
    if node.args.get("from_") is None:
        raise unsupported(node, "SELECT without FROM", "there is no stream that it reads", "SELECT … FROM input")


def tail(node: exp.Expr) -> None:
    """The same for what stands behind a UNION ALL."""
    for key in ("order", "limit", "offset"):
        if node.args.get(key):
            construct, reason, instead = _CLAUSES[key]
            raise unsupported(node.args[key], construct, reason, instead)


def from_item(node: exp.Expr) -> None:
    """The same for what stands in FROM."""
    if isinstance(node, exp.Lateral):
        raise unsupported(
            node, "LATERAL", "a query for every row has no meaning on a stream", ".flat_map(fn, schema=…)"
        )
    if isinstance(node, exp.Table) and isinstance(node.this, exp.Anonymous):
        raise unsupported(node, f"{node.this.this}() in FROM", "table functions are not in the subset",
                      "GROUP BY tumble(ts, '10 seconds')")  # fmt: skip
    if not isinstance(node, exp.Table | exp.Subquery):
        raise unsupported(node, type(node).__name__.upper(), "only a name or a query stands in FROM", "FROM name")
    if isinstance(node, exp.Table) and (node.args.get("db") or node.args.get("catalog")):
        raise unsupported(node, node.sql("spark"), "streams have no databases", node.name)
    for key in ("pivots", "sample", "hints", "version", "laterals", "joins", "when"):
        if node.args.get(key):
            construct, reason, instead = _CLAUSES.get(key, (key.upper(), "streams do not have this", ""))
            raise unsupported(_first(node.args[key], node), construct, reason, instead)


def statement(node: exp.Expr) -> UnsupportedQuery:
    """The error for what is no SELECT."""
    if type(node) in SET_OPERATIONS:
        word = "INTERSECT" if isinstance(node, exp.Intersect) else "EXCEPT"
        return unsupported(node, word, "it needs every row of both sides for ever", "a JOIN with bounds on time")
    words = "VALUES" if isinstance(node, exp.Values) else type(node).__name__.upper()
    return unsupported(node, words, "a step is a SELECT", "a sink of the pipeline, to write somewhere")


def _first(value: object, fallback: exp.Expr) -> exp.Expr:
    if isinstance(value, list):
        value = value[0]
    return value if isinstance(value, exp.Expr) else fallback


def join_kind(join: exp.Join) -> Literal["inner", "left", "right", "full"]:
    """Which join it is. Raises UnsupportedQuery for the kinds that streams do not have."""
    side, kind, method = (str(join.args.get(key) or "").upper() for key in ("side", "kind", "method"))
    if method == "NATURAL":
        raise unsupported(join, "NATURAL JOIN", "a new column would change what is joined", "ON a.id = b.id")
    if kind in ("SEMI", "ANTI") or side in ("SEMI", "ANTI"):
        word = kind or side
        raise unsupported(join, f"{word} JOIN", "the subset has inner, left, right and full joins",
                      "JOIN, and .dedup(key, within=…)" if word == "SEMI" else "LEFT JOIN … WHERE b.id IS NULL")  # fmt: skip
    if join.args.get("hint") or kind not in ("", "INNER", "OUTER", "CROSS") or method:
        raise unsupported(
            join, f"{method} {kind} JOIN".strip(), "the subset has inner, left, right and full joins", "JOIN … ON"
        )
    return _KINDS[side]


_KINDS: Final[dict[str, Literal["inner", "left", "right", "full"]]] = {
    "": "inner",
    "LEFT": "left",
    "RIGHT": "right",
    "FULL": "full",
}


# --- What Spark's Structured Streaming cannot run, although the embedded engine can ---


def spark_restrictions_of(pipeline: plan.Pipeline, compiled: physical.PhysicalPlan) -> list[UnsupportedQuery]:
    """A refusal for each construct; empty if Spark can run all."""
    found = [_on_spark(operator, pipeline) for operator in compiled.operators]
    stateful = [operator for operator in compiled.operators if isinstance(operator, physical.STATEFUL)]
    if pipeline.mode == "update" and len(stateful) > 1:
        found.append(
            UnsupportedQuery(
                "mode 'update' with several steps of state",
                "Spark chains them only in mode 'append'",
                "mode='append', or the embedded engine",
            )
        )
    return [refusal for refusal in found if refusal is not None]


def _on_spark(operator: physical.Operator, pipeline: plan.Pipeline) -> UnsupportedQuery | None:
    if isinstance(operator, physical.Top):
        return UnsupportedQuery(
            "ROW_NUMBER()",
            "Spark's streams have no window functions over rows",
            "the embedded engine",
            step=operator.step,
        )
    if isinstance(operator, physical.Join) and pipeline.mode == "update" and operator.kind != "inner":
        return UnsupportedQuery(
            f"{operator.kind.upper()} JOIN in mode 'update'", "Spark joins so only in mode 'append'", "mode='append'",
            step=operator.step,
        )  # fmt: skip
    if isinstance(operator, physical.Project) and any(table.reload_us is not None for table in operator.tables):
        return UnsupportedQuery("reload of a table", "Spark reads it once a query", "no reload=, or the embedded engine",
                           step=operator.step)  # fmt: skip
    return None
