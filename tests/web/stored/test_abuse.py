"""Durable requests of clients that want more than their own: around rules, into other answers, into all of the memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from headrace.web.stored import intake
from tests.native.served import ServedBroker
from tests.patience import PATIENCE_S
from tests.web.fakes import FakeExchange
from tests.web.stored.test_durable_requests import world


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ServedBroker]:
    served = ServedBroker(tmp_path)
    yield served
    served.stop()


def test_no_spelling_of_a_path_gets_around_its_rule(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            for target in ("/%68ooks", "//hooks", "/x/../hooks/a", "/./hooks"):
                assert w.durable.take(FakeExchange("POST", target)), target

    uvloop.run(trial())


def test_clients_cannot_say_that_a_request_was_stored(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            forged = FakeExchange("POST", "/other", {"headrace-attempt": "1", "headrace-request-id": "x"})
            assert not w.durable.take(forged)
            assert not any(name.startswith(b"headrace-") for name in forged.headers)

    uvloop.run(trial())


@pytest.mark.parametrize("header", ["cookie", "x-api-key"])
def test_a_key_shows_nobody_the_answer_of_another_caller(broker: ServedBroker, header: str) -> None:
    async def trial() -> None:
        async with world(broker) as w:

            async def ask(who: str) -> FakeExchange:
                return await w.ask(FakeExchange("POST", "/hooks", {"idempotency-key": "k", header: who}))

            await w.ended(await ask("alice"))
            assert (await ask("bob")).status == 422
            assert (await ask("alice")).text == "fine"

    uvloop.run(trial())


def test_a_key_is_unique_for_a_host(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            await w.ended(await w.post(idempotency_key="k", host="a.example"))
            assert (await w.post(idempotency_key="k", host="A.example")).status == 200
            assert (await w.post(idempotency_key="k", host="b.example")).status == 202

    uvloop.run(trial())


def test_chunked_bodies_are_bounded_together(broker: ServedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "COLLECTED_BYTES_MAX", 1_000)

    async def trial() -> None:
        async with world(broker) as w:
            uploads = [FakeExchange("POST", "/hooks", body=None) for _ in range(5)]
            for upload in uploads:
                assert w.durable.take(upload)
                upload.arrive(b"x" * 400)
            async with asyncio.timeout(PATIENCE_S):
                for upload in uploads[2:]:
                    await upload.done.wait()
            assert [upload.status for upload in uploads] == [0, 0, 503, 503, 503]
            for upload in uploads[:2]:
                upload.leave()
            assert (await w.post(b"x" * 900)).status == 202, "what was given back can be used"

    uvloop.run(trial())


def test_closing_does_not_wait_for_a_body_for_ever(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            assert w.durable.take(FakeExchange("POST", "/hooks", body=None))
            async with asyncio.timeout(PATIENCE_S):
                await w.durable.close(0.01)

    uvloop.run(trial())


def test_expiry_of_what_is_no_more_is_removed(broker: ServedBroker) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            client, state = w.store._client, w.store._state
            async with client.transact(state) as tx:
                tx.put(b"expiry/%016x/%b" % (1, b"a" * 24), b"")
            assert await w.store.sweep() == 1
            assert await w.store.sweep() == 0

    uvloop.run(trial())


def test_a_bug_in_the_runner_is_a_pause(broker: ServedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.web.stored.runner.PAUSE_S", 0.001)

    async def trial() -> None:
        async with world(broker) as w:
            receive, failures = w.store.receive, iter([ValueError("a bug"), None])

            async def fail_once(most: int, *, wait_s: float) -> list[object]:
                if error := next(failures, None):
                    raise error
                return list(await receive(most, wait_s=wait_s))

            monkeypatch.setattr(w.store, "receive", fail_once)
            assert (await w.ended(await w.post()))["status"] == "done"
            assert (await w.ended(await w.post()))["status"] == "done"

    uvloop.run(trial())
