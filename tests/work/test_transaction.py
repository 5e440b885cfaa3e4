"""A transaction's sends are one commit, or none; it is this thread's, or this asyncio task's, alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headrace.errors import CallerError
from headrace.testing.tasks import in_memory
from headrace.work import App, Middleware
from headrace.work.dispatch import Dispatch
from tests.work.small_app import build


def test_what_is_sent_in_the_block_is_there_when_it_ends_and_not_before() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        with app.transaction():
            app.tasks["add"].send(1)
            app.tasks["double"].options(priority=1).send(2)
            app.tasks["add"].send_many([(3,), (4,)])
            assert tests.pending() == []
        assert [envelope.task for envelope in tests.pending()] == ["double", "add", "add", "add"]


def test_a_block_that_raises_sends_nothing() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        with pytest.raises(ZeroDivisionError):
            _send_and_raise(app)
        assert tests.pending() == []
        app.tasks["add"].send(2)
        assert len(tests.pending()) == 1


def _send_and_raise(app: App) -> None:
    with app.transaction():
        app.tasks["add"].send(1)
        raise ZeroDivisionError


def test_an_empty_block_commits_nothing() -> None:
    app, _ = build()
    with in_memory(app) as tests:
        before = tests.driver.store.statistics().commits
        with app.transaction():
            pass
        assert tests.driver.store.statistics().commits == before


def test_unique_tasks_take_their_locks_in_the_same_commit() -> None:
    app, _ = build()
    once = app.tasks["add"].options(unique="k")
    with in_memory(app) as tests:
        with app.transaction():
            first, second = once.send(1), once.send(1)
            third = app.tasks["add"].send(2)
        assert len(tests.pending()) == 2
        assert once.send(1).duplicate
        assert (second.id, first.duplicate, second.duplicate) == (first.id, False, True)
        assert third.status() == "queued"


def test_a_unique_task_that_is_left_out_is_told_by_its_handle_and_by_no_hook() -> None:
    told: list[str] = []

    class Watch(Middleware):
        def after_send(self, dispatch: Dispatch) -> None:
            told.append(dispatch.id)

    app, _ = build(middleware=[Watch()])
    once = app.tasks["add"].options(unique="k")
    with in_memory(app):
        holder = once.send(1)
        with app.transaction():
            [again] = once.send_many([(1,)])
        assert (again.id, again.duplicate) == (holder.id, True)
        assert told == [holder.id]


def test_other_threads_and_other_apps_are_not_in_it() -> None:
    app, _ = build()
    other, _ = build()
    with in_memory(app) as tests, in_memory(other) as others, app.transaction():
        thread = threading.Thread(target=lambda: app.tasks["add"].send(1))
        thread.start()
        thread.join()
        other.tasks["add"].send(2)
        assert len(tests.pending()) == 1
        assert len(others.pending()) == 1


def test_asyncio_tasks_have_transactions_of_their_own() -> None:
    app, _ = build()

    async def main() -> None:
        opened = asyncio.Event()
        sent = asyncio.Event()

        async def inside() -> None:
            async with app.transaction():
                await app.tasks["add"].asend(1)
                opened.set()
                await sent.wait()

        async def outside() -> None:
            await opened.wait()
            await app.tasks["add"].asend(2)
            sent.set()

        await asyncio.gather(inside(), outside())

    with in_memory(app) as tests:
        asyncio.run(main())
        assert [bytes(envelope.args) for envelope in tests.pending()] == [b'{"a":2}', b'{"a":1}']


def test_blocks_do_not_stand_in_each_other_nor_run_twice() -> None:
    app = App()
    transaction = app.transaction()
    with transaction, pytest.raises(CallerError, match="already open"), app.transaction():
        pass
    with pytest.raises(CallerError, match="this one has been used"):
        transaction.__enter__()


def test_a_task_in_a_task_with_an_outbox_may_open_one_too() -> None:
    app, _ = build()

    @app.task(name="mixed", outbox=True)
    def mixed() -> None:
        app.tasks["add"].send(1)
        with app.transaction():
            app.tasks["add"].send(2)  # this one does not wait for the acknowledgement

    with in_memory(app) as tests:
        mixed.send()
        app.run_pending(runs_max=1)
        assert [bytes(envelope.args) for envelope in tests.pending()] == [b'{"a":2}', b'{"a":1}']
