"""The lease table: who has a message, until when, for the how-manieth time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.queue import limits
from headrace.queue.leases import Lease, LeaseTable
from tests.queue.rules.messages import NOW, message


def granted(*seqs: int, expires_ms: int = NOW + 1_000) -> LeaseTable:
    table = LeaseTable()
    table.grant([message(seq) for seq in seqs], now=NOW, expires_ms=expires_ms)
    return table


def test_first_lease_counts_one_and_notes_its_time() -> None:
    table = LeaseTable()
    (lease,) = table.grant([message(1, group="g", sent_ms=NOW - 5)], now=NOW, expires_ms=NOW + 1_000)
    assert lease == Lease(1, NOW, NOW, NOW + 1_000, NOW - 5, "g")
    assert table.in_flight() == 1
    assert table.knows(1) and not table.knows(2)


def test_count_and_first_time_go_on_when_a_message_is_received_again() -> None:
    table = granted(1)
    table.release(1)
    assert (table.in_flight(), table.receives(1)) == (0, 1)
    (lease,) = table.grant([message(1)], now=NOW + 5_000, expires_ms=NOW + 9_000)
    assert (lease.receives, lease.first_ms, lease.received_ms) == (2, NOW, NOW + 5_000)
    assert not table.past


def test_message_never_received_has_no_receives() -> None:
    assert LeaseTable().receives(1) == 0


def test_lease_ends_on_its_millisecond() -> None:
    table = granted(1, 2)
    assert table.expired(NOW + 999) == []
    assert table.expired(NOW + 1_000) == [1, 2]


def test_lease_that_was_extended_ends_later_only() -> None:
    table = granted(1)
    table.move_expiry(1, NOW + 3_000)
    assert table.expired(NOW + 1_000) == []
    assert table.expired(NOW + 3_000) == [1]


def test_lease_that_was_shortened_ends_earlier_and_once() -> None:
    table = granted(1)
    table.move_expiry(1, NOW + 10)
    assert table.expired(NOW + 10) == [1]
    table.release(1)
    assert table.expired(NOW + 1_000) == []


def test_expiry_moved_to_where_it_was_ends_once() -> None:
    table = granted(1)
    table.move_expiry(1, NOW + 1_000)
    assert table.expired(NOW + 1_000) == [1]


def test_deleted_message_never_expires() -> None:
    table = granted(1)
    del table.active[1]
    assert table.expired(NOW + 1_000) == []


def test_lease_put_back_ends_when_it_would_have() -> None:
    table = granted(1)
    lease = table.active.pop(1)
    table.expired(NOW + 500)
    table.restore(1, lease)
    assert table.in_flight() == 1
    assert table.expired(NOW + 1_000) == [1]


def test_claimed_message_is_in_flight_without_a_timeout() -> None:
    table = LeaseTable()
    table.claim(message(1))
    assert table.in_flight() == 1 and table.knows(1)
    assert table.expired(NOW + 10**9) == []


def test_claim_keeps_the_count_and_gives_it_back() -> None:
    table = granted(1)
    table.release(1)
    table.claim(message(1))
    assert table.unclaim(1).receives == 1
    assert table.receives(1) == 1


def test_message_that_was_claimed_and_never_received_counts_from_one() -> None:
    table = LeaseTable()
    table.claim(message(1))
    assert table.unclaim(1).receives == 0
    (lease,) = table.grant([message(1)], now=NOW + 5_000, expires_ms=NOW + 9_000)
    assert (lease.receives, lease.first_ms) == (1, NOW + 5_000)


def test_deadlines_of_deleted_messages_are_dropped_and_the_others_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIMERS_KEPT", 10)
    table = granted(*range(1, 21))
    table.tidy()
    assert len(table.timers) == 20  # all in flight
    for seq in range(3, 21):
        del table.active[seq]
    table.tidy()
    assert len(table.timers) == 2
    assert table.expired(NOW + 1_000) == [1, 2]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["grant", "release", "move", "claim", "unclaim", "delete", "expire"]), st.integers(1, 4)
        )
    )
)
def test_message_is_in_one_place_and_its_count_never_falls(steps: list[tuple[str, int]]) -> None:
    table = LeaseTable()
    counts = dict.fromkeys(range(1, 5), 0)
    now = NOW
    for step, seq in steps:
        now += 250
        if step == "grant" and seq not in table.active and seq not in table.claimed:
            (lease,) = table.grant([message(seq)], now=now, expires_ms=now + 1_000)
            counts[seq] += 1
            assert lease.receives == counts[seq]
        elif step == "release" and seq in table.active:
            table.release(seq)
        elif step == "move" and seq in table.active:
            table.move_expiry(seq, now + 500)
        elif step == "claim" and seq not in table.active and seq not in table.claimed:
            table.claim(message(seq))
        elif step == "unclaim" and seq in table.claimed:
            table.unclaim(seq)
        elif step == "delete" and seq in table.active:
            del table.active[seq]
            counts[seq] = 0
        elif step == "expire":
            for ended in table.expired(now):
                assert table.active[ended].expires_ms <= now
                table.release(ended)
            assert all(lease.expires_ms > now for lease in table.active.values())
        table._check_invariants()
        assert table.in_flight() == len(table.active) + len(table.claimed)
