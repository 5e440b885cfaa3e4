"""Who is noisy, for how long, and who of the noisy is next."""

from __future__ import annotations

import pytest

from headrace.queue import limits
from headrace.queue.fairness import Tenants
from tests.queue.rules.messages import NOW

HALF_MS = limits.FAIR_IDLE_MS // 2


def with_in_flight(**counts: int) -> Tenants:
    tenants = Tenants()
    for group, count in counts.items():
        for _ in range(count):
            tenants.started(group)
    return tenants


def with_time(done: int = limits.NOISY_IN_FLIGHT_MIN, *, busy_ms: int = 100, now: int = NOW) -> Tenants:
    """A tenant `busy` that has taken time for `done` messages and has none in flight."""
    tenants = Tenants()
    for _ in range(done):
        tenants.started("busy")
        tenants.ended("busy", busy_ms=busy_ms, now=now)
    return tenants


class TestInFlight:
    def test_unknown_tenant_is_quiet(self) -> None:
        assert not Tenants().noisy("g", in_flight=0, now=NOW)

    def test_tenant_is_noisy_from_thirty_in_flight(self) -> None:
        assert not with_in_flight(g=29).noisy("g", in_flight=29, now=NOW)
        assert with_in_flight(g=30).noisy("g", in_flight=30, now=NOW)

    def test_tenant_is_noisy_above_a_tenth_of_what_is_in_flight(self) -> None:
        tenants = with_in_flight(g=30)
        assert tenants.noisy("g", in_flight=299, now=NOW)
        assert not tenants.noisy("g", in_flight=300, now=NOW)

    def test_tenant_is_quiet_again_when_its_messages_have_ended(self) -> None:
        tenants = with_in_flight(g=30)
        tenants.ended("g", busy_ms=0, now=NOW)
        assert not tenants.noisy("g", in_flight=29, now=NOW)

    def test_tenant_without_messages_in_flight_costs_nothing(self) -> None:
        tenants = with_in_flight(g=1)
        tenants.ended("g", busy_ms=0, now=NOW)
        assert tenants.in_flight == {}


class TestTime:
    def test_tenant_that_took_most_of_the_time_is_noisy(self) -> None:
        assert with_time().noisy("busy", in_flight=0, now=NOW)

    def test_few_messages_do_not_make_a_tenant_noisy(self) -> None:
        assert not with_time(29).noisy("busy", in_flight=0, now=NOW)

    def test_tenth_of_the_time_is_not_too_much(self) -> None:
        tenants = with_time(30, busy_ms=10)
        tenants.started("other")
        tenants.ended("other", busy_ms=30 * 10 * 9, now=NOW)
        assert not tenants.noisy("busy", in_flight=0, now=NOW)
        assert not tenants.noisy("other", in_flight=0, now=NOW)  # one message, though a long one

    def test_time_counts_across_the_two_slices(self) -> None:
        tenants = with_time(15, now=NOW)
        for _ in range(15):
            tenants.started("busy")
            tenants.ended("busy", busy_ms=1, now=NOW + HALF_MS)
        assert tenants.noisy("busy", in_flight=0, now=NOW + HALF_MS)

    @pytest.mark.parametrize("later_ms", [2 * HALF_MS, 10 * HALF_MS])
    def test_time_counts_no_more_after_five_minutes(self, later_ms: int) -> None:
        assert not with_time().noisy("busy", in_flight=0, now=NOW + later_ms)

    def test_clock_that_steps_back_forgets_and_goes_on(self) -> None:
        tenants = with_time()
        assert not tenants.noisy("busy", in_flight=0, now=NOW - 2 * HALF_MS)
        for _ in range(30):
            tenants.started("busy")
            tenants.ended("busy", busy_ms=1, now=NOW - 2 * HALF_MS)
        assert tenants.noisy("busy", in_flight=0, now=NOW - 2 * HALF_MS)

    def test_past_is_forgotten_with_the_backlog(self) -> None:
        tenants = with_time()
        tenants.forget_time()
        assert not tenants.noisy("busy", in_flight=0, now=NOW)


class TestDeferred:
    def test_what_stood_back_comes_in_its_order(self) -> None:
        tenants = Tenants()
        for seq in (1, 2, 3):
            tenants.defer("g", seq)
        assert tenants.deferred_count == 3
        assert [tenants.take_deferred("g") for _ in range(3)] == [1, 2, 3]
        assert (tenants.deferred, tenants.deferred_count) == ({}, 0)

    def test_least_busy_tenant_is_next(self) -> None:
        tenants = with_in_flight(much=50, less=40)
        assert tenants.least_busy() is None
        tenants.defer("much", 1)
        assert tenants.least_busy() == "much"
        tenants.defer("less", 2)
        assert tenants.least_busy() == "less"

    def test_tenant_is_named_when_it_is_noisy_no_more(self) -> None:
        tenants = with_in_flight(g=30)
        tenants.defer("g", 1)
        assert tenants.quiet_again(in_flight=30, now=NOW) is None
        assert tenants.quiet_again(in_flight=300, now=NOW) == "g"
