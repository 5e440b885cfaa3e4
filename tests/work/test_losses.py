"""Workers that die with a task: told apart from failures, bounded by a count of their own; and leases that others have now."""

from __future__ import annotations

import pytest

from headrace.errors import ReceiptExpired
from headrace.queue.model import arn_of
from headrace.testing.tasks import Tasks, in_memory
from headrace.work import App, keys, limits, settling
from headrace.work.outcome import ErrorInfo, Failed
from tests.work.small_app import build


def _lose(tests: Tasks, times: int) -> None:
    """Received by workers that die."""
    for _ in range(times):
        tests.driver.receive_one(arn_of("tasks"))
        tests.advance("61s")


def test_a_lost_worker_stands_in_the_history_and_costs_no_retry() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["fail"].options(retries=0).send()
        _lose(tests, 2)
        assert [(run.attempt, run.disposition) for run in tests.run_pending()] == [(3, "dead")]
        assert did == [("fail", 3)]
        assert [entry.error for entry in tests.dead()[0].envelope.history] == ["WorkerLost", "WorkerLost", "ValueError"]


def test_a_task_that_kills_every_worker_ends_in_the_dead_letters_without_being_run_again() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["fail"].options(retries=1_000).send()
        _lose(tests, limits.LOSSES + 1)
        assert [(run.attempt, run.disposition) for run in tests.run_pending()] == [(limits.LOSSES + 1, "dead")]
        assert did == []
        assert [entry.error for entry in tests.dead()[0].envelope.history] == ["WorkerLost"] * (limits.LOSSES + 1)


def test_losses_are_counted_over_retries_and_anew_after_a_redrive() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["fail"].options(retries=1_000).send()
        for _ in range(limits.LOSSES):
            _lose(tests, 1)
            assert [run.disposition for run in tests.run_pending()] == ["retried"]
            tests.advance("1h")
        _lose(tests, 1)
        assert [run.disposition for run in tests.run_pending()] == ["dead"]
        assert len(did) == limits.LOSSES
        [letter] = tests.dead()
        assert (letter.envelope.losses, letter.reason) == (
            0,
            "WorkerLost: the worker that ran it died, or its lease ended",
        )


def test_a_task_without_losses_runs_at_most_once() -> None:
    app = App()
    did: list[int] = []
    app.task(name="once", max_worker_losses=0, retries=0)(lambda: did.append(1))
    with in_memory(app) as tests:
        app.tasks["once"].send()
        _lose(tests, 1)
        assert [run.disposition for run in tests.run_pending()] == ["dead"]
    assert did == []


def test_a_retry_in_place_is_written_by_who_holds_the_lease_alone() -> None:
    app, _ = build()
    ordered = app.tasks["fail"].options(queue="tasks.fifo", group="g")
    with in_memory(app) as tests:
        ordered.send()
        delivery = tests.driver.receive_one(arn_of("tasks.fifo"))
        tests.advance("61s")  # and another takes it
        tests.driver.receive_one(arn_of("tasks.fifo"))
        batch = settling.Batch(app.backend.read)
        failed = Failed(ErrorInfo("ValueError", "late"))
        batch.add(settling.settle(app.open_job("tasks.fifo", delivery), failed, now_ms=tests.clock(), read=batch.read))
        with pytest.raises(ReceiptExpired):
            app.backend.transact(batch.operation())
        assert app.backend.state(keys.ATTEMPTS) == []
