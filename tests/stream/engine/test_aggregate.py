from __future__ import annotations

import decimal
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream import limits, physical
from headrace.stream.engine.aggregate import Windows
from headrace.stream.engine.grouping import Groups
from headrace.stream.engine.operator import Context
from headrace.stream.engine.queries import Queries
from headrace.stream.engine.state_backend import MemoryStateBackend
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.engines import Row, Running, S, ordered, rows_of, source, table

INPUT = Schema.of("ts timestamp, k string, n bigint")
COUNTS = (physical.Aggregation("count_all", (), "c", pa.int64()), physical.Aggregation("sum", ("n",), "s", pa.int64()))
BOUNDS = "window_start timestamp, window_end timestamp, window_time timestamp, "


def counts(window: physical.Window | None, keys: tuple[str, ...] = ("k",), mode: Any = "append") -> physical.Aggregate:
    schema = Schema.of((BOUNDS if window else "") + ("k string, " if keys else "") + "c bigint, s bigint")
    return physical.Aggregate(0, window, "ts", keys, COUNTS, mode, schema, step="counts")


def running(node: physical.Aggregate, given: Schema = INPUT) -> Running:
    return Running([source(given), node])


def events(*rows: Row, origin: bool = False) -> pa.Table:
    return table(INPUT, rows, origin=origin)


def test_a_window_comes_once_when_the_watermark_reaches_its_end() -> None:
    with running(counts(physical.Tumble(10 * S))) as it:
        assert not it.step(events((0, "a", 1), (9 * S, "a", 2), (10 * S, "b", 3)), 10 * S - 1).output.num_rows
        assert it.engine.pending() == 20 * S
        assert rows_of(it.step({}, 10 * S).output) == [(0, 10 * S, 10 * S - 1, "a", 2, 3)]
        assert rows_of(it.end().output) == [(10 * S, 20 * S, 20 * S - 1, "b", 1, 3)]
        assert it.engine.pending() is None
        assert it.stored == {}


def test_open_windows_cost_nothing_in_a_batch_that_closes_others(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    ends = Windows.ends

    def counted(self: Windows, panes: Sequence[int], after: int, to: int) -> list[int]:
        looked_at.append(len(panes))
        return ends(self, panes, after, to)

    monkeypatch.setattr(Windows, "ends", counted)
    with running(counts(physical.Tumble(S))) as it:
        it.step(events(*((number * S, "a", 1) for number in range(500))))
        assert it.step({}, 2 * S).output.num_rows == 2
    assert max(looked_at) <= 3


def test_windows_before_1970_begin_where_later_ones_do() -> None:
    with running(counts(physical.Tumble(7 * S))) as it:
        it.step(events((-1, "a", 1), (-7 * S, "a", 1), (-7 * S - 1, "a", 1), (0, "a", 1)), -20 * S)
        assert [row[0] for row in sorted(rows_of(it.end().output))] == [-14 * S, -7 * S, 0]


def test_late_rows_are_refused_with_their_origin_and_the_watermark_before_the_batch_counts() -> None:
    with running(counts(physical.Tumble(10 * S))) as it:
        assert not it.step(events((5 * S, "a", 1), (30 * S, "a", 1)), 20 * S).late
        late = it.step(events((19 * S, "x", 1), (20 * S, "a", 1), (0, "y", 2), origin=True), 20 * S).late
    assert [refused.rows[ORIGIN].to_pylist() for refused in late] == [[0, 2]]
    assert late[0].reason == "all windows of ts have closed: the watermark is 1970-01-01 00:00:20"
    assert late[0].step == "counts"


def test_a_row_that_is_late_for_some_windows_counts_in_the_others() -> None:
    with running(counts(physical.Hop(10 * S, 5 * S))) as it:
        it.step(events((12 * S, "a", 1)), 15 * S)  # [5, 15) has closed
        step = it.step(events((12 * S, "a", 10), (9 * S, "a", 100)))
        assert [refused.rows["n"].to_pylist() for refused in step.late] == [[100]]
        assert [(row[0], row[4], row[5]) for row in rows_of(it.end().output)] == [(10 * S, 2, 11)]


def test_a_row_without_time_is_refused() -> None:
    with running(counts(physical.Tumble(S))) as it:
        assert it.step(events((None, "a", 1))).late[0].reason == "ts is NULL, so the row has no event time"


def test_nulls_are_a_group_and_there_may_be_no_keys_at_all() -> None:
    rows = events((0, None, 1), (1, None, None), (2, "a", None))
    with running(counts(physical.Tumble(S))) as it:
        it.step(rows)
        assert ordered(row[3:] for row in rows_of(it.end().output)) == ordered([(None, 2, 1), ("a", 1, None)])
    with running(counts(physical.Tumble(S), ())) as it:
        it.step(rows)
        assert [row[3:] for row in rows_of(it.end().output)] == [(3, 1)]


def test_update_mode_gives_the_groups_that_changed_as_they_are_now() -> None:
    with running(counts(None, mode="update")) as it:
        assert ordered(rows_of(it.step(events((0, "a", 1), (1, "b", 1))).output)) == [("a", 1, 1), ("b", 1, 1)]
        it.restart()
        assert rows_of(it.step(events((9 * S, "a", 5))).output) == [("a", 2, 6)]
        assert it.step(events()).output.num_rows == 0
        assert it.engine.pending() is None


def test_update_mode_reads_a_share_of_what_is_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    among = Groups.among

    def counted(self: Groups, rows: pa.Table, others: pa.Table, by: Sequence[str]) -> pa.Table:
        read.append(rows.num_rows)
        return among(self, rows, others, by)

    monkeypatch.setattr(Groups, "among", counted)
    with running(counts(None, mode="update")) as it:
        it.step(events(*((0, str(number), 1) for number in range(1_000))))
        assert rows_of(it.step(events((0, "7", 1))).output) == [("7", 2, 2)]
    assert read[-1] < 200


def test_update_mode_with_windows_gives_the_open_ones_and_forgets_those_that_closed() -> None:
    with running(counts(physical.Hop(10 * S, 5 * S), mode="update")) as it:
        it.step(events((1 * S, "a", 1), (1 * S, "b", 1)), 7 * S)
        found = rows_of(it.step(events((6 * S, "a", 5), (-1, "a", 9))).output)
        assert sorted((row[0], row[4], row[5]) for row in found) == [(0, 2, 6), (5 * S, 1, 5)]
        assert rows_of(it.step({}, 15 * S).output) == []
        assert it.stored == {}


def test_panes_with_many_parts_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPACT_PARTS", 3)
    with running(counts(physical.Tumble(S))) as it:
        for number in range(20):
            it.step(events((number, "a", number)))
            assert len(it.stored) <= 4
        assert [row[3:] for row in rows_of(it.end().output)] == [("a", 20, sum(range(20)))]


def test_closing_many_windows_is_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(place * S, "a", place) for place in range(60)]
    found = []
    for bound in (10**6, 50):
        monkeypatch.setattr(limits, "EXPANDED_ROWS_MAX", bound)
        with running(counts(physical.Hop(10 * S, 3 * S))) as it:
            it.step(events(*rows))
            found.append(ordered(rows_of(it.end().output)))
    assert found[0] == found[1]
    assert sum(row[4] for row in found[0]) == 200  # each row lies in 10 / 3 windows, on average


