"""What a restart must bring back, and what it must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import QueueDeletedRecently, ReceiptExpired
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, arn_of
from headrace.queue.store.disk import LeaseRecord
from headrace.queue.store.local import recovery
from headrace.queue.store.local.store import LocalStore
from headrace.testing import StoreDriver, bodies, entry
from headrace.testing.stores import SQLITE
from tests.queue.local.hands import Hands

Life = Callable[[StoreDriver], None]
LIFE = pytest.mark.parametrize("life", [StoreDriver.reopen, StoreDriver.crash], ids=["stopped", "killed"])


class TestClaims:
    @LIFE
    @pytest.mark.parametrize("name", ["q", "q.fifo"])
    def test_messages_released_after_a_restart_come_once(self, sqlite: StoreDriver, name: str, life: Life) -> None:
        queue = sqlite.create(name, **({"content_dedup": True} if "." in name else {}))
        sqlite.send_all(queue, [entry("1", group="g"), entry("2", group="g")])
        sqlite.run(ops.Claim(queue, "r", 1))
        life(sqlite)
        sqlite.run(ops.ReleaseClaims(queue, "r"))
        for count in (1, 2):
            deliveries = sqlite.receive(queue)
            assert bodies(deliveries) == ["1", "2"]
            assert [one.receives for one in deliveries] == [count] * 2
            for one in deliveries:
                sqlite.change_visibility(queue, one.receipt, 0)

    def test_count_of_a_claimed_message_goes_on(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q")
        sqlite.send(queue, "x")
        first_ms = sqlite.clock()
        sqlite.receive_one(queue, visibility_ms=0)
        sqlite.pass_time(1_000)
        sqlite.run(ops.Claim(queue, "r", 1))
        sqlite.reopen()
        sqlite.run(ops.ReleaseClaims(queue, "r"))
        delivery = sqlite.receive_one(queue)
        assert (delivery.receives, delivery.first_received_ms) == (2, first_ms)

    def test_purged_claims_stay_numbered_and_empty(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q")
        sqlite.send(queue, "x")
        sqlite.run(ops.Claim(queue, "r", 1))
        sqlite.run(ops.Purge(queue))
        sqlite.reopen()
        assert sqlite.run(ops.GetClaims(queue, "r")) == ClaimState(0, 1)
        assert sqlite.run(ops.Claim(queue, "r", 1)) == []
        assert sqlite.counts(queue).in_flight == 0

    def test_claims_of_a_deleted_queue_are_gone(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q")
        sqlite.send(queue, "x")
        sqlite.run(ops.Claim(queue, "r", 1))
        sqlite.run(ops.DeleteQueue(queue))
        sqlite.create("q")
        sqlite.reopen()
        assert sqlite.run(ops.GetClaims(queue, "r")) == ClaimState(0, 0)


class TestLeases:
    @LIFE
    def test_leases_of_purged_messages_mean_nothing(self, sqlite: StoreDriver, life: Life) -> None:
        queue = sqlite.create("q.fifo", content_dedup=True)
        sqlite.send(queue, "old", group="g")
        receipt = sqlite.receive_one(queue).receipt
        sqlite.run(ops.Purge(queue))
        life(sqlite)
        assert sqlite.counts(queue).in_flight == 0
        sqlite.send(queue, "new", group="g")
        assert bodies(sqlite.receive(queue)) == ["new"]
        assert sqlite.delete(queue, receipt) == [None]

    def test_leases_and_delays_of_a_deleted_queue_mean_nothing_to_its_successor(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q")
        sqlite.send_all(queue, [entry("leased"), entry("late", delay_ms=60_000)])
        sqlite.receive(queue, 1)
        sqlite.run(ops.DeleteQueue(queue))
        sqlite.create("q")
        sqlite.reopen()
        counts = sqlite.counts(queue)
        assert (counts.visible, counts.in_flight, counts.delayed) == (0, 0, 0)

    def test_lease_that_ended_while_the_broker_was_down_is_over(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q.fifo", content_dedup=True, visibility_ms=1_000)
        sqlite.send(queue, "x", group="g")
        receipt = sqlite.receive_one(queue).receipt
        sqlite.store.close()
        sqlite.jump(1_000)
        sqlite.reopen()
        assert isinstance(sqlite.delete(queue, receipt)[0], ReceiptExpired)
        assert sqlite.receive_one(queue).receives == 2

    def test_delayed_message_that_was_received_is_not_delayed_again(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q", delay_ms=1_000)
        sqlite.send(queue, "x")
        sqlite.pass_time(1_000)
        sqlite.receive_one(queue, visibility_ms=500)
        sqlite.reopen()
        assert sqlite.counts(queue).delayed == 0
        sqlite.pass_time(500)
        assert bodies(sqlite.receive(queue)) == ["x"]

    def test_tenants_are_counted(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q")
        sqlite.send_all(queue, [entry("noisy", group="noisy")] * 40)
        deliveries = sqlite.receive(queue, 30)
        sqlite.reopen()
        sqlite.send(queue, "quiet", group="quiet")
        assert bodies(sqlite.receive(queue, 2)) == ["quiet", "noisy"]
        assert sqlite.delete(queue, *[one.receipt for one in deliveries]) == [None] * 30


class TestAttempts:
    @LIFE
    def test_attempt_is_answered_the_same(self, sqlite: StoreDriver, life: Life) -> None:
        queue = sqlite.create("q.fifo", content_dedup=True)
        sqlite.send_all(queue, [entry("1", group="g"), entry("2", group="g")])
        before = sqlite.receive(queue, attempt_id="a")
        life(sqlite)
        assert sqlite.receive(queue, attempt_id="a") == before

    def test_attempt_that_is_over_is_forgotten(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q.fifo", content_dedup=True, visibility_ms=limits.HOUR_MS)
        sqlite.send(queue, "1", group="g")
        sqlite.receive(queue, attempt_id="a")
        sqlite.store.close()
        sqlite.jump(limits.ATTEMPT_MS)
        sqlite.reopen()
        assert sqlite.receive(queue, attempt_id="a") == []


class TestDedup:
    def test_id_that_is_over_is_free_and_others_are_not(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q.fifo")
        sqlite.send(queue, "1", group="g", dedup_id="early")
        sqlite.pass_time(limits.DEDUP_MS - 1)
        sqlite.send(queue, "2", group="g", dedup_id="late")
        sqlite.store.close()
        sqlite.jump(1)
        sqlite.reopen()
        assert not sqlite.send(queue, "3", group="g", dedup_id="early").duplicate
        assert sqlite.send(queue, "4", group="g", dedup_id="late").duplicate


class TestCooldowns:
    def test_queue_deleted_a_minute_ago_may_be_created(self, tmp_path: Path) -> None:
        driver = StoreDriver(SQLITE, tmp_path, cooldowns=True)
        driver.create("q")
        driver.run(ops.DeleteQueue(arn_of("q")))
        driver.jump(limits.COOLDOWN_MS - 1)
        driver.reopen()
        assert isinstance(driver.outcome(ops.CreateQueue(arn_of("q"))), QueueDeletedRecently)
        driver.jump(1)
        driver.reopen()
        driver.create("q")
        driver.close()


class TestSnapshot:
    """The records that a fresh lease journal starts with say what the old one said."""

    def records(self, driver: StoreDriver) -> list[LeaseRecord]:
        assert isinstance(driver.store, LocalStore)
        return list(recovery.lease_records(driver.store.state))

    def test_every_lease_is_there_once(self, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recovery, "_ITEMS_A_RECORD", 3)
        queue = hands.create("q")
        hands.send_all(queue, [entry("x")] * 14)
        hands.receive(queue, 2, visibility_ms=0)
        hands.run(ops.Claim(queue, "r", 1, limit=1))  # received once before
        hands.receive(queue, 10)
        hands.run(ops.Claim(queue, "s", 1, limit=1))  # never received
        items = [item for record in self.records(hands) for item in record.items]
        assert sorted((seq, receives) for seq, receives, _ in items) == [
            (1, 1),
            (2, 2),
            *[(n, 1) for n in range(3, 12)],
        ]
        assert max(len(record.items) for record in self.records(hands)) <= 3

    def test_attempts_are_kept_while_their_leases_are(self, hands: Hands) -> None:
        queue = hands.create("q.fifo", content_dedup=True)
        hands.send_all(queue, [entry(str(number), group=str(number)) for number in range(3)])
        whole = hands.receive(queue, 1, attempt_id="whole")
        (gone,) = hands.receive(queue, 1, attempt_id="broken")
        hands.delete(queue, gone.receipt)
        assert [(one.attempt_id, len(one.items)) for one in self.records(hands)] == [("whole", len(whole))]

    def test_restart_from_a_snapshot_is_a_restart(self, sqlite: StoreDriver) -> None:
        queue = sqlite.create("q.fifo", content_dedup=True)
        sqlite.send_all(queue, [entry(str(number), group=str(number)) for number in range(4)])
        attempt = sqlite.receive(queue, 2, attempt_id="a")
        sqlite.receive(queue, 1, visibility_ms=0)
        assert isinstance(sqlite.store, LocalStore)
        sqlite.store._disk.snapshot_leases(recovery.lease_records(sqlite.store.state))
        sqlite.crash()
        assert sqlite.receive(queue, 2, attempt_id="a") == attempt
        assert sorted(one.receives for one in sqlite.receive(queue, 10)) == [1, 2]
