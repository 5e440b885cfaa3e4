"""When schedules fire: zones, clock steps, missed times, changed definitions."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidParameter
from headrace.work import schedules
from headrace.work.envelope import NO_ARGUMENTS, Envelope
from headrace.work.schedules import Cron, Definition, Every, Row, due, newest, next_after

BERLIN = "Europe/Berlin"
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def ms(text: str, zone: str = "UTC", *, fold: int = 0) -> int:
    at = dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(at.timestamp() * 1_000)


def definition(timing: Cron | Every, **values: Any) -> Definition:
    return Definition("nightly", "app", timing, "tasks", Envelope("app.clean", "", NO_ARGUMENTS), **values)


def fires(timing: Cron | Every, after: str, until: str, zone: str) -> list[str]:
    """Fire times as the zone's wall clock shows them, found one after another as a scheduler does."""
    found, at_ms, until_ms = [], ms(after, zone), ms(until, zone)
    while (at_ms := next_after(timing, at_ms) or until_ms) < until_ms:
        found.append(dt.datetime.fromtimestamp(at_ms / 1_000, ZoneInfo(zone)).strftime("%d %H:%M %z"))
    return found


def test_a_daily_time_in_the_hour_that_summer_time_leaves_out_fires_once_that_day() -> None:
    found = fires(Cron("30 2 * * *", BERLIN), "2026-03-28T12:00", "2026-03-31T00:00", BERLIN)
    assert found == ["29 03:00 +0200", "30 02:30 +0200"]


def test_a_daily_time_in_the_hour_that_comes_twice_fires_once() -> None:
    found = fires(Cron("30 2 * * *", BERLIN), "2026-10-24T12:00", "2026-10-27T00:00", BERLIN)
    assert found == ["25 02:30 +0200", "26 02:30 +0100"]


def test_who_asks_in_the_second_of_the_two_hours_is_not_given_a_time_of_the_first() -> None:
    after_ms = ms("2026-10-25T02:10", BERLIN, fold=1)
    found_ms = next_after(Cron("30 2 * * *", BERLIN), after_ms)
    assert found_ms == ms("2026-10-26T02:30", BERLIN)


def test_every_hour_goes_on_through_both_changes() -> None:
    spring = fires(Cron("0 * * * *", BERLIN), "2026-03-29T00:30", "2026-03-29T04:30", BERLIN)
    assert [time[3:] for time in spring] == ["01:00 +0100", "03:00 +0200", "04:00 +0200"]
    autumn = fires(Cron("0 * * * *", BERLIN), "2026-10-25T00:30", "2026-10-25T03:30", BERLIN)
    assert [time[3:] for time in autumn] == ["01:00 +0200", "02:00 +0200", "02:00 +0100", "03:00 +0100"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("text", ["*/7 * * * *", "15 1-3 * * *", "0 0 1 * *", "*/20 2 * * SUN", "30 */10 * * * *"])
@given(after_ms=st.integers(1_760_000_000_000, 1_800_000_000_000), span_h=st.integers(1, 400))
def test_fire_times_ascend_and_the_newest_are_the_last_of_them(
    zone: str, text: str, after_ms: int, span_h: int
) -> None:
    timing = Cron(text, zone)
    until_ms = after_ms + min(span_h, 12 if len(text.split()) == 6 else 400) * HOUR_MS
    times: list[int] = []
    at_ms = after_ms
    while (following := next_after(timing, at_ms)) is not None and following <= until_ms and len(times) < 200:
        assert following > at_ms
        times.append(at_ms := following)
    if len(times) < 200:
        assert newest(timing, first_ms=after_ms + 1, until_ms=until_ms, count=5) == times[-5:]


@given(period_ms=st.integers(1_000, 10**9), after_ms=st.integers(0, 2 * 10**12))
def test_intervals_are_multiples_since_1970(period_ms: int, after_ms: int) -> None:
    following = next_after(Every(period_ms), after_ms)
    assert following is not None and following % period_ms == 0
    assert after_ms < following <= after_ms + period_ms
    assert newest(Every(period_ms), first_ms=1, until_ms=following, count=1) == [following]


@pytest.mark.parametrize("text", ["", "* * * *", "61 * * * *", "* * 31 2 *", "@often", "a b c d e"])
def test_what_is_no_cron_line_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidParameter, match="write minute hour day"):
        schedules.check_timing(Cron(text))


def test_a_zone_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(InvalidParameter, match="Europe/Bärlin"):
        schedules.check_timing(Cron("0 0 * * *", "Europe/Bärlin"))


@pytest.mark.parametrize(
    ("values", "parameter"),
    [({"missed": "never"}, "missed"), ({"overlap": "maybe"}, "overlap"), ({"jitter_ms": -1}, "jitter")],
)
def test_definitions_are_checked(values: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameter, match=parameter):
        schedules.check_definition(definition(Every(1_000), **values))


def row(missed: str = "once", *, last: str, **values: Any) -> Row:
    at_ms = ms(last)
    return Row(definition(Cron("*/5 * * * *"), missed=missed, **values), at_ms + 5 * MINUTE_MS, at_ms)


