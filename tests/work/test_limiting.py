"""Rates and slots as rules: a simulated crowd, and never one too many."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidParameter
from headrace.work import limiting
from headrace.work.limiting import Admitted, Limit, Rate, Waits, admit, parse_rate, released, renewed, reserve

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/m", Rate(100, 60_000)),
        ("5/30s", Rate(5, 30_000)),
        ("7 / 2 hours burst 3", Rate(7, 7_200_000, 3)),
        ("1/d", Rate(1, 86_400_000)),
    ],
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0/s", "5/0s", "5/x", "3/s burst 4", "1/8d", "-1/s", "5/s burst 0"])
def test_what_is_no_rate_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidParameter, match="rate"):
        parse_rate(text)


@given(
    count=st.integers(1, 50),
    period_ms=st.integers(1, 10_000),
    data=st.data(),
    gaps_us=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=200),
)
def test_no_period_has_more_starts_than_the_rate_allows(
    count: int, period_ms: int, data: st.DataObject, gaps_us: list[int]
) -> None:
    burst = data.draw(st.integers(1, count))
    rate = Rate(count, period_ms, burst)
    starts: list[int] = []
    now_us, next_us = 0, None
    for gap_us in gaps_us:
        now_us += gap_us
        start_us, next_us = reserve(next_us, interval_us=rate.interval_us, burst=burst, now_us=now_us)
        assert start_us >= now_us
        starts.append(start_us)
    assert starts == sorted(starts)
    for place, start_us in enumerate(starts):
        span_us = (
            period_ms + rate.late_ms
        ) * 1_000  # of those that come late, these are the last that fall into a period
        assert sum(other < start_us + span_us for other in starts[place:]) <= count + burst - 1


def test_who_comes_when_nobody_was_there_lately_starts_at_once() -> None:
    _, next_us = reserve(None, interval_us=1_000, burst=1, now_us=0)
    assert reserve(next_us, interval_us=1_000, burst=1, now_us=1_000)[0] == 1_000


def test_a_reserved_start_is_used_without_asking_again() -> None:
    limit = Limit(Rate(1, 60_000))
    rows = {b"rate": b"%d" % ((NOW_MS + 600_000) * 1_000)}
    assert admit(limit, rows, task="a", now_ms=NOW_MS, reserved_ms=NOW_MS) == Admitted([], [])
    assert isinstance(admit(limit, rows, task="a", now_ms=NOW_MS + 5_000, reserved_ms=NOW_MS), Waits)
    assert isinstance(admit(limit, rows, task="a", now_ms=NOW_MS - 1, reserved_ms=NOW_MS), Waits)


def test_who_would_wait_for_more_than_a_week_reserves_nothing() -> None:
    rows = {b"rate": b"%d" % ((NOW_MS + 8 * 86_400_000) * 1_000)}
    waits = admit(Limit(Rate(1, 60_000)), rows, task="a", now_ms=NOW_MS)
    assert waits == Waits(NOW_MS + limiting.DEFER_MAX_MS, reserved=False, puts=[], expects=[])


class Crowd:
    """Tasks of one key on a simulated broker: rows with compare-and-put, deferrals by time."""

    def __init__(self, limit: Limit, runs_ms: list[int]) -> None:
        self.limit = limit
        self.runs_ms = runs_ms
        self.rows: dict[bytes, bytes] = {}
        self.queue = [(0, number, None) for number in range(len(runs_ms))]
        self.running: list[tuple[int, int, bytes]] = []
        self.asked = 0
        self.starts: list[int] = []
        self.most = 0

    def run(self) -> None:
        waiting: list[tuple[int, int, int | None]] = list(self.queue)
        heapq.heapify(waiting)
        while waiting:
            now_ms, number, reserved_ms = heapq.heappop(waiting)
            self._end_until(now_ms)
            self.asked += 1
            decided = admit(self.limit, self.rows, task=f"t{number}", now_ms=now_ms, reserved_ms=reserved_ms)
            self._put(decided)
            if isinstance(decided, Waits):
                assert decided.until_ms > now_ms
                reserved = decided.until_ms if decided.reserved else None
                heapq.heappush(waiting, (decided.until_ms, number, reserved))
            else:
                self._start(now_ms, number, decided.slot)

    def _put(self, decided: Admitted | Waits) -> None:
        for name, value in decided.expects:
            assert self.rows.get(name) == value
        self.rows.update({name: value for name, value in decided.puts if value is not None})

    def _start(self, now_ms: int, number: int, slot: bytes | None) -> None:
        self.starts.append(now_ms)
        heapq.heappush(self.running, (now_ms + self.runs_ms[number], number, slot or b""))
        self.most = max(self.most, len(self.running))

    def _end_until(self, now_ms: int) -> None:
        while self.running and self.running[0][0] <= now_ms:
            end_ms, number, slot = heapq.heappop(self.running)
            if slot:
                value = released(self.rows[slot], task=f"t{number}", now_ms=end_ms)
                assert value is not None
                self.rows[slot] = value


@given(concurrency=st.integers(1, 8), runs_ms=st.lists(st.integers(1, 20_000), min_size=1, max_size=60))
def test_never_more_at_a_time_than_the_limit_and_each_runs_once(concurrency: int, runs_ms: list[int]) -> None:
    crowd = Crowd(Limit(concurrency=concurrency), runs_ms)
    crowd.run()
    assert crowd.most <= concurrency
    assert len(crowd.starts) == len(runs_ms)


@pytest.mark.parametrize(("concurrency", "runs_ms"), [(5, 200), (1, 50), (3, 50), (20, 500), (2, 300)])
def test_a_crowd_asks_a_few_times_a_start_and_leaves_no_slot_idle_for_long(concurrency: int, runs_ms: int) -> None:
    crowd = Crowd(Limit(concurrency=concurrency), [runs_ms + n % 7 for n in range(300)])
    crowd.run()
    assert crowd.asked < 300 * 7
    assert crowd.starts[-1] < 300 * runs_ms / concurrency * 1.3


@given(
    count=st.integers(1, 20),
    concurrency=st.integers(1, 5),
    runs_ms=st.lists(st.integers(1, 2_000), min_size=1, max_size=40),
)
def test_rate_and_concurrency_hold_together(count: int, concurrency: int, runs_ms: list[int]) -> None:
    crowd = Crowd(Limit(Rate(count, 1_000), concurrency), runs_ms)
    crowd.run()
    assert crowd.most <= concurrency
    starts = sorted(crowd.starts)
    assert len(starts) == len(runs_ms)
    assert all(sum(at <= other < at + 1_000 for other in starts) <= count for at in starts)


def test_a_killed_workers_slot_ends_with_its_lease_and_its_task_takes_it_over_before() -> None:
    limit = Limit(concurrency=1)
    taken = admit(limit, {}, task="a", now_ms=NOW_MS)
    assert isinstance(taken, Admitted) and taken.slot == b"slot/0"
    rows = {name: value for name, value in taken.puts if value is not None}
    assert isinstance(admit(limit, rows, task="b", now_ms=NOW_MS + 59_999), Waits)
    assert isinstance(admit(limit, rows, task="a", now_ms=NOW_MS + 1), Admitted)
    assert isinstance(admit(limit, rows, task="b", now_ms=NOW_MS + 60_000), Admitted)


def test_a_renewed_slot_stays_and_only_its_holder_renews_or_gives_it_back() -> None:
    taken = admit(Limit(concurrency=1), {}, task="a", now_ms=NOW_MS)
    assert isinstance(taken, Admitted)
    value = taken.puts[0][1]
    assert value is not None
    longer = renewed(value, task="a", now_ms=NOW_MS + 30_000)
    assert longer is not None
    assert isinstance(admit(Limit(concurrency=1), {b"slot/0": longer}, task="b", now_ms=NOW_MS + 80_000), Waits)
    assert renewed(value, task="b", now_ms=NOW_MS) is None
    assert released(value, task="b", now_ms=NOW_MS) is None
    assert released(None, task="b", now_ms=NOW_MS) is None


def test_a_limit_that_is_lowered_counts_slots_beyond_it() -> None:
    rows: dict[bytes, bytes] = {}
    for task in ("a", "b", "c"):
        taken = admit(Limit(concurrency=3), rows, task=task, now_ms=NOW_MS)
        assert isinstance(taken, Admitted)
        rows |= {name: value for name, value in taken.puts if value is not None}
    free = released(rows[b"slot/0"], task="a", now_ms=NOW_MS + 10)
    assert free is not None
    rows[b"slot/0"] = free
    assert isinstance(admit(Limit(concurrency=2), rows, task="d", now_ms=NOW_MS + 10), Waits)


def test_rows_are_idle_once_they_say_nothing_any_more() -> None:
    taken = admit(Limit(Rate(1, 1_000), 1), {}, task="a", now_ms=NOW_MS)
    assert isinstance(taken, Admitted)
    rows = {name: value for name, value in taken.puts if value is not None}
    assert not limiting.idle(rows, NOW_MS)
    assert limiting.idle(rows, NOW_MS + limiting.SLOT_LEASE_MS)
