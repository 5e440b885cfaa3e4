"""Durable requests against a broker over real sockets; clients and application are fakes on the loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.web.settings import DurableSettings
from headrace.web.stored import records
from headrace.web.stored.durable_requests import DurableRequests
from headrace.web.stored.limits import BODY_BYTES_MAX
from headrace.web.stored.records import PREFIX
from headrace.web.stored.request_store import RequestStore
from tests.native.served import ServedBroker
from tests.patience import PATIENCE_S
from tests.web.fakes import FakeExchange

TEXT = Fields.of([(b"Content-Type", b"text/plain"), (b"X-Own", b"1")])
HOOKS = DurableSettings(path="/hooks", attempts_max=2, retry_s=0.001)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ServedBroker]:
    served = ServedBroker(tmp_path)
    yield served
    served.stop()


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await happened():  # noqa: ASYNC110  # it happens in the broker
            await asyncio.sleep(0.005)


class App:
    """An application that answers by a function, and notes what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, bytes]] = []
        self.answer: Callable[[Exchange], None] = lambda exchange: exchange.respond(200, TEXT, b"fine")
        self.called = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.seen.append((exchange.target, exchange.take(), exchange.headers[b"headrace-attempt"]))
        self.called.set()
        self.answer(exchange)


class World:
    def __init__(self, broker: ServedBroker, rules: list[DurableSettings], unix_s: Callable[[], float]) -> None:
        self.app = App()
        self.store = RequestStore(broker.url, "web-requests", unix_s=unix_s, patience_s=2)
        self.durable = DurableRequests(self.store, rules, self.app)

    async def ask(self, exchange: FakeExchange) -> FakeExchange:
        assert self.durable.take(exchange)
        await asyncio.wait_for(exchange.done.wait(), PATIENCE_S)
        return exchange

    async def post(self, body: bytes = b"{}", target: str = "/hooks", **headers: str) -> FakeExchange:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask(FakeExchange("POST", target, named, body=body))

    async def status(self, accepted: FakeExchange) -> dict[str, Any]:
        location = accepted.header("location")
        assert location is not None
        shown: dict[str, Any] = json.loads((await self.ask(FakeExchange(target=location))).text)
        return shown

    async def ended(self, accepted: FakeExchange) -> dict[str, Any]:
        shown: dict[str, Any] = {}

        async def over() -> bool:
            shown.clear()
            shown.update(await self.status(accepted))
            return shown["status"] in ("done", "failed")

        await until(over)
        return shown


@asynccontextmanager
async def world(
    broker: ServedBroker, *rules: DurableSettings, unix_s: Callable[[], float] = lambda: 1_000_000.0
) -> AsyncIterator[World]:
    made = World(broker, list(rules or (HOOKS,)), unix_s)
    made.durable.start()

    async def ready() -> bool:
        return made.durable._ready

    await until(ready)
    try:
        yield made
    finally:
        await made.durable.close()


