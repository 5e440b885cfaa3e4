"""The test kit's harness for pipelines: rows in, rows out, time by hand."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

import headrace.stream as hs
from headrace.errors import InvalidParameter
from headrace.testing.pipelines import Harness, run_in_memory

SCHEMA = "origin string, delay double, ts timestamp"


def at(second: int) -> dt.datetime:
    return dt.datetime(2026, 1, 1) + dt.timedelta(seconds=second)  # noqa: DTZ001 (streams have no zone)


def row(second: int, origin: str = "JFK", delay: float = 1.0) -> dict[str, object]:
    return {"origin": origin, "delay": delay, "ts": at(second)}


def counts() -> hs.Pipeline:
    flights = hs.queue("flights", schema=SCHEMA).with_watermark("ts", delay="2 seconds", idle="30 seconds")
    return hs.pipeline(
        "counts",
        hs.sql(
            "SELECT window_start, origin, count(*) AS n FROM flights GROUP BY tumble(ts, '10 seconds'), origin",
            flights=flights,
        ),
    )


def named() -> hs.Pipeline:
    flights = hs.queue("flights", schema=SCHEMA)
    airports = hs.table("airports", data=[{"code": "JFK", "city": "New York"}], schema="code string, city string")
    text = "SELECT a.city FROM flights f JOIN airports a ON f.origin = a.code"
    return hs.pipeline("named", hs.sql(text, flights=flights, airports=airports))


def test_rows_come_out_when_the_watermark_passes_their_window() -> None:
    with Harness(counts()) as harness:
        assert harness.send("flights", [row(1), row(2)]) == []
        assert harness.send("flights", [row(12)]) == [{"window_start": at(0), "origin": "JFK", "n": 2}]


def test_times_may_be_text_as_in_the_json_of_messages() -> None:
    with Harness(counts()) as harness:
        harness.send("flights", [{"origin": "JFK", "delay": 1, "ts": "2026-01-01T00:00:01"}])
        assert harness.end() == [{"window_start": at(0), "origin": "JFK", "n": 1}]


def test_all_that_came_out_is_kept() -> None:
    with Harness(counts()) as harness:
        harness.send("flights", [row(1)])
        harness.send("flights", [row(12)])
        harness.end()
        assert [row["window_start"] for row in harness.rows] == [at(0), at(10)]


def test_a_silent_source_closes_its_windows_by_time() -> None:
    with Harness(counts()) as harness:
        harness.send("flights", [row(1)])
        assert harness.wait(29) == []
        assert len(harness.wait(1)) == 1
        assert harness.now_ms == 30_000


def test_a_restart_loses_and_repeats_nothing() -> None:
    with Harness(counts()) as harness:
        harness.send("flights", [row(1)])
        harness.restart()
        harness.send("flights", [row(2), row(12)])
        harness.restart()
        assert [row["n"] for row in harness.end()] == [1]


def test_late_rows_are_kept_with_the_reason() -> None:
    with Harness(counts()) as harness:
        harness.send("flights", [row(30)])
        harness.send("flights", [row(1)])
        [late] = harness.late
        assert (late["origin"], late["ts"]) == ("JFK", at(1))
        assert "watermark" in late["_reason"]


def test_a_row_that_cannot_be_processed_is_dead() -> None:
    flights = hs.queue("flights", schema=SCHEMA)
    pipeline = hs.pipeline(
        "numbers", flights.map(lambda flight: {"number": int(flight["origin"])}, schema="number int")
    )
    with Harness(pipeline) as harness:
        assert harness.send("flights", [row(1, "7"), row(1, "x")]) == [{"number": 7}]
        assert [dead["origin"] for dead in harness.dead] == ["x"]


def test_a_row_that_cannot_be_read_is_dead_with_its_body() -> None:
    with Harness(counts()) as harness:
        harness.send("flights", [{"origin": 7, "ts": at(1)}])
        [dead] = harness.dead
        assert dead["body"] == '{"origin":7,"ts":"2026-01-01T00:00:01"}' and "origin" in dead["_reason"]


def test_all_at_once() -> None:
    rows = run_in_memory(counts(), [{"flights": [row(1)]}, {"flights": [row(40)]}])
    assert rows["n"].to_pylist() == [1, 1]


def test_rows_may_be_arrow_tables_and_sources_say_their_names() -> None:
    with Harness(counts()) as harness:
        assert harness.sources == ["flights"]
        table = pa.Table.from_pylist([row(1)], hs.Schema.of(SCHEMA).arrow())
        assert harness.send("flights", table) == []
        assert harness.step({}, last=True).num_rows == 1


def test_a_source_that_is_not_there_is_named() -> None:
    with Harness(counts()) as harness, pytest.raises(InvalidParameter, match="sources are flights"):
        harness.send("fligths", [row(1)])


def test_tables_are_those_of_the_pipeline_or_of_the_test() -> None:
    with Harness(named()) as harness:
        assert harness.send("flights", [row(1)]) == [{"city": "New York"}]
    with Harness(named(), tables={"airports": [{"code": "JFK", "city": "Queens"}]}) as harness:
        assert harness.send("flights", [row(1)]) == [{"city": "Queens"}]
        harness.restart()
        assert harness.send("flights", [row(1)]) == [{"city": "Queens"}]
    with pytest.raises(InvalidParameter, match="tables are airports"):
        Harness(named(), tables={"airport": []})
