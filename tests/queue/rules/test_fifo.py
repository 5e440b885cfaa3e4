"""The order of a FIFO queue: strict in a group, in turn between groups."""

from __future__ import annotations

import pytest

from headrace.queue import limits
from headrace.queue.fifo import FifoOrder
from headrace.queue.leases import Lease
from tests.queue.rules.messages import NOW, message


def ordered(groups: str) -> FifoOrder:
    """An order that knows messages 1, 2, … of these groups, a letter each."""
    order = FifoOrder()
    order.add_all([message(seq, group=group) for seq, group in enumerate(groups, start=1)])
    return order


def take(order: FifoOrder, limit: int, *, now: int = NOW, delay_ms: int = 0, reader: str | None = None) -> list[int]:
    return order.take(limit, now, all_known=True, delay_ms=delay_ms, reader=reader)


def lease(order: FifoOrder, seqs: list[int], group: str, *, now: int = NOW) -> None:
    """Lease messages that were taken, for a second."""
    messages = [message(seq, group=group) for seq in seqs]
    order.started(order.leases.grant(messages, now=now, expires_ms=now + 1_000))


def receive(order: FifoOrder, limit: int, group: str) -> list[int]:
    taken = take(order, limit)
    lease(order, taken, group)
    return taken


def delete(order: FifoOrder, seq: int) -> None:
    held = order.hold(seq)
    assert held is not None
    order.deleted(seq, held[0], NOW, active=held[1])


class TestOrder:
    def test_one_receive_takes_all_of_a_group_then_of_the_group_with_the_oldest_head(self) -> None:
        order = ordered("bacab")
        assert len(order) == 5
        assert take(order, 4) == [1, 5, 2, 4]
        assert take(order, 4) == [3]
        assert len(order) == 0

    def test_message_in_flight_holds_up_its_group_and_no_other(self) -> None:
        order = ordered("aab")
        receive(order, 1, "a")
        assert receive(order, 5, "b") == [3]
        order.add(4, "a", NOW)
        assert take(order, 5) == []

    def test_group_goes_on_when_its_last_message_in_flight_is_deleted(self) -> None:
        order = ordered("aaa")
        receive(order, 2, "a")
        delete(order, 1)
        assert take(order, 5) == []
        delete(order, 2)
        assert take(order, 5) == [3]

    def test_group_without_messages_is_forgotten(self) -> None:
        order = ordered("a")
        receive(order, 1, "a")
        delete(order, 1)
        assert order.groups == {}

    def test_group_waits_until_the_delete_is_durable(self) -> None:
        order = ordered("aa")
        receive(order, 1, "a")
        held = order.hold(1)
        assert held is not None
        assert take(order, 1) == []
        order.deleted(1, held[0], NOW, active=held[1])
        assert take(order, 1) == [2]

    def test_failed_delete_leaves_the_lease(self) -> None:
        order = ordered("aa")
        receive(order, 1, "a")
        held = order.hold(1)
        assert held is not None
        order.put_back(1, held[0], active=held[1])
        assert take(order, 1) == []
        assert order.leases.expired(NOW + 1_000) == [1]

    def test_message_not_in_flight_is_not_held(self) -> None:
        order = ordered("a")
        receive(order, 1, "a")
        order.release(1, NOW)
        assert order.hold(1) is None

    def test_released_message_is_back_at_its_place(self) -> None:
        order = ordered("aaa")
        receive(order, 2, "a")
        order.release(2, NOW)
        assert take(order, 5) == []
        order.release(1, NOW)
        assert take(order, 5) == [1, 2, 3]

    def test_dropped_message_lets_its_group_go_on(self) -> None:
        order = ordered("aa")
        assert take(order, 1) == [1]
        order.dropped(1)
        assert take(order, 1) == [2]

    def test_message_whose_drop_failed_is_back_at_its_place(self) -> None:
        order = ordered("aa")
        assert take(order, 1) == [1]
        order.dropped(1)
        order.recall(1, "a", NOW)
        assert receive(order, 1, "a") == [1]
        assert take(order, 1) == []
        delete(order, 1)
        assert take(order, 1) == [2]

    def test_message_taken_and_not_wanted_is_back_at_its_place(self) -> None:
        order = ordered("aaa")
        assert take(order, 2) == [1, 2]
        order.untake(1, "a", NOW)
        order.untake(2, "a", NOW)
        assert take(order, 5) == [1, 2, 3]

    def test_message_without_a_group_is_a_bug(self) -> None:
        with pytest.raises(AssertionError):
            FifoOrder().add(1, None, NOW)

    def test_message_in_flight_when_the_store_was_last_open_holds_up_what_is_behind_it(self) -> None:
        order = FifoOrder()
        for seq in (4, 2):
            order.leases.restore(seq, Lease(1, NOW, NOW, NOW + seq * 1_000, NOW, "a"))
            order.lock(seq, "a")
        for seq in (1, 3, 5):
            order.add(seq, "a", NOW)
        assert receive(order, 5, "a") == [1]
        delete(order, 1)
        order.release(2, NOW)
        assert receive(order, 5, "a") == [2, 3]
        order._check_invariants()

    def test_every_lease_is_wanted(self) -> None:
        assert FifoOrder().counts_groups()

    def test_room_is_what_the_limit_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 3)
        order = ordered("ab")
        receive(order, 1, "a")
        assert order.room() == 2

    def test_purge_leaves_nothing(self) -> None:
        order = ordered("aab")
        receive(order, 1, "a")
        order.clear()
        assert (len(order), order.leases.in_flight()) == (0, 0)
        order.add(4, "a", NOW)
        assert take(order, 5) == [4]


