"""What task workers ask of the broker: several queues at once, very messages, presence, values waited for. Over sockets and
embedded, by both clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.errors import MessageNotFound, MessageNotVisible
from headrace.native.messages import Outgoing, PartlyRefused
from headrace.queue import limits
from headrace.queue import operations as ops
from tests.native.served import ServedBroker, eventually
from tests.patience import PATIENCE_S

HOLD = ops.Hold("me", "worker", {"pid": 7})
PLACES = ["tcp", "unix", "folder"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedBroker]:
    broker = ServedBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture(params=PLACES)
def target(request: pytest.FixtureRequest, served: ServedBroker, tmp_path: Path) -> str | Path:
    places: dict[str, str | Path] = {
        "tcp": served.url,
        "unix": f"unix://{served.unix_path}",
        "folder": tmp_path / "data",
    }
    return places[request.param]


@pytest.fixture
def client(target: str | Path) -> Iterator[headrace.Client]:
    with headrace.connect(target, patience=0) as client:
        yield client


class TestThreads:
    def test_queues_give_in_the_order_asked(self, client: headrace.Client) -> None:
        high, low = client.queue("high", create=True), client.queue("low", create=True)
        low.send_many(["low 1", "low 2"])
        high.send("high")
        taken = client.receive_any(["high", low.arn], max=2, wait=0)
        assert [(one.text, one.queue_arn) for one in taken] == [("high", high.arn), ("low 1", low.arn)]
        for one in taken:
            one.delete()
        assert [one.text for one in client.receive_any(["high", "low"], wait=0)] == ["low 2"]
        assert client.receive_any(["high", "low"], wait=0) == []

    def test_poll_on_several_queues_is_woken_by_any(self, client: headrace.Client) -> None:
        queues = [client.queue(name, create=True) for name in ("a", "b")]
        found: list[str] = []
        waiting = threading.Thread(target=lambda: found.extend(one.text for one in client.receive_any(["a", "b"])))
        waiting.start()
        queues[1].send("x")
        waiting.join(PATIENCE_S)
        assert found == ["x"]

    def test_very_messages_are_taken(self, client: headrace.Client) -> None:
        queue = client.queue("q", create=True, retention=14 * 86_400)
        queue.send_many(["a", "b"])
        later = queue.send("c", delay=10 * 86_400).sequence
        (taken,) = queue.take([later])
        assert taken.text == "c"
        taken.delete()
        a, _b = queue.peek()
        with pytest.raises(PartlyRefused) as refused:
            queue.take([a.sequence, later])
        assert refused.value.outcomes[0].text == "a" and isinstance(refused.value.errors[1], MessageNotFound)
        with pytest.raises(MessageNotVisible, match="in flight"):
            queue.take([a.sequence])

    def test_message_given_up_is_redriven_to_where_it_came_from(self, client: headrace.Client) -> None:
        dead = client.queue("dead", create=True)
        queue = client.queue("q", create=True, dead_letter="dead", max_receives=3)
        queue.send("x")
        (taken,) = queue.receive(wait=0)
        with client.transact() as tx:
            tx.acknowledge(taken)
            tx.send(dead, "x, failed", dead_letter_of=queue)
        assert dead.peek()[0].dead_letter_of == "q"
        dead.redrive()
        assert [one.text for one in queue.receive()] == ["x, failed"]

    def test_value_is_waited_for(self, client: headrace.Client) -> None:
        found: list[dict[bytes, bytes]] = []
        waiting = threading.Thread(target=lambda: found.append(client.state("work", b"r/1", wait=20)))
        waiting.start()
        with client.transact("work") as tx:
            tx.put(b"r/1", b"done")
        waiting.join(PATIENCE_S)
        assert found == [{b"r/1": b"done"}]
        assert client.state("work", b"r/2", wait=0.01) == {}

    def test_present_while_it_holds_and_listed(self, client: headrace.Client) -> None:
        holding = threading.Thread(target=lambda: client.call(HOLD, wait=20))
        holding.start()
        eventually(lambda: len(client.holders()) == 1)
        (me,) = client.holders("worker")
        assert (me.holder, me.kind, me.leases, me.facts) == ("me", "worker", 0, {"pid": 7})
        assert client.holders("web") == []
        client.call(HOLD)  # takes over: the first is answered
        holding.join(PATIENCE_S)
        assert not holding.is_alive()

    def test_extended_lease_is_its_holders(self, client: headrace.Client) -> None:
        queue = client.queue("tied", create=True)
        queue.send("x")
        client.call(HOLD)
        messages = queue.receive(wait=0)
        queue.extend(messages, 60, holder="me")
        assert [one.leases for one in client.holders("worker") if one.holder == "me"] == [1]
        queue.delete(messages)

    def test_facts_too_long_are_refused(self, client: headrace.Client) -> None:
        with pytest.raises(headrace.CallerError, match="65536"):
            client.call(ops.Hold("me", "worker", {"x": "y" * limits.FACTS_BYTES_MAX}))


@asynccontextmanager
async def opened(target: str | Path) -> AsyncIterator[headrace.AsyncClient]:
    async with headrace.connect_async(target, patience=0) as client:
        yield client


def on_loop(test: Callable[[headrace.AsyncClient], Coroutine[Any, Any, None]], target: str | Path) -> None:
    async def run() -> None:
        async with opened(target) as client:
            await asyncio.wait_for(test(client), PATIENCE_S)

    asyncio.run(run())


async def present(client: headrace.AsyncClient, count: int) -> None:
    while len(await client.holders()) != count:  # noqa: ASYNC110 - the broker is elsewhere
        await asyncio.sleep(0.002)


class TestLoop:
    def test_twins_do_the_same(self, target: str | Path) -> None:
        async def run(client: headrace.AsyncClient) -> None:
            queue = await client.queue("q", create=True)
            other = await client.queue("other", create=True)
            sent = await queue.send("x", delay=3_600)
            (taken,) = await queue.take([sent.sequence], holder="me")
            waiting = asyncio.create_task(client.receive_any(["other", "q"]))
            await asyncio.sleep(0)
            await taken.release()
            assert [(one.text, one.queue_arn) for one in await waiting] == [("x", queue.arn)]
            state = asyncio.create_task(client.state("n", b"k", wait=20))
            await asyncio.sleep(0)
            async with client.transact("n") as tx:
                tx.put(b"k", b"v")
            assert await state == {b"k": b"v"}
            assert (await other.counts()).received == 0

        on_loop(run, target)

    def test_leases_end_when_the_hold_is_abandoned(self, target: str | Path) -> None:
        async def run(client: headrace.AsyncClient) -> None:
            queue = await client.queue("q", create=True, visibility_timeout=43_200)
            await queue.send("x")
            hold = asyncio.create_task(client.call(HOLD, wait=20))
            await present(client, 1)
            assert len(await queue.receive(holder="me")) == 1
            assert (await client.holders())[0].leases == 1
            hold.cancel()
            assert [one.receives for one in await queue.receive()] == [2]
            await present(client, 0)

        on_loop(run, target)


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_leases_end_when_the_clients_connections_break(served: ServedBroker, place: str) -> None:
    url = served.url if place == "tcp" else f"unix://{served.unix_path}"
    with headrace.connect(url) as watching:
        queue = watching.queue("q.fifo", create=True, fifo=True, visibility_timeout=43_200)
        queue.send_many([Outgoing(str(number), group="g", dedup_id=str(number)) for number in range(3)])

        async def work_and_die() -> None:
            client = headrace.connect_async(url)
            await client.open()
            hold = asyncio.create_task(client.call(HOLD, wait=20))
            await present(client, 1)
            assert len(await client.receive_any(["q.fifo"], max=2, holder="me")) == 2
            hold.cancel()
            await client.close()

        asyncio.run(work_and_die())
        assert [(one.text, one.receives) for one in queue.receive()] == [("0", 2), ("1", 2), ("2", 1)]


def test_holders_hold_again_after_a_restart(tmp_path: Path) -> None:
    served = ServedBroker(tmp_path)
    with headrace.connect(served.url, patience=PATIENCE_S) as client:
        held: list[Any] = []

        def hold() -> None:
            held.extend(client.call(HOLD, wait=20) for _ in range(2))

        holding = threading.Thread(target=hold)
        holding.start()
        eventually(lambda: len(client.holders()) == 1)
        served.stop()
        again = ServedBroker(tmp_path, served.port)
        eventually(lambda: len(client.holders()) == 1)
        again.stop()
        holding.join(PATIENCE_S)
        assert held == [True, True]  # neither broker had known it
