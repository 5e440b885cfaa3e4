"""Limits, joins and wishes before a run, over a store: tasks wait in the broker until they may start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.testing.tasks import Tasks, in_memory
from headrace.work import App, InvalidOption, keys, limiting, preflight
from headrace.work.cancelling import CancelRequests
from headrace.work.preflight import Ready, Sent
from headrace.work.sweeping import Sweeper

START_MS = 1_767_225_600_000


@pytest.fixture
def tests() -> Iterator[Tasks]:
    app = App(retries=0, max_worker_losses=0)

    @app.task(name="rated", rate="10/s")
    def rated(n: int) -> None:
        pass

    @app.task(name="keyed", rate="1/s", key=lambda customer: customer)
    def keyed(customer: str) -> None:
        pass

    @app.task(name="slots", concurrency=2)
    def slots(n: int) -> None:
        pass

    with in_memory(app, now_ms=START_MS) as tests:
        yield tests


def begin(tests: Tasks, limit: int = 100) -> list[preflight.Begun]:
    """What a worker that has received all there is may run, none of it settled."""
    app = tests.app
    received = app.backend.receive(["tasks"], limit, visibility_ms=60_000, wait_s=0)
    jobs = [app.open_job(queue, delivery) for queue, deliveries in received for delivery in deliveries]
    return preflight.begin(jobs, app.backend, CancelRequests(app.backend), now_ms=app.clock())


def test_what_may_not_start_yet_waits_in_the_broker_and_does_not_ask_again(tests: Tasks) -> None:
    tests.app.tasks["rated"].send_many((n,) for n in range(25))
    begun = begin(tests)
    assert [isinstance(one, Ready) for one in begun] == [True] + [False] * 24
    waiting = tests.pending()
    times = [one.reserved_ms for one in waiting if one.reserved_ms is not None]
    assert times == [START_MS + n * 105 for n in range(1, 25)]
    number_before = rate_row(tests)
    for _ in range(24):
        tests.advance("105ms")
        assert [isinstance(one, Ready) for one in begin(tests)] == [True]
    assert rate_row(tests) == number_before


def test_who_comes_too_late_asks_again(tests: Tasks) -> None:
    tests.app.tasks["rated"].send_many((n,) for n in range(5))
    begin(tests)
    tests.advance("10s")
    assert sum(isinstance(one, Ready) for one in begin(tests)) == 1


def rate_row(tests: Tasks) -> bytes | None:
    return tests.app.backend.read(keys.limit("rated", "") + b"rate")


def test_a_rate_is_kept_to_the_end(tests: Tasks) -> None:
    tests.app.tasks["rated"].send_many((n,) for n in range(30))
    starts: list[int] = []
    for _ in range(400):
        starts += [tests.clock()] * len(tests.run_pending())
        tests.advance("10ms")
    assert len(starts) == 30
    assert all(sum(at <= other < at + 1_000 for other in starts) <= 10 for at in starts)
    assert 3_045 <= starts[-1] - starts[0] <= 3_500


def test_each_key_has_its_own_rate(tests: Tasks) -> None:
    tests.app.tasks["keyed"].send_many([("ada",), ("bob",), ("ada",), ("a/b",)])
    assert [isinstance(one, Ready) for one in begin(tests)] == [True, True, False, True]


def test_no_more_slots_than_allowed_and_a_release_gives_one_back(tests: Tasks) -> None:
    tests.app.tasks["slots"].send_many((n,) for n in range(5))
    begun = begin(tests)
    ready = [one for one in begun if isinstance(one, Ready)]
    assert len(ready) == 2 and sum(isinstance(one, Sent) for one in begun) == 3
    slot = ready[0].slot
    assert slot is not None
    puts, expects = preflight.release(slot, tests.app.backend.read, now_ms=tests.clock())
    assert len(puts) == len(expects) == 1


def test_all_run_in_the_end_under_a_concurrency_limit(tests: Tasks) -> None:
    tests.app.tasks["slots"].send_many((n,) for n in range(20))
    assert sum(run.disposition == "succeeded" for run in tests.run_until_idle()) == 20


def test_a_renewed_slot_outlives_its_lease_and_a_dead_workers_does_not(tests: Tasks) -> None:
    tests.app.tasks["slots"].send_many((n,) for n in range(2))
    held = [one.slot for one in begin(tests) if isinstance(one, Ready) and one.slot is not None]
    tests.driver.clock.advance(50_000)
    preflight.renew(held[:1], tests.app.backend, now_ms=tests.clock())
    tests.driver.clock.advance(20_000)
    tests.app.tasks["slots"].send(7)
    tests.app.tasks["slots"].send(8)
    fresh = [one for one in begin(tests) if isinstance(one, Ready)]
    assert [job.job.delivery.receives for job in fresh] in ([1], [2])
    assert len(fresh) == 1


def test_limits_that_nobody_uses_are_swept_and_others_are_not(tests: Tasks) -> None:
    tests.app.tasks["keyed"].send("ada")
    tests.run_pending()
    sweeper = Sweeper(tests.app.backend)
    assert sweeper.advance(tests.clock()) > tests.clock()
    assert tests.app.backend.state(keys.LIMIT)
    later_ms = tests.clock() + limiting.IDLE_MS
    sweeper.advance(later_ms)
    assert tests.app.backend.state(keys.LIMIT) == []
    assert tests.app.backend.state(keys.EXPIRY) == []


def test_a_rate_that_cannot_be_read_is_refused_when_decorated() -> None:
    with pytest.raises(InvalidOption, match="rate"):
        App().task(name="x", rate="fast")(lambda: None)