def test_request_is_accepted_run_and_its_answer_kept(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            accepted = await w.post(b"hello", "/hooks/a?b=c")
            assert accepted.status == 202
            assert accepted.header("retry-after") == "1"
            shown = await w.ended(accepted)
            assert shown["status"] == "done"
            assert shown["response"]["body"] == "fine"
            assert w.app.seen == [("/hooks/a?b=c", b"hello", b"1")]
            location = accepted.header("location")
            assert location is not None and location.startswith(PREFIX)
            answer = await w.ask(FakeExchange(target=location + "/response"))
            assert (answer.status, answer.text, answer.header("x-own")) == (200, "fine", "1")

    uvloop.run(trial())


def test_other_requests_are_left_alone(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            assert not w.durable.take(FakeExchange("GET", "/hooks"))
            assert not w.durable.take(FakeExchange("POST", "/other"))
            assert not w.durable.take(FakeExchange("POST", "/other", headers={"prefer": "respond-async"}))

    uvloop.run(trial())


def test_client_may_ask_where_a_rule_lets_it(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker, DurableSettings(path="/", always=False)) as w:
            assert not w.durable.take(FakeExchange("POST", "/other"))
            asked = await w.post(target="/other", prefer="respond-async")
            assert asked.status == 202
            assert asked.header("preference-applied") == "respond-async"

    uvloop.run(trial())


def test_long_bodies_come_back_whole_and_too_long_ones_are_refused(broker: ServedBroker) -> None:
    async def trial() -> None:
        body = bytes(range(256)) * 8_192  # 2 MiB
        async with world(broker) as w:
            assert (await w.ended(await w.post(body)))["status"] == "done"
            assert w.app.seen[0][1] == body
            assert not await w.store._client.state("web:web-requests", "body/")
            refused = await w.post(b"x" * (BODY_BYTES_MAX + 1))
            assert refused.status == 413

    uvloop.run(trial())


def test_a_cut_body_is_never_accepted(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            exchange = FakeExchange("POST", "/hooks", body=None, length=10)
            assert w.durable.take(exchange)
            await asyncio.sleep(0)
            exchange.arrive(b"12345")
            await asyncio.sleep(0)
            exchange.leave()
            accepted = await w.post(b"whole")
            await w.ended(accepted)
            assert [body for _, body, _ in w.app.seen] == [b"whole"]

    uvloop.run(trial())


def test_a_body_in_pieces_is_joined(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            exchange = FakeExchange("POST", "/hooks", body=None)
            assert w.durable.take(exchange)
            for piece in (b"a", b"b", b"c"):
                await asyncio.sleep(0)
                exchange.arrive(piece)
            exchange.end()
            await asyncio.wait_for(exchange.done.wait(), PATIENCE_S)
            await w.ended(exchange)
            assert w.app.seen[0][1] == b"abc"

    uvloop.run(trial())


def test_server_errors_are_tried_again_and_then_given_up(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            w.app.answer = lambda exchange: exchange.respond(500, TEXT, b"broken")
            shown = await w.ended(await w.post())
            assert (shown["status"], shown["attempts"]) == ("failed", 2)
            assert "answered 500" in shown["error"]
            assert shown["response"]["body"] == "broken"
            assert [attempt for _, _, attempt in w.app.seen] == [b"1", b"2"]
            dead = await w.store._client.queue("web-requests-dead")
            [buried] = await dead.peek()
            assert "answered 500" in str(buried.attributes["Error"])

    uvloop.run(trial())


def test_a_redriven_request_runs_again(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            w.app.answer = lambda exchange: exchange.respond(503, TEXT)
            accepted = await w.post(b"x" * 1_000_000)
            await w.ended(accepted)
            w.app.answer = lambda exchange: exchange.respond(200, TEXT, b"now")
            dead = await w.store._client.queue("web-requests-dead")
            await dead.redrive(to="web-requests")

            async def done() -> bool:
                return bool((await w.status(accepted))["status"] == "done")

            await until(done)
            assert len(w.app.seen[-1][1]) == 1_000_000

    uvloop.run(trial())


def test_a_client_error_is_an_answer(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            w.app.answer = lambda exchange: exchange.respond(422, TEXT, b"no such thing")
            shown = await w.ended(await w.post())
            assert (shown["status"], shown["response"]["status"], shown["attempts"]) == ("done", 422, 1)

    uvloop.run(trial())


def test_aborted_and_failing_runs_are_tried_again(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:

            def fail(exchange: Exchange) -> None:
                w.app.answer = abort
                raise RuntimeError("a bug")

            def abort(exchange: Exchange) -> None:
                exchange.start(200, TEXT)
                exchange.send(b"half")
                exchange.abort()

            w.app.answer = fail
            shown = await w.ended(await w.post())
            assert (shown["status"], shown["attempts"]) == ("failed", 2)

    uvloop.run(trial())


def test_a_refused_run_costs_no_attempt(broker: ServedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.web.stored.runner.PAUSE_S", 0.001)

    async def trial() -> None:
        async with world(broker) as w:
            left = [5]

            def refuse(exchange: Exchange) -> None:
                left[0] -= 1
                if left[0]:
                    exchange.refused = "queue-full"
                    exchange.respond(503, TEXT)
                else:
                    exchange.respond(200, TEXT, b"at last")

            w.app.answer = refuse
            shown = await w.ended(await w.post())
            assert (shown["status"], shown["attempts"]) == ("done", 1)

    uvloop.run(trial())


def test_idempotency_key_gives_the_first_answer(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            running: list[Exchange] = []
            w.app.answer = running.append
            first = await w.post(b"one", idempotency_key="k1")
            assert first.status == 202
            await asyncio.wait_for(w.app.called.wait(), PATIENCE_S)
            again = await w.post(b"one", idempotency_key="k1")
            assert (again.status, again.header("location")) == (409, first.header("location"))
            other = await w.post(b"two", idempotency_key="k1")
            assert (other.status, other.problem["type"]) == (422, "idempotency-conflict")
            running[0].respond(201, TEXT, b"made")
            await w.ended(first)
            repeat = await w.post(b"one", idempotency_key="k1")
            assert (repeat.status, repeat.text, repeat.header("idempotent-replayed")) == (201, "made", "true")
            assert repeat.header("content-location") == first.header("location")
            assert len(w.app.seen) == 1
            w.app.answer = lambda exchange: exchange.respond(200, TEXT)
            elsewhere = await w.post(b"one", idempotency_key="k1", authorization="somebody else")
            assert elsewhere.status == 202

    uvloop.run(trial())


def test_of_many_with_one_key_one_is_accepted(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            posts = [w.post(b"same", idempotency_key="k") for _ in range(20)]
            answers = await asyncio.gather(*posts)
            assert sum(answer.status == 202 for answer in answers) == 1
            assert {answer.status for answer in answers} <= {200, 202, 409}
            await asyncio.sleep(0.05)
            assert len(w.app.seen) == 1

    uvloop.run(trial())


def test_what_is_put_off_is_not_extended(broker: ServedBroker) -> None:
    """An extension after the release would replace the pause by a whole lease."""

    async def trial() -> None:
        async with world(broker, DurableSettings(path="/hooks", retry_s=100)) as w:
            held: list[int] = []

            def fail(exchange: Exchange) -> None:
                held.append(len(w.durable._runner._held))
                exchange.respond(500, TEXT)

            async def is_put_off() -> bool:
                return "error" in await w.status(accepted)

            w.app.answer = fail
            accepted = await w.post()
            await until(is_put_off)
            assert held == [1]
            assert not w.durable._runner._held

    uvloop.run(trial())


def test_a_run_that_does_not_end_is_left_to_others(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            w.app.answer = lambda _: None
            accepted = await w.post()
            await asyncio.wait_for(w.app.called.wait(), PATIENCE_S)
            await w.durable.close(0.01)
        async with world(broker) as w:
            assert (await w.status(accepted))["status"] == "running"

    uvloop.run(trial())


def test_key_may_be_required_and_is_checked(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker, DurableSettings(path="/", key_required=True)) as w:
            assert (await w.post()).status == 400
            assert (await w.post(idempotency_key="a b")).status == 400
            assert (await w.post(idempotency_key="ok")).status == 202

    uvloop.run(trial())


def test_prefer_wait_answers_with_the_result(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            answer = await w.post(prefer="respond-async, wait=10")
            assert (answer.status, answer.text) == (200, "fine")

    uvloop.run(trial())


def test_results_expire_with_their_keys(broker: ServedBroker) -> None:
    now = [1_000_000.0]

    async def trial() -> None:
        async with world(broker, DurableSettings(path="/hooks", keep_s=100), unix_s=lambda: now[0]) as w:
            accepted = await w.post(idempotency_key="k")
            await w.ended(accepted)
            now[0] += 99
            assert not await w.store.sweep()
            now[0] += 2
            assert await w.store.sweep() == 1
            assert not await w.store._client.state("web:web-requests")
            location = accepted.header("location")
            assert location is not None
            assert (await w.ask(FakeExchange(target=location))).status == 404
            assert (await w.post(idempotency_key="k")).status == 202

    uvloop.run(trial())


def test_status_urls_are_strict(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            for target in (PREFIX, PREFIX + "x", PREFIX + "a" * 24 + "/other", PREFIX + "../" + "a" * 24):
                assert (await w.ask(FakeExchange(target=target))).status == 404
            unknown = PREFIX + "a" * 24
            assert (await w.ask(FakeExchange(target=unknown))).status == 404
            assert (await w.ask(FakeExchange("DELETE", unknown))).status == 405

    uvloop.run(trial())


def test_without_a_broker_nothing_is_accepted(tmp_path: Path) -> None:
    async def trial() -> None:
        store = RequestStore(f"unix://{tmp_path}/none.sock", "q", patience_s=0.01)
        durable = DurableRequests(store, [HOOKS], lambda _: None)
        durable.start()
        exchange = FakeExchange("POST", "/hooks")
        assert durable.take(exchange)
        assert (exchange.status, exchange.header("retry-after")) == (503, "1")
        await durable.close()

    uvloop.run(trial())


def test_a_broker_that_dies_accepts_nothing_more(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            await asyncio.to_thread(broker.stop)
            answer = await w.post()
            assert answer.status == 503
            assert answer.problem["type"] == "broker-unavailable"

    uvloop.run(trial())


def test_ids_cannot_be_guessed() -> None:
    assert records.is_id("A1-_" * 6)
    assert not records.is_id("short")
