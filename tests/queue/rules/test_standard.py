"""The order of a standard queue: about the order of arrival, nothing lost, nothing twice, fair between tenants."""

from __future__ import annotations

import pytest

from headrace.queue import limits
from headrace.queue.standard import StandardOrder
from tests.queue.rules.messages import NOW, message


def ordered(*groups: str | None) -> StandardOrder:
    """An order that knows messages 1, 2, … of these groups."""
    order = StandardOrder()
    add(order, *[(seq, group) for seq, group in enumerate(groups, start=1)])
    return order


def add(order: StandardOrder, *messages: tuple[int, str | None]) -> None:
    """New messages, as (seq, group)."""
    order.add_all([message(seq, group=group) for seq, group in messages])


def lease(order: StandardOrder, seqs: list[int], group: str | None = None, *, now: int = NOW) -> None:
    """Lease messages that were taken, for a second."""
    messages = [message(seq, group=group) for seq in seqs]
    leases = order.leases.grant(messages, now=now, expires_ms=now + 1_000)
    if order.counts_groups():
        order.started(leases)


def take(order: StandardOrder, limit: int, *, now: int = NOW, all_known: bool = True) -> list[int]:
    return order.take(limit, now, all_known=all_known)


class TestOrder:
    def test_messages_come_in_the_order_of_arrival(self) -> None:
        order = ordered(None, None, None)
        assert len(order) == 3
        assert take(order, 2) == [1, 2]
        assert take(order, 2) == [3]
        assert take(order, 2) == []
        assert len(order) == 0

    def test_message_visible_again_goes_before_those_never_received(self) -> None:
        order = ordered(None, None, None, None)
        lease(order, take(order, 2))
        order.release(2, NOW)
        order.release(1, NOW)
        assert take(order, 3) == [1, 2, 3]

    def test_message_taken_and_not_wanted_is_next_again(self) -> None:
        order = ordered(None, None)
        take(order, 1)
        order.untake(1, None, NOW)
        assert take(order, 2) == [1, 2]

    def test_dropped_message_is_forgotten(self) -> None:
        order = ordered(None)
        lease(order, take(order, 1))
        order.release(1, NOW)
        take(order, 1)
        order.dropped(1)
        assert not order.leases.knows(1)
        assert take(order, 1) == []

    def test_room_is_what_the_limit_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 3)
        order = ordered(None, None)
        assert order.room() == 3
        lease(order, take(order, 1))
        order.claim(message(take(order, 1)[0]))
        assert order.room() == 1

    def test_next_deadline_is_the_first_lease(self) -> None:
        order = ordered(None)
        assert order.next_ms() is None
        lease(order, take(order, 1))
        deadline = order.next_ms()
        assert deadline is not None and NOW < deadline <= NOW + 1_000

    def test_purge_leaves_nothing(self) -> None:
        order = ordered("a", None)
        lease(order, [1], "a")
        order.clear()
        assert (len(order), order.leases.in_flight(), order.tenants.in_flight) == (0, 0, {})
        assert take(order, 5) == []


class TestDeleting:
    def test_leased_message_held_for_deletion_does_not_come_back(self) -> None:
        order = ordered("g")
        lease(order, take(order, 1), "g")
        held = order.hold(1)
        assert held is not None
        granted, active = held
        assert active
        order.deleted(1, granted, NOW, active=active)
        assert order.leases.expired(NOW + 1_000) == []
        assert order.tenants.in_flight == {}

    def test_failed_delete_of_a_leased_message_leaves_its_lease(self) -> None:
        order = ordered(None)
        lease(order, take(order, 1))
        held = order.hold(1)
        assert held is not None
        order.put_back(1, held[0], active=held[1])
        assert order.leases.expired(NOW + 1_000) == [1]

    @pytest.mark.parametrize("group", [None, "g"])
    def test_message_visible_again_can_still_be_deleted(self, group: str | None) -> None:
        order = ordered(group)
        lease(order, take(order, 1), group)
        order.release(1, NOW)
        held = order.hold(1)
        assert held is not None and not held[1]
        order.deleted(1, held[0], NOW, active=held[1])
        assert len(order) == 0
        assert take(order, 1) == []

    @pytest.mark.parametrize("group", [None, "g"])
    def test_failed_delete_of_a_visible_message_leaves_it_visible_once(self, group: str | None) -> None:
        order = ordered(group)
        lease(order, take(order, 1), group)
        order.release(1, NOW)
        held = order.hold(1)
        assert held is not None
        order.put_back(1, held[0], active=held[1])
        assert order.leases.receives(1) == 1
        assert take(order, 5) == [1]

    def test_failed_delete_of_a_message_that_stood_back_leaves_it_there_once(self) -> None:
        order = ordered(*["noisy"] * 33)
        lease(order, take(order, 31), "noisy")
        order.release(31, NOW)
        assert take(order, 1, all_known=False) == []  # 31, 32, 33 stand back
        held = order.hold(31)
        assert held is not None
        order.put_back(31, held[0], active=held[1])
        assert len(order) == 3
        assert sorted(take(order, 5)) == [31, 32, 33]

    def test_last_message_of_a_tenant_that_stood_back_can_be_deleted(self) -> None:
        order = ordered(*["noisy"] * 31)
        lease(order, take(order, 31), "noisy")
        order.release(31, NOW)
        assert take(order, 1, all_known=False) == []
        held = order.hold(31)
        assert held is not None
        order.deleted(31, held[0], NOW, active=held[1])
        assert len(order) == 0
        assert take(order, 5) == []

    def test_message_never_received_is_not_held(self) -> None:
        assert ordered(None).hold(1) is None