def test_a_time_fires_when_it_has_come_and_not_again() -> None:
    before = row(last="2026-01-01T00:00")
    assert due(before, ms("2026-01-01T00:04:59")) is None
    fired = due(before, ms("2026-01-01T00:05"))
    assert fired is not None and fired.fires == [ms("2026-01-01T00:05")]
    assert fired.row.last_ms == ms("2026-01-01T00:05")
    assert due(fired.row, ms("2026-01-01T00:05")) is None


def test_a_clock_that_is_set_back_fires_nothing_twice() -> None:
    fired = due(row(last="2026-01-01T00:00"), ms("2026-01-01T00:05"))
    assert fired is not None
    assert due(fired.row, ms("2025-12-31T23:00")) is None
    assert due(fired.row, ms("2026-01-01T00:09")) is None
    again = due(fired.row, ms("2026-01-01T00:10"))
    assert again is not None and again.fires == [ms("2026-01-01T00:10")]


@pytest.mark.parametrize(
    ("missed", "now", "count"),
    [
        ("once", "2026-01-01T01:03", 1),
        ("skip", "2026-01-01T01:03", 0),
        ("skip", "2026-01-01T01:00:30", 1),
        ("all", "2026-01-01T01:03", 12),
        ("all", "2026-03-01T00:00", 100),
    ],
)
def test_missed_times_are_made_up_for_as_the_policy_says(missed: str, now: str, count: int) -> None:
    fired = due(row(missed, last="2026-01-01T00:00"), ms(now))
    assert fired is not None
    assert len(fired.fires) == count
    newest_ms = ms(now) // (5 * MINUTE_MS) * 5 * MINUTE_MS
    assert fired.fires[-1:] == ([newest_ms] if count else [])
    assert fired.row.next_ms == newest_ms + 5 * MINUTE_MS


def test_a_year_of_missed_seconds_is_found_at_once() -> None:
    before = Row(definition(Cron("* * * * * *"), missed="all"), ms("2025-01-01T00:00:00"))
    fired = due(before, ms("2026-01-01T00:00:00"))
    assert fired is not None and len(fired.fires) == schedules.MISSED_MAX
    assert fired.fires[-1] == ms("2026-01-01T00:00:00")


@given(jitter_ms=st.integers(0, 20 * MINUTE_MS), step_ms=st.integers(1_000, 10 * MINUTE_MS))
def test_with_jitter_each_time_fires_once_no_earlier_and_within_it(jitter_ms: int, step_ms: int) -> None:
    now_ms = ms("2026-01-01T00:00")
    current = Row(definition(Cron("*/5 * * * *"), jitter_ms=jitter_ms, missed="all"), now_ms)
    fired: list[int] = []
    end_ms = now_ms + 2 * HOUR_MS
    while now_ms < end_ms:
        while (found := due(current, now_ms)) is not None:
            assert all(time <= now_ms for time in found.fires)
            fired += found.fires
            current = found.row
        now_ms += step_ms
    assert fired == sorted(set(fired))
    assert set(range(ms("2026-01-01T00:00"), now_ms - jitter_ms - step_ms, 5 * MINUTE_MS)) <= set(fired)


def test_a_new_timing_counts_from_now_and_what_was_fired_is_not_fired_again() -> None:
    now_ms = ms("2026-01-01T00:05:30")
    before = row(last="2026-01-01T00:05")
    after = schedules.defined(before, definition(Every(MINUTE_MS)), now_ms)
    assert after.next_ms == ms("2026-01-01T00:06")
    assert schedules.defined(after, definition(Every(MINUTE_MS)), now_ms + 1) == after
    same = schedules.defined(before, msgspec.structs.replace(before.definition, missed="skip"), now_ms)
    assert same.next_ms == before.next_ms and same.definition.missed == "skip"


def test_an_orphaned_or_paused_row_does_not_fire_and_goes_on_without_what_it_missed() -> None:
    now_ms = ms("2026-01-01T09:01")
    for still in (
        schedules.paused(row(last="2026-01-01T00:00"), pause=True, now_ms=0),
        msgspec.structs.replace(row(last="2026-01-01T00:00"), orphaned=True),
    ):
        assert due(still, now_ms) is None and schedules.due_ms(still) is None
    resumed = schedules.paused(
        schedules.paused(row(last="2026-01-01T00:00"), pause=True, now_ms=0), pause=False, now_ms=now_ms
    )
    assert resumed.next_ms == ms("2026-01-01T09:05")
    orphan = msgspec.structs.replace(row(last="2026-01-01T00:00"), orphaned=True)
    back = schedules.defined(orphan, orphan.definition, now_ms)
    assert not back.orphaned and back.next_ms == ms("2026-01-01T09:05")


def test_rows_survive_their_json() -> None:
    before = row(last="2026-01-01T00:00", jitter_ms=5)
    assert msgspec.json.decode(msgspec.json.encode(before), type=Row) == before


def test_what_comes_next_is_told() -> None:
    assert schedules.upcoming(row(last="2026-01-01T00:00"), ms("2026-01-01T00:01"), 2) == [
        ms("2026-01-01T00:05"),
        ms("2026-01-01T00:10"),
    ]
    assert schedules.timing_text(Every(90_000)) == "every 90s"
    assert schedules.timing_text(Cron("0 9 * * *", BERLIN)) == "0 9 * * * (Europe/Berlin)"
