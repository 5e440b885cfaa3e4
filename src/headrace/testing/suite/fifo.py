"""FIFO queues: strict order in a group, turns of groups, one owner of a message at a time, and refused receipts."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from headrace.errors import (
    CallerError,
    InvalidParameter,
    MessageNotInFlight,
    MissingParameter,
    ReceiptExpired,
    ReceiptInvalid,
)
from headrace.queue import operations as ops
from headrace.queue.model import Delivery
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import HOUR, MINUTE, SECOND, SuitePart


def create_fifo(driver: StoreDriver, name: str = "q.fifo", **settings: object) -> str:
    """A FIFO queue that deduplicates by content, so that tests need no dedup ids."""
    return driver.create(name, content_dedup=True, **settings)


def send_groups(driver: StoreDriver, queue: str, *names: str) -> None:
    """Send a message for each name such as `a1`: its first letter is the group."""
    for name in names:
        driver.send(queue, name, group=name[0])


class TestFifoOrder(SuitePart):
    def test_group_comes_in_the_order_sent(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        for number in range(30):
            driver.send(queue, str(number), group="g")
        received = []
        for _ in range(10):
            deliveries = driver.receive(queue, 3)
            received += bodies(deliveries)
            driver.delete(queue, *[one.receipt for one in deliveries])
        assert received == [str(number) for number in range(30)]

    def test_batch_may_hold_several_messages_of_a_group_in_order(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        names = ["a1", "b1", "a2", "c1", "a3", "b2"]
        sent = driver.send_all(queue, [entry(name, group=name[0]) for name in names])
        assert [one.seq for one in sent] == sorted(one.seq for one in sent)
        received = bodies(driver.receive(queue, 10))
        assert sorted(received) == sorted(names)
        assert {key: list(part) for key, part in groupby(received, key=lambda name: name[0])} == {
            "a": ["a1", "a2", "a3"],
            "b": ["b1", "b2"],
            "c": ["c1"],
        }

    def test_receive_takes_as_many_as_possible_of_one_group_then_of_others(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "b1", "a2", "b2", "a3", "c1")
        assert bodies(driver.receive(queue, 4)) == ["a1", "a2", "a3", "b1"]
        assert bodies(driver.receive(queue, 4)) == ["c1"]

    def test_receive_goes_on_in_the_group_behind_dropped_messages(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, retention_ms=MINUTE)
        send_groups(driver, queue, "a1", "a2")
        driver.jump(MINUTE)
        send_groups(driver, queue, "a3", "a4", "b1")
        received = bodies(driver.receive(queue, 10))
        assert received[0] == "a3"
        assert set(received) <= {"a3", "a4", "b1"}

    def test_sequence_numbers_rise_within_a_group(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        numbers = [driver.send(queue, str(number), group="g").seq for number in range(20)]
        assert numbers == sorted(set(numbers))

    def test_deep_backlog_of_a_group_in_flight_does_not_hide_others(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        driver.send_all(queue, [entry(f"a{number}", group="a") for number in range(3_000)])
        driver.send(queue, "b0", group="b")
        assert bodies(driver.receive(queue, 1)) == ["a0"]
        assert bodies(driver.receive(queue, 1)) == ["b0"]


class TestFifoVisibility(SuitePart):
    def test_group_waits_while_its_first_message_is_in_flight(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "b1")
        assert bodies(driver.receive(queue, 1)) == ["a1"]
        assert bodies(driver.receive(queue, 10)) == ["b1"]
        assert driver.receive(queue, 10) == []

    def test_new_messages_wait_for_those_in_flight(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1")
        (first,) = driver.receive(queue)
        send_groups(driver, queue, "a2")
        assert driver.receive(queue) == []
        driver.delete(queue, first.receipt)
        assert bodies(driver.receive(queue)) == ["a2"]

    def test_group_waits_until_its_last_message_in_flight_is_done(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "a3")
        first, second = driver.receive(queue, 2)
        driver.delete(queue, second.receipt)
        assert driver.receive(queue) == []
        driver.delete(queue, first.receipt)
        assert bodies(driver.receive(queue)) == ["a3"]

    def test_delete_of_the_last_message_in_flight_makes_the_queue_ready(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2")
        delivery = driver.receive_one(queue)
        driver.store.take_ready()
        driver.delete(queue, delivery.receipt)
        assert driver.store.take_ready() == {queue}

    def test_expired_group_starts_again_at_its_first_message(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=10 * SECOND)
        send_groups(driver, queue, "a1", "a2", "a3")
        driver.receive(queue, 2)
        driver.pass_time(10 * SECOND - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        deliveries = driver.receive(queue)
        assert bodies(deliveries) == ["a1", "a2", "a3"]
        assert [one.receives for one in deliveries] == [2, 2, 1]

    def test_first_message_with_extended_visibility_hides_its_group(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=10 * SECOND)
        send_groups(driver, queue, "a1", "a2", "a3", "b1")
        first = driver.receive(queue, 3)[0]
        assert driver.change_visibility(queue, first.receipt, MINUTE) is None
        driver.pass_time(30 * SECOND)
        assert bodies(driver.receive(queue)) == ["b1"]
        driver.pass_time(30 * SECOND)
        assert bodies(driver.receive(queue, 3)) == ["a1", "a2", "a3"]

    @pytest.mark.parametrize(("extended", "served"), [(0, []), (1, ["a1"]), (2, ["a1", "a2"])])
    def test_group_is_served_up_to_the_message_with_extended_visibility(
        self, driver: StoreDriver, extended: int, served: list[str]
    ) -> None:
        queue = create_fifo(driver, visibility_ms=SECOND)
        send_groups(driver, queue, "a1", "a2", "a3", "a4")
        deliveries = driver.receive(queue, 3)
        assert driver.change_visibility(queue, deliveries[extended].receipt, 4 * SECOND) is None
        driver.pass_time(2_500)
        assert bodies(driver.receive(queue, visibility_ms=MINUTE)) == served
        assert driver.receive(queue) == []

    def test_message_made_visible_comes_again_alone_while_the_next_is_in_flight(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "a3")
        first, second = driver.receive(queue, 2)
        assert driver.change_visibility(queue, first.receipt, 0) is None
        (again,) = driver.receive(queue)
        assert (again.message.body, again.receives) == (b"a1", 2)
        assert driver.delete(queue, second.receipt) == [None]
        assert driver.receive(queue) == []
        assert driver.delete(queue, again.receipt) == [None]
        assert bodies(driver.receive(queue)) == ["a3"]

    def test_later_message_made_visible_waits_for_the_earlier_one(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2")
        first, second = driver.receive(queue, 2)
        driver.change_visibility(queue, second.receipt, 0)
        assert driver.receive(queue) == []
        driver.delete(queue, first.receipt)
        assert bodies(driver.receive(queue)) == ["a2"]

    def test_released_message_comes_again_before_the_rest_of_its_group(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2")
        first = driver.receive_one(queue)
        driver.change_visibility(queue, first.receipt, 0)
        assert bodies(driver.receive(queue, 1)) == ["a1"]

    def test_purge_leaves_nothing_that_groups_wait_for(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2")
        driver.receive(queue, 1)
        driver.run(ops.Purge(queue))
        send_groups(driver, queue, "a3")
        assert bodies(driver.receive(queue)) == ["a3"]

    def test_retention_frees_a_group_whose_head_has_expired(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, retention_ms=MINUTE)
        send_groups(driver, queue, "a1")
        driver.pass_time(30 * SECOND)
        send_groups(driver, queue, "a2")
        driver.pass_time(30 * SECOND)
        assert bodies(driver.receive(queue)) == ["a2"]

    def test_visibility_of_each_message_survives_a_crash(self, crashable: StoreDriver) -> None:
        queue = create_fifo(crashable)
        send_groups(crashable, queue, "a1", "a2", "a3", "b1")
        first, second, _, _ = crashable.receive(queue, 4)
        crashable.change_visibility(queue, first.receipt, 0)
        crashable.crash()
        assert bodies(crashable.receive(queue)) == ["a1"]
        crashable.crash()
        assert crashable.receive(queue) == []
        assert crashable.delete(queue, second.receipt) == [None]

    def test_random_consumers_never_share_a_group_nor_break_its_order(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=5 * SECOND)
        chance = random.Random(7)
        sent = dict.fromkeys("abcd", 0)
        held: dict[str, tuple[int, list[Delivery]]] = {}
        done: dict[str, list[int]] = {group: [] for group in sent}
        for _ in range(400):
            group = chance.choice("abcd")
            send_groups(driver, queue, f"{group}{sent[group]}")
            sent[group] += 1
            held = {name: (until, own) for name, (until, own) in held.items() if until > driver.clock()}
            for delivery in driver.receive(queue, chance.randint(1, 4)):
                name = delivery.message.body.decode()
                owner = held.setdefault(name[0], (driver.clock() + 5 * SECOND, []))
                assert owner[0] == driver.clock() + 5 * SECOND, f"group {name[0]} has two owners"
                owner[1].append(delivery)
            for name in [name for name in held if chance.random() < 0.5]:
                for delivery in held.pop(name)[1]:
                    assert driver.delete(queue, delivery.receipt) == [None]
                    done[name].append(int(delivery.message.body[1:]))
            driver.pass_time(chance.choice([0, SECOND, 2 * SECOND]))
        assert all(numbers == list(range(len(numbers))) and numbers for numbers in done.values())


class TestFifoTurns(SuitePart):
    def test_served_groups_go_behind_those_that_were_not_and_are_served_whole(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "b1", "b2", "c1", "a2")
        assert bodies(driver.receive(queue, 3, visibility_ms=0)) == ["a1", "a2", "b1"]
        assert bodies(driver.receive(queue, 10)) == ["c1", "a1", "a2", "b1", "b2"]

    def test_groups_whose_time_has_run_out_come_in_the_order_in_which_they_were_served(
        self, driver: StoreDriver
    ) -> None:
        queue = create_fifo(driver, visibility_ms=SECOND)
        send_groups(driver, queue, "a1", "b1", "b2", "c1", "a2")
        assert bodies(driver.receive(queue, 2)) == ["a1", "a2"]
        assert bodies(driver.receive(queue, 1)) == ["b1"]
        driver.pass_time(SECOND)
        assert bodies(driver.receive(queue, 10)) == ["c1", "a1", "a2", "b1", "b2"]

    def test_group_that_goes_on_comes_behind_those_that_wait(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "b1", "c1")
        driver.delete(queue, driver.receive(queue, 1)[0].receipt)
        send_groups(driver, queue, "d1")
        assert bodies(driver.receive(queue)) == ["b1", "c1", "a2", "d1"]

    def test_new_group_is_the_last(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1")
        driver.receive(queue, visibility_ms=0)
        send_groups(driver, queue, "b1")
        assert bodies(driver.receive(queue)) == ["a1", "b1"]

    def test_group_that_had_nothing_left_is_new(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "b1")
        driver.delete(queue, driver.receive(queue, 1)[0].receipt)
        send_groups(driver, queue, "a2")
        assert bodies(driver.receive(queue)) == ["b1", "a2"]


class TestFifoReceipts(SuitePart):
    def test_receipt_of_an_expired_lease_is_refused(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=SECOND)
        send_groups(driver, queue, "a1")
        stale = driver.receive_one(queue).receipt
        driver.pass_time(SECOND)
        assert isinstance(driver.delete(queue, stale)[0], ReceiptExpired)
        assert isinstance(driver.change_visibility(queue, stale, MINUTE), MessageNotInFlight | ReceiptExpired)
        assert bodies(driver.receive(queue)) == ["a1"]

    def test_receipt_is_refused_on_time_even_if_advance_comes_late(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=SECOND)
        send_groups(driver, queue, "a1")
        stale = driver.receive_one(queue).receipt
        driver.jump(SECOND)
        assert isinstance(driver.delete(queue, stale)[0], ReceiptExpired)
        assert bodies(driver.receive(queue)) == ["a1"]

    def test_receipt_of_an_earlier_receive_is_refused(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=SECOND)
        send_groups(driver, queue, "a1")
        stale = driver.receive_one(queue).receipt
        driver.pass_time(SECOND)
        driver.receive_one(queue)
        assert isinstance(driver.delete(queue, stale)[0], ReceiptExpired)
        assert driver.counts(queue).in_flight == 1

    def test_deleting_again_succeeds(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=SECOND)
        send_groups(driver, queue, "a1", "a2")
        receipt = driver.receive_one(queue).receipt
        assert driver.delete(queue, receipt, receipt) == [None, None]
        driver.pass_time(HOUR)
        assert driver.delete(queue, receipt) == [None]
        assert bodies(driver.receive(queue)) == ["a2"]

    def test_forged_receipt_is_invalid(self, driver: StoreDriver) -> None:
        queue, other = create_fifo(driver), create_fifo(driver, "other.fifo")
        send_groups(driver, queue, "a1")
        send_groups(driver, other, "a1")
        receipt = driver.receive_one(queue).receipt
        foreign = driver.receive_one(other).receipt
        mutated = bytes([receipt[0] ^ 1]) + receipt[1:]
        assert all(isinstance(one, ReceiptInvalid) for one in driver.delete(queue, foreign, mutated, b""))
        assert driver.counts(queue).in_flight == 1


class TestFifoSendChecks(SuitePart):
    def test_group_is_required(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        with pytest.raises(MissingParameter):
            driver.send(queue, "x")

    def test_dedup_id_is_required_unless_content_gives_one(self, driver: StoreDriver) -> None:
        queue = driver.create("plain.fifo")
        with pytest.raises(InvalidParameter):
            driver.send(queue, "x", group="g")
        driver.send(queue, "x", group="g", dedup_id="d")

    @pytest.mark.parametrize("name", ["", "a" * 129, "a b", "é", "a\n"])
    def test_group_and_dedup_id_are_alphanumerics_and_punctuation(self, driver: StoreDriver, name: str) -> None:
        queue = create_fifo(driver)
        with pytest.raises(CallerError):
            driver.send(queue, "x", group=name, dedup_id="d")
        with pytest.raises(CallerError):
            driver.send(queue, "x", group="g", dedup_id=name)
        for good in ("a" * 128, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"):
            driver.send(queue, "x", group=good, dedup_id=good)

    def test_delay_of_its_own_is_refused(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        with pytest.raises(InvalidParameter):
            driver.send(queue, "x", group="g", delay_ms=SECOND)
        driver.send(queue, "x", group="g", delay_ms=0)

    def test_delay_of_the_queue_holds_and_its_change_reaches_waiting_messages(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, delay_ms=MINUTE)
        send_groups(driver, queue, "a1")
        assert driver.receive(queue) == []
        assert driver.counts(queue).delayed == 1
        driver.change_settings(queue, delay_ms=10 * SECOND)
        driver.pass_time(10 * SECOND - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["a1"]

    def test_prolonged_delay_hides_waiting_messages_again(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, delay_ms=10 * SECOND)
        send_groups(driver, queue, "a1")
        driver.change_settings(queue, delay_ms=MINUTE)
        driver.pass_time(MINUTE - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["a1"]


class TestFifoAttempts(SuitePart):
    def test_same_attempt_answers_the_same_deliveries(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "b1")
        first = driver.receive(queue, 2, attempt_id="try")
        again = driver.receive(queue, 2, attempt_id="try")
        assert [(one.message.id, one.receipt) for one in again] == [(one.message.id, one.receipt) for one in first]
        assert bodies(again) == ["a1", "a2"]

    def test_other_attempt_gets_other_messages(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "b1")
        assert bodies(driver.receive(queue, 1, attempt_id="one")) == ["a1"]
        assert bodies(driver.receive(queue, 1, attempt_id="two")) == ["b1"]

    def test_replay_restarts_the_visibility_timeout(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=10 * SECOND)
        send_groups(driver, queue, "a1")
        driver.receive(queue, attempt_id="try")
        driver.pass_time(9 * SECOND)
        assert bodies(driver.receive(queue, attempt_id="try")) == ["a1"]
        driver.pass_time(9 * SECOND)
        assert driver.receive(queue) == []
        driver.pass_time(SECOND)
        assert bodies(driver.receive(queue)) == ["a1"]

    def test_attempt_is_over_when_a_message_was_deleted_or_changed(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        send_groups(driver, queue, "a1", "a2", "b1", "c1")
        first = driver.receive(queue, 2, attempt_id="try")
        driver.delete(queue, first[0].receipt)
        assert "a2" not in bodies(driver.receive(queue, 1, attempt_id="try"))

    def test_attempt_is_over_after_five_minutes(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=HOUR)
        send_groups(driver, queue, "a1", "b1")
        assert bodies(driver.receive(queue, 1, attempt_id="try")) == ["a1"]
        driver.pass_time(5 * MINUTE)
        assert bodies(driver.receive(queue, 1, attempt_id="try")) == ["b1"]

    def test_attempt_is_over_with_its_leases(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver, visibility_ms=SECOND)
        send_groups(driver, queue, "a1")
        (first,) = driver.receive(queue, attempt_id="try")
        driver.pass_time(SECOND)
        (again,) = driver.receive(queue, attempt_id="try")
        assert again.receipt != first.receipt
        assert again.receives == 2
