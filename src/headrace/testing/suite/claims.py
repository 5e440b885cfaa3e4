"""Claims: bind ready messages to claim n, durably; read a claim again; acknowledge up to n."""

from __future__ import annotations

import pytest

from headrace.errors import CallerError, ClaimRefused, InFlightLimit
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, Message, Redrive
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import DAY, MINUTE, SECOND, SuitePart
from headrace.testing.suite.fifo import create_fifo, send_groups


def claim(driver: StoreDriver, queue: str, number: int, *, reader: str = "r", **bounds: int) -> list[str]:
    messages: list[Message] = driver.run(ops.Claim(queue, reader, number, **bounds))
    return [one.body.decode() for one in messages]


def fill(driver: StoreDriver, queue: str, *bodies_: str) -> None:
    driver.send_all(queue, [entry(body) for body in bodies_])


class TestClaims(SuitePart):
    def test_claim_binds_messages_in_order(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1", "2", "3", "4", "5")
        assert claim(driver, queue, 1, limit=2) == ["1", "2"]
        assert claim(driver, queue, 2, limit=2) == ["3", "4"]
        assert claim(driver, queue, 3) == ["5"]
        assert driver.run(ops.GetClaims(queue, "r")) == ClaimState(0, 3)

    def test_claims_are_in_order_whoever_the_tenants_are(self, driver: StoreDriver) -> None:
        """Also what receives have let stand back: to who reads everything it would be late."""
        queue = driver.create("q")
        driver.send_all(queue, [entry(f"noisy{number}", group="noisy") for number in range(60)])
        driver.receive(queue, 40)
        driver.send(queue, "quiet", group="quiet")
        assert bodies(driver.receive(queue, 1)) == ["quiet"]
        driver.send(queue, "behind", group="quiet")
        assert claim(driver, queue, 1, limit=15) == [f"noisy{number}" for number in range(40, 55)]
        assert claim(driver, queue, 2) == [*[f"noisy{number}" for number in range(55, 60)], "behind"]

    def test_open_claim_answers_the_same_messages_again(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1", "2", "3")
        assert claim(driver, queue, 1, limit=2) == ["1", "2"]
        fill(driver, queue, "4")
        assert claim(driver, queue, 1, limit=100) == ["1", "2"]
        assert claim(driver, queue, 2) == ["3", "4"]
        assert claim(driver, queue, 1) == ["1", "2"]

    def test_claimed_messages_have_no_timeout(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=1_000)
        fill(driver, queue, "1", "2")
        claim(driver, queue, 1, limit=1)
        driver.pass_time(DAY)
        counts = driver.counts(queue)
        assert (counts.visible, counts.in_flight) == (1, 1)
        assert bodies(driver.receive(queue)) == ["2"]
        assert [one.state for one in driver.peek(queue)] == ["claimed", "in_flight"]

    def test_acknowledgement_deletes_up_to_its_number(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1", "2", "3")
        for number in (1, 2, 3):
            claim(driver, queue, number, limit=1)
        assert driver.run(ops.AcknowledgeClaims(queue, "r", 2)) == ClaimState(2, 3)
        assert driver.run(ops.AcknowledgeClaims(queue, "r", 2)) == ClaimState(2, 3)
        assert [one.message.body for one in driver.peek(queue)] == [b"3"]
        assert claim(driver, queue, 3) == ["3"]

    def test_transaction_acknowledges_claims(self, driver: StoreDriver) -> None:
        queue, out = driver.create("q"), driver.create("out")
        fill(driver, queue, "1")
        claim(driver, queue, 1)
        driver.run(ops.Transact(sends=[(out, [entry("sum")])], claims=[(queue, "r", 1)]))
        assert driver.peek(queue) == []
        assert driver.run(ops.GetClaims(queue, "r")) == ClaimState(1, 1)
        assert bodies(driver.receive(out)) == ["sum"]

    @pytest.mark.parametrize("number", [0, 3, 100, -1])
    def test_number_out_of_turn_is_refused(self, driver: StoreDriver, number: int) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1", "2")
        claim(driver, queue, 1, limit=1)
        assert isinstance(driver.outcome(ops.Claim(queue, "r", number)), ClaimRefused)
        assert driver.run(ops.GetClaims(queue, "r")) == ClaimState(0, 1)

    def test_acknowledged_claim_cannot_be_read_again(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1")
        claim(driver, queue, 1)
        driver.run(ops.AcknowledgeClaims(queue, "r", 1))
        assert isinstance(driver.outcome(ops.Claim(queue, "r", 1)), ClaimRefused)

    def test_acknowledging_a_claim_never_made_is_refused(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        assert isinstance(driver.outcome(ops.AcknowledgeClaims(queue, "r", 1)), CallerError)

    def test_bytes_bound_a_claim_but_one_message_always_fits(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "a" * 600, "b" * 600, "c" * 600)
        assert [body[0] for body in claim(driver, queue, 1, bytes_max=1_300)] == ["a", "b"]
        assert [body[0] for body in claim(driver, queue, 2, bytes_max=1)] == ["c"]

    def test_readers_do_not_share_claims(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1", "2")
        assert claim(driver, queue, 1, reader="one", limit=1) == ["1"]
        assert claim(driver, queue, 1, reader="two", limit=1) == ["2"]
        assert driver.run(ops.GetClaims(queue, "none")) == ClaimState(0, 0)

    def test_release_shows_the_messages_again_and_forgets_the_reader(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1", "2", "3")
        claim(driver, queue, 1, limit=2)
        driver.store.take_ready()
        assert driver.run(ops.ReleaseClaims(queue, "r")) is None
        assert driver.store.take_ready() == {queue}
        assert driver.run(ops.ReleaseClaims(queue, "r")) is None
        assert driver.run(ops.GetClaims(queue, "r")) == ClaimState(0, 0)
        assert bodies(driver.receive(queue)) == ["1", "2", "3"]

    def test_purge_takes_claimed_messages_too(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, "1", "2")
        claim(driver, queue, 1)
        driver.run(ops.Purge(queue))
        assert driver.counts(queue).in_flight == 0
        assert driver.peek(queue) == []

    def test_leased_and_delayed_messages_are_not_claimed(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "leased")
        driver.receive_one(queue)
        driver.send(queue, "delayed", delay_ms=MINUTE)
        driver.send(queue, "ready")
        assert claim(driver, queue, 1) == ["ready"]

    def test_claim_passes_over_dead_letters(self, driver: StoreDriver) -> None:
        dead = driver.create("dead")
        queue = driver.create("q", redrive=Redrive(dead, 1))
        fill(driver, queue, "1", "2", "3", "4")
        driver.receive(queue, 2, visibility_ms=0)
        assert claim(driver, queue, 1, limit=2) == ["3", "4"]
        assert bodies(driver.receive(dead)) == ["1", "2"]
        assert driver.counts(queue).dead_lettered == 2

    def test_claimed_messages_outlive_their_retention(self, driver: StoreDriver) -> None:
        queue = driver.create("q", retention_ms=MINUTE)
        fill(driver, queue, "1", "2")
        claim(driver, queue, 1, limit=1)
        driver.pass_time(2 * MINUTE)
        assert claim(driver, queue, 1) == ["1"]
        assert claim(driver, queue, 2) == []
        driver.run(ops.ReleaseClaims(queue, "r"))
        assert claim(driver, queue, 1) == []

    def test_no_more_is_claimed_than_may_be_in_flight(
        self, driver: StoreDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 3)
        queue = driver.create("q")
        fill(driver, queue, "1", "2", "3", "4")
        driver.receive_one(queue)
        assert claim(driver, queue, 1) == ["2", "3"]
        assert claim(driver, queue, 2) == []
        assert isinstance(driver.outcome(ops.Receive(queue)), InFlightLimit)
        driver.run(ops.AcknowledgeClaims(queue, "r", 1))
        driver.pass_time(SECOND)
        assert claim(driver, queue, 2) == ["4"]

    def test_claim_survives_restarts(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        fill(durable, queue, "1", "2", "3", "4")
        claim(durable, queue, 1, limit=1)
        durable.run(ops.AcknowledgeClaims(queue, "r", 1))
        claim(durable, queue, 2, limit=2)
        durable.reopen()
        assert durable.run(ops.GetClaims(queue, "r")) == ClaimState(1, 2)
        assert claim(durable, queue, 2) == ["2", "3"]
        assert claim(durable, queue, 3) == ["4"]
        durable.run(ops.AcknowledgeClaims(queue, "r", 3))
        durable.reopen()
        assert durable.peek(queue) == []
        assert durable.run(ops.GetClaims(queue, "r")) == ClaimState(3, 3)

    def test_claim_survives_a_crash(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q")
        fill(crashable, queue, "1", "2", "3")
        claim(crashable, queue, 1, limit=2)
        crashable.crash()
        assert claim(crashable, queue, 1) == ["1", "2"]
        assert bodies(crashable.receive(queue)) == ["3"]


class TestFifoClaims(SuitePart):
    def test_claim_locks_its_groups_for_others(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "b1")
        assert claim(driver, queue, 1, limit=1) == ["a1"]
        assert claim(driver, queue, 1, reader="other") == ["b1"]
        assert driver.receive(queue) == []

    def test_same_readers_next_claim_goes_on_in_the_group(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "a3", "b1")
        assert claim(driver, queue, 1, limit=2) == ["a1", "a2"]
        assert sorted(claim(driver, queue, 2)) == ["a3", "b1"]
        send_groups(driver, queue, "a4")
        assert claim(driver, queue, 3) == ["a4"]

    def test_group_is_free_when_all_its_claims_are_acknowledged(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "a3")
        claim(driver, queue, 1, limit=1)
        claim(driver, queue, 2, limit=1)
        driver.run(ops.AcknowledgeClaims(queue, "r", 1))
        assert driver.receive(queue) == []
        driver.run(ops.AcknowledgeClaims(queue, "r", 2))
        assert bodies(driver.receive(queue)) == ["a3"]

    def test_released_claims_come_again_in_order(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "a3")
        claim(driver, queue, 1, limit=1)
        claim(driver, queue, 2, limit=1)
        driver.run(ops.ReleaseClaims(queue, "r"))
        assert bodies(driver.receive(queue)) == ["a1", "a2", "a3"]

    def test_leased_group_is_not_claimed(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "b1")
        driver.receive(queue, 1)
        assert claim(driver, queue, 1) == ["b1"]

    def test_message_visible_again_is_not_claimed_while_the_next_is_in_flight(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "b1")
        first, _ = driver.receive(queue, 2)
        driver.change_visibility(queue, first.receipt, 0)
        assert claim(driver, queue, 1) == ["b1"]
        assert bodies(driver.receive(queue)) == ["a1"]

    def test_claims_lock_their_groups_across_a_restart(self, durable: StoreDriver) -> None:
        queue = create_fifo(durable)
        send_groups(durable, queue, "a1", "a2", "b1")
        assert claim(durable, queue, 1, limit=1) == ["a1"]
        durable.reopen()
        assert bodies(durable.receive(queue)) == ["b1"]
        assert claim(durable, queue, 1) == ["a1"]
        assert claim(durable, queue, 2) == ["a2"]
