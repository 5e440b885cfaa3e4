"""The async client: the same promises as the sync one, checked for what is written apart, and cancellation."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
import uvloop

import headrace
from headrace import errors
from headrace.http.messages import Request
from headrace.native import protocol
from headrace.native.aio import AsyncTransaction
from headrace.native.client import Transaction
from headrace.native.embedded import AsyncEmbeddedTransport
from headrace.native.http_async import AsyncHttpTransport
from tests.native.served import ServedBroker
from tests.patience import PATIENCE_S


@pytest.fixture(params=["embedded", "tcp", "unix"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return str(tmp_path / "data")
    served = request.getfixturevalue("served")
    return str(served.url) if request.param == "tcp" else f"unix://{served.unix_path}"


Polls = Callable[[headrace.AsyncClient], int]


@pytest.fixture
def polls(request: pytest.FixtureRequest, target: str) -> Polls:
    """How many calls wait at the target's broker."""
    if not target.startswith(("http:", "unix:")):
        return lambda client: cast("AsyncEmbeddedTransport", client._opened)._host.broker.waiting()
    served = request.getfixturevalue("served")
    return lambda client: int(served.run(lambda broker: broker.waiting()))


async def until_one_waits(client: headrace.AsyncClient, polls: Polls) -> None:
    while not polls(client):  # noqa: ASYNC110 - the broker sends no signal
        await asyncio.sleep(0.001)


