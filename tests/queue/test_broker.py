"""Polls: who waits, who is served, and that nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from headrace.errors import InvalidParameter, QueueNotFound, Unavailable
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, arn_of
from headrace.queue.polls import SERVED_AT_ONCE
from tests.queue.brokers import Claimer, Waiter, create, on_loop, running, send, slow, turns, until


class TestWaiting:
    @on_loop
    async def test_poll_is_answered_at_once_when_a_message_is_there(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "x")
            poll = Waiter(broker, queue)
            await turns()
            assert poll.bodies == ["x"]

    @on_loop
    async def test_send_wakes_a_waiting_poll(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            poll = Waiter(broker, queue)
            await turns()
            assert not poll.answered and broker.waiting() == 1
            await send(broker, queue, "x")
            await turns()
            assert poll.bodies == ["x"] and broker.waiting() == 0

    @on_loop
    async def test_send_to_another_queue_wakes_nobody(self) -> None:
        async with running() as broker:
            queue, other = await create(broker), await create(broker, "other")
            poll = Waiter(broker, queue)
            await send(broker, other, "x")
            await turns()
            assert not poll.answered

    @on_loop
    async def test_polls_are_served_in_turn(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            polls = [Waiter(broker, queue) for _ in range(3)]
            await send(broker, queue, "1", "2")
            await turns()
            assert [poll.outcomes and poll.bodies for poll in polls] == [["1"], ["2"], []]
            late = Waiter(broker, queue)
            await send(broker, queue, "3")
            await turns()
            assert polls[2].bodies == ["3"] and not late.answered

    @on_loop
    async def test_polls_that_got_nothing_keep_their_places(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            polls = [Waiter(broker, queue, limit=10) for _ in range(SERVED_AT_ONCE + 3)]
            for number, poll in enumerate(polls):
                assert not poll.answered
                await send(broker, queue, str(number))
                await turns()
                assert poll.bodies == [str(number)]

    @on_loop
    async def test_many_messages_serve_more_polls_than_are_tried_at_once(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            polls = [Waiter(broker, queue) for _ in range(3 * SERVED_AT_ONCE + 1)]
            await send(broker, queue, *[str(number) for number in range(len(polls))])
            await turns()
            assert [poll.bodies for poll in polls] == [[str(number)] for number in range(len(polls))]
            assert broker.waiting() == 0

    @on_loop
    async def test_poll_is_answered_empty_when_its_time_is_up(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            short, long = Waiter(broker, queue, wait_ms=20), Waiter(broker, queue)
            await until(lambda: short.answered)
            assert short.bodies == [] and broker.waiting() == 1
            await send(broker, queue, "x")
            await turns()
            assert long.bodies == ["x"]

    @on_loop
    async def test_last_poll_leaves_no_line_behind(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            poll = Waiter(broker, queue, wait_ms=10)
            await until(lambda: poll.answered)
            assert not broker._polls._lines

    @pytest.mark.parametrize("wait_ms", [-1, limits.WAIT_MAX_MS + 1])
    @on_loop
    async def test_wait_out_of_range_is_refused(self, wait_ms: int) -> None:
        async with running() as broker:
            poll = Waiter(broker, await create(broker), wait_ms=wait_ms)
            assert poll.poll is None
            (error,) = poll.outcomes
            assert isinstance(error, InvalidParameter) and error.parameter == "WaitTimeSeconds"

    @on_loop
    async def test_receive_without_waiting_is_answered_empty(self) -> None:
        async with running() as broker:
            poll = Waiter(broker, await create(broker), wait_ms=0)
            await turns()
            assert poll.poll is None and poll.bodies == []

    @on_loop
    async def test_poll_of_a_missing_queue_is_refused(self) -> None:
        async with running() as broker:
            poll = Waiter(broker, arn_of("missing"))
            await turns()
            assert isinstance(poll.outcomes[0], QueueNotFound)

    @on_loop
    async def test_polls_of_a_deleted_queue_are_told(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            polls = [Waiter(broker, queue) for _ in range(2)]
            await turns()
            await broker.call(ops.DeleteQueue(queue))
            await turns()
            assert all(isinstance(poll.outcomes[0], QueueNotFound) for poll in polls)
            assert broker.find(queue) is None


class TestWaitingClaims:
    @on_loop
    async def test_send_wakes_a_waiting_claim(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            claim = Claimer(broker, queue, 1)
            await turns()
            assert not claim.answered and broker.waiting() == 1
            await send(broker, queue, "x", "y")
            await turns()
            assert claim.bodies == ["x", "y"] and broker.waiting() == 0

    @on_loop
    async def test_claim_that_is_open_is_read_again_without_waiting(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "x")
            first, again = Claimer(broker, queue, 1), Claimer(broker, queue, 1)
            await turns()
            assert first.bodies == again.bodies == ["x"]

    @on_loop
    async def test_claim_whose_time_is_up_binds_nothing(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            claim = Claimer(broker, queue, 1, wait_ms=10)
            await until(lambda: claim.answered)
            assert claim.bodies == []
            assert await broker.call(ops.GetClaims(queue, "reader")) == ClaimState(0, 0)

    @on_loop
    async def test_claim_whose_client_has_gone_binds_nothing(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            gone = Claimer(broker, queue, 1)
            await turns()
            gone.connected = False
            await send(broker, queue, "x")
            await turns()
            assert not gone.answered
            assert await broker.call(ops.GetClaims(queue, "reader")) == ClaimState(0, 0)
            assert [seen.state for seen in await broker.call(ops.Peek(queue))] == ["visible"]

    @on_loop
    async def test_client_that_leaves_while_its_claim_is_bound_reads_it_again(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker)
            claim = Claimer(broker, queue, 1)
            await turns()
            await send(broker, queue, "x")
            disk.gate.clear()
            await until(broker.store.busy)
            claim.leave()
            disk.gate.set()
            again = await broker.call(ops.Claim(queue, "reader", 1))
            assert [message.body for message in again] == [b"x"] and not claim.answered

    @on_loop
    async def test_claims_and_receives_wait_in_one_line(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            poll, claim = Waiter(broker, queue), Claimer(broker, queue, 1)
            await send(broker, queue, "x")
            await turns()
            assert poll.bodies == ["x"] and not claim.answered
            await send(broker, queue, "y")
            await turns()
            assert claim.bodies == ["y"]


class TestLeaving:
    @on_loop
    async def test_client_that_has_gone_is_not_handed_a_message(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            gone, here = Waiter(broker, queue), Waiter(broker, queue)
            await turns()
            gone.connected = False
            await send(broker, queue, "x")
            await turns()
            assert not gone.answered and here.bodies == ["x"]
            assert here.outcomes[0][0].receives == 1

    @on_loop
    async def test_client_that_has_gone_before_it_polls_takes_nothing(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "x")
            outcomes: list[object] = []
            broker.receive(ops.Receive(queue), outcomes.append, wait_ms=1_000, connected=lambda: False)
            await turns()
            (delivery,) = await broker.call(ops.Receive(queue))
            assert delivery.receives == 1 and not outcomes

    @on_loop
    async def test_cancelled_polls_leave_nothing_behind(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            first = Waiter(broker, queue)
            await turns()
            for poll in [Waiter(broker, queue) for _ in range(100)]:
                poll.leave()
            assert broker.waiting() == 1
            await send(broker, queue, "x", "y")
            await turns()
            assert first.bodies == ["x"]
            assert [one.message.body for one in await broker.call(ops.Receive(queue))] == [b"y"]

    @on_loop
    async def test_message_taken_for_a_client_that_left_meanwhile_is_visible_again(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            await send(broker, queue, "x")
            poll = Waiter(broker, queue)  # its receive is on its way
            poll.leave()
            other = Waiter(broker, queue)
            await turns()
            assert not poll.answered and other.bodies == ["x"]

    @on_loop
    async def test_cancelled_wait_takes_nothing(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            waiting = asyncio.create_task(broker.call(ops.Receive(queue), wait_ms=9_000))
            at_once = asyncio.create_task(broker.call(ops.Receive(queue), wait_ms=0))
            await asyncio.sleep(0)
            at_once.cancel()
            await turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await send(broker, queue, "x")
            (delivery,) = await broker.call(ops.Receive(queue), wait_ms=9_000)
            assert delivery.receives == 1 and at_once.cancelled()

    @on_loop
    async def test_poll_that_left_while_others_of_its_group_were_tried_does_not_wait(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker, "q.fifo")
            first, second = Waiter(broker, queue), Waiter(broker, queue)
            await turns()
            await send(broker, queue, "x", group="g")
            disk.gate.clear()
            await turns()  # the first has the message and waits for the disk, the second has nothing
            second.leave()
            disk.gate.set()
            await until(lambda: first.answered)
            assert broker.waiting() == 0


class TestUnderWay:
    """A poll whose receive is on its way through a slow disk."""

    @on_loop
    async def test_time_that_is_up_meanwhile_does_not_cost_a_receive(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker, "q.fifo")
            await send(broker, queue, "x", group="g")
            disk.gate.clear()
            poll = Waiter(broker, queue, wait_ms=10)
            assert poll.poll is not None
            await until(lambda: poll.poll is not None and poll.poll.over)
            assert not poll.answered
            disk.gate.set()
            await until(lambda: poll.answered)
            assert poll.bodies == ["x"] and poll.outcomes[0][0].receives == 1

    @on_loop
    async def test_time_that_is_up_while_others_of_the_group_are_tried_is_kept(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker, "q.fifo")
            first, second = Waiter(broker, queue), Waiter(broker, queue, wait_ms=30)
            await turns()
            await send(broker, queue, "x", group="g")
            disk.gate.clear()
            await turns()
            await until(lambda: second.answered or (second.poll is not None and second.poll.over))
            disk.gate.set()
            await until(lambda: second.answered)
            assert second.bodies == [] and first.bodies == ["x"]

    @on_loop
    async def test_empty_answer_does_not_wait_for_others_leases(self) -> None:
        """Or what became ready while it waited would wake nobody."""
        async with slow() as (broker, disk):
            queue, fifo = await create(broker), await create(broker, "f.fifo")
            await send(broker, fifo, "lease", group="g")
            disk.gate.clear()
            sending = asyncio.create_task(send(broker, queue, "x"))
            await turns()
            leasing, poll = Waiter(broker, fifo), Waiter(broker, queue)
            await turns()
            disk.gate.set()
            await until(lambda: poll.answered)
            await sending
            assert poll.bodies == ["x"]
            await until(lambda: leasing.answered)


class TestDraining:
    @on_loop
    async def test_waiting_polls_are_answered_empty_and_new_ones_refused(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            polls = [Waiter(broker, queue) for _ in range(3)]
            await turns()
            broker.drain()
            assert [poll.bodies for poll in polls] == [[], [], []]
            late = Waiter(broker, queue)
            assert isinstance(late.outcomes[0], Unavailable)
            with pytest.raises(Unavailable):
                await broker.call(ops.GetQueue(queue))

    @on_loop
    async def test_poll_under_way_is_answered(self) -> None:
        async with running() as broker:
            queue = await create(broker)
            poll = Waiter(broker, queue)
            broker.drain()
            await turns()
            assert poll.bodies == []

    @on_loop
    async def test_poll_that_got_nothing_is_answered_though_others_of_its_group_wait_for_the_disk(self) -> None:
        async with slow() as (broker, disk):
            queue = await create(broker, "q.fifo")
            first, second = Waiter(broker, queue), Waiter(broker, queue)
            await turns()
            await send(broker, queue, "x", group="g")
            disk.gate.clear()
            await turns()
            broker.drain()
            disk.gate.set()
            await broker.stop()
            assert first.bodies == ["x"] and second.bodies == []

    @on_loop
    async def test_message_taken_for_a_client_that_left_stays_leased_when_the_broker_stops(self) -> None:
        """Its lease ends by itself: nothing new is begun any more."""
        async with slow() as (broker, disk):
            queue = await create(broker, "q.fifo")
            await send(broker, queue, "x", group="g")
            disk.gate.clear()
            poll = Waiter(broker, queue)
            await turns()
            poll.leave()
            broker.drain()
            disk.gate.set()
            await broker.stop()
            assert not poll.answered