class TestVisibility:
    """Visibility is a message's, not a group's."""

    def test_group_is_served_from_its_first_visible_message_up_to_the_first_in_flight(self) -> None:
        order = ordered("aaaa")
        assert receive(order, 3, "a") == [1, 2, 3]
        order.release(1, NOW)
        assert receive(order, 5, "a") == [1]
        order.release(2, NOW)
        assert receive(order, 5, "a") == []
        order.release(1, NOW)
        assert receive(order, 5, "a") == [1, 2]

    def test_message_in_flight_hides_all_behind_it(self) -> None:
        order = ordered("aaa")
        receive(order, 2, "a")
        order.release(2, NOW)
        assert take(order, 5) == []

    def test_deleted_message_lets_those_before_the_next_in_flight_through(self) -> None:
        order = ordered("aaaa")
        receive(order, 4, "a")
        order.release(2, NOW)
        order.release(3, NOW)
        assert take(order, 5) == []
        delete(order, 1)
        assert take(order, 5) == [2, 3]

    def test_picked_message_is_the_first_of_its_group_whatever_is_behind_it(self) -> None:
        order = ordered("aaa")
        receive(order, 2, "a")
        order.release(1, NOW)
        assert not order.pick(message(3, group="a"), NOW, delay_ms=0)
        assert order.pick(message(1, group="a"), NOW, delay_ms=0)
        assert not order.pick(message(3, group="a"), NOW, delay_ms=0)


class TestTurns:
    def give_back(self, order: FifoOrder, seqs: list[int]) -> None:
        for seq in seqs:
            order.release(seq, NOW)

    def receive(self, order: FifoOrder, groups: str, limit: int) -> list[int]:
        """Take and lease; message 1, 2, … are of the groups `groups`."""
        taken = take(order, limit)
        messages = [message(seq, group=groups[seq - 1]) for seq in taken]
        order.started(order.leases.grant(messages, now=NOW, expires_ms=NOW + 1_000))
        order._check_invariants()
        return taken

    def test_served_groups_go_behind_those_that_were_not_and_are_served_whole(self) -> None:
        groups = "abbca"
        order = ordered(groups)
        first = self.receive(order, groups, 3)
        assert first == [1, 5, 2]
        self.give_back(order, first)
        assert self.receive(order, groups, 10) == [4, 1, 5, 2, 3]

    def test_new_group_is_the_last(self) -> None:
        order = ordered("ab")
        self.give_back(order, self.receive(order, "ab", 2))
        order.add(3, "c", NOW)
        assert take(order, 3) == [1, 2, 3]

    def test_group_that_had_no_messages_left_is_new(self) -> None:
        order = ordered("ab")
        self.receive(order, "ab", 1)
        delete(order, 1)
        order.add(3, "a", NOW)
        assert take(order, 3) == [2, 3]

    def test_message_that_was_given_back_or_dropped_costs_no_turn(self) -> None:
        order = ordered("aab")
        assert take(order, 1) == [1]
        order.untake(1, "a", NOW)
        assert take(order, 1) == [1]
        order.dropped(1)
        assert take(order, 2) == [2, 3]

    def test_picked_message_costs_its_group_the_turn(self) -> None:
        order = ordered("ab")
        assert order.pick(message(1, group="a"), NOW, delay_ms=0)
        lease(order, [1], "a")
        order.release(1, NOW)
        assert take(order, 2) == [2, 1]

    def test_entries_of_past_turns_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "STALE_KEPT", 5)
        order = ordered("ab")
        for _ in range(100):
            assert order.pick(message(1, group="a"), NOW, delay_ms=0)
            lease(order, [1], "a")
            order.release(1, NOW)
        assert len(order._free) <= 10
        assert take(order, 2) == [2, 1]


