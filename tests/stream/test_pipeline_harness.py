"""The test kit's harness for pipelines: rows in, rows out, time by hand."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

import headrace.stream as hs
from headrace.testing.pipelines import PipelineHarness, run_in_memory

SCHEMA = "origin string, delay double, ts timestamp"


def at(second: int) -> dt.datetime:
    return dt.datetime(2026, 1, 1) + dt.timedelta(seconds=second)  # noqa: DTZ001 (streams have no zone)


def row(second: int, origin: str = "JFK", delay: float = 1.0) -> dict[str, object]:
    return {"origin": origin, "delay": delay, "ts": at(second)}


def counts() -> hs.Pipeline:
    flights = hs.queue("flights", schema=SCHEMA).event_time("ts", delay="2 seconds", idle="30 seconds")
    return hs.pipeline(
        "counts",
        hs.sql(
            "SELECT window_start, origin, count(*) AS n FROM flights GROUP BY tumble(ts, '10 seconds'), origin",
            flights=flights,
        ),
    )


def test_rows_come_out_when_the_watermark_passes_their_window() -> None:
    with PipelineHarness(counts()) as harness:
        assert harness.send("flights", [row(1), row(2)]).num_rows == 0
        assert harness.send("flights", [row(12)]).to_pylist() == [{"window_start": at(0), "origin": "JFK", "n": 2}]


def test_a_silent_source_closes_its_windows_by_time() -> None:
    with PipelineHarness(counts()) as harness:
        harness.send("flights", [row(1)])
        assert harness.wait(29).num_rows == 0
        assert harness.wait(1).num_rows == 1
        assert harness.now_ms == 30_000


def test_a_restart_loses_and_repeats_nothing() -> None:
    with PipelineHarness(counts()) as harness:
        harness.send("flights", [row(1)])
        harness.restart()
        harness.send("flights", [row(2), row(12)])
        harness.restart()
        assert harness.end()["n"].to_pylist() == [1]


def test_late_rows_are_kept_with_the_reason() -> None:
    with PipelineHarness(counts()) as harness:
        harness.send("flights", [row(30)])
        harness.send("flights", [row(1)])
        assert [late.rows.num_rows for late in harness.late] == [1]
        assert "watermark" in harness.late[0].reason


def test_a_row_that_cannot_be_processed_is_dead() -> None:
    flights = hs.queue("flights", schema=SCHEMA)
    pipeline = hs.pipeline(
        "numbers", flights.map(lambda flight: {"number": int(flight["origin"])}, schema="number int")
    )
    with PipelineHarness(pipeline) as harness:
        assert harness.send("flights", [row(1, "7"), row(1, "x")])["number"].to_pylist() == [7]
        assert [dead.rows["origin"].to_pylist() for dead in harness.dead] == [["x"]]


def test_all_at_once() -> None:
    rows = run_in_memory(counts(), [{"flights": [row(1)]}, {"flights": [row(40)]}])
    assert rows["n"].to_pylist() == [1, 1]


def test_rows_may_be_arrow_tables_and_sources_say_their_names() -> None:
    with PipelineHarness(counts()) as harness:
        assert harness.sources == ["flights"]
        table = pa.Table.from_pylist([row(1)], hs.Schema.of(SCHEMA).arrow())
        assert harness.send("flights", table).num_rows == 0
        assert harness.end().num_rows == 1