class TestClaims:
    def test_released_claim_is_visible_again(self) -> None:
        order = ordered("g", None)
        order.claim(message(take(order, 1)[0], group="g"))
        assert order.leases.in_flight() == 1
        order.unclaim(1)
        assert take(order, 5) == [1, 2]

    def test_acknowledged_claim_is_gone(self) -> None:
        order = ordered(None)
        order.claim(message(take(order, 1)[0]))
        order.claim_deleted(1)
        assert not order.leases.knows(1)
        assert take(order, 1) == []


class TestFair:
    @pytest.fixture
    def flooded(self) -> StandardOrder:
        """`noisy` has thirty in flight and three that wait; then come one of `quiet` and one without a group."""
        order = ordered(*["noisy"] * 33, "quiet", None)
        lease(order, take(order, 30), "noisy")
        return order

    def test_quiet_tenants_go_before_a_noisy_one(self, flooded: StandardOrder) -> None:
        assert take(flooded, 3) == [34, 35, 31]

    def test_noisy_tenant_waits_while_the_store_may_have_others(self, flooded: StandardOrder) -> None:
        assert take(flooded, 3, all_known=False) == [34, 35]
        assert len(flooded) == 3
        assert take(flooded, 3, all_known=False) == []
        assert take(flooded, 3) == [31, 32, 33]

    def test_noisy_tenant_is_served_when_very_many_stand_back(
        self, flooded: StandardOrder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "FAIR_LOOK_AHEAD_MAX", 3)
        assert take(flooded, 4, all_known=False) == [34, 35, 31]  # then only two stand back

    def test_one_receive_cannot_flood(self) -> None:
        order = ordered(*["noisy"] * 40, "quiet")
        assert take(order, 31) == [*range(1, 31), 41]

    def test_tenant_that_is_quiet_again_comes_first(self, flooded: StandardOrder) -> None:
        assert take(flooded, 2) == [34, 35]
        flooded.release(1, NOW)
        for seq in range(2, 12):
            flooded.leases.active.pop(seq)
            flooded.tenants.ended("noisy", busy_ms=0, now=NOW)
        add(flooded, (36, None))
        assert take(flooded, 5) == [31, 32, 33, 1, 36]

    def test_counts_of_a_take_are_provisional(self) -> None:
        order = ordered("a", "a", "b")
        assert take(order, 3) == [1, 2, 3]
        assert order.tenants.in_flight == {}

    def test_deferred_message_that_was_deleted_is_skipped(self) -> None:
        order = ordered(*["noisy"] * 33)
        lease(order, take(order, 31), "noisy")
        order.release(31, NOW)
        assert take(order, 1, all_known=False) == []  # 31, 32, 33 stand back
        assert order.hold(31) is not None
        assert take(order, 5) == [32, 33]

    def test_deferred_message_of_a_tenant_quiet_again_that_was_deleted_is_skipped(self) -> None:
        order = ordered(*["noisy"] * 32)
        lease(order, take(order, 31), "noisy")
        order.release(31, NOW)
        assert take(order, 1, all_known=False) == []  # 31, 32 stand back
        assert order.hold(31) is not None
        for seq in range(1, 31):
            order.leases.active.pop(seq)
            order.tenants.ended("noisy", busy_ms=0, now=NOW)
        order.tenants.forget_time()
        assert take(order, 5, all_known=False) == [32]

    def test_time_taken_is_forgotten_when_the_backlog_is_gone(self) -> None:
        order = ordered(*["noisy"] * 30)
        lease(order, take(order, 30), "noisy")
        for seq in range(1, 31):
            held = order.hold(seq)
            assert held is not None
            order.deleted(seq, held[0], NOW + 1_000, active=True)
        add(order, (31, "noisy"))
        assert take(order, 1) == [31]  # the last that waits
        add(order, (32, "noisy"))
        add(order, (33, "quiet"))
        assert take(order, 2) == [32, 33]