def run(target: str, scenario: Callable[[headrace.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with headrace.connect_async(target, patience=0, cooldowns=False) as client:
            await scenario(client)

    asyncio.run(main())


def test_client_works_on_uvloop_too(target: str) -> None:
    async def main() -> None:
        async with headrace.connect_async(target, patience=0, cooldowns=False) as client:
            queue = await client.queue("orders", create=True)
            await queue.send("a")
            [message] = await queue.receive(wait=20)
            await message.delete()

    uvloop.run(main())


def test_life_of_messages(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("orders", create=True, visibility_timeout=60)
        sent = await queue.send({"n": 1}, attributes={"k": "v"})
        await queue.send_many(["a", "b"])
        one, a, b = await queue.receive(wait=0)
        assert (one.id, one.json(), one.attributes) == (sent.id, {"n": 1}, {"k": "v"})
        await one.delete()
        await a.release()
        await b.extend(100)
        assert [(m.text, m.receives) for m in await queue.receive(wait=0)] == [("a", 2)]
        counts = await queue.counts()
        assert (counts.visible, counts.in_flight, counts.deleted) == (0, 2, 1)
        assert [(m.text, m.state) for m in await queue.peek()] == [("a", "in_flight"), ("b", "in_flight")]
        assert await queue.purge() == 2

    run(target, scenario)


def test_claim_waits_for_the_first_message(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("orders", create=True)
        claim = asyncio.create_task(queue.claim("r", 1, wait=20))
        await queue.send("a")
        assert [m.text for m in await asyncio.wait_for(claim, PATIENCE_S)] == ["a"]

    run(target, scenario)


def test_cancelled_claim_binds_nothing(target: str, polls: Polls) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("orders", create=True)
        claim = asyncio.create_task(queue.claim("r", 1, wait=20))
        await until_one_waits(client, polls)
        claim.cancel()
        await asyncio.wait([claim])
        await queue.send("a")
        assert (await queue.claims("r")).last == 0
        assert [m.state for m in await queue.peek()] == ["visible"]

    run(target, scenario)


def test_queues_and_settings(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("q", create=True, tags={"a": "b"})
        assert (await queue.change(delay=5)).delay == 5
        assert (await queue.settings()).delay == 5
        assert [(q.name, q.tags) for q in await client.queues()] == [("q", {"a": "b"})]
        assert (await client.statistics()).store.commits >= 2
        await queue.remove()
        with pytest.raises(headrace.QueueNotFound):
            await client.queue("q")
        with pytest.raises(errors.InvalidParameter):
            await client.queue("q", delay=5)

    run(target, scenario)


def test_consume_deletes_what_ends_well_and_releases_the_rest(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("q", create=True)
        await queue.send_many(["good", "bad", "left"])
        messages = queue.consume(prefetch=3)
        async with await anext(messages) as message:
            assert message.text == "good"
        with pytest.raises(ZeroDivisionError):
            async with await anext(messages):
                1 / 0  # noqa: B018
        await messages.aclose()  # type: ignore[attr-defined]
        seen = [message.text async for message in queue.consume(idle=0)]
        assert sorted(seen) == ["bad", "left"]

    run(target, scenario)


def test_transaction_state_fence_and_claims(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("q", create=True)
        await queue.send_many(["a", "b"])
        assert [m.text for m in await queue.claim("r", 1, max=1)] == ["a"]
        [b] = await queue.receive(wait=0)
        epoch = await client.fence("job")
        async with client.transact("job", epoch=epoch) as tx:
            tx.acknowledge(b)
            tx.acknowledge_claims(queue, "r", 1)
            tx.send(queue, "c")
            tx.put("k", "v")
        assert len(tx.sent) == 1
        assert await client.state("job") == {b"k": b"v"}
        assert (await queue.claims("r")).acknowledged == 1
        assert [m.text for m in await queue.peek()] == ["c"]
        await client.fence("job")
        with pytest.raises(errors.Fenced):
            async with client.transact("job", epoch=epoch) as tx:
                tx.send(queue, "d")
        assert [m.text for m in await queue.claim("r", 2)] == ["c"]
        assert (await queue.acknowledge_claims("r", 2)).last == 2
        await queue.release_claims("r")

    run(target, scenario)


def test_expectations_are_checked_also_where_nothing_else_is_done(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        async with client.transact("job") as tx:
            tx.expect("owner", None)
            tx.put("owner", "me")
        for unmet in (None, "you"):
            with pytest.raises(errors.StateChanged, match="owner"):
                async with client.transact("job") as tx:
                    tx.expect("owner", unmet)
        async with client.transact("job") as tx:
            tx.expect("owner", "me")
            tx.remove("owner")
        assert await client.state("job") == {}

    run(target, scenario)


def test_state_is_read_up_to_a_limit(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        async with client.transact("job") as tx:
            for key in "abc":
                tx.put(key, key)
        assert list(await client.state("job", limit=2)) == [b"a", b"b"]
        assert list(await client.state("job", limit=9)) == [b"a", b"b", b"c"]

    run(target, scenario)


def test_redrive_and_its_end(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        dead = await client.queue("dead", create=True)
        await client.queue("q", create=True, dead_letter="dead", max_receives=1)
        await dead.send_many(["x"] * 50)
        await client.cancel_move(await dead.redrive("q", rate=1))
        while (await dead.moves())[0].status != "CANCELLED":  # noqa: ASYNC110 - the broker sends no signal
            await asyncio.sleep(0.002)

    run(target, scenario)


def test_partly_refused_batch(target: str) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("q", create=True, max_message_bytes=1_024)
        with pytest.raises(headrace.PartlyRefused):
            await queue.send_many(["a", "b" * 2_000])
        assert [m.text for m in await queue.peek()] == ["a"]

    run(target, scenario)


def test_cancelled_receive_takes_no_messages(target: str, polls: Polls) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("q", create=True)
        waiting = asyncio.create_task(queue.receive(wait=20))
        await until_one_waits(client, polls)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await queue.send("x")
        assert [m.receives for m in await queue.receive(wait=20)] == [1]

    run(target, scenario)


def test_many_calls_at_once_share_few_connections(served: ServedBroker) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("q", create=True)
        waiting = [asyncio.create_task(queue.receive(1, wait=20)) for _ in range(100)]
        await asyncio.gather(*[queue.send(str(i)) for i in range(500)])
        received = [message.text for messages in await asyncio.gather(*waiting) for message in messages]
        assert len(set(received)) == 100
        transport = client._opened
        assert isinstance(transport, AsyncHttpTransport)
        assert len(transport._nodes[0]._open) <= 164

    run(served.url, scenario)


def test_broken_connection_is_told_and_the_next_call_has_a_new_one(served: ServedBroker) -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        queue = await client.queue("q", create=True)
        transport = client._opened
        assert isinstance(transport, AsyncHttpTransport)

        def cut(request: Request) -> None:
            del served.handlers[protocol.CALL_PATH]
            served.grace_s = 0
            loop.call_soon_threadsafe(next(iter(transport._nodes[0]._open)).close)

        loop = asyncio.get_running_loop()
        served.handlers[protocol.CALL_PATH] = cut
        with pytest.raises(headrace.OutcomeUnknown):
            await queue.send("x")
        await queue.send("y")
        assert [m.text for m in await queue.peek()] == ["y"]

    run(served.url, scenario)


def test_answer_that_does_not_come_is_unknown_after_the_timeout(served: ServedBroker) -> None:
    served.handlers[protocol.CALL_PATH] = lambda request: None
    served.grace_s = 0

    async def main() -> None:
        async with headrace.connect_async(served.url, timeout=0.1, patience=0) as client:
            with pytest.raises(headrace.OutcomeUnknown, match="no answer"):
                await client.fence("x")

    asyncio.run(main())


def test_nobody_there_is_unavailable() -> None:
    async def scenario(client: headrace.AsyncClient) -> None:
        with pytest.raises(headrace.Unavailable, match="127"):
            await client.queues()

    run("http://127.0.0.1:1", scenario)


def test_client_not_opened_or_closed_says_so(target: str) -> None:
    async def main() -> None:
        client = headrace.connect_async(target, patience=0)
        with pytest.raises(headrace.Unavailable, match="async with"):
            await client.queues()
        await client.open()
        await client.queues()
        await client.close()
        await client.close()
        with pytest.raises(headrace.Unavailable, match="closed"):
            await client.queues()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sync", "twin"),
    [
        (headrace.Client, headrace.AsyncClient),
        (headrace.Queue, headrace.AsyncQueue),
        (headrace.ReceivedMessage, headrace.AsyncReceivedMessage),
        (Transaction, AsyncTransaction),
    ],
)
def test_twins_have_the_same_methods_with_the_same_arguments(sync: type, twin: type) -> None:
    def shape(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(value).parameters)
            for name, value in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name != "open"
        }

    assert shape(sync) == shape(twin)
    assert shape(sync)