def test_a_sum_that_does_not_fit_stops_the_pipeline() -> None:
    with running(counts(physical.Tumble(S))) as it, pytest.raises(duckdb.ConversionException, match="INT64"):
        it.step(events((0, "a", 2**62), (1, "a", 2**62)))


def test_a_sum_that_only_seems_too_large_is_right() -> None:
    with running(counts(physical.Tumble(S))) as it:
        it.step(events((0, "a", 2**62), (1, "a", 2**62 - 1), (2, "a", -(2**62))))
        assert [row[-1] for row in rows_of(it.end().output)] == [2**62 - 1]


def test_decimals_are_exact_and_rounded_half_up() -> None:
    money = pa.decimal128(10, 2)
    schema = Schema.of("ts timestamp, m decimal(10,2)")
    found = (
        physical.Aggregation("sum", ("m",), "s", pa.decimal128(20, 2)),
        physical.Aggregation("avg", ("m",), "a", pa.decimal128(14, 6)),
    )
    given = pa.table(
        {
            "ts": pa.array([0, 1, 2], pa.timestamp("us")),
            "m": pa.array(map(decimal.Decimal, ("0.01", "0.02", "0.02")), money),
        }
    )
    out = Schema.of(BOUNDS + "s decimal(20,2), a decimal(14,6)")
    with running(physical.Aggregate(0, physical.Tumble(S), "ts", (), found, "append", out), schema) as it:
        it.step(given)
        assert it.end().output.select(["s", "a"]).to_pylist() == [
            {"s": decimal.Decimal("0.05"), "a": decimal.Decimal("0.016667")}
        ]


def test_approximate_counts_are_near() -> None:
    count = 20_000
    found = (physical.Aggregation("approx_count_distinct", ("n",), "d", pa.int64()),)
    node = physical.Aggregate(0, physical.Tumble(S), "ts", (), found, "append", Schema.of(BOUNDS + "d bigint"))
    with running(node) as it:
        for start in range(0, count, 5_000):
            rows = pa.table({"n": pa.array([*range(start, start + 5_000), *range(100)])})
            rows = rows.append_column("ts", pa.array([0] * len(rows), pa.timestamp("us")))
            it.step(rows.append_column("k", pa.nulls(len(rows), pa.string())))
        assert it.store.size_bytes() < 4 * 10_000  # four sketches, not 20,000 values
        assert abs(it.end().output["d"][0].as_py() - count) < 0.1 * count


