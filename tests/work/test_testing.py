"""The test kit: time and schedules move by hand, and what waits can be looked at."""

from __future__ import annotations

import datetime as dt

import pytest

from headrace.testing.tasks import in_memory
from headrace.work import App
from tests.work.small_app import build


def test_schedules_fire_when_the_clock_says_so() -> None:
    app = App()
    did: list[int] = []

    @app.every("1h")
    @app.task(name="hourly")
    def hourly() -> None:
        did.append(1)

    with in_memory(app) as tests:
        assert tests.run_pending() == []  # defined
        tests.advance(dt.timedelta(minutes=59))
        tests.run_pending()
        before = len(did)
        tests.advance("1h")
        assert [run.task for run in tests.run_pending()] == ["hourly"]
        assert len(did) == before + 1


def test_run_until_idle_moves_the_clock_no_further_than_it_is_told() -> None:
    app, did = build()
    with in_memory(app) as tests:
        started_ms = tests.clock()
        for hours in (1, 2, 3):
            app.tasks["add"].options(delay=f"{hours}h").send(hours)
        assert len(tests.run_until_idle(within="2h")) == 2
        assert tests.clock() - started_ms == 7_200_000
        assert [a for _, a, _ in did] == [1, 2]


def test_a_clock_can_start_anywhere() -> None:
    app, _ = build()
    with in_memory(app, now_ms=5_000_000) as tests:
        app.tasks["add"].send(1)
        assert tests.pending("tasks")[0].sent_ms == 5_000_000


def test_a_task_that_sends_itself_for_ever_is_stopped() -> None:
    app = App()

    @app.task(name="loop")
    def loop() -> None:
        loop.send()

    with in_memory(app):
        loop.send()
        assert len(app.run_pending(runs_max=7)) == 7


def test_only_the_queues_named_are_run() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["add"].options(queue="other").send(1)
        app.tasks["add"].send(2)
        tests.run_pending(queues=["other"])
        assert did == [("add", 1, 2)]


def test_an_error_in_the_block_is_the_tests_own() -> None:
    app, _ = build()
    with pytest.raises(ZeroDivisionError), in_memory(app):
        raise ZeroDivisionError
    with in_memory(app) as tests:
        assert tests.pending() == []
