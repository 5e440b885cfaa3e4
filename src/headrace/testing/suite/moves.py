"""Message move tasks: from a dead-letter queue back, or elsewhere; each message in one place at any time."""

from __future__ import annotations

import itertools

import pytest

from headrace.errors import CallerError, InvalidParameter, MoveTaskNotFound, MoveTaskRefused
from headrace.queue import operations as ops
from headrace.queue.model import MoveTask, Redrive, arn_of
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import HOUR, MINUTE, SECOND, SuitePart
from headrace.testing.suite.redrive import create_pair


def bury(driver: StoreDriver, queue: str, count: int, *, prefix: str = "", **fields: object) -> None:
    """Send `count` messages and let them become dead letters. The queue: one receive allowed, no visibility timeout."""
    for number in range(count):
        driver.send(queue, f"{prefix}{number}", **fields)
    assert len(driver.receive(queue, count)) == count
    assert driver.receive(queue, count) == []


def latest(driver: StoreDriver, source: str) -> MoveTask:
    tasks: list[MoveTask] = driver.run(ops.ListMoves(source))
    return tasks[0]


class TestMoveTasks(SuitePart):
    def test_task_moves_every_message_back_to_its_origin(self, driver: StoreDriver) -> None:
        dead = driver.create("dead")
        origins = [driver.create(name, redrive=Redrive(dead, 1), visibility_ms=0) for name in ("one", "two")]
        for origin in origins:
            bury(driver, origin, 3, prefix=origin[-3:])
        task = driver.run(ops.StartMove(dead))
        assert (task.source, task.target, task.to_move) == (dead, None, 6)
        driver.pass_time(MINUTE)
        assert (latest(driver, dead).status, latest(driver, dead).moved) == ("COMPLETED", 6)
        assert driver.peek(dead) == []
        for origin in origins:
            assert sorted(one.message.body.decode()[:3] for one in driver.peek(origin)) == [origin[-3:]] * 3

    def test_task_moves_to_a_target_oldest_first(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        target = driver.create("target")
        bury(driver, queue, 20)
        driver.run(ops.StartMove(dead, target))
        driver.pass_time(MINUTE)
        assert bodies(driver.receive(target, 20)) == [str(number) for number in range(20)]
        assert driver.peek(queue) == driver.peek(dead) == []

    def test_moved_message_is_a_new_one(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        sent = driver.send(queue, "x")
        driver.receive(queue)
        driver.receive(queue)
        driver.pass_time(MINUTE)
        start_ms = driver.clock()
        driver.run(ops.StartMove(dead))
        driver.pass_time(MINUTE)
        delivery = driver.receive_one(queue)
        assert delivery.message.id != sent.id
        assert start_ms <= delivery.message.sent_ms <= driver.clock()
        assert delivery.receives == 1

    def test_retention_starts_again(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0, retention_ms=HOUR)
        bury(driver, queue, 1)
        driver.pass_time(2 * HOUR)
        driver.run(ops.StartMove(dead))
        driver.pass_time(SECOND)
        assert bodies(driver.receive(queue)) == ["0"]

    def test_message_that_a_transaction_gave_up_goes_back_to_its_queue(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1)
        driver.send(queue, "x")
        taken = driver.receive_one(queue)
        letter = entry("x, and why it failed", source=queue)
        driver.run(ops.Transact(acknowledge=[(queue, [taken.receipt])], sends=[(dead, [letter])]))
        assert driver.receive_one(dead, visibility_ms=0).message.source == queue
        driver.run(ops.StartMove(dead))
        driver.pass_time(SECOND)
        assert latest(driver, dead).status == "COMPLETED"
        moved = driver.receive_one(queue)
        assert (moved.message.body, moved.message.source) == (b"x, and why it failed", None)

    def test_source_survives_a_restart(self, durable: StoreDriver) -> None:
        queue, dead = create_pair(durable, 1)
        durable.send(dead, "x", source=queue)
        durable.reopen()
        assert durable.peek(dead)[0].message.source == queue

    @pytest.mark.parametrize("source", ["q", "", "arn:aws:sns:us-east-1:000000000000:t", "arn:aws:sqs:r:1:" + "q" * 99])
    def test_source_that_names_no_queue_is_refused(self, driver: StoreDriver, source: str) -> None:
        with pytest.raises(InvalidParameter):
            driver.send(driver.create("q"), "x", source=source)

    def test_fifo_messages_keep_group_and_order(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, fifo=True, visibility_ms=0)
        for number in range(6):
            driver.send(queue, str(number), group="g")
            driver.receive(queue)
            driver.receive(queue)
        driver.run(ops.StartMove(dead))
        driver.pass_time(MINUTE)
        deliveries = driver.receive(queue)
        assert bodies(deliveries) == [str(number) for number in range(6)]
        assert {one.message.group for one in deliveries} == {"g"}

    def test_rate_bounds_messages_a_second(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        bury(driver, queue, 50)
        driver.run(ops.StartMove(dead, rate_max=10))
        seen = []
        for _ in range(4):
            seen.append(len(driver.peek(queue)))
            driver.pass_time(SECOND)
        assert all(after - before <= 10 for before, after in itertools.pairwise(seen))
        assert seen[-1] >= 20
        driver.pass_time(3 * SECOND)
        assert latest(driver, dead).status == "COMPLETED"
        assert len(driver.peek(queue)) == 50

    def test_progress_is_told(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        bury(driver, queue, 30)
        driver.run(ops.StartMove(dead, rate_max=10))
        driver.pass_time(SECOND + 500)
        task = latest(driver, dead)
        assert task.status == "RUNNING"
        assert 10 <= task.moved <= 20
        assert task.moved == len(driver.peek(queue)) == 30 - len(driver.peek(dead))

    def test_cancel_stops_and_reverts_nothing(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        bury(driver, queue, 30)
        handle = driver.run(ops.StartMove(dead, rate_max=10)).handle
        driver.pass_time(SECOND)
        cancelled = driver.run(ops.CancelMove(handle))
        assert cancelled.status in {"CANCELLING", "CANCELLED"}
        driver.pass_time(SECOND)
        moved = len(driver.peek(queue))
        driver.pass_time(MINUTE)
        assert len(driver.peek(queue)) == moved == latest(driver, dead).moved
        assert latest(driver, dead).status == "CANCELLED"
        assert 0 < moved < 30
        assert len(driver.peek(dead)) == 30 - moved

    def test_finished_task_cannot_be_cancelled(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        bury(driver, queue, 1)
        handle = driver.run(ops.StartMove(dead)).handle
        driver.pass_time(MINUTE)
        assert isinstance(driver.outcome(ops.CancelMove(handle)), CallerError)
        assert latest(driver, dead).status == "COMPLETED"

    def test_tasks_are_listed_newest_first(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        handles = []
        for _ in range(3):
            bury(driver, queue, 1)
            handles.append(driver.run(ops.StartMove(dead)).handle)
            driver.pass_time(MINUTE)
            driver.run(ops.Purge(queue))
        assert [task.handle for task in driver.run(ops.ListMoves(dead, 10))] == handles[::-1]
        assert [task.handle for task in driver.run(ops.ListMoves(dead))] == handles[-1:]

    def test_one_task_a_source_at_a_time(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        bury(driver, queue, 30)
        driver.run(ops.StartMove(dead, rate_max=1))
        assert isinstance(driver.outcome(ops.StartMove(dead)), CallerError)

    def test_source_must_be_a_dead_letter_queue(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        assert isinstance(driver.outcome(ops.StartMove(queue)), MoveTaskRefused)

    def test_target_must_be_of_the_same_type(self, driver: StoreDriver) -> None:
        _, dead = create_pair(driver, 1)
        fifo = driver.create("target.fifo")
        assert isinstance(driver.outcome(ops.StartMove(dead, fifo)), CallerError)
        assert isinstance(driver.outcome(ops.StartMove(dead, arn_of("none"))), CallerError)

    @pytest.mark.parametrize("rate_max", [0, 501])
    def test_rate_out_of_range_is_refused(self, driver: StoreDriver, rate_max: int) -> None:
        _, dead = create_pair(driver, 1)
        assert isinstance(driver.outcome(ops.StartMove(dead, rate_max=rate_max)), InvalidParameter)

    def test_unknown_handle_is_named(self, driver: StoreDriver) -> None:
        outcome = driver.outcome(ops.CancelMove("none"))
        assert isinstance(outcome, MoveTaskNotFound)
        assert outcome.handle == "none"

    def test_task_goes_on_after_a_restart(self, durable: StoreDriver) -> None:
        queue, dead = create_pair(durable, 1, visibility_ms=0)
        bury(durable, queue, 30)
        handle = durable.run(ops.StartMove(dead, rate_max=10)).handle
        durable.pass_time(SECOND)
        durable.reopen()
        task = latest(durable, dead)
        assert (task.handle, task.status) == (handle, "RUNNING")
        assert len(durable.peek(queue)) + len(durable.peek(dead)) == 30
        durable.pass_time(5 * SECOND)
        assert (latest(durable, dead).status, latest(durable, dead).moved) == ("COMPLETED", 30)
        assert bodies(durable.receive(queue, 30)) == [str(number) for number in range(30)]

    def test_task_loses_and_doubles_nothing_in_a_crash(self, crashable: StoreDriver) -> None:
        queue, dead = create_pair(crashable, 1, visibility_ms=0)
        bury(crashable, queue, 30)
        crashable.run(ops.StartMove(dead, rate_max=10))
        for _ in range(6):
            crashable.pass_time(700)
            crashable.crash()
            both = [one.message.body for place in (queue, dead) for one in crashable.peek(place)]
            assert sorted(both) == sorted(str(number).encode() for number in range(30))
        crashable.pass_time(MINUTE)
        assert len(crashable.peek(queue)) == 30
