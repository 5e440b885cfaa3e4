"""Holders across nodes: listed everywhere; leases last as long as their holder is present, at whichever node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.broker import Broker
from headrace.queue.presence import Stay
from tests.queue.brokers import WAIT_MS, create, on_loop, send, turns, until
from tests.queue.postgres.nodes import node

pytestmark = pytest.mark.usefixtures("kind")
FAR_MS = limits.HOUR_MS


class Nodes:
    """Two brokers on one database, and their clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.a, self.b = (Broker(node(folder, self.clock), self.clock) for _ in range(2))

    async def pass_ms(self, ms: int, *brokers: Broker) -> None:
        """Let time pass at these brokers, in steps that they do not sleep through."""
        for _ in range(ms // 1_000):
            self.clock.advance(1_000)
            for broker in brokers:
                broker._advance()
                await quiet(broker)


async def die(broker: Broker) -> None:
    """It says nothing any more, as if killed."""
    await quiet(broker)
    broker._stopping = True
    assert broker._tick is not None
    broker._tick.cancel()


async def quiet(broker: Broker) -> None:
    """Until nothing is on its way."""
    await turns()
    await until(lambda: not broker.store.busy())
    await turns()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Nodes]:
    nodes = Nodes(folder)
    brokers = (nodes.a, nodes.b)
    for broker in brokers:
        await broker.start()
    try:
        yield nodes
    finally:
        for broker in brokers:
            await broker.stop()


async def hold(broker: Broker, name: str = "me", kind: str = "worker", **facts: Any) -> Stay:
    stay = broker.ask(ops.Hold(name, kind, facts), lambda _: None, wait_ms=WAIT_MS)
    assert isinstance(stay, Stay)
    await quiet(broker)
    return stay


async def receive(broker: Broker, queue: str, holder: str | None = None) -> list[Any]:
    deliveries: list[Any] = await broker.call(ops.Receive(queue, 10, FAR_MS, holder=holder))
    return deliveries


async def names(broker: Broker, kind: str = "") -> list[str]:
    return [one.holder for one in await broker.call(ops.ListHolders(kind))]


@on_loop
async def test_every_node_lists_the_holders_of_all(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await hold(nodes.a, "w1", said="\0 ü")
        await hold(nodes.b, "s1", "stream")
        for broker in (nodes.a, nodes.b):
            found = await broker.call(ops.ListHolders())
            assert [(one.holder, one.kind, one.facts) for one in found] == [
                ("s1", "stream", {}),
                ("w1", "worker", {"said": "\0 ü"}),
            ]
            assert await names(broker, "worker") == ["w1"]


@on_loop
async def test_who_leaves_is_listed_nowhere_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        stay = await hold(nodes.a)
        assert await names(nodes.b) == ["me"]
        stay.cancel()
        await quiet(nodes.a)
        assert await names(nodes.a) == await names(nodes.b) == []


@on_loop
async def test_who_goes_to_another_node_is_listed_once_as_it_is_now(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await hold(nodes.a, at="a")
        nodes.clock.advance(1_000)
        await hold(nodes.b, at="b")
        for broker in (nodes.a, nodes.b):
            assert [one.facts for one in await broker.call(ops.ListHolders())] == [{"at": "b"}]


@on_loop
async def test_holders_of_a_node_that_stops_are_gone_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await hold(nodes.a)
        await nodes.a.stop()
        assert await names(nodes.b) == []


@on_loop
async def test_holders_of_a_dead_node_are_gone_when_it_has_told_nothing_for_long(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await hold(nodes.a)
        await die(nodes.a)
        await nodes.pass_ms(limits.HOLDERS_FRESH_MS - 1_000, nodes.b)
        assert await names(nodes.b) == ["me"]
        await nodes.pass_ms(1_000, nodes.b)
        assert await names(nodes.b) == []


@on_loop
async def test_lease_goes_on_while_its_holder_holds_at_another_node(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        queue = await create(nodes.a)
        await send(nodes.a, queue, "x")
        stay = await hold(nodes.a)
        assert len(await receive(nodes.b, queue, "me")) == 1
        await nodes.pass_ms(3 * limits.HOLD_GRACE_MS, nodes.a, nodes.b)
        assert await receive(nodes.b, queue) == []
        stay.cancel()
        await quiet(nodes.a)
        await nodes.pass_ms(limits.HOLD_GRACE_MS + limits.HOLDERS_TOLD_EACH_MS, nodes.a, nodes.b)
        assert len(await receive(nodes.a, queue)) == 1


@on_loop
async def test_lease_of_one_that_is_nowhere_ends_after_the_grace(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        queue = await create(nodes.a)
        await send(nodes.a, queue, "x")
        await receive(nodes.b, queue, "nobody")
        await nodes.pass_ms(limits.HOLD_GRACE_MS, nodes.a, nodes.b)
        await quiet(nodes.b)
        assert len(await receive(nodes.a, queue)) == 1


@on_loop
async def test_extended_lease_of_a_dead_node_ends_with_its_holder_at_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        queue = await create(nodes.a)
        await send(nodes.a, queue, "x")
        await hold(nodes.a)
        (delivery,) = await receive(nodes.a, queue, "me")
        await die(nodes.a)
        await nodes.pass_ms(1_000, nodes.b)  # it is believed still
        stay = await hold(nodes.b)
        await nodes.b.call(ops.ChangeVisibility(queue, [(delivery.receipt, FAR_MS)], holder="me"))
        assert await receive(nodes.b, queue) == []
        stay.cancel()
        await quiet(nodes.b)
        assert len(await receive(nodes.b, queue)) == 1
        assert await names(nodes.b) == []


@on_loop
async def test_node_that_finds_a_connection_broken_ends_no_lease_of_a_holder_that_is_at_another_by_now(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as nodes:
        queue = await create(nodes.a)
        await send(nodes.a, queue, "x")
        stay = await hold(nodes.a)
        assert len(await receive(nodes.a, queue, "me")) == 1
        nodes.clock.advance(1)
        await hold(nodes.b)  # the first node hung, say
        stay.cancel()
        await quiet(nodes.a)
        assert await receive(nodes.b, queue) == []
        assert await names(nodes.a) == ["me"]
