from __future__ import annotations

import pyarrow as pa

from headrace.stream.engine.operator import END, NEVER
from headrace.stream.plan import EventTime
from headrace.stream.runner import watermarks
from headrace.stream.runner.progress import SourceProgress

TIME = EventTime("ts", delay_us=10)
IDLE = EventTime("ts", idle_us=5_000_000)


def rows(*times: int | None) -> pa.Table:
    return pa.table({"ts": pa.array(times, pa.timestamp("us"))})


def test_watermark_is_the_greatest_time_less_the_delay() -> None:
    assert watermarks.of_rows(rows(100, 300, 200), TIME, NEVER) == 290


def test_watermark_never_retreats() -> None:
    assert watermarks.of_rows(rows(100), TIME, 290) == 290


def test_rows_without_time_leave_the_watermark() -> None:
    assert watermarks.of_rows(rows(None), TIME, 5) == 5
    assert watermarks.of_rows(rows(), TIME, 5) == 5
    assert watermarks.of_rows(rows(100), None, 5) == 5


def test_source_is_silent_from_its_timeout_on() -> None:
    sources = {"a": SourceProgress(heard_ms=1_000), "b": SourceProgress(heard_ms=1_001), "c": SourceProgress()}
    times = {"a": IDLE, "b": IDLE, "c": TIME}
    assert watermarks.idle_sources(sources, times, 6_000) == {"a"}
    assert watermarks.idle_sources(sources, times, 6_001) == {"a", "b"}


def test_silent_source_follows_those_that_are_heard() -> None:
    sources = {"a": SourceProgress(watermark=10), "b": SourceProgress(watermark=50), "c": SourceProgress(watermark=40)}
    times = {"a": IDLE, "b": TIME, "c": TIME}
    assert watermarks.idle_watermarks(sources, times, {"a"}, 1_000) == {"a": 40}


def test_silent_source_never_goes_back() -> None:
    sources = {"a": SourceProgress(watermark=60), "b": SourceProgress(watermark=50)}
    assert watermarks.idle_watermarks(sources, {"a": IDLE, "b": TIME}, {"a"}, 1_000) == {}


def test_when_all_are_silent_everything_held_back_comes_out() -> None:
    sources = {"a": SourceProgress(watermark=10), "b": SourceProgress(watermark=50)}
    times = {"a": IDLE, "b": IDLE}
    assert watermarks.idle_watermarks(sources, times, {"a", "b"}, 70) == {"a": 70, "b": 70}
    assert watermarks.idle_watermarks(sources, times, {"a", "b"}, None) == {}


def test_ended_and_timeless_sources_hold_nobody_up() -> None:
    sources = {"a": SourceProgress(watermark=10), "b": SourceProgress(watermark=END), "c": SourceProgress()}
    times = {"a": IDLE, "b": TIME, "c": None}
    assert watermarks.idle_watermarks(sources, times, {"a"}, 70) == {"a": 70}


def test_next_deadline_is_the_first_timeout() -> None:
    sources = {"a": SourceProgress(heard_ms=1_000), "b": SourceProgress(heard_ms=500, watermark=END)}
    assert watermarks.next_deadline_ms(sources, {"a": IDLE, "b": IDLE}, 5_999) == 6_000
    assert watermarks.next_deadline_ms(sources, {"a": TIME, "b": None}, 0) is None


def test_timeout_that_is_over_is_no_deadline() -> None:
    """A run that waits for one would never wait."""
    assert watermarks.next_deadline_ms({"a": SourceProgress(heard_ms=1_000)}, {"a": IDLE}, 6_000) is None
