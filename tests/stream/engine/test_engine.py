from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from headrace.stream import physical
from headrace.stream.engine.engine import Engine
from headrace.stream.engine.operator import END, NEVER
from headrace.stream.engine.state_backend import MemoryStateBackend
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.engines import Running, S, rows_of, source, table

INPUT = Schema.of("ts timestamp, n bigint")
WINDOWED = Schema.of("window_start timestamp, window_end timestamp, window_time timestamp, c bigint")
COUNT = (physical.Aggregation("count_all", (), "c", pa.int64()),)


def tumble(place: int, seconds: int, time: str = "ts") -> physical.Aggregate:
    return physical.Aggregate(place, physical.Tumble(seconds * S), time, (), COUNT, "append", WINDOWED)


def test_windows_that_close_count_in_the_windows_over_them_before_those_close() -> None:
    with Running([source(INPUT), tumble(0, 5), tumble(1, 10, "window_time")]) as running:
        running.step(table(INPUT, [(0, 1), (6 * S, 1), (11 * S, 1)]))
        step = running.step({}, 10 * S)
        assert rows_of(step.output) == [(0, 10 * S, 10 * S - 1, 2)]
        assert not step.late
        # What is held back by the first may be held back by the second afterwards.
        assert running.engine.pending() == 15 * S
        running.step({}, 15 * S)
        assert running.engine.pending() == 20 * S


def test_a_union_goes_by_the_slower_source_and_keeps_origin_only_if_all_have_it() -> None:
    sources = [source(INPUT, name=name) for name in ("one", "two")]
    failing = physical.Project(2, "SELECT ts, n // n AS n /*origin*/ FROM input WHERE n < 7", INPUT, "ts")
    with Running([*sources, physical.Union((0, 1), INPUT, "ts"), failing, tumble(3, 10)]) as running:
        one, two = (table(INPUT, [(place * S, place)], origin=True) for place in (1, 2))
        assert not running.step({"one": one, "two": two}, {"one": 50 * S}).output.num_rows
        assert running.engine.watermarks()[:3] == [50 * S, NEVER, NEVER]
        assert not running.step({"one": one, "two": two.drop_columns([ORIGIN])}).dead
        assert running.step({}, {"two": 10 * S}).output["c"].to_pylist() == [4]


def test_watermarks_never_retreat_and_a_restart_knows_them() -> None:
    with Running([source(INPUT), tumble(0, 10)]) as running:
        running.step(table(INPUT, [(25 * S, 1)]), 20 * S)
        running.step({}, 5 * S)
        assert running.engine.watermarks() == [20 * S, 20 * S]
        running.reached = {"events": 20 * S}
        running.restart()
        assert running.engine.watermarks() == [20 * S, 20 * S]
        assert running.step(table(INPUT, [(19 * S, 1)])).late[0].rows.num_rows == 1
        assert rows_of(running.step({}, END).output) == [(20 * S, 30 * S, 30 * S - 1, 1)]


def test_what_was_refused_is_told_once() -> None:
    fails = physical.Project(0, "SELECT ts, CAST(error('no') AS BIGINT) AS n /*origin*/ FROM input", INPUT, "ts")
    with Running([source(INPUT), fails]) as running:
        assert [refused.reason for refused in running.step(table(INPUT, [(1, 1)])).dead] == ["no"]
        assert not running.step({}).dead


def test_an_empty_step_gives_an_empty_table_of_the_output() -> None:
    with Running([source(INPUT), tumble(0, 10)]) as running:
        output = running.step({}).output
        assert (output.num_rows, output.column_names) == (0, WINDOWED.names)


def test_a_source_alone_is_a_plan() -> None:
    with Running([source(INPUT)]) as running:
        output = running.step(table(INPUT, [(1, 2)], origin=True)).output
        assert output.column_names == ["ts", "n"]
        assert rows_of(output) == [(1, 2)]


def test_a_query_that_needs_more_than_the_memory_spills() -> None:
    schema = Schema.of("ts timestamp, text string")
    sql = "SELECT ts, text /*origin*/ FROM input ORDER BY md5(text), ts"
    read = source(schema)
    texts = [f"{number:0>400}" for number in range(400_000)]
    rows = pa.table({"ts": pa.array(range(400_000), pa.timestamp("us")), "text": texts})
    node = physical.Project(0, sql, schema, "ts")
    engine = Engine(physical.PhysicalPlan((read, node)), MemoryStateBackend(), memory_bytes=128 * 2**20, threads=1)
    try:
        assert engine.step({"events": rows}, {}).output.num_rows == 400_000
    finally:
        engine.close()


def test_closing_twice_is_closing_once() -> None:
    engine = Engine(physical.PhysicalPlan((source(INPUT),)), MemoryStateBackend())
    engine.close()
    engine.close()


def test_a_plan_that_cannot_run_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    node = physical.Project(0, "SELECT nothing /*origin*/ FROM input", INPUT, "ts")
    with pytest.raises(duckdb.BinderException):
        Engine(physical.PhysicalPlan((source(INPUT), node)), MemoryStateBackend())
    assert not list(tmp_path.iterdir())
