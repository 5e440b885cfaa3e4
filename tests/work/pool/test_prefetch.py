"""How much is fetched: as many as can be begun, and more only of what is short."""

from __future__ import annotations

from headrace.work.pool.limits import AHEAD_MAX, RECEIVE_MAX
from headrace.work.pool.prefetch import Kinds, PrefetchPolicy, Source, grouped

THREADED, ASYNC, EITHER = Kinds(True, False), Kinds(False, True), Kinds(True, True)


def test_nothing_is_fetched_ahead_before_tasks_are_known_to_be_short() -> None:
    assert PrefetchPolicy().ahead == 0


def test_as_many_are_fetched_ahead_as_run_in_five_milliseconds() -> None:
    pace = PrefetchPolicy()
    pace.mean_s = 0.000_1
    assert pace.ahead == 50
    pace.mean_s = 0.000_000_1
    assert pace.ahead == AHEAD_MAX


def test_one_slow_task_ends_fetching_ahead() -> None:
    pace = PrefetchPolicy()
    for _ in range(100):
        pace.note(0.000_1)
    assert pace.short
    assert pace.ahead > 0
    pace.note(1.0)
    assert not pace.short
    assert pace.ahead == 0


def test_source_asks_for_no_more_than_there_is_room_for_each_kind() -> None:
    assert Source(("a",), THREADED).room(threaded=3, asynchronous=0) == 3
    assert Source(("a",), ASYNC).room(threaded=0, asynchronous=7) == 7
    assert Source(("a",), EITHER).room(threaded=3, asynchronous=7) == 3
    assert Source(("a",), EITHER).room(threaded=-2, asynchronous=7) == 0


def test_source_of_lists_asks_for_a_list_for_each_that_is_free() -> None:
    assert Source(("a",), Kinds(True, False, 100)).room(threaded=3, asynchronous=0) == 300
    assert Source(("a",), Kinds(True, False, RECEIVE_MAX)).room(threaded=3, asynchronous=0) == RECEIVE_MAX


def test_source_of_fifo_queues_asks_for_one_run_at_a_time() -> None:
    ordered = Kinds(True, False, fifo=True)
    assert Source(("a.fifo",), ordered).room(threaded=8, asynchronous=0) == 1
    assert Source(("a.fifo",), ordered).room(threaded=0, asynchronous=0) == 0
    assert Source(("a.fifo",), Kinds(True, False, 10, fifo=True)).room(threaded=8, asynchronous=0) == 10
    assert grouped([("a", THREADED), ("a.fifo", ordered)]) == [Source(("a",), THREADED), Source(("a.fifo",), ordered)]


def test_queues_of_one_kind_are_polled_together_in_their_order() -> None:
    found = grouped([("b-high", THREADED), ("mail", ASYNC), ("b", THREADED), ("any", EITHER)])
    assert found == [Source(("b-high", "b"), THREADED), Source(("mail",), ASYNC), Source(("any",), EITHER)]
