"""Any batching, any order within the delay and any restart give what DuckDB gives for all rows at once."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.stream import physical
from headrace.stream.schema import Schema
from tests.stream.engine.engines import Row, Running, S, ordered, rows_of, source, table

INPUT = Schema.of("ts timestamp, k string, i int, d double, b boolean, w boolean")
DELAY = 3 * S

BIGINT, DOUBLE = pa.int64(), pa.float64()


def aggregate(function: Any, arguments: tuple[str, ...], kind: pa.DataType, **more: Any) -> physical.Aggregation:
    return physical.Aggregation(function, arguments, f"x_{function}_{'_'.join(arguments)}_{len(more)}", kind, **more)


# Each aggregate with what DuckDB says for a whole window. Of functions that depend on order, ties are broken by arrival.
KERNELS: list[tuple[physical.Aggregation, str]] = [
    (aggregate("count_all", (), BIGINT), "count(*)"),
    (aggregate("count_all", (), BIGINT, where="w"), "count(*) FILTER (WHERE w)"),
    (aggregate("count", ("i",), BIGINT), "count(i)"),
    (aggregate("sum", ("i",), BIGINT), "CAST(sum(i) AS BIGINT)"),
    (aggregate("sum", ("i",), BIGINT, where="w"), "CAST(sum(i) FILTER (WHERE w) AS BIGINT)"),
    (aggregate("sum", ("d",), DOUBLE), "sum(d)"),
    (aggregate("avg", ("i",), DOUBLE), "avg(i)"),
    (aggregate("min", ("d",), DOUBLE), "min(d)"),
    (aggregate("max", ("k",), pa.string()), "max(k)"),
    (aggregate("min", ("ts",), pa.timestamp("us")), "min(ts)"),
    (aggregate("bool_and", ("b",), pa.bool_()), "bool_and(b)"),
    (aggregate("bool_or", ("b",), pa.bool_(), where="w"), "bool_or(b) FILTER (WHERE w)"),
]
QUERIES: list[tuple[physical.Aggregation, str]] = [
    (aggregate("count_distinct", ("i",), BIGINT), "count(DISTINCT i)"),
    (
        aggregate("count_distinct", ("i", "b"), BIGINT),
        "count(DISTINCT (i, b)) FILTER (WHERE i IS NOT NULL AND b IS NOT NULL)",
    ),
    (aggregate("count_distinct", ("d",), BIGINT, where="w"), "count(DISTINCT d) FILTER (WHERE w)"),
    (aggregate("approx_count_distinct", ("k",), BIGINT), "count(DISTINCT k)"),
    (aggregate("first", ("i",), pa.int32()), "arg_min({'v': i}, (ts, place)).v"),
    (aggregate("last", ("i",), pa.int32(), where="w"), "(arg_max({'v': i}, (ts, place)) FILTER (WHERE w)).v"),
    (
        aggregate("min_by", ("k", "i"), pa.string()),
        "(arg_min({'v': k}, (i, ts, place)) FILTER (WHERE i IS NOT NULL)).v",
    ),
    (
        aggregate("max_by", ("k", "i"), pa.string()),
        "(arg_max({'v': k}, (i, -epoch_us(ts), -place)) FILTER (WHERE i IS NOT NULL)).v",
    ),
    (aggregate("stddev_samp", ("d",), DOUBLE), "stddev_samp(d)"),
    (aggregate("var_pop", ("d",), DOUBLE, where="w"), "var_pop(d) FILTER (WHERE w)"),
    (aggregate("var_samp", ("i",), DOUBLE), "var_samp(i)"),
    (aggregate("stddev_pop", ("i",), DOUBLE), "stddev_pop(i)"),
    (aggregate("percentile", ("i",), DOUBLE, parameter=0.3), "quantile_cont(CAST(i AS DOUBLE), 0.3)"),
    (aggregate("approx_percentile", ("i",), pa.int32(), parameter=0.5), "quantile_disc(i, 0.5)"),
    (
        aggregate("collect_list", ("i",), pa.list_(pa.int32())),
        "coalesce(list(i ORDER BY ts, place) FILTER (WHERE i IS NOT NULL), [])",
    ),
    (
        aggregate("collect_set", ("k",), pa.list_(pa.string())),
        "coalesce(list_sort(list(DISTINCT k) FILTER (WHERE k IS NOT NULL)), [])",
    ),
    (aggregate("count", ("d",), BIGINT), "count(d)"),
    (aggregate("avg", ("d",), DOUBLE, where="w"), "avg(d) FILTER (WHERE w)"),
]
WINDOWS: dict[str, tuple[physical.Window, str]] = {
    "tumble": (physical.Tumble(7 * S), "[ts_us - (ts_us % 7000000 + 7000000) % 7000000]"),
    "hop": (
        physical.Hop(10 * S, 4 * S),
        "[s FOR s IN [ts_us - (ts_us % 4000000 + 4000000) % 4000000 - n * 4000000 FOR n IN [0, 1, 2]] IF s + 10000000 > ts_us]",
    ),
}


def node(
    window: physical.Window | None, aggregates: list[tuple[physical.Aggregation, str]], **more: Any
) -> physical.Aggregate:
    bounds = "" if window is None else "window_start timestamp, window_end timestamp, window_time timestamp, "
    found = [aggregation for aggregation, _ in aggregates]
    fields = Schema.of(bounds + "k string").fields + Schema.of({it.name: it.type for it in found}).fields
    return physical.Aggregate(0, window, "ts", ("k",), tuple(found), more.pop("mode", "append"), Schema(fields), **more)


def reference(
    rows: list[Row], windows: str, aggregates: list[tuple[physical.Aggregation, str]], size: str
) -> list[Row]:
    """All rows at once. `windows`: SQL for the list of starts of a row's windows."""
    given = table(INPUT, rows).append_column("place", pa.array(range(len(rows)), pa.int64()))
    columns = ", ".join(sql for _, sql in aggregates)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", given)
        return rows_of(
            connection.sql(
                f"WITH placed AS (SELECT *, epoch_us(ts) AS ts_us FROM given),"
                f" expanded AS (SELECT *, unnest({windows}) AS s FROM placed)"
                f" SELECT make_timestamp(s), make_timestamp({size}), make_timestamp({size} - 1), k, {columns}"
                f" FROM expanded GROUP BY s, k"
            ).to_arrow_table()
        )


