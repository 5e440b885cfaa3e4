"""What the queue does to clients under overload, in bursts, and before slow applications: simulated, no time passes."""

from __future__ import annotations

import statistics

import pytest

from tests.web.dispatch.queue_simulation import Client, Codel, Ours, poisson, simulate

SLOTS = 8


@pytest.mark.parametrize("service_s", [0.005, 0.05])
@pytest.mark.parametrize("load", [1.2, 2.0, 5.0])
def test_overload_keeps_goodput_and_tells_the_others(service_s: float, load: float) -> None:
    capacity_s = SLOTS / service_s
    clients = poisson(1, rate_s=load * capacity_s, service_s=service_s, until_s=10.0)
    outcome = simulate(Ours(), clients, slots=SLOTS, deadline_s=1.0)
    assert len(outcome.good) >= 0.95 * capacity_s * 10.0
    assert outcome.p99_s() < 0.5
    assert max(outcome.shed) < 0.6
    assert outcome.late == 0 and outcome.hung == 0


def test_newest_first_answers_sooner_than_codel() -> None:
    clients = poisson(1, rate_s=3_200.0, service_s=0.005, until_s=6.0)
    ours = simulate(Ours(), clients, slots=SLOTS, deadline_s=1.0)
    codel = simulate(Codel(), clients, slots=SLOTS, deadline_s=1.0)
    assert statistics.median(ours.good) < statistics.median(codel.good) / 10
    assert ours.p99_s() < codel.p99_s()
    assert max(ours.shed) < max(codel.shed)


@pytest.mark.parametrize("service_s", [0.001, 0.005, 0.05, 0.2])
@pytest.mark.parametrize("clients", [16, 64])
def test_more_clients_than_slots_are_no_overload(service_s: float, clients: int) -> None:
    """A closed loop: somebody always waits, and nobody for long. Served in order, and whole."""
    start = [Client(0.0, service_s * (0.5 + place / clients)) for place in range(clients)]
    outcome = simulate(Ours(), start, slots=SLOTS, deadline_s=5.0, returns_until_s=400 * service_s)
    assert outcome.shed == []
    assert max(outcome.good) < 2 * service_s * clients / SLOTS


def test_closed_loop_recovers_from_a_stall() -> None:
    stall = [Client(0.0, 1.0) for _ in range(SLOTS)]
    start = [Client(0.001, 0.005) for _ in range(64)]
    outcome = simulate(Ours(), stall + start, slots=SLOTS, deadline_s=5.0, returns_until_s=0.5)
    assert len(outcome.shed) == 0
    loop = [Client(0.0, 0.005 * (0.5 + place / 64)) for place in range(64)]
    burst = [Client(0.0, 0.005) for _ in range(900)]
    outcome = simulate(Ours(), loop + burst, slots=SLOTS, deadline_s=5.0, returns_until_s=4.0)
    assert max(outcome.good[-1_000:]) < 1.0


def test_load_below_capacity_sheds_nobody() -> None:
    clients = poisson(2, rate_s=1_500.0, service_s=0.005, until_s=10.0)
    outcome = simulate(Ours(), clients, slots=SLOTS, deadline_s=1.0)
    assert outcome.shed == [] and outcome.hung == 0


def test_burst_before_a_fast_application_is_served_whole() -> None:
    calm = poisson(3, rate_s=1_200.0, service_s=0.005, until_s=3.0)
    burst = [Client(1.0, 0.005) for _ in range(100)]
    clients = sorted(calm + burst, key=lambda client: client.came_s)
    assert simulate(Ours(), clients, slots=SLOTS, deadline_s=1.0).shed == []


def test_burst_before_a_slow_application_is_served_whole() -> None:
    calm = [Client(tenth / 100, 0.005) for tenth in range(400)]
    burst = [Client(5.0 + place / 1_000, 2.0) for place in range(3 * SLOTS)]
    outcome = simulate(Ours(), calm + burst, slots=SLOTS, deadline_s=30.0)
    assert outcome.shed == [] and max(outcome.good) < 6.1


def test_slow_application_from_a_cold_start_is_served_whole() -> None:
    burst = [Client(0.0, 2.0) for _ in range(3 * SLOTS)]
    assert simulate(Ours(), burst, slots=SLOTS, deadline_s=30.0).shed == []


def test_recovers_at_once_when_the_overload_is_over() -> None:
    flood = poisson(4, rate_s=8_000.0, service_s=0.005, until_s=2.0)
    calm = poisson(5, rate_s=1_000.0, service_s=0.005, from_s=2.0, until_s=4.0)
    last = poisson(6, rate_s=1_000.0, service_s=0.005, from_s=4.0, until_s=5.0)
    outcome = simulate(Ours(), flood + calm + last, slots=SLOTS, deadline_s=1.0)
    assert outcome.good[-len(last) :] and max(outcome.good[-len(last) :]) < 0.05
