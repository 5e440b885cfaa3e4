"""Message move tasks: rates, ends, and what stands in their way."""

from __future__ import annotations

import pytest

from headrace.errors import InvalidParameter, QueueNotFound
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import MoveTask, arn_of
from headrace.testing import StoreDriver, bodies, entry


def pair(driver: StoreDriver, name: str = "q", *, dead: str = "dead", **settings: object) -> tuple[str, str]:
    target = driver.create(dead)
    return driver.create(name, redrive={"target": target, "receives_max": 1}, **settings), target


def task(driver: StoreDriver, source: str) -> MoveTask:
    (found,) = driver.run(ops.ListMoves(source))
    assert isinstance(found, MoveTask)
    return found


def test_rate_holds_from_the_first_second(memory: StoreDriver) -> None:
    queue, dead = pair(memory)
    memory.send_all(dead, [entry("x")] * 100)
    memory.run(ops.StartMove(dead, queue, rate_max=10))
    for second in range(1, 5):
        memory.pass_time(1_000)
        assert abs(memory.counts(queue).visible - 10 * second) <= 1


def test_pause_is_not_caught_up_with(memory: StoreDriver) -> None:
    queue, dead = pair(memory)
    memory.send_all(dead, [entry("x")] * 100)
    memory.run(ops.StartMove(dead, queue, rate_max=10))
    memory.jump(60_000)
    memory.settle()
    assert memory.counts(queue).visible <= 11


def test_clock_that_steps_back_ends_no_task(memory: StoreDriver) -> None:
    queue, dead = pair(memory)
    memory.send_all(dead, [entry("x")] * 30)
    memory.run(ops.StartMove(dead, queue, rate_max=10))
    memory.pass_time(1_000)
    memory.clock.advance(-5_000)
    memory.settle()
    assert task(memory, dead).status == "RUNNING"
    memory.pass_time(10_000)
    assert (task(memory, dead).status, memory.counts(queue).visible) == ("COMPLETED", 30)


def test_task_without_a_known_origin_fails_and_moves_nothing_further(memory: StoreDriver) -> None:
    _, dead = pair(memory)
    memory.send_all(dead, [entry("by hand"), entry("too")])
    memory.run(ops.StartMove(dead))
    memory.settle()
    failed = task(memory, dead)
    assert (failed.status, failed.failure, failed.moved) == ("FAILED", "CouldNotDetermineMessageSource", 0)
    assert bodies(memory.receive(dead)) == ["by hand", "too"]


@pytest.mark.parametrize("which", ["source", "target"])
def test_task_fails_when_a_queue_of_its_is_deleted(memory: StoreDriver, which: str) -> None:
    queue, dead = pair(memory)
    memory.send_all(dead, [entry("x")] * 20)
    memory.run(ops.StartMove(dead, queue, rate_max=1))
    memory.run(ops.DeleteQueue(dead if which == "source" else queue))
    memory.pass_time(5_000)
    if which == "target":
        failed = task(memory, dead)
        assert (failed.status, failed.failure) == ("FAILED", "AWS.SimpleQueueService.NonExistentQueue")
    else:
        assert isinstance(memory.outcome(ops.ListMoves(dead)), QueueNotFound)
        memory.create("dead")
        assert task(memory, dead).status == "FAILED"


def test_expired_dead_letters_are_dropped_and_not_moved(memory: StoreDriver) -> None:
    queue, dead = pair(memory)
    memory.change_settings(dead, retention_ms=60_000)
    memory.send(dead, "old")
    memory.jump(60_000)
    memory.send(dead, "young")
    memory.run(ops.StartMove(dead, queue))
    memory.settle()
    assert bodies(memory.receive(queue)) == ["young"]
    assert (memory.counts(dead).expired, task(memory, dead).moved) == (1, 1)


def test_messages_in_flight_are_not_moved(memory: StoreDriver) -> None:
    queue, dead = pair(memory)
    memory.send_all(dead, [entry("leased"), entry("free")])
    memory.receive(dead, 1)
    memory.run(ops.StartMove(dead, queue))
    memory.settle()
    assert bodies(memory.receive(queue)) == ["free"]
    assert task(memory, dead).status == "COMPLETED"


def test_tasks_of_several_queues_run_beside_each_other(memory: StoreDriver) -> None:
    one, dead_one = pair(memory, "one", dead="dead-one")
    two, dead_two = pair(memory, "two", dead="dead-two")
    memory.send_all(dead_one, [entry("x")] * 700)
    memory.send_all(dead_two, [entry("x")] * 700)
    memory.run(ops.StartMove(dead_one, one))
    memory.run(ops.StartMove(dead_two, two))
    memory.settle()
    assert (memory.counts(one).visible, memory.counts(two).visible) == (700, 700)


def test_ended_tasks_are_kept_no_longer_than_they_can_be_listed(memory: StoreDriver) -> None:
    queue, dead = pair(memory)
    for _ in range(limits.MOVE_TASKS_LISTED_MAX + 5):
        memory.run(ops.StartMove(dead, queue))
        memory.pass_time(1)
    assert len(memory.run(ops.ListMoves(dead, limits.MOVE_TASKS_LISTED_MAX))) == limits.MOVE_TASKS_LISTED_MAX
    assert len(memory.store.state.moves) <= limits.MOVE_TASKS_LISTED_MAX  # type: ignore[attr-defined]  # a LocalStore


@pytest.mark.parametrize("limit", [0, limits.MOVE_TASKS_LISTED_MAX + 1])
def test_list_out_of_range_is_refused(memory: StoreDriver, limit: int) -> None:
    _, dead = pair(memory)
    assert isinstance(memory.outcome(ops.ListMoves(dead, limit)), InvalidParameter)


def test_target_in_another_account_is_refused(memory: StoreDriver) -> None:
    _, dead = pair(memory)
    foreign = arn_of("foreign", account="111122223333")
    memory.run(ops.CreateQueue(foreign))
    assert "account" in str(memory.outcome(ops.StartMove(dead, foreign)))