def sessions(rows: list[Row], gap: int, aggregates: list[tuple[physical.Aggregation, str]]) -> list[Row]:
    """Written as one would by hand: rows of a key in order, a new session where the gap is exceeded."""
    bounds: dict[int, list[int]] = {}
    last: dict[Any, int] = {}
    for place in sorted(range(len(rows)), key=lambda place: rows[place][0]):
        time, key = rows[place][:2]
        before = last.get(key)
        bounds[place] = [time, time] if before is None or time > rows[before][0] + gap else bounds[before]
        bounds[place][1] = time + gap  # one list for all rows of a session
        last[key] = place
    given = table(INPUT, rows).append_column("place", pa.array(range(len(rows)), pa.int64()))
    given = given.append_column("s", pa.array([bounds[place][0] for place in range(len(rows))], pa.int64()))
    given = given.append_column("e", pa.array([bounds[place][1] for place in range(len(rows))], pa.int64()))
    columns = ", ".join(sql for _, sql in aggregates)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("given", given)
        return rows_of(
            connection.sql(
                f"SELECT make_timestamp(s), make_timestamp(e), make_timestamp(e - 1), k, {columns} FROM given GROUP BY s, e, k"
            ).to_arrow_table()
        )


def rounded(rows: list[Row]) -> list[Row]:
    return ordered(tuple(_rounded(value) for value in row) for row in rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") + 0.0 if math.isfinite(value) else str(value)
    return value


NUMBERS = st.none() | st.integers(-3, 3)
VALUES = st.tuples(
    st.sampled_from([None, "a", "b"]), NUMBERS, NUMBERS.map(lambda n: None if n is None else n / 2), st.none() | st.booleans(),
    st.none() | st.booleans(),
)  # fmt: skip


@st.composite
def batches(draw: st.DrawFn) -> list[list[Row]]:
    """Rows in an order in which none is late, cut anywhere."""
    times = st.integers(-5 * S, 40 * S)
    coarse = times.map(lambda time: time // S * S)  # so that bounds are met exactly, too
    drawn = draw(st.lists(st.tuples(times | coarse, VALUES, st.integers(0, DELAY)), max_size=30))
    drawn.sort(key=lambda row: row[0] + row[2])
    rows = [(time, *values) for time, values, _ in drawn]
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    return [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


def run(node_: physical.Aggregate, steps: list[list[Row]], restarts: int) -> list[Row]:
    found: list[Row] = []
    greatest = None
    with Running([source(INPUT), node_]) as running:
        for place, rows in enumerate(steps):
            if restarts >> place & 1:
                running.restart()
            greatest = max([*([] if greatest is None else [greatest]), *(row[0] - DELAY for row in rows)], default=None)
            step = running.step(table(INPUT, rows), greatest)
            assert not step.late
            found += rows_of(step.output)
        found += rows_of(running.end().output)
        assert running.stored == {}
        assert running.engine.pending() is None
    return found


@pytest.mark.parametrize("window", ["tumble", "hop", "session"])
@pytest.mark.parametrize("aggregates", [KERNELS, QUERIES], ids=["kernels", "queries"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=batches(), restarts=st.integers(0, 127))
def test_any_batching_gives_the_same_windows(
    window: str, aggregates: list[tuple[physical.Aggregation, str]], steps: list[list[Row]], restarts: int
) -> None:
    rows = [row for step in steps for row in step]
    if window == "session":
        expected = sessions(rows, 2 * S, aggregates)
        found = run(node(physical.Session(2 * S), aggregates), steps, restarts)
    else:
        kind, starts = WINDOWS[window]
        expected = reference(rows, starts, aggregates, f"s + {kind.size_us}")  # type: ignore[union-attr] # no session
        found = run(node(kind, aggregates), steps, restarts)
    assert rounded(found) == rounded(expected)
