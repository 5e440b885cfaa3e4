"""Rings of seconds, tens and minutes, their way into the broker's state and back; the clock is moved by hand."""

from __future__ import annotations

import math

import pytest

from headrace.console import history_store
from headrace.console.history import TIERS, History, Ring
from headrace.queue.operations import Transact

START_S = 1_800_000_000.0  # the start of a minute


def filled(seconds: int, *, start_s: float = START_S) -> History:
    history = History()
    for second in range(seconds):
        history.add(start_s + second, {"depth": float(second)})
    return history


def restored(operation: Transact, history: History) -> History:
    for key, value in operation.state:
        if value is not None:
            history_store.load(history, key, value)
    return history


def test_a_slot_is_the_mean_of_what_was_seen_in_it() -> None:
    points = filled(60).points(["depth"], span_s=3_600, until_s=START_S + 59)
    assert points.values["depth"][-6:] == [4.5, 14.5, 24.5, 34.5, 44.5, 54.5]
    assert points.times[-1] == START_S + 50


@pytest.mark.parametrize(("span_s", "step_s", "count"), [(600, 1, 600), (7_200, 10, 720), (86_400, 60, 1_440)])
def test_a_span_has_the_finest_resolution_that_goes_back_so_far(span_s: int, step_s: int, count: int) -> None:
    points = filled(1).points(["depth"], span_s=span_s, until_s=START_S)
    assert (points.times[1] - points.times[0], len(points.times)) == (step_s, count)


def test_nobody_looked_is_a_gap_and_not_a_zero() -> None:
    history = History()
    history.add(START_S, {"depth": 1.0})
    history.add(START_S + 3, {"depth": 2.0})
    ring = history._series["depth"][0]
    found = [ring.at(int(START_S) + second) for second in range(4)]
    assert [math.isnan(value) for value in found] == [False, True, True, False]


def test_a_ring_forgets_what_is_older_than_it_is_long() -> None:
    ring = Ring(TIERS[0])
    ring.add(START_S, 1.0)
    ring.add(START_S + 600, 2.0)
    assert math.isnan(ring.at(int(START_S)))
    assert math.isnan(ring.at(int(START_S) + 1))
    assert ring.at(int(START_S) + 600) == 2.0


def test_a_value_of_the_past_changes_nothing() -> None:
    ring = Ring(TIERS[0])
    ring.add(START_S, 1.0)
    ring.add(START_S - 5, 9.0)
    assert math.isnan(ring.at(int(START_S) - 5))
    assert ring.at(int(START_S)) == 1.0


def test_series_are_bounded_and_the_longest_silent_makes_room() -> None:
    history = History(series_max=2)
    history.add(START_S, {"old": 1.0})
    history.add(START_S + 1, {"kept": 1.0})
    history.add(START_S + 2, {"new": 1.0})
    assert history.latest("old", until_s=START_S + 2) is None
    assert history.latest("new", until_s=START_S + 2) == 1.0


def test_series_that_find_no_place_are_left_out_and_push_nobody_out() -> None:
    history = History(series_max=2)
    for second in range(3):
        history.add(START_S + second, {"first": 1.0, "second": 2.0, "third": 3.0})
    found = history.points(["first", "second", "third"], span_s=10, until_s=START_S + 2).values
    assert [found[name][-3:] for name in found] == [[1.0] * 3, [2.0] * 3, [None] * 3]


def test_what_was_kept_pushes_out_nothing_that_is_measured() -> None:
    history = History(series_max=1)
    history.add(START_S, {"measured": 1.0})
    history.put(1, int(START_S) - 1, {"kept": 2.0})
    assert history.latest("measured", until_s=START_S) == 1.0
    assert "kept" not in history.cut(1, int(START_S) - 1)


def test_a_minute_survives_in_the_brokers_state() -> None:
    minute = int(START_S // 60)
    again = restored(history_store.save(filled(60), minute), History())
    tens = again.points(["depth"], span_s=3_600, until_s=START_S + 59).values["depth"][-6:]
    assert tens == [4.5, 14.5, 24.5, 34.5, 44.5, 54.5]
    assert again.points(["depth"], span_s=86_400, until_s=START_S + 59).values["depth"][-1] == 29.5


def test_seconds_that_were_not_kept_are_shown_by_their_tens() -> None:
    again = restored(history_store.save(filled(60), int(START_S // 60)), History())
    assert again.points(["depth"], span_s=600, until_s=START_S + 59).values["depth"][-10:] == [54.5] * 10


def test_a_console_that_has_just_begun_shows_nothing_of_before() -> None:
    history = filled(10, start_s=START_S + 45)
    seconds = history.points(["depth"], span_s=600, until_s=START_S + 54).values["depth"]
    assert seconds[-11:] == [None, *(float(second) for second in range(10))]
    assert set(seconds[:-10]) == {None}
    tens = history.points(["depth"], span_s=7_200, until_s=START_S + 54).values["depth"]
    assert tens[-3:] == [None, 2.0, 7.0]


def test_seconds_in_which_nobody_looked_stay_a_gap_between_others() -> None:
    history = History()
    for second in (0, 3, 29):
        history.add(START_S + second, {"depth": 6.0})
    found = history.points(["depth"], span_s=600, until_s=START_S + 29).values["depth"][-30:]
    assert [place for place, value in enumerate(found) if value is not None] == [0, 3, 29]


def test_what_is_measured_stands_beside_what_was_kept() -> None:
    kept = history_store.save(filled(60), int(START_S // 60))
    history = History()
    history.add(START_S + 65, {"depth": 7.0})
    restored(kept, history)
    assert history.points(["depth"], span_s=86_400, until_s=START_S + 65).values["depth"][-2:] == [29.5, 7.0]


def test_old_chunks_are_removed_by_age_also_those_of_consoles_that_stood_still() -> None:
    minute = int(START_S // 60)
    gone = {key for key, value in history_store.save(filled(60), minute).state if value is None}
    assert b"m/%012d" % (minute - 1_441) in gone and b"t/%012d" % (minute - 121) in gone
    assert b"m/%012d" % (minute - 1_440) not in gone
    keys = [b"m/%012d" % (minute - 1_440), b"m/%012d" % (minute - 2_000), b"t/%012d" % (minute - 121), b"x/1", b"m/x"]
    assert history_store.outdated(keys, minute) == [keys[1], keys[2]]


@pytest.mark.parametrize("value", [b"", b"no zlib", b"x\x9c\x03\x00\x00\x00\x00\x01"], ids=["empty", "text", "no map"])
def test_a_damaged_chunk_is_left_out(value: bytes) -> None:
    history = History()
    history_store.load(history, b"m/%012d" % int(START_S // 60), value)
    assert history.latest("depth", until_s=START_S) is None


def test_a_day_of_many_series_stays_small() -> None:
    history = History()
    for second in range(60):
        history.add(START_S + second, {f"queue/name-{place}/visible": second * place / 7 for place in range(600)})
    sizes = [len(value) for _, value in history_store.save(history, int(START_S // 60)).state if value is not None]
    assert sum(sizes) < 40_000
