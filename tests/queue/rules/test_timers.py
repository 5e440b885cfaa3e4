"""Timers give back every pair, in order, on its millisecond."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.queue.timers import SEQ_MASK, Timers

Pair = tuple[int, int]

TIMES = st.integers(0, 5_000)
PAIRS = st.lists(st.tuples(TIMES, st.integers(0, SEQ_MASK)), max_size=60)


def filled(pairs: list[Pair]) -> Timers:
    timers = Timers()
    for due_ms, seq in pairs:
        timers.add(due_ms, seq)
    return timers


def test_nothing_is_due_of_nothing() -> None:
    timers = Timers()
    assert timers.due(10_000) == []
    assert timers.next_ms() is None
    assert len(timers) == 0


def test_pair_is_due_on_its_millisecond_and_not_before() -> None:
    timers = filled([(2_345, 7)])
    assert timers.due(2_344) == []
    assert timers.due(2_345) == [(2_345, 7)]
    assert timers.due(2_345) == []


def test_pair_of_a_second_that_has_begun_is_due_on_its_millisecond() -> None:
    timers = Timers()
    timers.due(2_100)
    timers.add(2_345, 7)
    timers.add(2_050, 8)  # late already
    assert timers.due(2_344) == [(2_050, 8)]
    assert timers.due(2_345) == [(2_345, 7)]


def test_next_ms_is_the_start_of_a_later_second_and_exact_in_one_that_has_begun() -> None:
    timers = filled([(2_345, 1), (3_456, 2)])
    assert timers.next_ms() == 2_000
    timers.due(2_000)
    assert timers.next_ms() == 2_345
    timers.due(2_345)
    assert timers.next_ms() == 3_000


def test_largest_seq_keeps_its_time() -> None:
    assert filled([(999, SEQ_MASK)]).due(999) == [(999, SEQ_MASK)]


def test_clear_forgets_everything() -> None:
    timers = filled([(1_000, 1), (2_000, 2)])
    timers.due(1_000)
    timers.clear()
    assert len(timers) == 0
    assert timers.next_ms() is None
    assert timers.due(10_000) == []


@given(PAIRS, st.lists(TIMES, max_size=10))
def test_every_pair_comes_once_in_order_of_time(pairs: list[Pair], moments: list[int]) -> None:
    timers = filled(pairs)
    left = sorted(pairs)
    for now in [*sorted(moments), 5_000]:
        wanted = [pair for pair in left if pair[0] <= now]
        left = left[len(wanted) :]
        assert timers.due(now) == wanted
        assert len(timers) == len(left)
        earliest = timers.next_ms()
        assert earliest is None if not left else now < left[0][0] and earliest is not None and earliest <= left[0][0]


@given(PAIRS, st.lists(TIMES, min_size=1, max_size=10))
def test_clock_that_steps_back_loses_nothing(pairs: list[Pair], moments: list[int]) -> None:
    """Adding while the clock goes to and fro: nothing comes early, nothing twice, and all of it in the end."""
    timers = Timers()
    given_back: list[Pair] = []
    for index, now in enumerate(moments):
        for due_ms, seq in pairs[index :: len(moments)]:
            timers.add(due_ms, seq)
        due = timers.due(now)
        assert due == sorted(due)
        assert all(due_ms <= now for due_ms, _ in due)
        given_back += due
    assert sorted(given_back + timers.due(5_000)) == sorted(pairs)


@given(TIMES, st.lists(st.integers(0, SEQ_MASK), max_size=20), TIMES)
def test_adding_many_is_adding_each(due_ms: int, seqs: list[int], now: int) -> None:
    together, apart = Timers(), Timers()
    together.due(now)
    apart.due(now)
    together.add_all(due_ms, seqs)
    for seq in seqs:
        apart.add(due_ms, seq)
    assert together.due(5_000) == apart.due(5_000)
