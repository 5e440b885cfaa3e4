"""How the broker gathers requests into commits, where commits run, and what becomes of requests when all goes wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.errors import InvalidParameter, StoreFailed, Unavailable
from headrace.queue import broker as module
from headrace.queue import operations as ops
from headrace.queue.broker import TICK_AFTER_WORK_S, TICK_MAX_S, TICK_MIN_S, Broker
from headrace.queue.model import Delivery, arn_of
from headrace.queue.store.base import Request
from headrace.queue.store.local.store import LocalStore
from headrace.queue.store.memory import MemoryDisk
from headrace.testing import entry
from tests.queue.brokers import NotesStore, SlowDisk, Waiter, create, on_loop, running, send, slow, turns, until

QUEUE = arn_of("q")


def purge(number: int) -> ops.Operation:
    """Any operation that can be told from others."""
    return ops.Purge(str(number))


class TestGathering:
    @on_loop
    async def test_requests_of_one_turn_are_one_commit_in_their_order(self) -> None:
        store = NotesStore()
        async with running(store) as broker:
            await asyncio.gather(*[broker.call(purge(number)) for number in range(100)])
            assert store.batches == [[purge(number) for number in range(100)]]

    @on_loop
    async def test_request_made_by_an_answer_goes_into_the_next_commit(self) -> None:
        store = NotesStore()
        async with running(store) as broker:
            broker.submit(purge(1), lambda _: broker.submit(purge(2), lambda _: None))
            await turns()
            assert store.batches == [[purge(1)], [purge(2)]]

    @on_loop
    async def test_requests_that_arrive_during_a_commit_form_the_next_one(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            before = len(disk.batches)
            disk.gate.clear()
            sends = [asyncio.create_task(send(broker, queue, str(number))) for number in range(3)]
            await turns()
            sends += [asyncio.create_task(send(broker, queue, str(number))) for number in range(3, 10)]
            await turns()
            assert not any(one.done() for one in sends)
            disk.gate.set()
            await asyncio.gather(*sends)
            sizes = [len(batch.inserts) for batch in disk.batches[before:]]
            assert sizes == [3, 7]
            received = await broker.call(ops.Receive(queue, 10))
            assert [one.message.body for one in received] == [b"%d" % number for number in range(10)]

    @on_loop
    async def test_nothing_is_answered_before_its_commit_is_done(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            await send(broker, queue, "old")
            (delivery,) = await broker.call(ops.Receive(queue))
            disk.gate.clear()
            order: list[str] = []
            broker.submit(ops.Send(queue, [entry("x")]), lambda _: order.append("sent"))
            await turns()
            broker.submit(ops.Delete(queue, [delivery.receipt]), lambda _: order.append("deleted"))
            broker.submit(ops.Fence("f"), lambda _: order.append("fenced"))
            broker.submit(ops.GetQueue(queue), lambda _: order.append("described"))
            await turns()
            assert order == ["described"]  # what changes nothing does not wait
            disk.gate.set()
            await until(lambda: len(order) == 4)
            assert order == ["described", "sent", "deleted", "fenced"]

    @on_loop
    async def test_message_is_not_shown_before_its_commit_is_done(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            disk.gate.clear()
            sending = asyncio.create_task(send(broker, queue, "x"))
            await turns()
            assert await broker.call(ops.Receive(queue)) == []
            disk.gate.set()
            await sending
            (delivery,) = await broker.call(ops.Receive(queue))
            assert delivery.message.body == b"x"

    @on_loop
    async def test_commit_takes_no_more_than_a_slice_of_a_move_while_another_is_on_its_way(self) -> None:
        async with slow() as (broker, disk):
            dead = await create(broker, "dead")
            queue = await create(broker, redrive={"target": dead, "receives_max": 1})
            await send(broker, dead, *["x"] * 2_000)
            await broker.call(ops.StartMove(dead, queue))
            disk.gate.clear()
            for _ in range(10):
                broker._advance()
            await turns()
            before = len(disk.batches)
            disk.gate.set()
            await until(lambda: broker.store.statistics().commits > before + 1)
            assert max(len(batch.inserts) for batch in disk.batches[before:]) <= 500


class TestAnswers:
    @on_loop
    async def test_error_outcome_is_raised_to_a_caller(self) -> None:
        store = NotesStore()
        store.answer = lambda request: request.done(InvalidParameter("p", "v", "r"))
        async with running(store) as broker:
            with pytest.raises(InvalidParameter):
                await broker.call(purge(1))

    @on_loop
    async def test_answer_to_a_caller_that_was_cancelled_is_dropped(self) -> None:
        store = NotesStore()
        kept: list[Request] = []
        store.answer = kept.append
        async with running(store) as broker:
            calling = asyncio.create_task(broker.call(purge(1)))
            await turns()
            calling.cancel()
            await turns()
            kept[0].done("late")
            assert calling.cancelled()

    @on_loop
    async def test_answer_that_raises_does_not_stop_the_others(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running() as broker:
            queue = await create(broker)

            def broken(outcome: Any) -> None:
                raise ValueError("the connection is gone")

            broker.submit(ops.Send(queue, [entry("1")]), broken)
            broker.submit(ops.GetQueue(queue), broken)
            sent = await broker.call(ops.Send(queue, [entry("2")]))
            assert len(sent) == 1
            assert len(await broker.call(ops.Receive(queue, 10))) == 2
        assert [record.__dict__["action"] for record in caplog.records] == ["store.answer", "store.answer"]


class TestFailure:
    @pytest.mark.parametrize("disk", [SlowDisk, MemoryDisk])
    @on_loop
    async def test_failed_store_answers_everybody_and_is_told_once(
        self, disk: type[MemoryDisk], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock, told = ManualClock(), list[StoreFailed]()
        used = disk()
        async with running(LocalStore(used, clock), clock) as broker:
            broker.on_failure = told.append
            queue = await create(broker)
            poll = Waiter(broker, queue)
            await turns()

            def fail() -> None:
                raise StoreFailed("the disk is gone")

            monkeypatch.setattr(used, "commit", fail)
            outcomes = await asyncio.gather(*[send(broker, queue, "x") for _ in range(3)], return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StoreFailed] * 3
            with pytest.raises(StoreFailed):
                await broker.call(ops.GetQueue(queue))
            assert [error.reason for error in told] == ["the disk is gone"]
            assert not poll.answered
        assert poll.bodies == []

    @on_loop
    async def test_requests_behind_a_failing_commit_are_answered_too(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            disk.gate.clear()
            first = asyncio.create_task(send(broker, queue, "1"))
            await turns()
            second = asyncio.create_task(send(broker, queue, "2"))
            await turns()
            disk.fails = StoreFailed("the disk is gone")
            disk.gate.set()
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StoreFailed] * 2

    @on_loop
    async def test_failure_that_nobody_asked_to_hear_of_is_harmless(self) -> None:
        store = NotesStore()
        async with running(store) as broker:
            store.failure = StoreFailed("gone")
            assert await broker.call(purge(1)) == "done"

    @on_loop
    async def test_refused_commit_leaves_all_as_it_was(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            await send(broker, queue, "x")
            (delivery,) = await broker.call(ops.Receive(queue))
            disk.fails = Unavailable("somebody holds the database")
            with pytest.raises(Unavailable):
                await broker.call(ops.Delete(queue, [delivery.receipt]))
            disk.fails = None
            assert await broker.call(ops.ChangeVisibility(queue, [(delivery.receipt, 0)])) == [None]
            (again,) = await broker.call(ops.Receive(queue))
            assert isinstance(again, Delivery) and again.receives == 2


class TestStopping:
    @on_loop
    async def test_stop_waits_for_the_commit_on_its_way_and_for_what_is_behind_it(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            disk.gate.clear()
            first = asyncio.create_task(send(broker, queue, "1"))
            await turns()
            second = asyncio.create_task(send(broker, queue, "2"))
            await turns()
            stopping = asyncio.create_task(broker.stop())
            await turns()
            assert not stopping.done()
            disk.gate.set()
            await stopping
            assert first.done() and second.done()
            assert first.exception() is None and second.exception() is None

    @on_loop
    async def test_request_made_just_before_is_still_done(self) -> None:
        store = NotesStore()
        async with running(store) as broker:
            calling = asyncio.create_task(broker.call(purge(1)))
            await asyncio.sleep(0)
            await broker.stop()
            assert await calling == "done"

    @pytest.mark.parametrize("drained", [True, False])
    @on_loop
    async def test_store_is_closed_once_and_nothing_runs_after(self, drained: bool) -> None:
        store = NotesStore()
        async with running(store) as broker:
            if drained:
                broker.drain()
            await broker.stop()
            await broker.stop()
            assert store.closes == 1
            assert broker._tick is None or broker._tick.cancelled()
            with pytest.raises(Unavailable):
                await broker.call(purge(1))

    @on_loop
    async def test_commit_that_never_ends_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(module, "DRAIN_MAX_S", 0.01)
        store = NotesStore()
        async with running(store) as broker:
            store.is_busy = True
            await broker.stop()
            assert store.closes == 0  # closing it would wait too; the lock goes with the process
        assert [record.__dict__["action"] for record in caplog.records if record.levelno == logging.ERROR] == [
            "broker.stuck"
        ]

    @on_loop
    async def test_drain_lets_the_commit_on_its_way_be_answered(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            disk.gate.clear()
            sending = asyncio.create_task(send(broker, queue, "1"))
            await turns()
            broker.drain()
            disk.gate.set()
            await sending


class TestTime:
    def due_in(self, broker: Broker) -> float:
        assert broker._tick is not None
        return broker._tick.when() - asyncio.get_running_loop().time()

    @on_loop
    async def test_idle_broker_sleeps(self) -> None:
        async with running(NotesStore()) as broker:
            assert self.due_in(broker) == pytest.approx(TICK_MAX_S, abs=1)
            broker._advance()
            assert self.due_in(broker) == pytest.approx(TICK_MAX_S, abs=1)

    @on_loop
    async def test_broker_wakes_at_the_stores_deadline(self) -> None:
        store, clock = NotesStore(), ManualClock()
        store.next_ms = clock() + 5_000
        async with running(store, clock) as broker:
            assert self.due_in(broker) == pytest.approx(5.0, abs=1)

    @on_loop
    async def test_deadline_that_has_passed_is_met_at_once_but_not_in_a_tight_loop(self) -> None:
        store, clock = NotesStore(), ManualClock()
        store.next_ms = clock() - 5_000
        async with running(store, clock) as broker:
            assert 0 < self.due_in(broker) <= TICK_MIN_S
            began = time.monotonic()
            await until(lambda: store.advances >= 4)
            assert time.monotonic() - began >= 2 * TICK_MIN_S

    @on_loop
    async def test_new_work_may_have_new_deadlines(self) -> None:
        async with running(NotesStore()) as broker:
            await broker.call(purge(1))
            assert self.due_in(broker) <= TICK_AFTER_WORK_S

    @on_loop
    async def test_work_does_not_put_off_an_earlier_deadline(self) -> None:
        store, clock = NotesStore(), ManualClock()
        store.next_ms = clock() + 20
        async with running(store, clock) as broker:
            tick = broker._tick
            await broker.call(purge(1))
            assert broker._tick is tick

    @on_loop
    async def test_clock_that_steps_back_stops_nothing(self) -> None:
        clock = ManualClock()
        async with running(LocalStore(MemoryDisk(), clock), clock) as broker:
            queue = await create(broker)
            await send(broker, queue, "x")
            (delivery,) = await broker.call(ops.Receive(queue, visibility_ms=1_000))
            clock.advance(-3_600_000)
            broker._advance()
            await send(broker, queue, "y")
            assert await broker.call(ops.Delete(queue, [delivery.receipt])) == [None]
            (other,) = await broker.call(ops.Receive(queue, visibility_ms=1_000))
            assert other.message.body == b"y"
            clock.advance(1_000)
            broker._advance()
            (again,) = await broker.call(ops.Receive(queue))
            assert again.message.body == b"y" and again.receives == 2
