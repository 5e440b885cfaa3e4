"""Cancelling: exact for what waits, a wish for what runs; and what is left of it is swept."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from headrace.queue.operations import Transact
from headrace.testing.tasks import Tasks, in_memory
from headrace.work import App, TaskFailed, chain, group, keys
from headrace.work.cancelling import CancelRequests
from headrace.work.sweeping import Sweeper
from headrace.work.unique import Lock


@pytest.fixture
def tests() -> Iterator[Tasks]:
    app = App(retries=3)

    @app.task(name="work", result_ttl="1h")
    def work(n: int) -> int:
        if n == 13:
            raise ValueError("again")
        return n

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with in_memory(app) as tests:
        yield tests


def test_a_task_that_waits_is_cancelled_at_once_and_never_runs(tests: Tasks) -> None:
    work = tests.app.tasks["work"]
    queued, delayed = work.send(1), work.options(delay="1h").send(2)
    assert (queued.cancel(), delayed.cancel()) == ("cancelled", "cancelled")
    assert tests.run_until_idle() == []
    for handle in (queued, delayed):
        with pytest.raises(TaskFailed, match="cancelled"):
            handle.result(0)
        assert handle.cancel() == "finished"


def test_a_cancelled_task_gives_its_unique_lock_back(tests: Tasks) -> None:
    one = tests.app.tasks["work"].options(unique="only")
    first = one.send(1)
    assert one.send(1).duplicate
    first.cancel()
    assert not one.send(1).duplicate


def test_a_task_that_waits_for_its_retry_is_cancelled_when_it_would_begin(tests: Tasks) -> None:
    handle = tests.app.tasks["work"].send(13)
    tests.run_pending()
    assert handle.cancel() == "cancel_requested"
    [run] = tests.run_until_idle()
    assert run.disposition == "cancelled"
    assert tests.app.backend.state(keys.CANCEL) == []


def test_a_task_known_by_its_id_alone_is_wished_to_end(tests: Tasks) -> None:
    handle = tests.app.tasks["work"].send(1)
    assert tests.app.handle(handle.id).cancel() == "cancel_requested"
    cancel_requests = CancelRequests(tests.app.backend)
    assert not cancel_requests.wanted(handle.id)
    assert cancel_requests.refresh() == {handle.id} and cancel_requests.wanted(handle.id)
    [run] = tests.run_pending()
    assert run.disposition == "cancelled"


def test_what_has_ended_is_finished(tests: Tasks) -> None:
    handle = tests.app.tasks["work"].send(1)
    tests.run_pending()
    assert handle.cancel() == "finished"
    assert handle.result(0) == 1


def test_a_cancelled_member_ends_its_group_as_a_failed_one(tests: Tasks) -> None:
    work, total = tests.app.tasks["work"], tests.app.tasks["total"]
    flow = group([work.s(1), work.s(2)]).then(total.s()).send()
    tests.app.handle(tests.pending()[0].id).cancel()
    tests.run_pending()
    with pytest.raises(TaskFailed, match="Cancelled"):
        flow.result(0)
    rest = chain(work.s(1), work.si(2)).send()
    tests.app.handle(tests.pending()[0].id).cancel()
    tests.run_pending()
    with pytest.raises(TaskFailed, match="Cancelled"):
        rest.result(0)


def test_results_locks_wishes_and_groups_are_swept_when_they_have_expired(tests: Tasks) -> None:
    work = tests.app.tasks["work"]
    work.send(1)
    work.options(unique="x", unique_ttl="1h").send(13)
    group([work.s(13), work.s(2)]).then(tests.app.tasks["total"].s()).send()
    tests.run_pending()
    tests.app.handle("0" * 32).cancel()
    backend, sweeper = tests.app.backend, Sweeper(tests.app.backend)
    assert sweeper.advance(tests.clock()) > tests.clock()
    before = len(backend.state(b""))
    sweeper.advance(tests.clock() + 3_700_000)
    assert not backend.state(keys.RESULT) and not backend.state(keys.UNIQUE)
    assert backend.state(keys.GROUP) and backend.state(keys.CANCEL)
    assert len(backend.state(b"")) < before
    sweeper.advance(tests.clock() + 60 * 86_400_000)
    assert backend.state(b"") == []


def test_a_lock_that_was_taken_anew_is_not_swept(tests: Tasks) -> None:
    one = tests.app.tasks["work"].options(unique="x", unique_ttl="1h")
    one.send(1)
    tests.advance("1h")
    again = one.send(2)
    assert not again.duplicate
    Sweeper(tests.app.backend).advance(tests.clock())
    assert one.send(3).duplicate


def test_thousands_of_results_are_swept_whatever_lies_between_their_keys(tests: Tasks) -> None:
    many = {f"u/k{n:05d}".encode(): msgspec.json.encode(Lock("x", 10**14)) for n in range(2_500)}
    old = {key: msgspec.json.encode(Lock("x", 1)) for key in (b"u/k", b"u/k00000a", b"u/k02000b", b"u/l", b"u/z/1")}
    index = {keys.expiry(1, key): b"" for key in [*old, b"u/gone", *list(many)[:1_200]]}
    tests.app.backend.transact(Transact(state=[*many.items(), *old.items(), *index.items()], name=keys.NAME))
    sweeper = Sweeper(tests.app.backend)
    while sweeper.advance(tests.clock()) <= tests.clock():
        pass
    left = tests.app.backend.state(keys.UNIQUE)
    assert [key for key, _ in left] == sorted(many)
    assert tests.app.backend.state(keys.EXPIRY) == []
