"""Tasks from send to end, by the real rules on a broker in memory: retries, dead letters, redrive, results, outbox."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import msgspec
import pytest

from headrace.errors import QueueNotFound
from headrace.queue import attributes
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.testing.tasks import Tasks, in_memory
from headrace.work import (
    Context,
    InvalidArguments,
    ResultNotKept,
    ResultTimeout,
    TaskFailed,
    chain,
    current,
    inspecting,
    keys,
)
from headrace.work.broker_backend import BrokerBackend
from headrace.work.context import NoCurrentTask, running
from tests.work.small_app import build


def dispositions(runs: list[Any]) -> list[tuple[str, int, str]]:
    return [(run.task, run.attempt, run.disposition) for run in runs]


def test_nothing_runs_before_it_is_run_and_then_in_order_of_sending() -> None:
    app, did = build()
    with in_memory(app) as tests:
        handles = [app.tasks["add"].send(n) for n in range(3)]
        assert did == []
        assert dispositions(tests.run_pending()) == [("add", 1, "succeeded")] * 3
        assert did == [("add", n, 2) for n in range(3)]
        assert [handle.result(0) for handle in handles] == [2, 3, 4]
        assert tests.run_pending() == []


def test_calling_a_task_runs_it_here() -> None:
    app, did = build()
    assert app.tasks["add"](1, 2) == 3
    assert asyncio.run(app.tasks["double"](4)) == 8
    assert did == [("add", 1, 2), ("double", 4)]


def test_async_tasks_run_also_where_a_loop_runs_already() -> None:
    app, _ = build()

    async def main(tests: Tasks) -> int:
        handle = await app.tasks["double"].asend(4)
        tests.run_pending()
        result: int = await handle.aresult(0)
        return result

    with in_memory(app) as tests:
        assert asyncio.run(main(tests)) == 8


def test_a_failed_task_is_tried_again_with_growing_waits_and_then_dead() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["fail"].send("no\nsecond line")
        first = tests.run_pending()
        assert dispositions(first) == [("fail", 1, "retried")]
        assert 500 <= first[0].delay_ms <= 1_000
        assert tests.run_pending() == []
        assert dispositions(tests.run_until_idle()) == [("fail", 2, "retried"), ("fail", 3, "dead")]
        assert did == [("fail", 1), ("fail", 2), ("fail", 3)]
        [letter] = tests.dead()
        assert letter.reason == "ValueError: no"
        assert [entry.attempt for entry in letter.envelope.history] == [1, 2, 3]
        assert letter.envelope.attempt == 0
        newest = letter.envelope.history[-1]
        assert (newest.error, newest.message) == ("ValueError", "no\nsecond line")
        assert newest.traceback.splitlines()[-2] == "ValueError: no"
        assert "execution.py" not in newest.traceback
        assert newest.worker.endswith("/here")


def test_a_dead_letter_says_task_error_and_reason_and_comes_back_by_redrive() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["fail"].options(retries=0).send()
        tests.run_pending()
        [letter] = tests.driver.peek(arn_of("tasks-dead"))
        said = {name: value for name, (_, value) in attributes.decode(letter.message.attributes).items()}
        assert said == {
            "headrace-task": "fail",
            "headrace-error": "ValueError",
            "headrace-reason": "ValueError: no",
        }
        assert letter.message.source == arn_of("tasks")
        looked = tests.driver.receive_one(arn_of("tasks-dead"))  # somebody looks at it by hand first
        tests.driver.change_visibility(arn_of("tasks-dead"), looked.receipt, 0)
        tests.driver.run(ops.StartMove(arn_of("tasks-dead")))
        tests.advance(1)
        assert dispositions(tests.run_pending()) == [("fail", 1, "dead")]
        assert did == [("fail", 1), ("fail", 1)]
        assert [entry.attempt for entry in tests.dead()[0].envelope.history] == [1, 1]


def test_give_up_ends_it_at_once_and_retry_waits_as_it_says() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        app.tasks["give_up"].send()
        app.tasks["again"].send(1)
        runs = tests.run_pending()
        assert dispositions(runs) == [("give_up", 1, "dead"), ("again", 1, "retried")]
        assert runs[1].delay_ms == 10_000
        tests.advance("9.999s")
        assert tests.run_pending() == []
        tests.advance("1ms")
        assert dispositions(tests.run_pending()) == [("again", 2, "succeeded")]


@pytest.mark.parametrize(
    ("options", "disposition", "delay_ms"),
    [
        ({"retry_on": KeyError}, "dead", 0),
        ({"retry_on": (KeyError, ValueError)}, "retried", None),
        ({"give_up_on": ValueError}, "dead", 0),
        ({"give_up_on": KeyError}, "retried", None),
        ({"retry": lambda error, attempt: 7 * attempt}, "retried", 7_000),
        ({"retry": lambda error, attempt: None}, "dead", 0),
        ({"retry": lambda error, attempt: 1 / 0}, "retried", None),
        ({"retry": lambda error, attempt: -1}, "retried", None),
    ],
)
def test_rules_for_exceptions_decide(options: dict[str, Any], disposition: str, delay_ms: int | None) -> None:
    app, _ = build()

    @app.task(name="ruled", **options)
    def ruled() -> None:
        raise ValueError("no")

    with in_memory(app) as tests:
        ruled.send()
        [run] = tests.run_pending()
    assert run.disposition == disposition
    assert delay_ms is None or run.delay_ms == delay_ms


def test_an_async_task_has_a_time_limit_that_counts_as_a_failure() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        app.tasks["slow"].send()
        [run] = tests.run_pending()
    assert run.error is not None
    assert (run.disposition, run.error.type) == ("dead", "headrace.work.errors.TimeLimitExceeded")


def test_a_task_not_begun_in_time_expires() -> None:
    app, did = build()
    with in_memory(app) as tests:
        handle = app.tasks["add"].options(expires="1 minute").send(1)
        tests.advance("1 minute")
        assert dispositions(tests.run_pending()) == [("add", 1, "expired")]
        assert did == []
        with pytest.raises(TaskFailed, match="expired"):
            handle.result(0)


@pytest.mark.parametrize("in_a_chain", [False, True])
def test_a_call_that_was_written_long_ago_expires_by_when_it_is_sent(*, in_a_chain: bool) -> None:
    app, _ = build()
    with in_memory(app) as tests:
        call = app.tasks["add"].options(expires="1 minute").s(1)
        tests.advance("1 hour")
        (chain(call) if in_a_chain else call).send()
        assert dispositions(tests.run_pending()) == [("add", 1, "succeeded")]
        call.send()
        tests.advance("1 minute")
        assert dispositions(tests.run_pending()) == [("add", 1, "expired")]


def test_a_delayed_task_waits_and_a_higher_priority_goes_first() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["add"].options(delay="3 days").send(1)
        app.tasks["add"].options(priority=-1).send(2)
        app.tasks["add"].send(3)
        app.tasks["add"].options(priority=1).send(4)
        tests.run_pending()
        assert [a for _, a, _ in did] == [4, 3, 2]
        assert len(tests.pending()) == 1
        tests.advance("3 days")
        tests.run_pending()
        assert did[-1] == ("add", 1, 2)


def test_an_unknown_task_waits_for_the_release_that_brings_it() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        app.backend.send("tasks", [Entry(b'{"task":"new","id":"1","args":{}}')])
        [run] = tests.run_pending()
        assert (run.disposition, run.error and run.error.type) == ("retried", "TaskNotFound")
        app.task(name="new")(lambda: None)
        assert dispositions(tests.run_until_idle()) == [("new", 2, "succeeded")]


def test_a_message_that_is_no_task_goes_to_the_dead_letters_as_it_came() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        app.backend.send("tasks", [Entry(b"hello")])
        assert [run.disposition for run in tests.run_pending()] == ["dead"]
        [letter] = tests.driver.peek(arn_of("tasks-dead"))
        assert letter.message.body == b"hello"
        assert "EnvelopeInvalid" in str(attributes.decode(letter.message.attributes)["headrace-error"])


def test_arguments_that_do_not_fit_the_workers_signature_are_not_tried_again() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        app.backend.send("tasks", [Entry(b'{"task":"add","id":"1","args":{"a":"x"}}')])
        [run] = tests.run_pending()
    assert (run.disposition, run.error and run.error.type) == ("dead", "headrace.work.errors.InvalidArguments")


def test_what_a_task_sends_with_an_outbox_is_part_of_its_acknowledgement() -> None:
    app, did = build()
    with in_memory(app) as tests:
        app.tasks["outbox"].send(fails=True)
        assert dispositions(tests.run_pending()) == [("outbox", 1, "retried")]
        assert did == []
        assert dispositions(tests.run_until_idle()) == [
            ("outbox", 2, "succeeded"),
            ("add", 1, "succeeded"),
            ("add", 1, "succeeded"),
        ]


def test_what_a_task_sends_knows_its_parent() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        parent = app.tasks["outbox"].send(fails=False)
        app.run_pending(runs_max=1)
        assert [envelope.parent for envelope in tests.pending()] == [parent.id, parent.id]


def test_results_are_typed_and_can_be_asked_by_id() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handle = app.tasks["add"].send(1)
        assert handle.status() == "queued"
        with pytest.raises(ResultTimeout):
            handle.result(0)
        tests.run_pending()
        assert handle.status() == "succeeded"
        assert app.handle(handle.id).result(0) == 3
        outcome = handle.outcome()
        assert outcome is not None
        assert (outcome.task, outcome.attempts, outcome.expires_ms - outcome.ended_ms) == ("add", 1, 3_600_000)


def test_a_failed_result_tells_what_was_raised_where() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handle = app.tasks["fail"].options(retries=0).send("boom")
        tests.run_pending()
        with pytest.raises(TaskFailed) as caught:
            handle.result(0)
    error = caught.value
    assert (error.status, error.type, error.message) == ("dead", "ValueError", "boom")
    assert "raise ValueError(text)" in error.traceback


def test_a_result_that_is_not_kept_says_how_to_keep_it() -> None:
    app, _ = build()
    with in_memory(app):
        handle = app.tasks["give_up"].send()
        with pytest.raises(ResultNotKept, match="result_ttl"):
            handle.result()
        assert handle.status() == "queued"
        assert app.handle("0" * 32).status() == "unknown"


@pytest.mark.parametrize("value", [object(), "x" * 1_048_577])
def test_a_result_that_cannot_be_kept_is_a_failure_for_good(value: object) -> None:
    app, _ = build()

    @app.task(name="bad", result_ttl="1h")
    def bad() -> Any:
        return value

    with in_memory(app) as tests:
        bad.send()
        assert [run.disposition for run in tests.run_pending()] == ["dead"]


def test_a_delayed_task_that_is_cancelled_does_not_run() -> None:
    app, did = build()
    with in_memory(app) as tests:
        handle = app.tasks["add"].options(delay="1h").send(1)
        assert handle.status() == "delayed"
        assert handle.cancel() == "cancelled"
        assert handle.status() == "cancelled"
        assert tests.run_until_idle() == []
        assert did == []


def test_current_is_the_running_attempt_and_nothing_outside() -> None:
    app, _ = build()
    seen: list[Context] = []

    @app.task(name="looks")
    async def looks() -> None:
        seen.append(current())

    with in_memory(app) as tests:
        handle = looks.send()
        tests.run_pending()
    [context] = seen
    assert (context.task, context.id, context.attempt, context.receives, context.queue) == (
        "looks", handle.id, 1, 1, "tasks",
    )  # fmt: skip
    assert running.get() is None
    with pytest.raises(NoCurrentTask):
        current()


def test_fifo_tasks_keep_the_order_of_their_group_through_retries() -> None:
    app, _ = build()
    did: list[tuple[str, int]] = []

    @app.task(name="step", queue="steps.fifo", group=lambda account, n: account, retries=3)
    def step(account: str, n: int) -> None:
        did.append((account, n))
        if n == 1 and len([one for one in did if one == (account, 1)]) < 3:
            raise ValueError("not yet")

    with in_memory(app) as tests:
        step.send_many([("a", 1), ("a", 2), ("b", 2)])
        assert dispositions(tests.run_pending()) == [("step", 1, "retried"), ("step", 1, "succeeded")]
        assert did == [("a", 1), ("b", 2)]
        assert dispositions(tests.run_until_idle()) == [
            ("step", 2, "retried"),
            ("step", 3, "succeeded"),
            ("step", 1, "succeeded"),
        ]
        assert [one for one in did if one[0] == "a"] == [("a", 1), ("a", 1), ("a", 1), ("a", 2)]
        assert tests.app.backend.state(keys.ATTEMPTS) == []
        assert tests.app.backend.state(keys.EXPIRY) == []


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_fifo_task_that_is_started_anew_and_dies_again_within_minutes_is_lost_nowhere(*, by_hand: bool) -> None:
    app, _ = build()

    @app.task(name="step", queue="steps.fifo", group="g", retries=0)
    def step() -> None:
        raise ValueError("no")

    with in_memory(app) as tests:
        backend = app.backend
        assert isinstance(backend, BrokerBackend)
        handle = step.send()
        for _ in range(3):  # all in the time in which a FIFO queue drops duplicates
            assert [run.disposition for run in tests.run_pending()] == ["dead"]
            assert [letter.envelope.id for letter in tests.dead("steps.fifo")] == [handle.id]
            if by_hand:
                inspecting.retry_by_id(backend.client, handle.id, ["steps.fifo"])
            else:
                tests.driver.run(ops.StartMove(arn_of("steps-dead.fifo")))
                tests.advance(1)
            assert tests.dead("steps.fifo") == []


def test_a_dead_fifo_task_keeps_its_history_and_lets_the_group_go_on() -> None:
    app, _ = build()

    @app.task(name="step", queue="steps.fifo", group="g", retries=1)
    def step(n: int) -> None:
        if n == 1:
            raise ValueError("never")

    with in_memory(app) as tests:
        step.send_many([(1,), (2,)])
        assert [run.disposition for run in tests.run_until_idle()] == ["retried", "dead", "succeeded"]
        [letter] = tests.dead("steps.fifo")
        assert [entry.attempt for entry in letter.envelope.history] == [1, 2]


def test_send_many_is_one_call_and_checks_each() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handles = app.tasks["add"].send_many({"a": n, "b": 0} for n in range(100))
        assert len({handle.id for handle in handles}) == 100
        tests.run_pending()
        assert [handle.result(0) for handle in handles] == list(range(100))
        with pytest.raises(InvalidArguments):
            app.tasks["add"].send_many([(1,), ("x",)])
        assert tests.pending() == []


def test_threads_may_send_at_once() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        threads = [threading.Thread(target=lambda: app.tasks["add"].send(1)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tests.pending()) == 10


def test_what_stands_on_the_queue_is_json_that_people_read() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handle = app.tasks["add"].options(retries=3, timeout=5).send(1)
        [message] = tests.driver.peek(arn_of("tasks"))
        assert json.loads(message.message.body) == {
            "task": "add", "id": handle.id, "args": {"a": 1}, "retries_max": 3, "timeout_s": 5.0, "result_ttl_s": 3600.0,
            "sent_ms": tests.clock(),
        }  # fmt: skip


def test_dead_letters_of_an_app_that_never_failed_are_none() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        assert tests.dead() == []
        with pytest.raises(QueueNotFound):
            tests.driver.peek(arn_of("tasks-dead"))


def test_after_the_block_the_app_is_as_it_was() -> None:
    app, _ = build()
    clock = app.clock
    with in_memory(app):
        assert app.clock is not clock
    assert app.clock is clock


def test_the_json_of_a_result_is_kept_as_it_is() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handle = app.tasks["add"].send(1)
        tests.run_pending()
        row = app.backend.read(keys.result(handle.id))
        assert row is not None
        assert msgspec.json.decode(row)["value"] == 3


def test_a_handle_tells_that_its_task_waits_for_a_retry() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handle = app.tasks["fail"].send()
        tests.run_pending()
        assert (handle.status(), app.handle(handle.id).status()) == ("retrying", "retrying")
        tests.run_until_idle()
        assert handle.status() == "dead"
        assert app.backend.state(keys.ATTEMPTS) == []


def test_many_are_sent_without_blocking_the_loop() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        handles = asyncio.run(app.tasks["add"].asend_many((n,) for n in range(3)))
        unique = asyncio.run(app.tasks["double"].options(unique="k").asend_many([(1,), (2,)]))
        assert [handle.duplicate for handle in unique] == [False, True]
        tests.run_pending()
        assert [handle.result(0) for handle in handles] == [2, 3, 4]