class TestDelay:
    def test_message_is_hidden_until_its_delay_is_over(self) -> None:
        order = ordered("a")
        assert take(order, 1, now=NOW + 4_999, delay_ms=5_000) == []
        assert order.next_ms() == NOW + 5_000
        assert not order.due(NOW + 4_999)
        assert order.due(NOW + 5_000)
        assert take(order, 1, now=NOW + 5_000, delay_ms=5_000) == [1]

    def test_take_on_time_needs_no_advance_before(self) -> None:
        order = ordered("a")
        assert take(order, 1, delay_ms=5_000) == []
        assert take(order, 1, now=NOW + 5_000, delay_ms=5_000) == [1]

    def test_delayed_message_holds_up_its_own_group_only(self) -> None:
        order = FifoOrder()
        order.add(1, "a", NOW + 1_000)
        order.add(2, "b", NOW)
        order.add(3, "a", NOW + 1_000)
        assert take(order, 5, now=NOW + 5_000, delay_ms=5_000) == [2]
        assert take(order, 5, now=NOW + 6_000, delay_ms=5_000) == [1, 3]

    def test_receive_stops_at_the_first_delayed_message_of_a_group(self) -> None:
        order = FifoOrder()
        order.add(1, "a", NOW)
        order.add(2, "a", NOW + 1_000)
        taken = take(order, 5, now=NOW + 5_000, delay_ms=5_000)
        lease(order, taken, "a")
        delete(order, 1)
        assert taken == [1]
        assert take(order, 5, now=NOW + 5_999, delay_ms=5_000) == []
        assert take(order, 5, now=NOW + 6_000, delay_ms=5_000) == [2]

    def test_shorter_delay_reaches_messages_that_wait(self) -> None:
        order = ordered("a")
        assert take(order, 1, delay_ms=5_000) == []
        order.reconsider()
        assert order.next_ms() is None
        assert take(order, 1, delay_ms=0) == [1]

    def test_next_deadline_is_the_earlier_of_lease_and_delay(self) -> None:
        order = ordered("ab")
        assert order.next_ms() is None
        receive(order, 1, "a")
        take(order, 1, delay_ms=60_000)
        deadline = order.next_ms()
        assert deadline is not None and deadline <= NOW + 1_000


class TestClosing:
    """Leases were lost to damage: for the longest time that one may last, nobody gets anything."""

    def test_nothing_is_given_out_before_the_queue_opens(self) -> None:
        order = ordered("ab")
        order.close_until(NOW + 1_000)
        assert take(order, 5, now=NOW + 999) == []
        assert take(order, 5, now=NOW + 1_000) == [1, 2]

    def test_queue_tells_when_it_opens(self) -> None:
        order = ordered("a")
        order.close_until(NOW + 1_000)
        assert order.next_ms() == NOW + 1_000
        assert not order.due(NOW + 999)
        assert order.due(NOW + 1_000)
        assert not order.due(NOW + 1_000)
        assert order.next_ms() is None


class TestClaims:
    def claim(self, order: FifoOrder, limit: int, reader: str) -> list[int]:
        taken = take(order, limit, reader=reader)
        for seq in taken:
            order.claim(message(seq, group=order._away[seq]))
        return taken

    def test_claimed_group_is_closed_to_others(self) -> None:
        order = ordered("aa")
        assert self.claim(order, 1, "r") == [1]
        assert take(order, 5) == []
        assert self.claim(order, 5, "other") == []

    def test_same_reader_goes_on_in_its_group(self) -> None:
        order = ordered("aaa")
        assert self.claim(order, 1, "r") == [1]
        assert self.claim(order, 1, "r") == [2]
        assert self.claim(order, 5, "r") == [3]

    def test_message_that_comes_later_to_a_claimed_group_is_its_readers(self) -> None:
        order = ordered("a")
        assert self.claim(order, 1, "r") == [1]
        order.add(2, "a", NOW)
        assert take(order, 5) == []
        assert self.claim(order, 5, "r") == [2]

    def test_group_is_free_when_all_its_claims_are_acknowledged(self) -> None:
        order = ordered("aaa")
        self.claim(order, 2, "r")
        order.claim_deleted(1)
        assert take(order, 5) == []
        order.claim_deleted(2)
        assert take(order, 5) == [3]

    def test_released_claims_are_back_in_order(self) -> None:
        order = ordered("aaa")
        self.claim(order, 2, "r")
        order.unclaim(2)
        order.unclaim(1)
        assert take(order, 5) == [1, 2, 3]

    def test_messages_beyond_a_claims_bytes_are_its_next_ones(self) -> None:
        order = ordered("aaa")
        taken = take(order, 3, reader="r")
        order.claim(message(taken[0], group="a"))
        for seq in taken[1:]:
            order.untake(seq, "a", NOW)
        assert take(order, 5) == []
        assert self.claim(order, 5, "r") == [2, 3]

    def test_reader_goes_on_in_its_group_whatever_others_tried(self) -> None:
        order = ordered("zaa")
        receive(order, 1, "z")
        assert self.claim(order, 1, "r") == [2]
        order.release(1, NOW)
        assert self.claim(order, 1, "r") == [1]
        assert take(order, 1) == []
        assert self.claim(order, 1, "r") == [3]

    def test_leased_group_is_not_claimed(self) -> None:
        order = ordered("aa")
        receive(order, 1, "a")
        assert self.claim(order, 5, "r") == []

    def test_nothing_is_claimed_before_a_message_in_flight_which_others_may_have(self) -> None:
        order = ordered("aab")
        receive(order, 2, "a")
        order.release(1, NOW)
        assert self.claim(order, 5, "r") == [3]
        assert take(order, 5) == [1]

    def test_readers_claim_survives_a_restart(self) -> None:
        order = FifoOrder()
        order.leases.claim(message(1, group="a"))
        order.lock(1, "a", "r")
        order.add(2, "a", NOW)
        assert take(order, 5) == []
        assert self.claim(order, 5, "r") == [2]
