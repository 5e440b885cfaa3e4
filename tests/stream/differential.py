"""Random queries over random rows, which every way of running them must answer alike.

Rows have every type, NULLs, ties, empty strings, NaN, -0.0, times before 1970, days on which clocks are changed. Floats
are multiples of a quarter, so that sums of them are exact in any order.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

import headrace.stream as hs
from headrace.stream.schema import Schema

LEFT: Final = (
    "id int, k string, `Key 2` bigint, small smallint, x double, f float, cost decimal(12,2), ok boolean, day date,"
    " ts timestamp"
)
RIGHT: Final = "rid int, rk string, y bigint, at timestamp"
STARTS: Final = (
    dt.datetime(1969, 12, 31, 23, 59, 30),  # noqa: DTZ001 # inside a pipeline timestamps have no zone
    dt.datetime(2026, 3, 29, 0, 59, 30),  # noqa: DTZ001 # clocks go forward in Europe
    dt.datetime(2400, 2, 29),  # noqa: DTZ001
)
_FLOATS: Final = (0.0, -0.0, math.nan, math.inf, 0.25, -1.5, 3.75, None)
_KEYS: Final = ("a", "A", "", "ä", "b'c", None)

Row = dict[str, Any]


def left_rows(noise: random.Random, count: int) -> list[Row]:
    start = noise.choice(STARTS)
    return [
        {
            "id": number,
            "k": noise.choice(_KEYS),
            "Key 2": noise.choice((-1, 0, 2**62, None)),
            "small": noise.choice((-32768, 0, 7, 32767, None)),
            "x": noise.choice(_FLOATS),
            "f": noise.choice((0.5, -2.25, None)),
            "cost": noise.choice((Decimal("-0.05"), Decimal("1234567890.12"), Decimal("0.00"), None)),
            "ok": noise.choice((True, False, None)),
            "day": noise.choice((dt.date(1969, 12, 31), dt.date(2024, 2, 29), None)),
            "ts": start + dt.timedelta(milliseconds=250 * noise.randrange(240)),
        }
        for number in range(count)
    ]


def right_rows(noise: random.Random, count: int, start: dt.datetime) -> list[Row]:
    return [
        {
            "rid": number,
            "rk": noise.choice(_KEYS),
            "y": noise.choice((-1, 0, 2**62, None)),
            "at": start + dt.timedelta(milliseconds=250 * noise.randrange(240)),
        }
        for number in range(count)
    ]


def disordered(noise: random.Random, rows: Sequence[Row], time: str) -> list[Row]:
    """As they may come under a delay of 3 seconds, without one being late."""
    return sorted(rows, key=lambda row: row[time] + dt.timedelta(seconds=noise.uniform(0, 2.9)))


WINDOWS: Final = ("tumble(ts, '7 seconds')", "tumble(ts, '1 minute')", "hop(ts, '10 seconds', '4 seconds')",
                  "hop(ts, '9 seconds', '3 seconds')", "session_window(ts, '1250 milliseconds')")  # fmt: skip
_GROUPS: Final = (
    "k", "`Key 2`", "x", "ok", "day", "small % 2", "coalesce(k, '?')", "cost", "CASE WHEN x > 0 THEN 'up' ELSE k END",
)  # fmt: skip
AGGREGATES: Final = (
    "count(*)", "count(x)", "count(DISTINCT k)", "count(DISTINCT x)", "count(DISTINCT k, ok)", "sum(small)", "sum(f)", "sum(cost)", "avg(small)",
    "avg(cost)", "avg(f)", "min(x)", "max(x)", "min(k)", "max(k)", "min(day)", "max(ts)", "min(ok)", "max(cost)", "stddev_samp(small)",
    "stddev_pop(f)", "var_samp(f)", "var_pop(small)", "bool_and(ok)", "bool_or(ok)", "percentile(small, 0.3)",
    "median(f)", "min_by(k, id)", "max_by(x, id)", "sort_array(collect_list(small))", "sort_array(collect_set(k))",
    "count_if(ok)", "sum(id)", "max(id) - min(id)", "sum(small) / count(*)", "max(`Key 2`)", "min_by(small, -id)",
    "approx_count_distinct(k)", "count(1)", "max(concat(k, '!'))", "sum(CASE WHEN ok THEN 1 ELSE 0 END)",
    "coalesce(sum(f), 0) + count(x)", "sum(id) % 3", "count(NULL)",
)  # fmt: skip
CONDITIONS: Final = ("ok", "x > 0", "x = x", "k IS NOT NULL", "small BETWEEN 0 AND 8", "k <> ''", "NOT ok", "x < 1 OR cost < 0",
                     "day > DATE'1970-01-01'", "k IN ('a', 'b\\'c')", "id % 3 <> 1", "k LIKE '%a%'")  # fmt: skip


def grouped(noise: random.Random) -> str:
    """A windowed aggregation; sometimes with WHERE, HAVING, FILTER, and a window over it."""
    window = noise.choice(WINDOWS)
    keys = noise.sample(_GROUPS, noise.randrange(3))
    calls = noise.sample(AGGREGATES, noise.randrange(1, 6))
    items = ["window_start", "window_end", *(f"{key} AS g{place}" for place, key in enumerate(keys))]
    items += [f"{_filtered(noise, call)} AS r{place}" for place, call in enumerate(calls)]
    where = f" WHERE {noise.choice(CONDITIONS)}" if noise.random() < 0.4 else ""
    having = noise.choice(("", "", " HAVING count(*) > 1", " HAVING max(id) > 10 AND count(k) >= 1"))
    over = noise.random() < 0.25
    items += ["window_time", "count(*) AS n"] if over else []
    text = f"SELECT {', '.join(items)} FROM l{where} GROUP BY {', '.join([window, *keys])}{having}"
    return f"WITH w AS ({text}) {noise.choice(_OVER)}" if over else text


_OVER: Final = (
    "SELECT window_start, sum(n) AS total, max(n) AS most, count(*) AS groups FROM w GROUP BY tumble(window_time, '20 seconds')",
    "SELECT window_end, max(n) AS most FROM w GROUP BY window_start, window_end",
    "SELECT window_start, n, count(*) AS groups FROM w GROUP BY hop(window_time, '20 seconds', '10 seconds'), n",
)


def _filtered(noise: random.Random, call: str) -> str:
    simple = call.count("(") == 1 and call.endswith(")")
    return f"{call} FILTER (WHERE {noise.choice(CONDITIONS)})" if simple and noise.random() < 0.25 else call


def joined(noise: random.Random) -> str:
    kind = noise.choice(("", "LEFT ", "RIGHT ", "FULL "))
    extra = noise.choice(("", "", " AND l.id % 2 = r.rid % 2", " AND r.y > l.small"))
    where = noise.choice(("", "", " WHERE l.k = 'a' OR r.rk IS NULL"))
    if noise.random() < 0.6:
        bounds = noise.choice((
            "r.at BETWEEN l.ts - INTERVAL 2 SECONDS AND l.ts + INTERVAL 1 SECOND",
            "r.at >= l.ts AND r.at < l.ts + INTERVAL 3 SECONDS",
            "l.ts <= r.at + INTERVAL 1 SECOND AND l.ts > r.at - INTERVAL 1 SECOND",
        ))  # fmt: skip
        return f"SELECT l.id, l.k, r.rid, r.y, l.ts, r.at FROM l {kind}JOIN r ON l.k = r.rk AND {bounds}{extra}{where}"
    return (
        "WITH a AS (SELECT window_start, window_end, k, count(*) AS n FROM l GROUP BY tumble(ts, '10 seconds'), k),"
        " b AS (SELECT window_start, window_end, rk, max(y) AS m FROM r GROUP BY tumble(at, '10 seconds'), rk)"
        f" SELECT a.window_start, b.window_end, a.k, n, m FROM a {kind}JOIN b"
        " ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.k = b.rk"
    )


def stateless(noise: random.Random) -> str:
    first = f"SELECT id, k, coalesce(x, 0) AS x, ts FROM l WHERE {noise.choice(CONDITIONS)}"
    second = f"SELECT rid, upper(rk) AS k, y, at FROM r WHERE y IS NULL OR y < {noise.choice((0, 1, 2))}"
    return f"{first} UNION ALL {second}" if noise.random() < 0.5 else first


def query(noise: random.Random) -> str:
    return noise.choices((grouped, joined, stateless), (6, 3, 1))[0](noise)


def pipeline(text: str, shards: int = 2) -> hs.Pipeline:
    left = hs.memory(LEFT, [], name="l").with_watermark("ts", delay="3 seconds")
    right = hs.memory(RIGHT, [], name="r").with_watermark("at", delay="3 seconds")
    return hs.pipeline("p", hs.sql(text, l=left, r=right), shards=shards)


def tables(rows: dict[str, list[Row]], wanted: Sequence[str]) -> dict[str, pa.Table]:
    """The rows of the sources that a pipeline has, as Arrow."""
    schemas = {"l": Schema.of(LEFT).arrow(), "r": Schema.of(RIGHT).arrow()}
    return {name: pa.Table.from_pylist(rows[name], schemas[name]) for name in wanted}


def multiset(rows: pa.Table) -> Counter[str]:
    """Floats to eleven digits: stddev is not exact. Which -0.0 or 0.0 stands for both is left open."""
    return Counter(str([_plain(value) for value in row.values()]) for row in rows.to_pylist())


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return repr(float(f"{value:.10e}") + 0.0)
    return [_plain(item) for item in value] if isinstance(value, list) else value
