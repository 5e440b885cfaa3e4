"""Commits of durable requests whose answers are lost, or that come late: from runners that were frozen, and lost their leases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from headrace.errors import HeadraceError, OutcomeUnknown, ReceiptExpired, StoreFailed, StoreFull, Unavailable
from headrace.native.aio_queue import AsyncReceivedMessage
from headrace.web.stored import records
from headrace.web.stored.limits import ACCEPTS_MAX, QUEUED_KEEP_S
from headrace.web.stored.records import RequestRecord, StoredRequest
from headrace.web.stored.request_store import DuplicateRequest, RequestStore
from tests.native.served import ServedBroker
from tests.web.stored.test_durable_requests import world


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ServedBroker]:
    served = ServedBroker(tmp_path)
    yield served
    served.stop()


class Faulty:
    """A step of the store that fails as often as there are errors: before it is done, or after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        self.before: list[HeadraceError] = []
        self.after: list[HeadraceError] = []
        self._step: Callable[..., Awaitable[Any]] = getattr(RequestStore, step)

        async def do(store: RequestStore, *arguments: Any) -> Any:
            if self.before:
                raise self.before.pop(0)
            done = await self._step(store, *arguments)
            if self.after:
                raise self.after.pop(0)
            return done

        monkeypatch.setattr(RequestStore, step, do)


def test_unknown_outcome_is_repeated_without_doubling(broker: ServedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit succeeds, its answer is lost: the second try finds the first one's record."""

    async def trial() -> None:
        async with world(broker) as w:
            commits = Faulty(monkeypatch, "_commit")
            for key in (None, "k"):
                commits.after = [OutcomeUnknown("cut")]
                accepted = await (w.post(idempotency_key=key) if key else w.post())
                assert accepted.status == 202
                assert (await w.ended(accepted))["status"] == "done"
            assert len(w.app.seen) == 2

    uvloop.run(trial())


@pytest.mark.parametrize("later", [Unavailable("down"), StoreFull("/data"), *[OutcomeUnknown("cut")] * 2])
def test_what_may_be_accepted_is_not_called_refused(
    broker: ServedBroker, monkeypatch: pytest.MonkeyPatch, later: HeadraceError
) -> None:
    """Whoever is told that nothing was accepted sends it again, and it is run twice."""

    async def trial() -> None:
        async with world(broker) as w:
            commits = Faulty(monkeypatch, "_commit")
            commits.before = [StoreFailed("the disk broke"), *[later] * (ACCEPTS_MAX - 1)]
            answer = await w.post()
            assert answer.status == 503
            assert "it is unknown whether the request was accepted" in str(answer.problem["detail"])

    uvloop.run(trial())


@pytest.mark.parametrize("done", [True, False])
def test_application_is_asked_once_though_the_commit_of_its_answer_was_in_doubt(
    broker: ServedBroker, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    async def trial() -> None:
        async with world(broker) as w:
            finishes = Faulty(monkeypatch, "_finish")
            setattr(finishes, "after" if done else "before", [OutcomeUnknown("cut")])
            answer = await w.post(prefer="respond-async, wait=30")  # it is told of the end, not left to ask
            assert (answer.status, answer.text) == (200, "fine")
            assert len(w.app.seen) == 1

    uvloop.run(trial())


def _request(name: str) -> StoredRequest:
    return StoredRequest(
        id=name * 24, method="POST", target="/hooks", headers={}, body=b"{}", key="",
        version="1.1", secure=False, peer="", peer_port=0, server=("", 0),
        attempts_max=2, retry_s=1, keep_s=100,
    )  # fmt: skip


async def _frozen(store: RequestStore) -> tuple[AsyncReceivedMessage, StoredRequest]:
    """A request that a runner has taken, and lost: another has run it and kept its answer."""
    request = _request("a")
    await store.accept(request, b"")
    (frozen,) = await store.receive(1, wait_s=0)
    await frozen.release()
    (message,) = await store.receive(1, wait_s=0)
    record = await store.start(message, request)
    await store.finish(message, request, record, response=records.Response(200, b"", b"fine", 4))
    return frozen, request


Late = Callable[[RequestStore, AsyncReceivedMessage, StoredRequest, RequestRecord], Awaitable[Any]]


@pytest.mark.parametrize(
    "late",
    [
        lambda store, message, request, _: store.start(message, request),
        lambda store, message, _, record: store.put(message, records.to_retry(record, "busy", now_ms=1)),
        lambda store, message, request, record: store.finish(message, request, record, response=None, error="cut"),
    ],
    ids=["start", "put", "finish"],
)
def test_runner_that_lost_its_lease_does_not_write_over_the_answer(broker: ServedBroker, late: Late) -> None:
    async def trial() -> None:
        store = RequestStore(broker.url, "web-requests")
        await store.open()
        frozen, request = await _frozen(store)
        ended = await store.find(request.id)
        assert ended is not None and ended.response is not None
        with pytest.raises(ReceiptExpired):
            await late(store, frozen, request, ended)
        assert await store.find(request.id) == ended
        await store.close()

    uvloop.run(trial())


def test_expired_key_that_is_used_again_outlives_the_record_of_who_had_it_first(broker: ServedBroker) -> None:
    now = [1_000_000.0]

    async def trial() -> None:
        store = RequestStore(broker.url, "web-requests", unix_s=lambda: now[0])
        await store.open()
        first, second, third = [msgspec.structs.replace(_request(name), key="k") for name in "abc"]
        await store.accept(first, b"")
        (message,) = await store.receive(1, wait_s=0)
        record = await store.start(message, first)
        now[0] += 200  # it ends later than it came, so its record goes later than its key
        await store.finish(message, first, record, response=None, error="cut")
        now[0] += QUEUED_KEEP_S - 50
        assert isinstance(await store.accept(second, b""), RequestRecord)
        now[0] += 100
        assert await store.sweep() == 1
        assert await store.find(first.id) is None
        assert await store.accept(third, b"") == DuplicateRequest(await store.find(second.id), True)
        await store.close()

    uvloop.run(trial())
