"""Holders: who is present, what is tied to whom, what ends when."""

from __future__ import annotations

import pytest

from headrace.errors import InvalidParameter
from headrace.queue import limits
from headrace.queue.holders import SWEEP_MIN, Holders
from headrace.queue.operations import Hold

NOW = 1_000_000
ME = Hold("me", "worker", {"pid": 1})


def held(holders: Holders, name: str = "me", kind: str = "worker", now: int = NOW) -> None:
    holders.present(Hold(name, kind), now)


def test_who_holds_is_not_due_however_long() -> None:
    holders = Holders()
    held(holders)
    assert holders.next_ms() is None
    assert holders.due(NOW + limits.DAY_MS) == []


def test_an_answered_hold_leaves_a_grace_to_the_millisecond() -> None:
    holders = Holders()
    held(holders)
    holders.answered("me", NOW + 7)
    assert holders.next_ms() == NOW + 7 + limits.HOLD_GRACE_MS
    assert holders.due(NOW + 6 + limits.HOLD_GRACE_MS) == []
    assert holders.due(NOW + 7 + limits.HOLD_GRACE_MS) == ["me"]


def test_who_comes_again_in_time_goes_on() -> None:
    holders = Holders()
    held(holders)
    holders.tie("me", "q", [b"1"], ends_ms=NOW + 99, now=NOW)
    holders.answered("me", NOW)
    held(holders, now=NOW + limits.HOLD_GRACE_MS - 1)
    assert holders.due(NOW + limits.DAY_MS) == []
    assert [(one.since_ms, one.leases) for one in holders.states("", NOW)] == [(NOW, 1)]


def test_leases_of_the_one_that_is_gone_end_and_no_others() -> None:
    holders = Holders()
    held(holders)
    held(holders, "other")
    holders.tie("me", "a", [b"1", b"2"], ends_ms=NOW + 99, now=NOW)
    holders.tie("me", "b", [b"3"], ends_ms=NOW + 99, now=NOW)
    holders.tie("other", "a", [b"4"], ends_ms=NOW + 99, now=NOW)
    assert holders.gone("me") == {"a": [b"1", b"2"], "b": [b"3"]}
    assert holders.tied.keys() == {b"4"}


def test_what_has_ended_is_untied() -> None:
    holders = Holders()
    held(holders)
    holders.tie("me", "a", [b"1", b"2"], ends_ms=NOW + 99, now=NOW)
    holders.untie([b"1", b"never tied"])
    assert holders.gone("me") == {"a": [b"2"]}
    assert not holders.tied


def test_leases_before_the_first_hold_have_the_grace_and_are_not_listed() -> None:
    holders = Holders()
    holders.tie("me", "a", [b"1"], ends_ms=NOW + 99, now=NOW)
    assert holders.states("", NOW) == []
    assert holders.due(NOW + limits.HOLD_GRACE_MS) == ["me"]
    held(holders, now=NOW + 10)
    assert holders.due(NOW + limits.DAY_MS) == []
    assert [(one.since_ms, one.leases) for one in holders.states("", NOW + 10)] == [(NOW + 10, 1)]


def test_leases_that_end_by_themselves_are_forgotten() -> None:
    holders = Holders()
    held(holders)
    for turn in range(10 * SWEEP_MIN):
        holders.tie("me", "a", [b"%d" % turn], ends_ms=NOW + turn + 10, now=NOW + turn)
        assert len(holders.tied) <= SWEEP_MIN + 1
    assert holders.states("", NOW + 20 * SWEEP_MIN)[0].leases == 0
    assert not holders.tied


def test_extended_lease_stays_tied() -> None:
    holders = Holders()
    held(holders)
    holders.tie("me", "a", [b"1"], ends_ms=NOW + 10, now=NOW)
    holders.move(b"1", NOW + 100)
    holders.move(b"never tied", NOW + 100)
    assert holders.states("", NOW + 99)[0].leases == 1
    assert holders.states("", NOW + 100)[0].leases == 0


def test_states_are_sorted_and_of_one_kind_if_asked() -> None:
    holders = Holders()
    held(holders, "b", "web")
    held(holders, "a", "worker")
    held(holders, "c", "worker")
    assert [one.holder for one in holders.states("", NOW)] == ["a", "b", "c"]
    assert [one.holder for one in holders.states("worker", NOW)] == ["a", "c"]
    assert holders.states("console", NOW) == []


@pytest.mark.parametrize(
    "operation",
    [Hold("", "worker"), Hold("me", ""), Hold("m e", "worker"), Hold("m" * 129, "worker"), Hold("me", "w\n")],
)
def test_names_are_checked(operation: Hold) -> None:
    with pytest.raises(InvalidParameter):
        Holders().check(operation)


def test_facts_are_bounded() -> None:
    Holders().check(Hold("me", "worker", {"x": "y" * (limits.FACTS_BYTES_MAX - 8)}))
    with pytest.raises(InvalidParameter, match="65536"):
        Holders().check(Hold("me", "worker", {"x": "y" * (limits.FACTS_BYTES_MAX - 7)}))


def test_number_of_holders_is_bounded_for_new_ones() -> None:
    holders = Holders()
    for number in range(limits.HOLDERS_MAX):
        held(holders, f"one-{number}")
    holders.check(Hold("one-1", "worker"))
    with pytest.raises(InvalidParameter, match="1000"):
        holders.check(ME)
