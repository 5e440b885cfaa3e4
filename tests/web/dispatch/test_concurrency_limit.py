"""How many requests an ASGI worker holds."""

from __future__ import annotations

from headrace.web.dispatch.concurrency_limit import ConcurrencyLimit


def test_worker_that_waits_for_io_soon_holds_all_it_may() -> None:
    held = ConcurrencyLimit(1_000)
    rounds = 0
    while held.count < 1_000:
        held.lag(0.001, used_up=True)
        rounds += 1
    assert rounds == 6


def test_worker_that_computes_holds_few() -> None:
    held = ConcurrencyLimit(1_000)
    for _ in range(200):
        held.lag(0.005 * held.count, used_up=True)  # each request computes for 5 ms
    assert 1 <= held.count <= 5


def test_unused_credits_do_not_grow() -> None:
    held = ConcurrencyLimit(1_000)
    held.lag(0.001, used_up=False)
    assert held.count == 16


def test_in_between_nothing_changes() -> None:
    held = ConcurrencyLimit(1_000)
    held.lag(0.01, used_up=True)
    assert held.count == 16


def test_credits_stay_within_bounds() -> None:
    held = ConcurrencyLimit(3)
    assert held.count == 3
    held.lag(0.0, used_up=True)
    assert held.count == 3
    for _ in range(10):
        held.lag(1.0, used_up=True)
    assert held.count == 1
    held.lag(0.0, used_up=True)
    assert held.count == 2
