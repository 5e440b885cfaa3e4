"""Transactions, fences and state: all of it in one commit, or none."""

from __future__ import annotations

import pytest

from headrace.errors import (
    CallerError,
    ClaimRefused,
    Fenced,
    QueueNotFound,
    ReceiptExpired,
    ReceiptInvalid,
    StateChanged,
)
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import SECOND, SuitePart
from headrace.testing.suite.fifo import create_fifo


class TestTransactions(SuitePart):
    def test_acknowledgement_sends_and_state_happen_together(self, driver: StoreDriver) -> None:
        inbox, outbox, log = driver.create("in"), driver.create("out"), create_fifo(driver, "log.fifo")
        driver.send(inbox, "work")
        receipt = driver.receive_one(inbox).receipt
        outcome = driver.run(
            ops.Transact(
                acknowledge=[(inbox, [receipt])],
                sends=[(outbox, [entry("1"), entry("2")]), (log, [entry("3", group="g")])],
                state=[(b"offset", b"7")],
                name="job",
            )
        )
        assert [len(sent) for sent in outcome.sent] == [2, 1]
        assert outcome.sent[0][0].seq < outcome.sent[0][1].seq
        assert driver.peek(inbox) == []
        assert bodies(driver.receive(outbox)) == ["1", "2"]
        assert bodies(driver.receive(log)) == ["3"]
        assert driver.run(ops.GetState("job")) == [(b"offset", b"7")]

    def _assert_nothing_happens(self, driver: StoreDriver, bad: ops.Transact, kind: type[CallerError]) -> None:
        """No part of `bad` may happen, because one part of it is invalid."""
        outcome = driver.outcome(bad)
        assert isinstance(outcome, kind), outcome
        assert driver.counts(arn_of("in")).in_flight == 1
        assert driver.peek(arn_of("out")) == []
        assert driver.run(ops.GetState("job")) == []

    def _prepare(self, driver: StoreDriver) -> tuple[str, str, bytes]:
        inbox, outbox = driver.create("in", visibility_ms=10 * SECOND), driver.create("out")
        driver.send(inbox, "work")
        return inbox, outbox, driver.receive_one(inbox).receipt

    def test_invalid_receipt_undoes_everything(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        bad = ops.Transact([(inbox, [receipt, b"forged"])], [(outbox, [entry("1")])], [(b"k", b"v")], name="job")
        self._assert_nothing_happens(driver, bad, ReceiptInvalid)

    def test_invalid_entry_undoes_everything(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        bad = ops.Transact([(inbox, [receipt])], [(outbox, [entry("1"), entry("")])], [(b"k", b"v")], name="job")
        self._assert_nothing_happens(driver, bad, CallerError)

    def test_missing_queue_undoes_everything(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        sends = [(outbox, [entry("1")]), (arn_of("none"), [entry("2")])]
        bad = ops.Transact([(inbox, [receipt])], sends, [(b"k", b"v")], name="job")
        self._assert_nothing_happens(driver, bad, QueueNotFound)

    def test_wrong_claim_undoes_everything(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        bad = ops.Transact(
            [(inbox, [receipt])], [(outbox, [entry("1")])], [(b"k", b"v")], [(inbox, "reader", 5)], name="job"
        )
        self._assert_nothing_happens(driver, bad, ClaimRefused)

    def test_expired_receipt_undoes_everything(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        driver.pass_time(10 * SECOND)
        outcome = driver.outcome(ops.Transact([(inbox, [receipt])], [(outbox, [entry("1")])], [(b"k", b"v")]))
        assert isinstance(outcome, ReceiptExpired)
        assert driver.peek(outbox) == []
        assert bodies(driver.receive(inbox)) == ["work"]

    def test_receipt_of_an_earlier_receive_undoes_everything(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        driver.pass_time(10 * SECOND)
        driver.receive_one(inbox)
        bad = ops.Transact([(inbox, [receipt])], [(outbox, [entry("1")])], [(b"k", b"v")], name="job")
        self._assert_nothing_happens(driver, bad, ReceiptExpired)

    def test_lease_that_is_held_is_a_condition_and_stays(self, driver: StoreDriver) -> None:
        inbox, _, receipt = self._prepare(driver)
        driver.run(ops.Transact(state=[(b"k", b"v")], name="job", holds=[(inbox, [receipt])]))
        assert driver.run(ops.GetState("job")) == [(b"k", b"v")]
        assert driver.counts(inbox).in_flight == 1

    def test_lease_that_is_not_held_undoes_everything(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        driver.pass_time(10 * SECOND)
        driver.receive_one(inbox)
        bad = ops.Transact([], [(outbox, [entry("1")])], [(b"k", b"v")], name="job", holds=[(inbox, [receipt])])
        self._assert_nothing_happens(driver, bad, ReceiptExpired)

    def test_acknowledging_twice_is_refused(self, driver: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(driver)
        driver.run(ops.Transact([(inbox, [receipt])], [(outbox, [entry("1")])]))
        assert isinstance(driver.outcome(ops.Transact([(inbox, [receipt])], [(outbox, [entry("1")])])), ReceiptExpired)
        assert len(driver.peek(outbox)) == 1

    def test_refused_transaction_does_not_take_dedup_ids(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        bad = ops.Transact(sends=[(queue, [entry("1", group="g", dedup_id="d"), entry("2")])])
        assert isinstance(driver.outcome(bad), CallerError)
        assert not driver.send(queue, "1", group="g", dedup_id="d").duplicate
        assert bodies(driver.receive(queue)) == ["1"]

    def test_duplicate_in_a_transaction_is_told_and_not_stored(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        first = driver.send(queue, "1", group="g", dedup_id="d")
        outcome = driver.run(ops.Transact(sends=[(queue, [entry("2", group="g", dedup_id="d")])]))
        assert outcome.sent[0][0].duplicate and outcome.sent[0][0].id == first.id
        assert bodies(driver.receive(queue)) == ["1"]

    def test_acknowledgement_frees_a_fifo_group(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        driver.send_all(queue, [entry("1", group="g"), entry("2", group="g")])
        receipt = driver.receive_one(queue).receipt
        driver.run(ops.Transact([(queue, [receipt])]))
        assert bodies(driver.receive(queue)) == ["2"]

    def test_transaction_survives_a_crash(self, crashable: StoreDriver) -> None:
        inbox, outbox, receipt = self._prepare(crashable)
        crashable.run(ops.Transact([(inbox, [receipt])], [(outbox, [entry("1")])], [(b"k", b"v")], name="job"))
        crashable.crash()
        assert crashable.peek(inbox) == []
        assert bodies(crashable.receive(outbox)) == ["1"]
        assert crashable.run(ops.GetState("job")) == [(b"k", b"v")]


class TestFences(SuitePart):
    def test_epochs_rise(self, driver: StoreDriver) -> None:
        epochs = [driver.run(ops.Fence("job")) for _ in range(3)]
        assert epochs == sorted(set(epochs))

    def test_names_do_not_share_epochs(self, driver: StoreDriver) -> None:
        mine = driver.run(ops.Fence("mine"))
        driver.run(ops.Fence("other"))
        driver.run(ops.Transact(state=[(b"k", b"v")], name="mine", epoch=mine))

    def test_older_epoch_is_fenced_and_changes_nothing(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        old = driver.run(ops.Fence("job"))
        new = driver.run(ops.Fence("job"))
        outcome = driver.outcome(ops.Transact(sends=[(queue, [entry("zombie")])], name="job", epoch=old))
        assert isinstance(outcome, Fenced)
        assert (outcome.name, outcome.epoch, outcome.current) == ("job", old, new)
        assert driver.peek(queue) == []
        driver.run(ops.Transact(sends=[(queue, [entry("owner")])], name="job", epoch=new))
        assert bodies(driver.receive(queue)) == ["owner"]

    def test_fence_survives_a_restart(self, durable: StoreDriver) -> None:
        old = durable.run(ops.Fence("job"))
        new = durable.run(ops.Fence("job"))
        durable.reopen()
        assert isinstance(durable.outcome(ops.Transact(state=[(b"k", b"v")], name="job", epoch=old)), Fenced)
        durable.run(ops.Transact(state=[(b"k", b"v")], name="job", epoch=new))
        assert durable.run(ops.Fence("job")) > new


class TestState(SuitePart):
    def _put(self, driver: StoreDriver, *pairs: tuple[bytes, bytes | None], name: str = "job") -> None:
        driver.run(ops.Transact(state=list(pairs), name=name))

    def test_state_is_sorted_by_key_and_filtered_by_prefix(self, driver: StoreDriver) -> None:
        self._put(driver, (b"b2", b"2"), (b"a", b"0"), (b"b1", b"1"), (b"c", b"3"))
        assert driver.run(ops.GetState("job")) == [(b"a", b"0"), (b"b1", b"1"), (b"b2", b"2"), (b"c", b"3")]
        assert driver.run(ops.GetState("job", b"b")) == [(b"b1", b"1"), (b"b2", b"2")]

    def test_state_is_paged(self, driver: StoreDriver) -> None:
        self._put(driver, *[(bytes([65 + number]), b"v") for number in range(5)])
        first = driver.run(ops.GetState("job", limit=3))
        rest = driver.run(ops.GetState("job", limit=3, after=first[-1][0]))
        assert [key for key, _ in first + rest] == [b"A", b"B", b"C", b"D", b"E"]

    def test_last_put_wins_and_none_deletes(self, driver: StoreDriver) -> None:
        self._put(driver, (b"a", b"1"), (b"b", b"1"))
        self._put(driver, (b"a", b"2"), (b"b", None), (b"none", None))
        assert driver.run(ops.GetState("job")) == [(b"a", b"2")]

    def test_names_do_not_share_state(self, driver: StoreDriver) -> None:
        self._put(driver, (b"k", b"1"), name="one")
        self._put(driver, (b"k", b"2"), name="two")
        assert driver.run(ops.GetState("one")) == [(b"k", b"1")]
        assert driver.run(ops.GetState("none")) == []

    def test_prefix_of_high_bytes_works(self, driver: StoreDriver) -> None:
        self._put(driver, (b"\xff\xff", b"1"), (b"\xff\xff\x01", b"2"), (b"\xfe", b"3"))
        assert driver.run(ops.GetState("job", b"\xff\xff")) == [(b"\xff\xff", b"1"), (b"\xff\xff\x01", b"2")]

    def test_state_survives_a_restart(self, durable: StoreDriver) -> None:
        self._put(durable, (b"a", b"\x00" * 100_000), (b"b", b""))
        durable.reopen()
        assert durable.run(ops.GetState("job")) == [(b"a", b"\x00" * 100_000), (b"b", b"")]


class TestExpectations(SuitePart):
    """`Transact.expect`: compare, then write."""

    def _claim(self, value: bytes, expected: bytes | None = None) -> ops.Transact:
        return ops.Transact(state=[(b"owner", value)], name="job", expect=[(b"owner", expected)])

    def test_absent_and_present_values_can_be_expected(self, driver: StoreDriver) -> None:
        driver.run(self._claim(b"me"))
        driver.run(self._claim(b"you", b"me"))
        driver.run(ops.Transact(state=[(b"owner", None)], name="job", expect=[(b"owner", b"you"), (b"other", None)]))
        driver.run(self._claim(b"me"))
        assert driver.run(ops.GetState("job")) == [(b"owner", b"me")]

    @pytest.mark.parametrize("expected", [None, b"other", b"", b"m", b"mee"])
    def test_unmet_expectation_undoes_everything(self, driver: StoreDriver, expected: bytes | None) -> None:
        inbox, outbox = driver.create("in"), driver.create("out")
        driver.send(inbox, "work")
        receipt = driver.receive_one(inbox).receipt
        driver.run(self._claim(b"me"))
        bad = ops.Transact(
            [(inbox, [receipt])],
            [(outbox, [entry("1")])],
            [(b"owner", b"you"), (b"more", b"1")],
            name="job",
            expect=[(b"owner", expected)],
        )
        outcome = driver.outcome(bad)
        assert isinstance(outcome, StateChanged)
        assert (outcome.name, outcome.key) == ("job", "owner")
        assert driver.run(ops.GetState("job")) == [(b"owner", b"me")]
        assert driver.peek(outbox) == []
        assert driver.counts(inbox).in_flight == 1

    def test_a_longer_key_is_another(self, driver: StoreDriver) -> None:
        driver.run(ops.Transact(state=[(b"owner2", b"x")], name="job"))
        driver.run(self._claim(b"me"))

    def test_another_name_has_other_state(self, driver: StoreDriver) -> None:
        driver.run(ops.Transact(state=[(b"owner", b"x")], name="other"))
        driver.run(self._claim(b"me"))

    def test_one_of_those_that_come_together_succeeds(self, driver: StoreDriver) -> None:
        outcomes = driver.outcomes([self._claim(value) for value in (b"a", b"b", b"c")])
        assert [isinstance(outcome, StateChanged) for outcome in outcomes] == [False, True, True]
        assert driver.run(ops.GetState("job")) == [(b"owner", b"a")]

    def test_expectations_see_what_was_planned_before_them(self, driver: StoreDriver) -> None:
        outcomes = driver.outcomes([self._claim(b"a"), self._claim(b"b", b"a"), self._claim(b"c", b"b")])
        assert not any(isinstance(outcome, StateChanged) for outcome in outcomes)
        assert driver.run(ops.GetState("job")) == [(b"owner", b"c")]

    def test_expectations_hold_across_a_restart(self, durable: StoreDriver) -> None:
        durable.run(self._claim(b"me"))
        durable.reopen()
        assert isinstance(durable.outcome(self._claim(b"you")), StateChanged)
        durable.run(self._claim(b"you", b"me"))
