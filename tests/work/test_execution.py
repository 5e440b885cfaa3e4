"""One attempt: whatever a task raises is an outcome, and nothing of it ends its worker."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from headrace.queue.model import Delivery, Entry, Message
from headrace.work import App, Cancelled, Context, execution
from headrace.work import outcome as outcomes
from headrace.work.execution import describe
from headrace.work.job import Job


def job_of(app: App, entry: Entry, queue: str = "tasks") -> Job:
    message = Message(1, bytes(16), entry.body, entry.attributes, 0, group=entry.group)
    return app.open_job(queue, Delivery(message, b"receipt", 1, 0))


def context_of(app: App, name: str) -> Context:
    return Context(job_of(app, app.tasks[name].dispatch((), {}).entry()))


def attempt(error: BaseException) -> outcomes.Outcome:
    app = App()

    @app.task(name="raises")
    def raises() -> None:
        raise error

    return execution.run(app, raises, context_of(app, "raises"))


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), asyncio.CancelledError(), GeneratorExit()])
def test_what_a_task_raises_is_a_failure(error: BaseException) -> None:
    outcome = attempt(error)
    assert isinstance(outcome, outcomes.Failed) and not outcome.final


def test_an_interrupt_ends_the_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(KeyboardInterrupt())


def test_a_cancelled_sync_task_that_looks_is_cancelled() -> None:
    app = App()

    @app.task(name="looks")
    def looks() -> None:
        context.check()
        context.cancel()
        context.check()

    context = context_of(app, "looks")
    assert execution.run(app, looks, context) == outcomes.Cancelled()
    assert context.cancelled
    assert isinstance(attempt(Cancelled("x")), outcomes.Cancelled)


async def _cancels_itself() -> None:
    inner = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    inner.cancel()
    await inner


async def _exits() -> None:
    sys.exit(3)


async def _times_out() -> None:
    raise TimeoutError("of its own")


@pytest.mark.parametrize(
    ("function", "kind"),
    [(_cancels_itself, "asyncio.exceptions.CancelledError"), (_exits, "SystemExit"), (_times_out, "TimeoutError")],
)
def test_what_an_async_task_raises_is_a_failure_and_the_loop_goes_on(function: Any, kind: str) -> None:
    app = App()
    task = app.task(name="async", timeout=30)(function)

    async def main() -> outcomes.Outcome:
        outcome = await execution.run_async(app, task, context_of(app, "async"))
        await asyncio.sleep(0)
        return outcome

    outcome = asyncio.run(main())
    assert isinstance(outcome, outcomes.Failed)
    assert outcome.error.type == kind


@pytest.mark.parametrize("wished", [True, False])
def test_an_async_task_that_is_cancelled_from_outside(wished: bool) -> None:
    app = App()

    @app.task(name="waits")
    async def waits() -> None:
        await asyncio.sleep(60)

    async def main() -> outcomes.Outcome:
        context = context_of(app, "waits")
        running = asyncio.create_task(execution.run_async(app, waits, context))
        await asyncio.sleep(0)
        if wished:
            context.cancel()
        running.cancel()
        return await running

    if wished:
        assert asyncio.run(main()) == outcomes.Cancelled()
    else:
        with pytest.raises(asyncio.CancelledError):  # the worker ends: the broker gives it to another
            asyncio.run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_a_batch_that_exits_fails_as_a_whole(is_async: bool) -> None:
    app = App()

    def exits(bodies: list[bytes]) -> None:
        sys.exit(1)

    async def exits_async(bodies: list[bytes]) -> None:
        sys.exit(1)

    consumer = app.consumer("q", batch=2)(exits_async if is_async else exits)
    contexts = [Context(job_of(app, Entry(b"x"), "q")) for _ in range(2)]
    if is_async:
        made = asyncio.run(execution.run_batch_async(app, consumer, contexts))
    else:
        made = execution.run_batch(app, consumer, contexts)
    assert [isinstance(one, outcomes.Failed) and one.error.type for one in made] == ["SystemExit"] * 2


def test_an_interrupt_ends_a_batch_too() -> None:
    app = App()

    @app.consumer("q", batch=1)
    def interrupted(bodies: list[bytes]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execution.run_batch(app, interrupted, [Context(job_of(app, Entry(b"x"), "q"))])


def test_an_error_is_kept_bounded_whatever_it_says() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert describe(Broken()).message == "(it cannot be shown)"
    assert describe(ValueError("\udcff")).message == "?"
    try:
        raise ValueError("é" * 10_000)
    except ValueError as error:
        info = describe(error)
    assert (info.type, len(info.message)) == ("ValueError", 1_000)
    assert len(info.traceback.encode()) <= 4_096
    assert info.line.startswith("ValueError: é")
    assert describe(ValueError()).line == "ValueError"
