from __future__ import annotations

import pyarrow as pa
import pytest

from headrace.stream import physical
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.schema import Schema
from tests.stream.engine.engines import Row, Running, S, ordered, rows_of, source, table

INPUT = Schema.of("ts timestamp, k string, n bigint")
OUTPUT = Schema.of("window_start timestamp, window_end timestamp, window_time timestamp, k string, c bigint, f bigint")
AGGREGATES = (
    physical.Aggregation("count_all", (), "c", pa.int64()),
    physical.Aggregation("first", ("n",), "f", pa.int64()),
)
NODE = physical.Aggregate(0, physical.Session(10 * S), "ts", ("k",), AGGREGATES, "append", OUTPUT, step="visits")


def events(*rows: Row) -> pa.Table:
    return table(INPUT, rows)


def sessions(rows: pa.Table) -> list[Row]:
    """(start and end in seconds, key, count, first)."""
    return ordered((row[0] // S, row[1] // S, *row[3:]) for row in rows_of(rows))


@pytest.fixture
def running() -> Running:
    return Running([source(INPUT), NODE])


def test_rows_at_the_gap_are_one_session_and_those_beyond_are_two(running: Running) -> None:
    with running:
        running.step(events((0, "a", 1), (10 * S, "a", 2), (20 * S + 1, "a", 3), (0, "b", 4)))
        assert sessions(running.end().output) == [(0, 10, "b", 1, 4), (0, 20, "a", 2, 1), (20, 30, "a", 1, 3)]


def test_a_session_closes_when_no_row_can_join_it_any_more(running: Running) -> None:
    with running:
        assert sessions(running.step(events((0, "a", 1)), 10 * S).output) == []
        assert running.engine.pending() == 10 * S + 1
        # It stands at its very end, and is neither late nor a session of its own.
        assert not running.step(events((10 * S, "a", 2))).late
        assert sessions(running.step({}, 20 * S).output) == []
        assert sessions(running.step({}, 20 * S + 1).output) == [(0, 20, "a", 2, 1)]
        assert running.engine.pending() is None
        assert running.stored == {}


def test_a_row_between_two_sessions_makes_them_one(running: Running) -> None:
    with running:
        running.step(events((0, "a", 1)))
        running.step(events((20 * S, "a", 2)))
        running.restart()
        running.step(events((10 * S, "a", 3)))
        assert sessions(running.end().output) == [(0, 30, "a", 3, 1)]


def test_a_row_is_late_if_its_own_interval_has_ended_whatever_it_could_join(running: Running) -> None:
    with running:
        running.step(events((0, "a", 1), (9 * S, "a", 2)), 12 * S)
        late = running.step(events((2 * S, "a", 3), (2 * S + 1, "a", 4), (None, "a", 5))).late
        assert [refused.rows["n"].to_pylist() for refused in late] == [[5], [3]]
        assert late[1].reason == "the session of ts alone has ended: the watermark is 1970-01-01 00:00:12"
        assert sessions(running.end().output) == [(0, 19, "a", 3, 1)]


def test_a_session_that_never_pauses_stays_one_however_the_watermark_moves(running: Running) -> None:
    with running:
        for second in range(0, 100, 5):
            assert not running.step(events((second * S, "a", second)), second * S).output.num_rows
            running.restart()
        assert sessions(running.end().output) == [(0, 105, "a", 20, 0)]


def test_of_rows_at_the_same_time_the_first_to_arrive_is_first(running: Running) -> None:
    with running:
        running.step(events((5 * S, "a", 1), (0, "a", 0)))
        running.step(events((5 * S, "a", 2), (14 * S, "a", 9)), 6 * S)
        running.step(events((30 * S, "b", 7), (30 * S, "b", 8)), 20 * S)
        step = running.step(events((30 * S, "b", 6), (25 * S, "a", 4), (25 * S, "a", 3)), 25 * S)
        assert sessions(step.output) == [(0, 24, "a", 4, 0)]
        assert sessions(running.end().output) == [(25, 35, "a", 2, 4), (30, 40, "b", 3, 7)]


def test_what_comes_after_a_session_is_not_older_than_its_watermark() -> None:
    read = source(INPUT)
    bounds = Schema.of("window_start timestamp, window_end timestamp, window_time timestamp, c bigint")
    count = physical.Aggregation("count_all", (), "c", pa.int64())
    outer = physical.Aggregate(1, physical.Tumble(5 * S), "window_time", (), (count,), "append", bounds)
    with Running([read, NODE, outer]) as running:
        # The session of 0 ends exactly at the watermark: its window_time, 9.999999, still belongs to [5, 10).
        running.step(events((0, "a", 1)), 10 * S)
        step = running.step({}, 10 * S + 1)
        assert not step.late
        assert [(row[0] // S, row[3]) for row in rows_of(step.output)] == [(5, 1)]


def test_sessions_have_no_update_mode() -> None:
    node = physical.Aggregate(0, physical.Session(S), "ts", ("k",), AGGREGATES, "update", OUTPUT, step="visits")
    with pytest.raises(UnsupportedQuery, match="no update mode"):
        Running([source(INPUT), node])
