"""Standard queues: what is sent is received, hidden while in flight, delayed, counted and kept for its retention."""

from __future__ import annotations

import pytest

from headrace.errors import (
    CallerError,
    InvalidMessage,
    InvalidParameter,
    MessageTooLong,
    QueueNotFound,
)
from headrace.queue import attributes, limits
from headrace.queue import operations as ops
from headrace.queue.model import Sent, arn_of
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import DAY, MINUTE, SECOND, SuitePart


class TestSendAndReceive(SuitePart):
    def test_message_comes_back_as_it_was_sent(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        blob = attributes.encode({"color": ("String", "blue"), "raw": ("Binary", b"\x00\xff")})
        sent = driver.send(queue, bytes(range(256)), attributes=blob, trace="Root=1", sender="AIDA", group="tenant")
        message = driver.receive_one(queue).message
        assert (message.id, message.seq) == (sent.id, sent.seq)
        assert message.body == bytes(range(256))
        assert attributes.decode(message.attributes) == {"color": ("String", "blue"), "raw": ("Binary", b"\x00\xff")}
        assert (message.trace, message.sender, message.group) == ("Root=1", "AIDA", "tenant")
        assert message.sent_ms == driver.clock()
        assert (message.receives, message.source) == (0, None)

    def test_oldest_message_comes_first(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        for number in range(25):
            driver.send(queue, str(number))
        received = [body for _ in range(3) for body in bodies(driver.receive(queue))]
        assert received == [str(number) for number in range(25)]

    def test_receive_takes_at_most_its_limit(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("x")] * 5)
        assert len(driver.receive(queue, 3)) == 3
        assert len(driver.receive(queue, 3)) == 2
        assert driver.receive(queue, 3) == []

    @pytest.mark.parametrize(
        ("limit", "visibility_ms"), [(0, None), (10_001, None), (1, -1), (1, limits.VISIBILITY_MAX_MS + 1)]
    )
    def test_receive_out_of_range_is_refused(self, driver: StoreDriver, limit: int, visibility_ms: int | None) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        assert isinstance(driver.outcome(ops.Receive(queue, limit, visibility_ms)), InvalidParameter)
        assert driver.counts(queue).in_flight == 0

    def test_one_receive_can_take_thousands(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry(str(number)) for number in range(5_000)])
        assert bodies(driver.receive(queue, 10_000)) == [str(number) for number in range(5_000)]

    def test_ids_are_unique_and_sequence_numbers_rise(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        sent = driver.send_all(queue, [entry("x")] * 100) + [driver.send(queue, "x") for _ in range(10)]
        assert len({one.id for one in sent}) == 110
        assert [one.seq for one in sent] == sorted({one.seq for one in sent})
        assert all(len(one.id) == 16 for one in sent)

    def test_missing_queue_is_named(self, driver: StoreDriver) -> None:
        for operation in (
            ops.Send(arn_of("none"), [entry("x")]),
            ops.Receive(arn_of("none")),
            ops.Delete(arn_of("none"), [b"x"]),
            ops.Peek(arn_of("none")),
            ops.Purge(arn_of("none")),
            ops.GetQueue(arn_of("none")),
        ):
            outcome = driver.outcome(operation)
            assert isinstance(outcome, QueueNotFound), operation
            assert outcome.queue == arn_of("none")

    def test_queues_do_not_see_each_others_messages(self, driver: StoreDriver) -> None:
        first, second = driver.create("first"), driver.create("second")
        driver.send(first, "1")
        driver.send(second, "2")
        assert bodies(driver.receive(first)) == ["1"]
        assert bodies(driver.receive(second)) == ["2"]

    def test_operations_handed_over_together_are_answered_one_by_one(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        outcomes = driver.outcomes(
            [
                ops.Send(queue, [entry("1"), entry("2")]),
                ops.Send(arn_of("none"), [entry("lost")]),
                ops.Send(queue, [entry("3")]),
                ops.Receive(queue, 2),
            ]
        )
        assert [type(one) for one in outcomes[0] + outcomes[2]] == [Sent, Sent, Sent]
        assert isinstance(outcomes[1], QueueNotFound)
        received = bodies(outcomes[3]) + bodies(driver.receive(queue))
        assert received == ["1", "2", "3"]


class TestSendChecks(SuitePart):
    def test_empty_body_is_refused(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        with pytest.raises(InvalidMessage):
            driver.send(queue, b"")
        assert driver.peek(queue) == []

    def test_body_may_have_the_queues_limit_and_no_byte_more(self, driver: StoreDriver) -> None:
        queue = driver.create("q", max_message_bytes=2_048)
        driver.send(queue, b"x" * 2_048)
        with pytest.raises(MessageTooLong) as caught:
            driver.send(queue, b"x" * 2_049)
        assert (caught.value.size_bytes, caught.value.bound_bytes) == (2_049, 2_048)
        assert len(driver.peek(queue)) == 1

    def test_largest_message_is_taken(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, b"x" * limits.MESSAGE_BYTES_MAX)
        assert len(driver.receive_one(queue).message.body) == limits.MESSAGE_BYTES_MAX

    def test_attribute_names_types_and_values_count_into_the_size(self, driver: StoreDriver) -> None:
        queue = driver.create("q", max_message_bytes=1_024)
        blob = attributes.encode({"ab": ("String", "cdefg")})  # 2 + 6 + 5 = 13 bytes
        driver.send(queue, b"x" * 1_011, attributes=blob)
        with pytest.raises(MessageTooLong):
            driver.send(queue, b"x" * 1_012, attributes=blob)

    @pytest.mark.parametrize("delay_ms", [-1, 4 * DAY, limits.MESSAGE_DELAY_MAX_MS + 1])
    def test_delay_out_of_range_is_refused(self, driver: StoreDriver, delay_ms: int) -> None:
        queue = driver.create("q")
        with pytest.raises(InvalidParameter):
            driver.send(queue, "x", delay_ms=delay_ms)

    def test_dedup_id_is_refused_on_a_standard_queue(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        with pytest.raises(InvalidParameter):
            driver.send(queue, "x", dedup_id="d")

    def test_bad_entry_does_not_touch_the_others(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        outcomes = driver.send_all(queue, [entry("1"), entry("bad", delay_ms=-1), entry("2"), entry(b"")])
        assert isinstance(outcomes[0], Sent) and isinstance(outcomes[2], Sent)
        assert isinstance(outcomes[1], CallerError) and isinstance(outcomes[3], CallerError)
        assert bodies(driver.receive(queue)) == ["1", "2"]


class TestVisibility(SuitePart):
    def test_receive_hides_message_until_timeout(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=30 * SECOND)
        driver.send(queue, "x")
        driver.receive_one(queue)
        driver.pass_time(30 * SECOND - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_timeout_of_the_receive_overrides_the_queues(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=30 * SECOND)
        driver.send(queue, "x")
        driver.receive_one(queue, visibility_ms=5 * SECOND)
        driver.pass_time(5 * SECOND - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_timeout_of_zero_leaves_the_message_visible(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=0)
        driver.send(queue, "x")
        assert [driver.receive_one(queue).receives for _ in range(3)] == [1, 2, 3]

    def test_late_advance_still_finds_the_message_visible(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=30 * SECOND)
        driver.send(queue, "x")
        driver.receive_one(queue)
        driver.jump(3 * 30 * SECOND)
        driver.settle()
        assert driver.receive_one(queue).receives == 2

    def test_each_receive_counts_and_the_first_time_stays(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "x")
        driver.pass_time(7)
        first_ms = driver.clock()
        for count in (1, 2, 3):
            delivery = driver.receive_one(queue)
            assert (delivery.receives, delivery.first_received_ms) == (count, first_ms)
            driver.pass_time(SECOND)

    def test_returning_message_comes_before_newer_ones(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send(queue, "old")
        driver.receive_one(queue)
        driver.send(queue, "new")
        driver.pass_time(SECOND)
        assert bodies(driver.receive(queue)) == ["old", "new"]

    def test_queue_becomes_ready_when_a_message_does(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.store.take_ready()
        driver.send(queue, "x")
        assert driver.store.take_ready() == {queue}
        assert driver.store.take_ready() == set()
        driver.receive_one(queue)
        driver.pass_time(SECOND)
        assert driver.store.take_ready() == {queue}

    def test_advance_names_the_next_deadline(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=10 * SECOND)
        driver.send(queue, "x")
        driver.receive_one(queue)
        due = driver.settle()
        assert due is not None and due <= driver.clock() + 10 * SECOND


class TestDelays(SuitePart):
    def test_delayed_message_shows_exactly_when_due(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x", delay_ms=5 * SECOND)
        driver.pass_time(5 * SECOND - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_queues_delay_holds_unless_the_message_has_its_own(self, driver: StoreDriver) -> None:
        queue = driver.create("q", delay_ms=10 * SECOND)
        driver.send(queue, "late")
        driver.send(queue, "now", delay_ms=0)
        assert bodies(driver.receive(queue)) == ["now"]
        driver.pass_time(10 * SECOND)
        assert bodies(driver.receive(queue)) == ["late"]

    def test_changed_delay_does_not_reach_waiting_messages_of_a_standard_queue(self, driver: StoreDriver) -> None:
        queue = driver.create("q", delay_ms=10 * SECOND)
        driver.send(queue, "x")
        driver.change_settings(queue, delay_ms=0)
        assert driver.receive(queue) == []
        driver.pass_time(10 * SECOND)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_delayed_message_makes_the_queue_ready(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x", delay_ms=5 * SECOND)
        driver.store.take_ready()
        driver.pass_time(5 * SECOND)
        assert driver.store.take_ready() == {queue}

    @pytest.mark.parametrize("delay_ms", [limits.DELAY_MAX_MS, limits.MESSAGE_DELAY_MAX_MS - 1])
    def test_longest_delay_holds(self, driver: StoreDriver, delay_ms: int) -> None:
        queue = driver.create("q", retention_ms=limits.RETENTION_MAX_MS)
        driver.send(queue, "x", delay_ms=delay_ms)
        driver.pass_time(delay_ms - 1)
        assert driver.receive(queue) == []
        driver.pass_time(1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_long_delay_survives_a_restart(self, durable: StoreDriver) -> None:
        queue = durable.create("q", retention_ms=limits.RETENTION_MAX_MS)
        durable.send(queue, "x", delay_ms=10 * DAY)
        durable.reopen()
        durable.pass_time(10 * DAY - 1)
        assert durable.receive(queue) == []
        durable.pass_time(1)
        assert bodies(durable.receive(queue)) == ["x"]

    def test_short_delay_is_taken_whatever_the_retention(self, driver: StoreDriver) -> None:
        queue = driver.create("q", retention_ms=MINUTE)
        driver.send(queue, "x", delay_ms=limits.DELAY_MAX_MS)
        driver.pass_time(limits.DELAY_MAX_MS)
        assert driver.receive(queue) == []


class TestRetention(SuitePart):
    def test_message_is_kept_for_its_retention_and_no_longer(self, driver: StoreDriver) -> None:
        queue = driver.create("q", retention_ms=MINUTE, visibility_ms=0)
        driver.send(queue, "x")
        driver.pass_time(MINUTE - 1)
        assert bodies(driver.receive(queue)) == ["x"]
        driver.pass_time(1)
        assert driver.receive(queue) == []
        assert driver.counts(queue).visible == 0
        assert driver.peek(queue) == []

    def test_default_is_four_days(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=0)
        driver.send(queue, "x")
        driver.pass_time(4 * DAY - 1)
        assert bodies(driver.receive(queue)) == ["x"]
        driver.pass_time(1)
        assert driver.receive(queue) == []

    def test_shortened_retention_expires_old_messages(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "old")
        driver.pass_time(2 * MINUTE)
        driver.send(queue, "new")
        driver.change_settings(queue, retention_ms=MINUTE)
        assert bodies(driver.receive(queue)) == ["new"]
        assert driver.counts(queue).expired == 1

    def test_prolonged_retention_keeps_messages(self, driver: StoreDriver) -> None:
        queue = driver.create("q", retention_ms=MINUTE)
        driver.send(queue, "x")
        driver.change_settings(queue, retention_ms=DAY)
        driver.pass_time(DAY - 1)
        assert bodies(driver.receive(queue)) == ["x"]

    def test_expired_message_is_not_received_before_advance_has_run(self, driver: StoreDriver) -> None:
        queue = driver.create("q", retention_ms=MINUTE)
        driver.send(queue, "x")
        driver.jump(MINUTE)
        assert driver.receive(queue) == []


class TestCounts(SuitePart):
    def test_counts_tell_visible_in_flight_and_delayed_apart(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        oldest = driver.clock()
        driver.send_all(queue, [entry("x")] * 6)
        driver.pass_time(10)
        driver.send_all(queue, [entry("x", delay_ms=SECOND)] * 2)
        driver.receive(queue, 4)
        counts = driver.counts(queue)
        assert (counts.visible, counts.in_flight, counts.delayed) == (2, 4, 2)
        assert counts.oldest_ms == oldest
        assert (counts.sent, counts.received) == (8, 4)

    def test_counts_follow_time(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=10 * SECOND)
        driver.send(queue, "x", delay_ms=SECOND)
        states = []
        for step in (0, SECOND, 0, 10 * SECOND):
            driver.pass_time(step)
            counts = driver.counts(queue)
            states.append((counts.visible, counts.in_flight, counts.delayed))
            driver.receive(queue) if len(states) == 2 else None
        assert states == [(0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 0, 0)]

    def test_empty_queue_counts_nothing(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        driver.delete(queue, driver.receive_one(queue).receipt)
        counts = driver.counts(queue)
        assert (counts.visible, counts.in_flight, counts.delayed, counts.oldest_ms) == (0, 0, 0, None)
        assert counts.deleted == 1

    def test_empty_receives_are_counted(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.receive(queue)
        assert driver.counts(queue).empty_receives == 1


class TestPeeking(SuitePart):
    def test_peek_shows_every_state_and_changes_none(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=MINUTE)
        driver.send(queue, "leased")
        driver.receive_one(queue)
        driver.send(queue, "visible")
        driver.send(queue, "delayed", delay_ms=MINUTE)
        for _ in range(3):
            seen = [(one.message.body.decode(), one.state, one.receives) for one in driver.peek(queue)]
            assert seen == [("leased", "in_flight", 1), ("visible", "visible", 0), ("delayed", "delayed", 0)]
        assert driver.receive_one(queue).receives == 1

    def test_peek_pages_by_sequence_number(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry(str(number)) for number in range(10)])
        after, pages = 0, []
        while page := driver.peek(queue, 4, after=after):
            pages.append([one.message.body.decode() for one in page])
            after = page[-1].message.seq
        assert pages == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9"]]
