"""Limits and fairness: what bounds the messages in flight, and how tenants share a queue."""

from __future__ import annotations

import pytest

from headrace.errors import InFlightLimit
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import SECOND, SuitePart
from headrace.testing.suite.fifo import create_fifo


class TestInFlight(SuitePart):
    @pytest.fixture(autouse=True)
    def low_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 20)

    def test_standard_queue_refuses_receives_beyond_the_limit(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send_all(queue, [entry("x")] * 30)
        assert len(driver.receive(queue, 15)) == 15
        assert len(driver.receive(queue, 10)) == 5
        outcome = driver.outcome(ops.Receive(queue))
        assert isinstance(outcome, InFlightLimit)
        assert (outcome.queue, outcome.bound) == (queue, 20)
        assert driver.counts(queue).in_flight == 20
        driver.pass_time(SECOND)
        assert len(driver.receive(queue, 10)) == 10

    def test_delete_makes_room(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("x")] * 30)
        deliveries = driver.receive(queue, 20)
        driver.delete(queue, *[one.receipt for one in deliveries[:3]])
        assert len(driver.receive(queue, 10)) == 3

    def test_fifo_queue_gives_no_more_and_no_error(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        driver.send_all(queue, [entry(str(number), group=str(number)) for number in range(30)])
        deliveries = [*driver.receive(queue, 10), *driver.receive(queue, 10)]
        assert len(deliveries) == 20
        assert driver.receive(queue, 10) == []
        driver.delete(queue, deliveries[0].receipt)
        assert len(driver.receive(queue, 10)) == 1

    def test_other_queues_are_not_affected(self, driver: StoreDriver) -> None:
        queue, other = driver.create("q"), driver.create("other")
        driver.send_all(queue, [entry("x")] * 20)
        driver.send(other, "y")
        driver.receive(queue, 20)
        assert bodies(driver.receive(other)) == ["y"]


class TestFairQueues(SuitePart):
    def test_quiet_tenant_overtakes_a_noisy_one(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("noisy", group="noisy")] * 200)
        driver.receive(queue, 40)
        driver.send_all(queue, [entry("quiet", group="quiet")] * 3)
        assert bodies(driver.receive(queue, 5)) == ["quiet"] * 3 + ["noisy"] * 2

    def test_message_without_a_group_overtakes_a_noisy_tenant(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("noisy", group="noisy")] * 200)
        driver.receive(queue, 40)
        driver.send(queue, "alone")
        assert bodies(driver.receive(queue, 1)) == ["alone"]

    def test_tenant_below_thirty_in_flight_is_not_noisy(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry(f"busy{number}", group="busy") for number in range(40)])
        driver.receive(queue, limits.NOISY_IN_FLIGHT_MIN - 1)
        driver.send(queue, "other", group="other")
        assert bodies(driver.receive(queue, 1)) == ["busy29"]

    def test_tenant_below_a_tenth_of_the_messages_in_flight_is_not_noisy(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("crowd", group=f"t{number}") for number in range(400)])
        assert len(driver.receive(queue, 400)) == 400
        driver.send_all(queue, [entry("busy", group="busy")] * 36)
        assert len(driver.receive(queue, 35)) == 35  # 35 of 435: less than a tenth
        driver.send(queue, "late", group="late")
        assert bodies(driver.receive(queue, 1)) == ["busy"]

    def test_among_noisy_tenants_the_one_with_fewest_in_flight_goes_first(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("much", group="much")] * 100)
        driver.receive(queue, 80)
        driver.send_all(queue, [entry("less", group="less")] * 100)
        assert bodies(driver.receive(queue, 40)) == ["less"] * 40
        assert bodies(driver.receive(queue, 10)) == ["less"] * 10

    def test_noisy_tenant_gets_everything_when_nobody_else_waits(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry(str(number), group="noisy") for number in range(300)])
        received = [body for _ in range(6) for body in bodies(driver.receive(queue, 50))]
        assert received == [str(number) for number in range(300)]

    def test_what_a_reader_has_claimed_is_in_flight(self, driver: StoreDriver) -> None:
        """As it is counted: until it is acknowledged, or released."""
        queue = driver.create("q")
        driver.send_all(queue, [entry("noisy", group="noisy")] * 100)
        assert len(driver.run(ops.Claim(queue, "reader", 1, limit=30))) == 30
        driver.send_all(queue, [entry("quiet", group="quiet")] * 2)
        assert bodies(driver.receive(queue, 1)) == ["quiet"]
        driver.run(ops.AcknowledgeClaims(queue, "reader", 1))
        assert bodies(driver.receive(queue, 1)) == ["noisy"]
        assert len(driver.run(ops.Claim(queue, "reader", 2, limit=30))) == 30
        driver.run(ops.ReleaseClaims(queue, "reader"))
        assert bodies(driver.receive(queue, 2)) == ["noisy"] * 2

    def test_what_a_reader_has_claimed_is_in_flight_after_a_restart(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send_all(queue, [entry("noisy", group="noisy")] * 100)
        durable.run(ops.Claim(queue, "reader", 1, limit=30))
        durable.reopen()
        durable.send(queue, "quiet", group="quiet")
        assert bodies(durable.receive(queue, 1)) == ["quiet"]
        durable.run(ops.AcknowledgeClaims(queue, "reader", 1))
        assert bodies(durable.receive(queue, 1)) == ["noisy"]

    def test_no_message_is_lost_or_doubled(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry(str(number), group=f"t{number % 3 * (number % 7)}") for number in range(1_000)])
        received = []
        while deliveries := driver.receive(queue, 37):
            received += bodies(deliveries)
            driver.delete(queue, *[one.receipt for one in deliveries[::2]])
        assert sorted(received, key=int) == [str(number) for number in range(1_000)]
