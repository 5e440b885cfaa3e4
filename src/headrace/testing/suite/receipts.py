"""Receipts: what deletes, extends or releases a delivery, and what must not."""

from __future__ import annotations

import random

from headrace.errors import (
    InvalidParameter,
    MessageNotFound,
    MessageNotInFlight,
    ReceiptExpired,
    ReceiptInvalid,
)
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import HOUR, MINUTE, SECOND, SuitePart


class TestDeleting(SuitePart):
    def test_deleted_message_never_comes_back(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        assert driver.delete(queue, driver.receive_one(queue).receipt) == [None]
        driver.pass_time(HOUR)
        assert driver.receive(queue) == []
        assert driver.peek(queue) == []

    def test_deleting_again_succeeds(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        assert driver.delete(queue, receipt, receipt) == [None, None]
        assert driver.delete(queue, receipt) == [None]
        assert driver.counts(queue).deleted == 1

    def test_batch_deletes_what_is_valid(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("1"), entry("2"), entry("3")])
        first, _, third = driver.receive(queue)
        outcomes = driver.delete(queue, first.receipt, b"nonsense", third.receipt)
        assert outcomes[0] is None and outcomes[2] is None
        assert isinstance(outcomes[1], ReceiptInvalid)
        assert [one.message.body for one in driver.peek(queue)] == [b"2"]

    def test_each_receive_gives_a_new_receipt(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=0)
        driver.send(queue, "x")
        assert len({driver.receive_one(queue).receipt for _ in range(5)}) == 5

    def test_receipt_of_an_earlier_receive_deletes(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        earlier = driver.receive_one(queue).receipt
        driver.pass_time(SECOND)
        newer = driver.receive_one(queue).receipt
        assert driver.delete(queue, earlier) == [None]
        assert (driver.counts(queue).in_flight, driver.peek(queue)) == (0, [])
        assert driver.delete(queue, newer) == [None]
        assert isinstance(driver.change_visibility(queue, newer, MINUTE), MessageNotFound | MessageNotInFlight)

    def test_receipt_of_an_earlier_receive_deletes_a_visible_message(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        earlier = driver.receive_one(queue).receipt
        for _ in range(2):
            driver.pass_time(SECOND)
            driver.receive_one(queue)
        driver.pass_time(SECOND)
        assert driver.delete(queue, earlier) == [None]
        driver.pass_time(HOUR)
        assert driver.receive(queue) == []

    def test_what_a_reader_has_claimed_is_not_deleted_by_a_receipt(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        receipt = driver.receive_one(queue, visibility_ms=0).receipt
        assert len(driver.run(ops.Claim(queue, "r", 1))) == 1
        assert driver.delete(queue, receipt) == [None]
        assert isinstance(driver.change_visibility(queue, receipt, 0), MessageNotInFlight)
        assert len(driver.run(ops.Claim(queue, "r", 1))) == 1
        assert driver.counts(queue).in_flight == 1


class TestForgedReceipts(SuitePart):
    def _assert_no_effect(self, driver: StoreDriver, queue: str, receipt: bytes) -> None:
        deleted, changed = driver.outcomes(
            [ops.Delete(queue, [receipt]), ops.ChangeVisibility(queue, [(receipt, 0)])],
        )
        assert isinstance(deleted[0], ReceiptInvalid), receipt.hex()
        assert isinstance(changed[0], ReceiptInvalid), receipt.hex()

    def test_mutated_receipt_has_no_effect(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        assert len(receipt) >= 16, "a receipt has at least 128 bits that cannot be guessed"
        for position in range(len(receipt)):
            for flip in (0x01, 0x80, 0xFF):
                mutated = bytearray(receipt)
                mutated[position] ^= flip
                self._assert_no_effect(driver, queue, bytes(mutated))
        assert driver.counts(queue).in_flight == 1

    def test_cut_extended_and_random_receipts_have_no_effect(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        chance = random.Random(1)
        for length in range(len(receipt)):
            self._assert_no_effect(driver, queue, receipt[:length])
        self._assert_no_effect(driver, queue, receipt + b"\x00")
        for _ in range(200):
            self._assert_no_effect(driver, queue, chance.randbytes(len(receipt)))
        assert driver.counts(queue).in_flight == 1

    def test_receipt_of_another_queue_has_no_effect(self, driver: StoreDriver) -> None:
        queue, other = driver.create("q"), driver.create("other")
        driver.send(queue, "x")
        driver.send(other, "y")
        receipt = driver.receive_one(other).receipt
        driver.receive_one(queue)
        self._assert_no_effect(driver, queue, receipt)
        assert driver.counts(queue).in_flight == driver.counts(other).in_flight == 1

    def test_receipt_of_a_deleted_queue_has_no_effect_on_its_successor(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "old")
        receipt = driver.receive_one(queue).receipt
        driver.run(ops.DeleteQueue(queue))
        driver.create("q")
        driver.send(queue, "new")
        driver.receive_one(queue)
        driver.delete(queue, receipt)
        assert driver.counts(queue).in_flight == 1

    def test_receipt_of_a_purged_message_has_no_effect(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "old")
        receipt = driver.receive_one(queue).receipt
        driver.run(ops.Purge(queue))
        driver.send(queue, "new")
        driver.receive_one(queue)
        assert driver.delete(queue, receipt) == [None]
        assert driver.counts(queue).in_flight == 1

    def test_receipt_survives_a_restart(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send(queue, "x")
        receipt = durable.receive_one(queue).receipt
        durable.reopen()
        assert durable.delete(queue, receipt) == [None]
        assert durable.peek(queue) == []


class TestChangingVisibility(SuitePart):
    def test_timeout_counts_from_the_call(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=30 * SECOND)
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        driver.pass_time(20 * SECOND)
        assert driver.change_visibility(queue, receipt, MINUTE) is None
        driver.pass_time(MINUTE - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_shorter_timeout_ends_the_lease_earlier(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=HOUR)
        driver.send(queue, "x")
        assert driver.change_visibility(queue, driver.receive_one(queue).receipt, 5 * SECOND) is None
        driver.pass_time(5 * SECOND - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_zero_shows_the_message_at_once(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        driver.store.take_ready()
        assert driver.change_visibility(queue, receipt, 0) is None
        assert driver.store.take_ready() == {queue}
        assert driver.receive_one(queue).receives == 2

    def test_change_is_not_remembered_for_the_next_receive(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=10 * SECOND)
        driver.send(queue, "x")
        driver.change_visibility(queue, driver.receive_one(queue).receipt, MINUTE)
        driver.pass_time(MINUTE)
        driver.receive_one(queue)
        driver.pass_time(10 * SECOND)
        assert driver.receive_one(queue).receives == 3

    def test_same_receipt_extends_again_and_again(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=10 * SECOND)
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        for _ in range(20):
            driver.pass_time(9 * SECOND)
            assert driver.change_visibility(queue, receipt, 10 * SECOND) is None
        assert driver.receive(queue) == []
        assert driver.delete(queue, receipt) == [None]
        assert driver.peek(queue) == []

    def test_whole_lease_lasts_at_most_twelve_hours(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=limits.VISIBILITY_MAX_MS)
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        driver.pass_time(HOUR)
        assert driver.change_visibility(queue, receipt, 11 * HOUR) is None
        assert isinstance(driver.change_visibility(queue, receipt, 11 * HOUR + SECOND), InvalidParameter)
        driver.pass_time(11 * HOUR - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_message_whose_timeout_has_run_out_is_hidden_again(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send_all(queue, [entry("x"), entry("y")])
        receipt = driver.receive(queue, 1)[0].receipt
        driver.pass_time(SECOND)
        assert driver.change_visibility(queue, receipt, MINUTE) is None
        assert driver.counts(queue).in_flight == 1
        assert bodies(driver.receive(queue)) == ["y"]
        driver.pass_time(MINUTE - 1)
        assert bodies(driver.receive(queue)) == ["y"]
        driver.pass_time(1)
        (again,) = driver.receive(queue)
        assert (again.message.body, again.receives) == (b"x", 2)

    def test_zero_after_the_timeout_changes_nothing(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        driver.pass_time(SECOND)
        assert driver.change_visibility(queue, receipt, 0) is None
        assert driver.receive_one(queue).receives == 2

    def test_receipt_of_an_earlier_receive_changes_the_newer_lease(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        earlier = driver.receive_one(queue).receipt
        driver.pass_time(SECOND)
        newer = driver.receive_one(queue).receipt
        assert driver.change_visibility(queue, earlier, MINUTE) is None
        driver.pass_time(MINUTE - 1)
        assert driver.receive(queue) == []
        assert driver.change_visibility(queue, earlier, 0) is None
        assert driver.receive_one(queue).receives == 3
        assert driver.delete(queue, newer) == [None]
        assert driver.peek(queue) == []

    def test_hidden_again_lasts_at_most_twelve_hours_from_the_receive(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        driver.pass_time(HOUR)
        assert isinstance(driver.change_visibility(queue, receipt, 11 * HOUR + SECOND), InvalidParameter)
        assert driver.change_visibility(queue, receipt, 11 * HOUR) is None
        driver.pass_time(11 * HOUR - 1)
        assert driver.receive(queue) == []

    def test_hidden_again_survives_a_crash(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q", visibility_ms=SECOND)
        crashable.send(queue, "x")
        receipt = crashable.receive_one(queue).receipt
        crashable.pass_time(SECOND)
        assert crashable.change_visibility(queue, receipt, MINUTE) is None
        crashable.crash()
        assert crashable.receive(queue) == []
        crashable.pass_time(MINUTE)
        assert crashable.receive_one(queue).receives == 2

    def test_strict_change_needs_the_receipt_that_holds_the_message(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        earlier = driver.receive_one(queue).receipt
        driver.pass_time(SECOND)
        assert isinstance(driver.change_visibility(queue, earlier, MINUTE, strict=True), MessageNotInFlight)
        newer = driver.receive_one(queue).receipt
        for timeout_ms in (0, MINUTE):
            assert isinstance(driver.change_visibility(queue, earlier, timeout_ms, strict=True), MessageNotInFlight)
        assert driver.receive(queue) == []
        assert driver.change_visibility(queue, newer, MINUTE, strict=True) is None

    def test_lease_of_a_deleted_message_cannot_be_extended(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        receipt = driver.receive_one(queue).receipt
        driver.delete(queue, receipt)
        outcome = driver.change_visibility(queue, receipt, MINUTE)
        assert isinstance(outcome, (MessageNotFound, MessageNotInFlight, ReceiptExpired))

    def test_batch_changes_what_is_valid(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("1"), entry("2")])
        first, second = driver.receive(queue)
        outcomes = driver.run(
            ops.ChangeVisibility(queue, [(first.receipt, 0), (b"nonsense", 0), (second.receipt, limits.DAY_MS)])
        )
        assert outcomes[0] is None
        assert isinstance(outcomes[1], ReceiptInvalid)
        assert isinstance(outcomes[2], InvalidParameter)
        assert bodies(driver.receive(queue)) == ["1"]
