"""The suite: messages taken by their sequence numbers, and received from several queues in one go."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import (
    InFlightLimit,
    InvalidParameter,
    MessageNotFound,
    MessageNotVisible,
    QueueNotFound,
)
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, arn_of
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import DAY, MINUTE, SECOND, SuitePart


def take(driver: StoreDriver, queue: str, *seqs: int, visibility_ms: int | None = None) -> list[Any]:
    outcomes: list[Any] = driver.run(ops.Take(queue, list(seqs), visibility_ms))
    return outcomes


def fill(driver: StoreDriver, queue: str, count: int, **fields: Any) -> list[int]:
    """Send `count` messages, "0" and so on; their sequence numbers."""
    return [one.seq for one in driver.send_all(queue, [entry(str(number), **fields) for number in range(count)])]


def receive_any(driver: StoreDriver, *queues: str, limit: int = 10, **fields: Any) -> list[tuple[str, list[str]]]:
    """What several queues gave: (queue, bodies)."""
    given = driver.run(ops.ReceiveAny(list(queues), limit, **fields))
    return [(queue, bodies(deliveries)) for queue, deliveries in given]


class TestTaking(SuitePart):
    def test_exactly_the_messages_named_are_leased(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = fill(driver, queue, 5)
        assert bodies(take(driver, queue, seqs[3], seqs[1])) == ["3", "1"]
        assert bodies(driver.receive(queue)) == ["0", "2", "4"]
        assert driver.receive(queue) == []
        assert driver.counts(queue).in_flight == 5

    def test_receipt_deletes_what_was_taken(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = fill(driver, queue, 3)
        (taken,) = take(driver, queue, seqs[1])
        assert driver.delete(queue, taken.receipt) == [None]
        driver.pass_time(DAY)
        assert bodies(driver.receive(queue)) == ["0", "2"]

    def test_taken_message_is_visible_again_after_its_timeout_and_once(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=30 * SECOND)
        seqs = fill(driver, queue, 3)
        take(driver, queue, seqs[2], visibility_ms=SECOND)
        driver.pass_time(SECOND)
        deliveries = driver.receive(queue)
        assert [(one.message.body, one.receives) for one in deliveries] == [(b"2", 2), (b"0", 1), (b"1", 1)]
        assert driver.receive(queue) == []

    def test_taken_and_released_again_and_again_is_given_once(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = fill(driver, queue, 2)
        for count in (1, 2, 3):
            (taken,) = take(driver, queue, seqs[0])
            assert taken.receives == count
            driver.change_visibility(queue, taken.receipt, 0)
        assert bodies(driver.receive(queue)) == ["0", "1"]
        assert driver.receive(queue) == []

    def test_delayed_message_is_taken_before_its_time_and_not_shown_then(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        early, late = (driver.send(queue, body, delay_ms=10 * SECOND).seq for body in ("early", "late"))
        (taken,) = take(driver, queue, early, visibility_ms=MINUTE)
        assert taken.message.body == b"early"
        counts = driver.counts(queue)
        assert (counts.visible, counts.in_flight, counts.delayed) == (0, 1, 1)
        driver.pass_time(10 * SECOND)
        assert [one.message.seq for one in driver.receive(queue)] == [late]
        driver.delete(queue, taken.receipt)
        driver.pass_time(DAY)
        assert driver.counts(queue).visible == 1

    def test_delayed_message_that_was_released_is_visible(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seq = driver.send(queue, "x", delay_ms=MINUTE).seq
        take(driver, queue, seq, visibility_ms=SECOND)
        driver.pass_time(SECOND)
        assert driver.receive_one(queue, visibility_ms=DAY // 2).receives == 2
        driver.pass_time(2 * MINUTE)
        assert driver.receive(queue) == []

    def test_delayed_message_that_is_due_and_not_yet_shown_is_taken(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = fill(driver, queue, 3, delay_ms=SECOND)
        driver.pass_time(SECOND)
        take(driver, queue, seqs[1])
        assert bodies(driver.receive(queue)) == ["0", "2"]

    def test_what_is_in_flight_or_gone_is_refused_and_the_others_hold(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = fill(driver, queue, 4)
        leased, gone = driver.receive(queue, 2)
        driver.delete(queue, gone.receipt)
        outcomes = take(driver, queue, leased.message.seq, gone.message.seq, 10**9, -1, 0, seqs[2], seqs[2])
        kinds = [type(one) for one in outcomes]
        assert kinds == [MessageNotVisible, *[MessageNotFound] * 4, Delivery, MessageNotVisible]
        assert bodies(driver.receive(queue)) == ["3"]

    def test_claimed_message_is_refused(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = fill(driver, queue, 1)
        driver.run(ops.Claim(queue, "reader", 1))
        assert isinstance(take(driver, queue, seqs[0])[0], MessageNotVisible)

    def test_expired_and_purged_messages_are_gone(self, driver: StoreDriver) -> None:
        queue = driver.create("q", retention_ms=MINUTE)
        old = fill(driver, queue, 1)
        driver.jump(MINUTE)
        assert isinstance(take(driver, queue, *old)[0], MessageNotFound)
        new = fill(driver, queue, 1)
        driver.run(ops.Purge(queue))
        assert isinstance(take(driver, queue, *new)[0], MessageNotFound)

    def test_message_received_too_often_is_delivered_when_it_is_named(self, driver: StoreDriver) -> None:
        dead = driver.create("dead")
        driver.create("q", redrive={"target": dead, "receives_max": 1})
        queue = arn_of("q")
        (seq,) = fill(driver, queue, 1)
        driver.receive_one(queue, visibility_ms=0)
        assert take(driver, queue, seq, visibility_ms=0)[0].receives == 2
        assert driver.receive(queue) == []
        assert driver.counts(dead).visible == 1

    def test_message_of_a_noisy_tenant_that_stands_back_is_taken(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = fill(driver, queue, 2 * limits.NOISY_IN_FLIGHT_MIN, group="noisy")
        driver.receive(queue, limits.NOISY_IN_FLIGHT_MIN)
        driver.send(queue, "quiet", group="quiet")
        assert bodies(driver.receive(queue, 1)) == ["quiet"]
        assert take(driver, queue, seqs[-1])[0].message.body == str(len(seqs) - 1).encode()
        assert len(driver.receive(queue, 100)) == limits.NOISY_IN_FLIGHT_MIN - 1

    def test_message_far_behind_the_head_is_taken_and_given_once(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        seqs = [seq for _ in range(12) for seq in fill(driver, queue, limits.NATIVE_BATCH_MAX)]
        take(driver, queue, seqs[-1], seqs[50_000])
        received = [one.message.seq for _ in range(11) for one in driver.receive(queue, limits.NATIVE_BATCH_MAX)]
        assert len(received) == len(set(received)) == 110_000
        assert not {seqs[-1], seqs[50_000]} & set(received)
        assert driver.counts(queue).in_flight == 110_002

    @pytest.mark.parametrize("fields", [{"seqs": []}, {"seqs": [1], "visibility_ms": -1}])
    def test_wrong_arguments_are_refused(self, driver: StoreDriver, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidParameter):
            driver.run(ops.Take(driver.create("q"), **fields))

    def test_lease_survives_a_crash(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q", visibility_ms=MINUTE)
        seqs = fill(crashable, queue, 2)
        delayed = crashable.send(queue, "delayed", delay_ms=10 * SECOND).seq
        take(crashable, queue, seqs[0], delayed)
        crashable.crash()
        crashable.pass_time(10 * SECOND)
        assert bodies(crashable.receive(queue)) == ["1"]
        crashable.pass_time(MINUTE)
        assert sorted(bodies(crashable.receive(queue))) == ["0", "1", "delayed"]


class TestFifoTaking(SuitePart):
    def test_only_the_first_of_a_free_group_is_taken(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", content_dedup=True)
        first, second = (driver.send(queue, body, group="g").seq for body in ("1", "2"))
        assert isinstance(take(driver, queue, second)[0], MessageNotVisible)
        assert bodies(take(driver, queue, first)) == ["1"]
        assert isinstance(take(driver, queue, second)[0], MessageNotVisible)
        assert driver.receive(queue) == []

    def test_group_goes_on_in_order_when_the_lease_ends(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", content_dedup=True)
        first = driver.send(queue, "1", group="g").seq
        driver.send(queue, "2", group="g")
        (taken,) = take(driver, queue, first)
        driver.change_visibility(queue, taken.receipt, 0)
        assert bodies(driver.receive(queue)) == ["1", "2"]

    def test_first_message_is_taken_though_the_next_is_in_flight(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", content_dedup=True)
        first, second, third = (driver.send(queue, body, group="g").seq for body in ("1", "2", "3"))
        deliveries = driver.receive(queue, 2)
        driver.change_visibility(queue, deliveries[0].receipt, 0)
        assert isinstance(take(driver, queue, second)[0], MessageNotVisible)
        assert isinstance(take(driver, queue, third)[0], MessageNotVisible)
        assert bodies(take(driver, queue, first)) == ["1"]

    def test_deleted_makes_way_for_the_next(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", content_dedup=True)
        first, second = (driver.send(queue, body, group="g").seq for body in ("1", "2"))
        driver.delete(queue, take(driver, queue, first)[0].receipt)
        assert bodies(take(driver, queue, second)) == ["2"]

    def test_queues_delay_holds(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", content_dedup=True, delay_ms=SECOND)
        seq = driver.send(queue, "1", group="g").seq
        assert isinstance(take(driver, queue, seq)[0], MessageNotVisible)
        driver.pass_time(SECOND)
        assert bodies(take(driver, queue, seq)) == ["1"]

    def test_message_not_read_yet_is_found_after_a_restart(self, durable: StoreDriver) -> None:
        queue = durable.create("q.fifo", content_dedup=True)
        first, second = (durable.send(queue, body, group="g").seq for body in ("1", "2"))
        durable.reopen()
        assert isinstance(take(durable, queue, second)[0], MessageNotVisible)
        assert bodies(take(durable, queue, first)) == ["1"]


class TestReceivingAny(SuitePart):
    def test_first_queue_gives_all_it_has_then_the_next(self, driver: StoreDriver) -> None:
        high, low = driver.create("high"), driver.create("low")
        fill(driver, low, 3)
        fill(driver, high, 2)
        assert receive_any(driver, high, low, limit=4) == [(high, ["0", "1"]), (low, ["0", "1"])]
        assert receive_any(driver, high, low, limit=4) == [(low, ["2"])]
        assert receive_any(driver, high, low, limit=4) == []

    def test_limit_that_the_first_fills_leaves_the_next_alone(self, driver: StoreDriver) -> None:
        high, low = driver.create("high"), driver.create("low")
        fill(driver, high, 3)
        fill(driver, low, 1)
        assert receive_any(driver, high, low, limit=3) == [(high, ["0", "1", "2"])]
        assert driver.counts(low).visible == 1

    def test_each_queues_own_visibility_holds_unless_one_is_given(self, driver: StoreDriver) -> None:
        short, long = driver.create("short", visibility_ms=SECOND), driver.create("long", visibility_ms=MINUTE)
        fill(driver, short, 1)
        fill(driver, long, 1)
        receive_any(driver, short, long)
        driver.pass_time(SECOND)
        assert receive_any(driver, short, long, visibility_ms=MINUTE // 2) == [(short, ["0"])]
        driver.pass_time(MINUTE // 2)
        assert receive_any(driver, short, long) == [(short, ["0"])]

    def test_fifo_and_standard_queues_mix(self, driver: StoreDriver) -> None:
        fifo, plain = driver.create("q.fifo", content_dedup=True), driver.create("q")
        fill(driver, fifo, 2, group="g")
        fill(driver, plain, 1)
        assert receive_any(driver, fifo, plain) == [(fifo, ["0", "1"]), (plain, ["0"])]

    def test_queue_asked_twice_counts_once(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, 2)
        assert receive_any(driver, queue, queue) == [(queue, ["0", "1"])]

    def test_missing_queue_is_told_before_anything_is_leased(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        fill(driver, queue, 1)
        with pytest.raises(QueueNotFound):
            receive_any(driver, queue, arn_of("missing"))
        assert driver.receive_one(queue).receives == 1

    def test_full_queue_is_passed_over_and_told_if_no_other_has_anything(self, driver: StoreDriver) -> None:
        full, other = driver.create("full"), driver.create("other")
        for _ in range(limits.IN_FLIGHT_MAX // limits.NATIVE_BATCH_MAX):
            fill(driver, full, limits.NATIVE_BATCH_MAX)
            driver.receive(full, limits.NATIVE_BATCH_MAX, visibility_ms=DAY // 2)
        fill(driver, full, 1)
        fill(driver, other, 1)
        assert receive_any(driver, full, other) == [(other, ["0"])]
        with pytest.raises(InFlightLimit):
            receive_any(driver, full, other)

    @pytest.mark.parametrize("count", [0, limits.QUEUES_ASKED_MAX + 1])
    def test_number_of_queues_is_bounded(self, driver: StoreDriver, count: int) -> None:
        queue = driver.create("q")
        with pytest.raises(InvalidParameter):
            receive_any(driver, *[queue] * count)

    @pytest.mark.parametrize("limit", [0, limits.NATIVE_BATCH_MAX + 1])
    def test_limit_out_of_range_is_refused(self, driver: StoreDriver, limit: int) -> None:
        with pytest.raises(InvalidParameter):
            receive_any(driver, driver.create("q"), limit=limit)
