"""A task's life as spans of time."""

from __future__ import annotations

import pytest

from headrace.console.timeline import LEAST, SENDING_MS, Now, Span, bars, spans
from headrace.work.run_log import Run


def run(attempt: int, enqueued: int, started: int, ended: int, status: str = "retried") -> Run:
    return Run("id", "pay", "tasks", "w", enqueued, started, ended, attempt, status)


def kinds(found: list[Span]) -> list[tuple[str, int, int]]:
    return [(span.kind, span.start_ms, span.end_ms) for span in found]


def test_sent_waited_ran_backed_off_waited_ran() -> None:
    runs = [run(2, 600, 610, 700, "succeeded"), run(1, 100, 150, 200)]  # in any order
    found = spans(runs, None, sent_ms=100, now_ms=999)
    assert kinds(found) == [
        ("wait", 100, 150),
        ("run", 150, 200),
        ("pause", 200, 600),
        ("wait", 600, 610),
        ("run", 610, 700),
    ]
    assert [(span.tone, span.ended) for span in found if span.kind == "run"] == [
        ("warn", "retried"),
        ("good", "succeeded"),
    ]


def test_a_delay_comes_first() -> None:
    assert kinds(spans([run(1, 500, 500, 600, "succeeded")], None, sent_ms=100, now_ms=999)) == [
        ("pause", 100, 500),
        ("run", 500, 600),
    ]


def test_the_way_of_a_task_into_its_queue_is_no_delay() -> None:
    found = spans([run(1, 100 + SENDING_MS, 130, 200, "succeeded")], None, sent_ms=100, now_ms=999)
    assert kinds(found) == [("wait", 120, 130), ("run", 130, 200)]
    assert spans([run(1, 101 + SENDING_MS, 130, 200)], None, sent_ms=100, now_ms=999)[0].kind == "pause"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (Now("running", 300, 2), [("wait", 200, 300), ("run", 300, 999)]),
        (Now("queued", 200, 2), [("wait", 200, 999)]),
        (Now("delayed", 200, 2, until_ms=1_500), [("pause", 200, 1_500)]),
        (Now("delayed", 200, 2, until_ms=700), [("pause", 200, 700), ("wait", 700, 999)]),
    ],
)
def test_what_goes_on_is_open_to_the_end(now: Now, expected: list[tuple[str, int, int]]) -> None:
    found = spans([run(1, 100, 100, 200)], now, sent_ms=100, now_ms=999)[1:]
    assert kinds(found) == expected
    assert [span.open for span in found] == [False] * (len(found) - 1) + [True]


def test_a_task_that_never_ran_waits_since_it_was_sent() -> None:
    assert kinds(spans([], Now("queued", 400, 1), sent_ms=400, now_ms=900)) == [("wait", 400, 900)]
    assert spans([], None, sent_ms=400, now_ms=900) == []


def test_clocks_that_disagree_make_no_span_negative() -> None:
    runs = [run(1, 100, 90, 80), run(2, 70, 60, 65, "succeeded")]
    found = spans(runs, Now("running", 2_000, 3), sent_ms=150, now_ms=500)
    assert all(span.end_ms >= span.start_ms for span in found), found


def test_bars_are_to_scale_and_short_ones_are_seen() -> None:
    found = bars(spans([run(1, 0, 1, 1_000), run(2, 9_000, 9_000, 10_000, "succeeded")], None, sent_ms=0, now_ms=0))
    wait, first, pause, second = found
    assert (first.width, pause.x, pause.width, second.x) == (99.9, 100.0, 800.0, 900.0)
    assert (wait.width, wait.x) == (LEAST, 0.0)
    assert [bar.row for bar in found] == [0, 0, 1, 1]
    assert bars([]) == []


def test_a_bar_never_leaves_the_picture() -> None:
    for bar in bars(spans([run(1, 0, 9_999, 10_000, "succeeded")], None, sent_ms=0, now_ms=0)):
        assert bar.x >= 0 and bar.x + bar.width <= 1_000
