"""Presence at a broker: leases end with their holder, at once when its connection breaks, in time when it stays away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.errors import InvalidParameter, Unavailable
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.broker import Broker
from headrace.queue.presence import Stay
from tests.queue.brokers import WAIT_MS, Waiter, create, on_loop, running, send, turns

FAR_MS = 12 * limits.HOUR_MS


class Holding:
    """A Hold and what it was answered."""

    def __init__(self, broker: Broker, name: str = "me", *, wait_ms: int = WAIT_MS, **facts: Any) -> None:
        self.outcomes: list[Any] = []
        self.stay = broker.ask(ops.Hold(name, "worker", facts), self.outcomes.append, wait_ms=wait_ms)

    def leave(self) -> None:
        assert isinstance(self.stay, Stay)
        self.stay.cancel()


async def receive(broker: Broker, queue: str, holder: str | None = None, limit: int = 10) -> list[Any]:
    deliveries: list[Any] = await broker.call(ops.Receive(queue, limit, FAR_MS, holder=holder))
    return deliveries


async def leases(broker: Broker) -> dict[str, int]:
    return {one.holder: one.leases for one in await broker.call(ops.ListHolders())}


class TestLeaving:
    @on_loop
    async def test_leases_end_at_once_and_counts_go_on(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "a", "b")
            holding = Holding(broker)
            await receive(broker, queue, "me")
            other = Waiter(broker, queue, limit=10)
            await turns()
            assert not other.answered
            holding.leave()
            await turns()
            assert other.bodies == ["a", "b"]
            assert [one.receives for one in other.outcomes[0]] == [2, 2]
            assert holding.outcomes == []
            assert await leases(broker) == {}

    @on_loop
    async def test_fifo_group_goes_on_in_order(self) -> None:
        async with running() as broker:
            queue = await create(broker, "q.fifo")
            await send(broker, queue, "a", "b", group="g")
            holding = Holding(broker)
            await receive(broker, queue, "me", limit=1)
            other = Waiter(broker, queue, limit=10)
            await turns()
            holding.leave()
            await turns()
            assert other.bodies == ["a", "b"]

    @on_loop
    async def test_others_leases_stay(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "mine", "other's", "nobody's")
            holding, _other = Holding(broker), Holding(broker, "other")
            await receive(broker, queue, "me", limit=1)
            await receive(broker, queue, "other", limit=1)
            await receive(broker, queue, limit=1)
            holding.leave()
            assert [one.message.body for one in await receive(broker, queue)] == [b"mine"]

    @on_loop
    async def test_every_way_to_lease_ties(self) -> None:
        async with running() as broker:
            first, second = await create(broker, "a"), await create(broker, "b")
            await send(broker, first, "1", "2")
            await send(broker, second, "3")
            holding = Holding(broker)
            (peeked, _) = await broker.call(ops.Peek(first))
            await broker.call(ops.Take(first, [peeked.message.seq, 10**6], FAR_MS, holder="me"))
            await broker.call(ops.ReceiveAny([first, second], 10, FAR_MS, holder="me"))
            assert await leases(broker) == {"me": 3}
            holding.leave()
            left = await broker.call(ops.ReceiveAny([first, second], 10))
            assert [[one.message.body for one in some] for _, some in left] == [[b"1", b"2"], [b"3"]]

    @on_loop
    async def test_poll_that_is_answered_later_ties(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            holding = Holding(broker)
            mine = Waiter(broker, queue, visibility_ms=FAR_MS, holder="me")
            await turns()
            await send(broker, queue, "a")
            await turns()
            assert mine.bodies == ["a"] and await leases(broker) == {"me": 1}
            holding.leave()
            assert len(await receive(broker, queue)) == 1

    @on_loop
    async def test_its_own_polls_are_not_given_what_it_gives_back(self) -> None:
        async with running() as broker:
            a, b = await create(broker, "a"), await create(broker, "b")
            await send(broker, a, "x")
            holding = Holding(broker)
            await receive(broker, a, "me")
            mine, other = Waiter(broker, a, holder="me"), Waiter(broker, a)
            several: list[Any] = []
            broker.ask(ops.ReceiveAny([b, a], holder="me"), several.append, wait_ms=WAIT_MS)
            await turns()
            holding.leave()  # its other connections may be found broken only later
            await turns()
            assert mine.bodies == [] and several == [[]]
            assert [one.receives for one in other.outcomes[0]] == [2]


class TestSettling:
    @on_loop
    async def test_what_is_deleted_acknowledged_or_released_is_untied(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "a", "b", "c", "d")
            Holding(broker)
            a, b, c, _d = [one.receipt for one in await receive(broker, queue, "me")]
            await broker.call(ops.Delete(queue, [a]))
            await broker.call(ops.Transact(acknowledge=[(queue, [b])]))
            await broker.call(ops.ChangeVisibility(queue, [(c, 0)]))
            assert await leases(broker) == {"me": 1}

    @on_loop
    async def test_what_was_refused_stays_tied(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "a")
            holding = Holding(broker)
            (a,) = [one.receipt for one in await receive(broker, queue, "me")]
            refused = ops.Transact(acknowledge=[(queue, [a])], name="n", expect=[(b"k", b"v")])
            outcomes: list[Any] = []
            broker.ask(refused, outcomes.append)
            broker.ask(ops.ChangeVisibility(queue, [(a, -1)]), outcomes.append)
            await turns()
            assert len(outcomes) == 2 and await leases(broker) == {"me": 1}
            holding.leave()
            assert len(await receive(broker, queue)) == 1

    @on_loop
    async def test_extended_lease_ends_with_its_holder(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "a")
            holding = Holding(broker)
            (a,) = [one.receipt for one in await receive(broker, queue, "me")]
            await broker.call(ops.ChangeVisibility(queue, [(a, 2 * limits.HOUR_MS)]))
            holding.leave()
            assert len(await receive(broker, queue)) == 1

    @on_loop
    async def test_message_that_another_has_by_now_stays_with_it(self) -> None:
        clock = ManualClock()
        async with running(clock=clock) as broker:
            queue = await create(broker)
            await send(broker, queue, "a")
            holding = Holding(broker)
            await broker.call(ops.Receive(queue, 1, 1_000, holder="me"))
            clock.advance(1_000)
            assert len(await receive(broker, queue)) == 1
            holding.leave()
            assert await receive(broker, queue) == []


class TestStaying:
    @on_loop
    async def test_hold_is_answered_when_its_time_is_up(self) -> None:
        async with running() as broker:
            assert await broker.call(ops.Hold("me", "worker"), wait_ms=10) is True
            assert await broker.call(ops.Hold("me", "worker"), wait_ms=10) is False  # it was known
            assert await leases(broker) == {"me": 0}

    @on_loop
    async def test_who_does_not_come_again_is_gone_after_the_grace(self) -> None:
        clock = ManualClock()
        async with running(clock=clock) as broker:
            queue = await create(broker)
            await send(broker, queue, "a")
            assert Holding(broker, wait_ms=0).outcomes == [True]
            await receive(broker, queue, "me")
            clock.advance(limits.HOLD_GRACE_MS - 1)
            broker._advance()
            await turns()
            assert await leases(broker) == {"me": 1} and await receive(broker, queue) == []
            clock.advance(1)
            broker._advance()
            assert len(await receive(broker, queue)) == 1 and await leases(broker) == {}

    @on_loop
    async def test_the_broker_looks_by_itself_when_the_grace_is_over(self) -> None:
        async with running() as broker:
            Holding(broker, wait_ms=0)
            assert broker._tick is not None
            assert broker._tick.when() <= broker._loop.time() + limits.HOLD_GRACE_MS / 1_000

    @on_loop
    async def test_lease_of_one_that_never_holds_ends_after_the_grace(self) -> None:
        clock = ManualClock()
        async with running(clock=clock) as broker:
            queue = await create(broker)
            await send(broker, queue, "a")
            await receive(broker, queue, "nobody")
            clock.advance(limits.HOLD_GRACE_MS)
            broker._advance()
            assert len(await receive(broker, queue)) == 1

    @on_loop
    async def test_second_hold_takes_over_and_the_first_is_answered(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "a")
            first = Holding(broker, at="first")
            await receive(broker, queue, "me")
            second = Holding(broker, at="second")
            assert first.outcomes == [True] and second.outcomes == []
            (state,) = await broker.call(ops.ListHolders("worker"))
            assert (state.leases, state.facts) == (1, {"at": "second"})
            first.leave()
            assert await leases(broker) == {"me": 1}
            second.leave()
            assert await leases(broker) == {} and len(await receive(broker, queue)) == 1

    @on_loop
    async def test_refused_hold_leaves_the_one_before_alone(self) -> None:
        async with running() as broker:
            first = Holding(broker)
            second = Holding(broker, too_long="x" * limits.FACTS_BYTES_MAX)
            assert first.outcomes == [] and second.stay is None
            assert isinstance(second.outcomes[0], InvalidParameter)

    @on_loop
    async def test_wait_out_of_range_is_refused(self) -> None:
        async with running() as broker:
            with pytest.raises(InvalidParameter):
                await broker.call(ops.Hold("me", "worker"), wait_ms=20_001)

    @on_loop
    async def test_cancelled_call_leaves(self) -> None:
        async with running() as broker:
            task = asyncio.create_task(broker.call(ops.Hold("me", "worker"), wait_ms=WAIT_MS))
            await turns()
            assert await leases(broker) == {"me": 0}
            task.cancel()
            await turns()
            assert await leases(broker) == {}

    @on_loop
    async def test_stop_answers_those_that_hold_and_takes_no_more(self) -> None:
        async with running() as broker:
            holding = Holding(broker)
            broker.drain()
            assert holding.outcomes == [True]
            assert isinstance(Holding(broker, "late").outcomes[0], Unavailable)

    @on_loop
    async def test_lease_that_its_holder_extends_is_tied_whoever_gave_it(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "a", "b")
            (a, b) = [one.receipt for one in await receive(broker, queue)]  # before the broker was started again, say
            holding = Holding(broker)
            await broker.call(ops.ChangeVisibility(queue, [(a, limits.HOUR_MS), (b, -1)], holder="me"))
            assert await leases(broker) == {"me": 1}
            holding.leave()
            assert [one.message.body for one in await receive(broker, queue)] == [b"a"]

    @on_loop
    async def test_lease_that_another_holder_extends_is_its(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "a")
            first, second = Holding(broker), Holding(broker, "other")
            (a,) = [one.receipt for one in await receive(broker, queue, "me")]
            await broker.call(ops.ChangeVisibility(queue, [(a, limits.HOUR_MS)], holder="other"))
            first.leave()
            assert await receive(broker, queue) == []
            second.leave()
            assert len(await receive(broker, queue)) == 1
