"""Polls that wait at several places, and for state."""

from __future__ import annotations

from typing import Any

from headrace.queue import operations as ops
from headrace.queue.broker import Broker
from headrace.queue.model import Entry
from headrace.queue.polls import SERVED_AT_ONCE, Poll
from tests.queue.brokers import WAIT_MS, Waiter, create, on_loop, running, send, slow, turns, until


class Asking:
    """Any operation that waits, and what it was answered."""

    def __init__(self, broker: Broker, operation: ops.Polling, *, wait_ms: int = WAIT_MS) -> None:
        self.outcomes: list[Any] = []
        self.connected = True
        self.poll = broker.ask(operation, self.outcomes.append, wait_ms=wait_ms, connected=lambda: self.connected)

    def leave(self) -> None:
        self.connected = False
        assert isinstance(self.poll, Poll)
        self.poll.cancel()


class AskingAny(Asking):
    def __init__(self, broker: Broker, *queues: str, limit: int = 10, wait_ms: int = WAIT_MS) -> None:
        super().__init__(broker, ops.ReceiveAny(list(queues), limit), wait_ms=wait_ms)

    @property
    def bodies(self) -> list[str]:
        (outcome,) = self.outcomes
        return [one.message.body.decode() for _, some in outcome for one in some]


async def put(broker: Broker, name: str, *keys: bytes) -> None:
    await broker.call(ops.Transact(name=name, state=[(key, b"v") for key in keys]))


class TestSeveralQueues:
    @on_loop
    async def test_any_of_them_wakes_the_poll_and_it_leaves_all_lines(self) -> None:
        async with running() as broker:
            a, b = await create(broker, "a"), await create(broker, "b")
            poll = AskingAny(broker, a, b)
            await turns()
            assert broker.waiting() == 1
            await send(broker, b, "x")
            await turns()
            assert poll.bodies == ["x"] and not broker._polls._lines

    @on_loop
    async def test_when_it_is_woken_it_takes_by_priority(self) -> None:
        async with running() as broker:
            high, low = await create(broker, "high"), await create(broker, "low")
            poll = AskingAny(broker, high, low, limit=2)
            await turns()
            for queue, body in ((low, "low"), (high, "high 1"), (high, "high 2")):
                broker.ask(ops.Send(queue, [Entry(body.encode())]), lambda _: None)
            await turns()
            assert poll.bodies == ["high 1", "high 2"]
            assert (await broker.call(ops.GetQueue(low))).counts.visible == 1

    @on_loop
    async def test_polls_of_one_and_of_several_are_served_in_turn(self) -> None:
        async with running() as broker:
            a, b = await create(broker, "a"), await create(broker, "b")
            several, one = AskingAny(broker, a, b, limit=1), Waiter(broker, b)
            await turns()
            await send(broker, b, "x")
            await turns()
            assert several.bodies == ["x"] and not one.answered
            await send(broker, b, "y")
            await turns()
            assert one.bodies == ["y"]

    @on_loop
    async def test_message_goes_to_one_poll_only_and_the_others_keep_their_places(self) -> None:
        async with running() as broker:
            a, b = await create(broker, "a"), await create(broker, "b")
            polls = [AskingAny(broker, a, b, limit=1) for _ in range(SERVED_AT_ONCE + 3)]
            await turns()
            await send(broker, a, "x")
            await send(broker, b, "y")
            await turns()
            assert [poll.bodies for poll in polls if poll.outcomes] == [["x"], ["y"]]
            assert [bool(poll.outcomes) for poll in polls[:2]] == [True, True]
            assert broker.waiting() == len(polls) - 2

    @on_loop
    async def test_client_that_left_is_handed_nothing(self) -> None:
        async with running() as broker:
            a, b = await create(broker, "a"), await create(broker, "b")
            poll = AskingAny(broker, a, b)
            await turns()
            poll.leave()
            await send(broker, a, "x")
            assert (await broker.call(ops.Receive(a)))[0].receives == 1
            assert poll.outcomes == [] and not broker._polls._lines

    @on_loop
    async def test_what_is_leased_while_the_client_leaves_is_visible_again(self) -> None:
        async with running() as broker:
            a, b = await create(broker, "a"), await create(broker, "b")
            await send(broker, a, "x")
            await send(broker, b, "y")
            poll = AskingAny(broker, a, b)
            poll.leave()
            await turns()
            assert [len(await broker.call(ops.Receive(queue))) for queue in (a, b)] == [1, 1]

    @on_loop
    async def test_time_is_up(self) -> None:
        async with running() as broker:
            a, b = await create(broker, "a"), await create(broker, "b")
            assert await broker.call(ops.ReceiveAny([a, b]), wait_ms=10) == []
            assert not broker._polls._lines


class TestState:
    @on_loop
    async def test_value_that_is_there_is_answered_at_once(self) -> None:
        async with running() as broker:
            await put(broker, "n", b"r/1")
            assert await broker.call(ops.GetState("n", b"r/1"), wait_ms=WAIT_MS) == [(b"r/1", b"v")]

    @on_loop
    async def test_poll_waits_for_its_prefix_and_name(self) -> None:
        async with running() as broker:
            mine, everything = Asking(broker, ops.GetState("n", b"r/1")), Asking(broker, ops.GetState("n"))
            other = Asking(broker, ops.GetState("other", b"r/1"))
            await turns()
            await put(broker, "n", b"r/2")
            await turns()
            assert everything.outcomes == [[(b"r/2", b"v")]] and mine.outcomes == []
            await put(broker, "n", b"r/1/part")
            await turns()
            assert mine.outcomes == [[(b"r/1/part", b"v")]] and other.outcomes == []
            assert broker.waiting() == 1

    @on_loop
    async def test_all_who_wait_for_a_value_are_told(self) -> None:
        async with running() as broker:
            polls = [Asking(broker, ops.GetState("n", b"k")) for _ in range(3 * SERVED_AT_ONCE)]
            await turns()
            await put(broker, "n", b"k")
            await turns(100)
            assert all(poll.outcomes == [[(b"k", b"v")]] for poll in polls)
            assert not broker._polls._lines and not broker._polls._prefixes

    @on_loop
    async def test_poll_is_told_once_the_commit_is_durable(self) -> None:
        async with slow() as (broker, disk):
            poll = Asking(broker, ops.GetState("n", b"k"))
            await turns()
            disk.gate.clear()
            broker.ask(ops.Transact(name="n", state=[(b"k", b"v")]), lambda _: None)
            await turns()
            assert poll.outcomes == []
            disk.gate.set()
            await until(lambda: bool(poll.outcomes))
            assert poll.outcomes == [[(b"k", b"v")]]

    @on_loop
    async def test_deleted_value_wakes_nobody_and_time_is_up(self) -> None:
        async with running() as broker:
            await put(broker, "n", b"k")
            poll = Asking(broker, ops.GetState("n", b"k", after=b"k"))
            await turns()
            await broker.call(ops.Transact(name="n", state=[(b"k", None)]))
            await turns()
            assert poll.outcomes == []
            assert await broker.call(ops.GetState("n", b"k"), wait_ms=10) == []
            poll.leave()
            assert not broker._polls._lines