def test_infinities_and_nan_make_a_variance_nan_and_are_the_greatest() -> None:
    schema = Schema.of("ts timestamp, d double")
    functions = (("var_samp", "v"), ("max", "m"), ("min", "l"), ("sum", "s"))
    found = tuple(physical.Aggregation(function, ("d",), name, pa.float64()) for function, name in functions)  # type: ignore[arg-type] # literals
    out = Schema.of(BOUNDS + "v double, m double, l double, s double")
    with running(physical.Aggregate(0, physical.Tumble(S), "ts", (), found, "append", out), schema) as it:
        it.step(table(schema, [(0, 1.0), (1, float("inf"))]))
        it.step(table(schema, [(2, float("nan")), (3, 2.0)]))
        row = it.end().output.to_pylist()[0]
    assert str([row[name] for name in "vmls"]) == "[nan, nan, 1.0, nan]"


KINDS = st.sampled_from(["count_all", "count", "sum", "min", "max", "avg"])
BATCH = st.lists(
    st.tuples(st.integers(0, 3 * S), st.sampled_from([None, "a", "b"]), st.none() | st.integers(-9, 9)), max_size=20
)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(BATCH.filter(bool), min_size=1, max_size=3),
    kinds=st.lists(KINDS, min_size=1, max_size=3, unique=True),
)
def test_kernels_and_queries_give_the_same_partials_and_results(rows: list[list[Row]], kinds: list[Any]) -> None:
    types = {"avg": pa.float64()}
    found = tuple(
        physical.Aggregation(kind, () if kind == "count_all" else ("n",), kind, types.get(kind, pa.int64()))
        for kind in kinds
    )
    node = physical.Aggregate(0, physical.Tumble(S), "ts", ("k",), found, "append", INPUT)
    outcomes = []
    with duckdb.connect(config={"threads": 1}) as connection:
        for kernels in (True, False):
            groups = Groups(
                node, INPUT, ("pane",), Context(Queries(lambda: connection), MemoryStateBackend()), kernels=kernels
            )
            made = []
            for batch in rows:
                given = events(*batch)
                panes = pa.array([row[0] // S * S for row in batch], pa.int64())
                made.append(groups.create(groups.columns(given, pane=panes)))
            merged = groups.merge(pa.concat_tables(made), ["pane"])
            outcomes.append(
                [
                    *(ordered(rows_of(part)) for part in made),
                    ordered(
                        zip(
                            *(column.to_pylist() for column in (merged["pane"], merged["k0"], *groups.results(merged))),
                            strict=True,
                        )
                    ),
                ]
            )
            assert merged.schema == groups.schema
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "kind", ["boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "string", "binary", "date", "timestamp", "decimal(10,2)"],
)  # fmt: skip
def test_state_has_the_same_columns_whether_duckdb_was_asked_or_not(kind: str) -> None:
    given = Schema.of(f"ts timestamp, x {kind}, w boolean")
    kinds: list[Any] = ["count", "min", "max"]
    kinds += ["bool_and", "bool_or"] if kind == "boolean" else []
    total = pa.float64() if kind in {"float", "double"} else pa.int64()
    kinds += ["sum", "avg"] if kind in {"tinyint", "smallint", "int", "bigint", "float", "double"} else []
    found = tuple(
        physical.Aggregation(name, ("x",), f"{name}{where}", pa.float64() if name == "avg" else total, where)
        for name in kinds
        for where in (None, "w")
    )
    keys = () if kind in {"float", "double"} else ("x",)
    aggregations = (physical.Aggregation("count_all", (), "n", pa.int64()), *found)
    node = physical.Aggregate(0, physical.Tumble(S), "ts", keys, aggregations, "append", given)
    with duckdb.connect(config={"threads": 1}) as connection:
        context = Context(Queries(lambda: connection), MemoryStateBackend())
        asked = Groups(node, given, ("pane",), context, kernels=False).schema

    def refuse() -> duckdb.DuckDBPyConnection:
        raise AssertionError("DuckDB was asked")

    assert Groups(node, given, ("pane",), Context(Queries(refuse), MemoryStateBackend())).schema == asked


@given(size=st.integers(1, 40), slide=st.integers(1, 40), time=st.integers(-100, 100), watermark=st.integers(-100, 100))
def test_windows_are_those_that_counting_finds(size: int, slide: int, time: int, watermark: int) -> None:
    slide = min(size, slide)
    windows = Windows(size, slide)
    holding = [(n * slide, n * slide + size) for n in range(-300, 300) if n * slide <= time < n * slide + size]
    pane = time // windows.pane_us * windows.pane_us
    assert windows.ends([pane], -10_000, 10_000) == [end for _, end in holding]
    assert windows.last_end(time) == holding[-1][1]
    assert (time < windows.open_from(watermark)) == all(end <= watermark for _, end in holding)
    open_ends = [end for _, end in holding if end > watermark]
    if open_ends:
        found = windows.expand(pa.table({"pane": pa.array([pane], pa.int64())}), open_ends)["window"].to_pylist()
        assert sorted(found) == [end - size for end in open_ends]


def test_a_window_that_slides_in_small_steps_costs_no_more_than_what_closes() -> None:
    minutes = 600 * S
    with running(counts(physical.Hop(minutes, S))) as it:
        it.step(events(*((second * S, "a", 1) for second in range(600))), -minutes)
        found = rows_of(it.step({}, 2 * S).output)
    assert sorted((row[1] // S, row[4]) for row in found) == [(1, 1), (2, 2)]
