"""Unique tasks: of a key at most one is queued or runs; locks end with their task, and by their time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from headrace.errors import StateChanged
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.testing.tasks import in_memory
from headrace.work import App, InvalidOption, keys
from headrace.work.sending import TRIES_MAX
from headrace.work.sweeping import Sweeper
from tests.work.small_app import build


def test_a_second_send_is_the_first_ones_handle_until_that_is_done() -> None:
    app, did = build()
    once = app.tasks["add"].options(unique=True)
    with in_memory(app) as tests:
        first, second = once.send(1), once.send(1)
        assert (second.id, first.duplicate, second.duplicate) == (first.id, False, True)
        other = once.send(2)
        assert not other.duplicate
        tests.run_pending()
        assert len(did) == 2
        assert second.result(0) == 3
        assert not once.send(1).duplicate


@pytest.mark.parametrize("key", ["k", lambda a, b=2: f"{a}"])
def test_a_key_is_a_text_or_a_function_of_the_arguments(key: str | Callable[..., str]) -> None:
    app, _ = build()
    once = app.tasks["add"].options(unique=key)
    with in_memory(app):
        assert not once.send(1, 1).duplicate
        assert once.send(1, 2).duplicate
        assert once.send(2, 2).duplicate is (key == "k")


def test_keys_of_different_tasks_do_not_meet() -> None:
    app, _ = build()
    with in_memory(app):
        app.tasks["add"].options(unique="k").send(1)
        assert not app.tasks["double"].options(unique="k").send(1).duplicate


def test_a_lock_until_started_lets_the_next_in_while_the_first_runs() -> None:
    app = App()
    sent: list[bool] = []

    @app.task(name="refresh", unique="k", unique_until="started")
    def refresh(*, again: bool) -> None:
        if again:
            sent.append(refresh.send(again=False).duplicate)

    with in_memory(app) as tests:
        refresh.send(again=True)
        assert refresh.send(again=True).duplicate
        assert [run.disposition for run in tests.run_pending()] == ["succeeded", "succeeded"]
    assert sent == [False]


def test_a_lock_until_done_holds_through_retries_and_ends_with_the_dead_letter() -> None:
    app, _ = build()
    once = app.tasks["fail"].options(unique="k")
    with in_memory(app) as tests:
        once.send()
        tests.run_pending()
        assert once.send().duplicate
        tests.run_until_idle()
        assert not once.send().duplicate


def test_a_redriven_task_takes_its_lock_again() -> None:
    app, _ = build()
    once = app.tasks["fail"].options(unique="k", retries=1)
    with in_memory(app) as tests:
        first = once.send()
        tests.run_until_idle()
        tests.driver.run(ops.StartMove(arn_of("tasks-dead")))
        tests.driver.pass_time(0)
        assert [run.disposition for run in tests.run_pending()] == ["retried"]
        again = once.send()
        assert (again.id, again.duplicate) == (first.id, True)


def test_while_another_holds_the_lock_a_redriven_task_does_not_run() -> None:
    app, did = build()
    once = app.tasks["fail"].options(unique="k", retries=0)
    with in_memory(app) as tests:
        first = once.send()
        tests.run_pending()
        second = once.options(delay="1m").send()
        tests.driver.run(ops.StartMove(arn_of("tasks-dead")))
        tests.driver.pass_time(0)
        assert [(run.id, run.disposition) for run in tests.run_pending()] == [(first.id, "deferred")]
        assert len(did) == 1
        dispositions = [(run.id, run.disposition) for run in tests.run_until_idle() if run.disposition != "deferred"]
        assert dispositions == [(second.id, "dead"), (first.id, "dead")]


def test_a_lock_that_outlived_its_task_ends_by_its_time_and_is_taken_over() -> None:
    app, _ = build()
    once = app.tasks["add"].options(unique="k", unique_ttl="10 minutes")
    with in_memory(app) as tests:
        once.send(1)
        tests.driver.run(ops.Purge(arn_of("tasks")))
        tests.advance("9 minutes")
        assert once.send(1).duplicate
        tests.advance("1 minute")
        assert not once.send(1).duplicate
        tests.run_pending()
        assert app.backend.state(keys.UNIQUE) == []


def test_a_task_does_not_release_a_lock_that_another_has_now() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        app.tasks["add"].options(unique="k", unique_ttl="1 minute", delay=0).send(1)
        tests.advance("2 minutes")
        app.tasks["add"].options(unique="k").send(2)  # takes the lock over; the first still waits
        app.run_pending(runs_max=1)
        assert app.tasks["add"].options(unique="k").send(3).duplicate


def test_the_lock_of_a_delayed_task_holds_for_the_delay_and_its_ttl() -> None:
    app, _ = build()
    once = app.tasks["add"].options(unique="k", delay="2 days")
    with in_memory(app) as tests:
        once.send(1)
        tests.advance("2 days")
        assert once.send(1).duplicate


def test_locks_leave_nothing_behind() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        app.tasks["give_up"].options(unique="k").send()
        tests.run_pending()
        assert app.backend.state(keys.UNIQUE) == []
        assert app.backend.state(keys.EXPIRY) == []
        app.tasks["give_up"].options(unique="k", unique_ttl=1).send()
        tests.driver.run(ops.Purge(arn_of("tasks")))
        tests.advance(5)
        Sweeper(app.backend).advance(app.clock())
        assert app.backend.state(b"") == []


def test_of_many_threads_one_sends() -> None:
    app, _ = build()
    once = app.tasks["add"].options(unique="k")
    with in_memory(app) as tests:
        handles: list[Any] = []
        threads = [threading.Thread(target=lambda: handles.append(once.send(1))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(handle.duplicate for handle in handles) == [False] + [True] * 7
        assert len({handle.id for handle in handles}) == 1
        assert len(tests.pending()) == 1


def test_many_of_one_call_meet_each_other() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handles = app.tasks["add"].options(unique=True).send_many([(1,), (2,), (1,)])
        assert [handle.duplicate for handle in handles] == [False, False, True]
        assert handles[2].id == handles[0].id
        assert len(tests.pending()) == 2


def test_async_sends_know_locks_too() -> None:
    app, _ = build()
    once = app.tasks["add"].options(unique="k")

    async def main() -> list[bool]:
        return sorted(handle.duplicate for handle in await asyncio.gather(*(once.asend(1) for _ in range(5))))

    with in_memory(app):
        assert asyncio.run(main()) == [False] + [True] * 4


def test_contention_without_end_is_an_error_not_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = build()
    tries: list[int] = []

    def refuse(operation: object) -> None:
        tries.append(1)
        raise StateChanged("work", "u/k")

    with in_memory(app):
        monkeypatch.setattr(app.backend, "transact", refuse)
        with pytest.raises(StateChanged):
            app.tasks["add"].options(unique="k").send(1)
    assert len(tries) == TRIES_MAX


def test_a_long_key_is_hashed() -> None:
    assert keys.unique_lock("x" * 200) == b"u/" + b"x" * 200
    assert len(keys.unique_lock("x" * 100_000)) < 100
    assert keys.unique_lock("x" * 201) != keys.unique_lock("x" * 202)


def test_a_key_of_the_arguments_cannot_be_made_before_they_are_known() -> None:
    app, _ = build()
    with pytest.raises(InvalidOption, match="unique"):
        app.tasks["add"].options(unique=lambda a, b=2: "k").s()


def test_a_lock_until_its_ttl_outlives_its_task() -> None:
    app, did = build()
    once = app.tasks["add"].options(unique="k", unique_until="ttl", unique_ttl="1h")
    with in_memory(app) as tests:
        first = once.send(1)
        tests.run_pending()
        assert once.send(1).duplicate
        assert once.send(1).id == first.id
        tests.advance("59m")
        tests.run_pending()
        assert (len(did), once.send(1).duplicate) == (1, True)
        tests.advance("2m")
        assert not once.send(1).duplicate


def test_a_call_keeps_the_ttl_that_it_was_written_with() -> None:
    app, _ = build()
    call = app.tasks["add"].options(unique="k", unique_until="ttl", unique_ttl="1h").s(1)
    with in_memory(app) as tests:
        call.send()
        tests.run_pending()
        assert call.send().duplicate
        tests.advance("61m")
        assert not call.send().duplicate
