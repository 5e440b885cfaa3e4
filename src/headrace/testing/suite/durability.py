"""What survives a restart, a crash of the process, and time spent stopped."""

from __future__ import annotations

from headrace.errors import ReceiptExpired
from headrace.queue import operations as ops
from headrace.queue.model import QueueCounts
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import MINUTE, SECOND, SuitePart
from headrace.testing.suite.fifo import create_fifo, send_groups
from headrace.testing.suite.redrive import create_pair


def depths(counts: QueueCounts) -> tuple[int, int, int, int | None]:
    return counts.visible, counts.in_flight, counts.delayed, counts.oldest_ms


class TestRestarts(SuitePart):
    def test_messages_survive_byte_for_byte(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send(queue, bytes(range(256)), attributes=b"\x80", trace="t", sender="s", group="g")
        before = durable.peek(queue)
        durable.reopen()
        assert durable.peek(queue) == before

    def test_deleted_messages_stay_deleted(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send_all(queue, [entry(str(number)) for number in range(100)])
        deliveries = durable.receive(queue, 100)
        durable.delete(queue, *[one.receipt for one in deliveries if int(one.message.body) % 3])
        durable.reopen()
        assert [int(one.message.body) for one in durable.peek(queue)] == list(range(0, 100, 3))

    def test_leases_counts_and_order_survive(self, durable: StoreDriver) -> None:
        queue = durable.create("q", visibility_ms=10 * SECOND)
        durable.send_all(queue, [entry(str(number)) for number in range(6)])
        first_ms = durable.clock()
        durable.receive(queue, 2)
        durable.pass_time(9 * SECOND)
        durable.reopen()
        assert bodies(durable.receive(queue, 2)) == ["2", "3"]
        durable.pass_time(SECOND)
        again = durable.receive(queue, 2)
        assert bodies(again) == ["0", "1"]
        assert [(one.receives, one.first_received_ms) for one in again] == [(2, first_ms)] * 2

    def test_counts_of_waiting_messages_survive(self, durable: StoreDriver) -> None:
        queue = durable.create("q", visibility_ms=0)
        durable.send(queue, "x")
        for count in (1, 2, 3):
            assert durable.receive_one(queue).receives == count
            durable.reopen()
        assert durable.receive_one(queue).receives == 4

    def test_message_of_a_tenant_that_is_taken_first_comes_again(self, durable: StoreDriver) -> None:
        queue = durable.create("q", visibility_ms=SECOND)
        sent = durable.send(queue, "x", group="tenant")
        durable.reopen()
        durable.run(ops.Take(queue, [sent.seq]))
        durable.pass_time(SECOND)
        assert durable.receive_one(queue).receives == 2

    def test_changed_visibility_survives(self, durable: StoreDriver) -> None:
        queue = durable.create("q", visibility_ms=10 * SECOND)
        durable.send_all(queue, [entry("long"), entry("short"), entry("released")])
        long, short, released = durable.receive(queue)
        durable.change_visibility(queue, long.receipt, 5 * MINUTE)
        durable.change_visibility(queue, short.receipt, SECOND)
        durable.change_visibility(queue, released.receipt, 0)
        durable.reopen()
        assert bodies(durable.receive(queue)) == ["released"]
        durable.pass_time(SECOND)
        assert bodies(durable.receive(queue)) == ["short"]
        durable.pass_time(5 * MINUTE - 2 * SECOND)
        assert "long" not in bodies(durable.receive(queue))
        durable.pass_time(SECOND)
        assert "long" in bodies(durable.receive(queue))

    def test_delays_survive(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send(queue, "x", delay_ms=10 * SECOND)
        durable.reopen()
        durable.pass_time(10 * SECOND - 1)
        assert durable.receive(queue) == []
        durable.pass_time(1)
        assert bodies(durable.receive(queue)) == ["x"]

    def test_time_spent_stopped_counts(self, durable: StoreDriver) -> None:
        queue = durable.create("q", visibility_ms=10 * SECOND, retention_ms=MINUTE)
        durable.send(queue, "old")
        durable.jump(30 * SECOND)
        durable.send(queue, "leased", delay_ms=0)
        durable.send(queue, "delayed", delay_ms=10 * SECOND)
        durable.receive(queue, 2)
        durable.store.close()
        durable.jump(30 * SECOND)
        durable.reopen()
        assert bodies(durable.receive(queue)) == ["leased", "delayed"]

    def test_counts_are_right_after_a_restart(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send_all(queue, [entry("x")] * 50)
        durable.send_all(queue, [entry("x", delay_ms=MINUTE)] * 7)
        deliveries = durable.receive(queue, 20)
        durable.delete(queue, *[one.receipt for one in deliveries[5:]])
        before = depths(durable.counts(queue))
        assert before[:3] == (30, 5, 7)
        durable.reopen()
        assert depths(durable.counts(queue)) == before

    def test_sequence_numbers_are_never_used_again(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        last = 0
        for _ in range(3):
            seq = durable.send(queue, "x").seq
            assert seq > last
            last = seq
            durable.delete(queue, durable.receive_one(queue).receipt)
            durable.reopen()
        durable.run(ops.Purge(queue))
        durable.reopen()
        assert durable.send(queue, "x").seq > last

    def test_group_stays_locked(self, durable: StoreDriver) -> None:
        queue = create_fifo(durable, visibility_ms=10 * SECOND)
        send_groups(durable, queue, "a1", "a2", "b1")
        delivery = durable.receive_one(queue)
        durable.reopen()
        assert bodies(durable.receive(queue)) == ["b1"]
        assert durable.delete(queue, delivery.receipt) == [None]
        assert bodies(durable.receive(queue)) == ["a2"]

    def test_expired_fifo_receipt_is_refused(self, durable: StoreDriver) -> None:
        queue = create_fifo(durable, visibility_ms=SECOND)
        send_groups(durable, queue, "a1")
        stale = durable.receive_one(queue).receipt
        durable.store.close()
        durable.jump(SECOND)
        durable.reopen()
        assert isinstance(durable.delete(queue, stale)[0], ReceiptExpired)
        assert durable.receive_one(queue).receives == 2

    def test_message_being_deleted_is_not_received_again(self, durable: StoreDriver) -> None:
        """A delete and a receive in one commit, when the store has not yet looked at its backlog."""
        queue = durable.create("q")
        durable.send_all(queue, [entry(str(number)) for number in range(5)])
        receipt = durable.receive_one(queue).receipt
        durable.reopen()
        deleted, received = durable.outcomes([ops.Delete(queue, [receipt]), ops.Receive(queue, 10)])
        assert deleted == [None]
        assert bodies(received) == ["1", "2", "3", "4"]

    def test_dead_letter_is_not_received_again(self, durable: StoreDriver) -> None:
        queue, dead = create_pair(durable, 1, visibility_ms=0)
        durable.send_all(queue, [entry(str(number)) for number in range(5)])
        durable.receive(queue, 3)
        durable.reopen()
        assert bodies(durable.receive(queue, 3)) == ["3", "4"]
        assert [one.message.body for one in durable.peek(dead)] == [b"0", b"1", b"2"]

    def test_acknowledged_claim_is_not_received_again(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send_all(queue, [entry(str(number)) for number in range(5)])
        durable.run(ops.Claim(queue, "r", 1, 2))
        durable.reopen()
        _, received = durable.outcomes([ops.AcknowledgeClaims(queue, "r", 1), ops.Receive(queue, 10)])
        assert bodies(received) == ["2", "3", "4"]

    def test_close_can_be_called_again(self, driver: StoreDriver) -> None:
        driver.send(driver.create("q"), "x")
        driver.store.close()
        driver.store.close()


class TestCrashes(SuitePart):
    """`kill -9` spares what the kernel has been given: leases, counts and order hold exactly."""

    def test_what_was_answered_survives(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q")
        crashable.send_all(queue, [entry(str(number)) for number in range(50)])
        deliveries = crashable.receive(queue, 20)
        crashable.delete(queue, *[one.receipt for one in deliveries[:10]])
        crashable.crash()
        assert [int(one.message.body) for one in crashable.peek(queue)] == list(range(10, 50))
        assert depths(crashable.counts(queue))[:3] == (30, 10, 0)

    def test_leases_and_counts_survive(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q", visibility_ms=10 * SECOND)
        crashable.send_all(queue, [entry("1"), entry("2"), entry("3")])
        for count in range(1, 6):
            assert [one.receives for one in crashable.receive(queue)] == [count] * 3
            crashable.crash()
            assert crashable.receive(queue) == []
            crashable.pass_time(10 * SECOND)

    def test_message_of_a_tenant_that_is_taken_first_comes_again(self, durable: StoreDriver) -> None:
        queue = durable.create("q", visibility_ms=SECOND)
        sent = durable.send(queue, "x", group="tenant")
        durable.reopen()
        durable.run(ops.Take(queue, [sent.seq]))
        durable.pass_time(SECOND)
        assert durable.receive_one(queue).receives == 2

    def test_changed_visibility_survives(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q", visibility_ms=10 * SECOND)
        crashable.send_all(queue, [entry("long"), entry("released")])
        long, released = crashable.receive(queue)
        crashable.change_visibility(queue, long.receipt, 5 * MINUTE)
        crashable.change_visibility(queue, released.receipt, 0)
        crashable.crash()
        assert bodies(crashable.receive(queue)) == ["released"]
        crashable.pass_time(5 * MINUTE - 1)
        assert "long" not in bodies(crashable.receive(queue))
        crashable.pass_time(1)
        assert "long" in bodies(crashable.receive(queue))

    def test_group_has_one_owner_across_crashes(self, crashable: StoreDriver) -> None:
        queue = create_fifo(crashable, visibility_ms=10 * SECOND)
        send_groups(crashable, queue, "a1", "a2", "b1")
        delivery = crashable.receive_one(queue)
        for _ in range(3):
            crashable.crash()
            assert "a" not in {body[0] for body in bodies(crashable.receive(queue))}
        assert crashable.delete(queue, delivery.receipt) == [None]
        assert bodies(crashable.receive(queue)) == ["a2"]

    def test_receipt_is_good_after_a_crash(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q")
        crashable.send(queue, "x")
        receipt = crashable.receive_one(queue).receipt
        crashable.crash()
        assert crashable.delete(queue, receipt) == [None]
        crashable.crash()
        assert crashable.peek(queue) == []

    def test_sequence_numbers_are_never_used_again(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q")
        last = 0
        for _ in range(3):
            seq = crashable.send(queue, "x").seq
            assert seq > last
            last = seq
            crashable.delete(queue, crashable.receive_one(queue).receipt)
            crashable.crash()

    def test_nothing_is_called_damaged(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q")
        crashable.send_all(queue, [entry("x")] * 10)
        crashable.receive(queue, 5)
        crashable.crash()
        crashable.receive(queue, 5)
        assert crashable.store.statistics().damaged == 0
