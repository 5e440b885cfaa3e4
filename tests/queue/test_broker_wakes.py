"""One test a way in which a message becomes ready while a poll waits for it."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.broker import Broker
from headrace.queue.model import Delivery
from tests.queue.brokers import Waiter, create, on_loop, running, send, turns, until


async def lease_one(broker: Broker, queue: str, **fields: Any) -> Delivery:
    (delivery,) = await broker.call(ops.Receive(queue, **fields))
    assert isinstance(delivery, Delivery)
    return delivery


@on_loop
async def test_end_of_a_lease_wakes_a_poll() -> None:
    async with running() as broker:
        queue = await create(broker)
        await send(broker, queue, "x")
        await lease_one(broker, queue, visibility_ms=30)
        poll = Waiter(broker, queue)
        await until(lambda: poll.answered)
        assert poll.outcomes[0][0].receives == 2


@on_loop
async def test_end_of_a_delay_wakes_a_poll() -> None:
    async with running() as broker:
        queue = await create(broker)
        await send(broker, queue, "x", delay_ms=30)
        poll = Waiter(broker, queue)
        await until(lambda: poll.answered)
        assert poll.bodies == ["x"]


@on_loop
async def test_end_of_a_fifo_queues_delay_wakes_a_poll() -> None:
    async with running() as broker:
        queue = await create(broker, "q.fifo", delay_ms=30)
        poll = Waiter(broker, queue)
        await send(broker, queue, "x", group="g")
        await until(lambda: poll.answered)
        assert poll.bodies == ["x"]


@on_loop
async def test_shorter_delay_of_a_fifo_queue_wakes_a_poll() -> None:
    async with running() as broker:
        queue = await create(broker, "q.fifo", delay_ms=900_000)
        await send(broker, queue, "x", group="g")
        poll = Waiter(broker, queue)
        await turns()
        await broker.call(ops.ChangeSettings(queue, {"delay_ms": 0}))
        await turns()
        assert poll.bodies == ["x"]


@pytest.mark.parametrize("name", ["q", "q.fifo"])
@on_loop
async def test_release_of_a_message_wakes_a_poll(name: str) -> None:
    async with running() as broker:
        queue = await create(broker, name)
        await send(broker, queue, "x", group="g")
        delivery = await lease_one(broker, queue)
        poll = Waiter(broker, queue)
        await turns()
        await broker.call(ops.ChangeVisibility(queue, [(delivery.receipt, 0)]))
        await turns()
        assert poll.bodies == ["x"]


@pytest.mark.parametrize("by", ["delete", "transaction"])
@on_loop
async def test_delete_that_unlocks_a_group_wakes_a_poll(by: str) -> None:
    async with running() as broker:
        queue = await create(broker, "q.fifo")
        await send(broker, queue, "1", "2", group="g")
        receipt = (await lease_one(broker, queue)).receipt
        poll = Waiter(broker, queue)
        await turns()
        assert not poll.answered
        delete = ops.Delete(queue, [receipt])
        await broker.call(delete if by == "delete" else ops.Transact(acknowledge=[(queue, [receipt])]))
        await turns()
        assert poll.bodies == ["2"]


@pytest.mark.parametrize("by", ["delete", "transaction", "claim"])
@pytest.mark.parametrize("name", ["q", "q.fifo"])
@on_loop
async def test_delete_that_makes_room_in_flight_wakes_a_poll(
    name: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 1)
    async with running() as broker:
        queue = await create(broker, name)
        await send(broker, queue, "1", group="a")
        await send(broker, queue, "2", group="b")
        if by == "claim":
            await broker.call(ops.Claim(queue, "reader", 1, limit=1))
            end: ops.Operation = ops.AcknowledgeClaims(queue, "reader", 1)
        else:
            receipt = (await lease_one(broker, queue)).receipt
            end = ops.Delete(queue, [receipt])
            if by == "transaction":
                end = ops.Transact(acknowledge=[(queue, [receipt])])
        poll = Waiter(broker, queue)
        await turns()
        assert not poll.answered
        await broker.call(end)
        await turns()
        assert poll.bodies == ["2"]


@pytest.mark.parametrize("name", ["q", "q.fifo"])
@pytest.mark.parametrize("released", [True, False])
@on_loop
async def test_end_of_a_claim_wakes_a_poll(name: str, released: bool) -> None:
    async with running() as broker:
        queue = await create(broker, name)
        await send(broker, queue, "1", group="g")
        await broker.call(ops.Claim(queue, "reader", 1))
        if name == "q.fifo":
            await send(broker, queue, "2", group="g")
        poll = Waiter(broker, queue)
        await turns()
        assert not poll.answered
        end = ops.ReleaseClaims(queue, "reader") if released else ops.AcknowledgeClaims(queue, "reader", 1)
        await broker.call(end)
        await turns()
        if released:
            assert poll.bodies == ["1"]
        elif name == "q.fifo":
            assert poll.bodies == ["2"]
        else:
            assert not poll.answered


@on_loop
async def test_dead_letter_wakes_a_poll() -> None:
    async with running() as broker:
        dead = await create(broker, "dead")
        queue = await create(broker, redrive={"target": dead, "receives_max": 1})
        await send(broker, queue, "x")
        await lease_one(broker, queue, visibility_ms=0)
        poll = Waiter(broker, dead)
        await turns()
        assert await broker.call(ops.Receive(queue)) == []
        await turns()
        assert poll.bodies == ["x"]


@on_loop
async def test_move_task_wakes_a_poll() -> None:
    async with running() as broker:
        dead = await create(broker, "dead")
        queue = await create(broker, redrive={"target": dead, "receives_max": 1})
        await send(broker, dead, "x")
        poll = Waiter(broker, queue)
        await turns()
        await broker.call(ops.StartMove(dead, queue))
        await until(lambda: poll.answered)
        assert poll.bodies == ["x"]


@on_loop
async def test_more_behind_a_locked_group_than_one_receive_looks_at_wakes_a_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "HEAD_MESSAGES_MAX", 4)
    monkeypatch.setattr(limits, "HEAD_REFILL", 2)
    monkeypatch.setattr(limits, "HEAD_LOOK_AHEAD", 2)
    async with running() as broker:
        queue = await create(broker, "q.fifo")
        for number in range(30):
            await send(broker, queue, str(number), group="locked")
        await send(broker, queue, "free", group="free")
        await lease_one(broker, queue)
        poll = Waiter(broker, queue)
        await until(lambda: poll.answered)
        assert poll.bodies == ["free"]
