from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.process import started_ticks
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.runner import membership, state_keys
from headrace.stream.runner.membership import Heartbeat, Member, Membership, Owners
from headrace.stream.runner.store import MemoryStore

A = Member("a", "here", 1, 10)
B = Member("b", "here", 2, 20)
C = Member("c", "there", 3, 30)


def is_lost(member: Member, *, heard_ms: int, now_ms: int, alive: bool) -> bool:
    return membership.is_lost(member, heard_ms=heard_ms, now_ms=now_ms, host="here", alive=lambda _: alive)


def test_dead_process_of_this_host_is_lost_at_once() -> None:
    assert is_lost(A, heard_ms=100, now_ms=100, alive=False)


def test_process_of_another_host_is_not_looked_for() -> None:
    assert not is_lost(C, heard_ms=100, now_ms=100, alive=False)


@pytest.mark.parametrize("member", [A, C])
def test_silent_member_is_lost_after_the_bound(member: Member) -> None:
    assert not is_lost(member, heard_ms=0, now_ms=limits.MEMBER_LOST_MS, alive=True)
    assert is_lost(member, heard_ms=0, now_ms=limits.MEMBER_LOST_MS + 1, alive=True)


def test_every_change_of_owners_is_a_new_record() -> None:
    one = joined(Owners(), A)
    assert one == Owners(1, {0: A}, (0,), 1)
    assert membership.leave(one, [A]) == Owners(2, {}, (0,), 1)


def joined(owners: Owners, member: Member, *, shards: int = 1, alone: bool = False) -> Owners:
    found = membership.join(owners, member, shards=shards, alone=alone)
    assert found is not None
    return found


def test_there_is_a_place_for_each_shard() -> None:
    both = joined(joined(Owners(), A, shards=2), B, shards=2)
    assert both.slots == {0: A, 1: B}
    assert membership.join(both, C, shards=2) is None


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_who_is_alone_shares_with_nobody(first: bool, second: bool) -> None:
    one = joined(Owners(), A, shards=8, alone=first)
    assert membership.join(one, B, shards=8, alone=second) is None
    assert joined(membership.leave(one, [A]), B, shards=8, alone=second).slots == {0: B}


def test_free_slots_are_looked_after_by_the_first_member() -> None:
    three = joined(joined(joined(Owners(), A, shards=8), B, shards=8), C, shards=8)
    two = membership.leave(three, [A])
    assert (two.left_to(1), two.left_to(2)) == ([0], [])
    assert joined(two, A, shards=8).slots[0] == A, "the smallest that is free"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.sets(st.integers(0, 5), min_size=1))
def test_shards_are_dealt_evenly_and_few_change_hands(before: list[int], slots: set[int]) -> None:
    after = membership.assign_shards(before, slots)
    counts = Counter(dict.fromkeys(slots, 0))
    counts.update(after)
    assert set(counts) == slots and len(after) == len(before)
    assert max(counts.values()) - min(counts.values()) <= 1
    moved = sum(old != new for old, new in zip(before, after, strict=True))
    few, more = divmod(len(before), len(slots))
    had = sorted((before.count(slot) for slot in slots), reverse=True)
    assert moved == len(before) - sum(min(count, few + (place < more)) for place, count in enumerate(had))
    assert membership.assign_shards(after, slots) == after


@given(st.lists(st.tuples(st.sampled_from("jl"), st.integers(0, 6)), max_size=30), st.integers(1, 9))
def test_whoever_comes_and_goes_every_shard_has_an_owner(moves: list[tuple[str, int]], shards: int) -> None:
    owners = Owners()
    for move, number in moves:
        member = Member(str(number), "here", number, 0)
        if move == "j" and owners.slot_of(member) is None:
            owners = membership.join(owners, member, shards=shards) or owners
        elif move == "l":
            owners = membership.leave(owners, [member])
        assert len(owners.slots) <= shards and set(owners.slots) <= set(range(owners.used))
        if owners.slots:
            assert sorted(shard for slot in owners.slots for shard in owners.shards_of(slot)) == list(range(shards))
            left = [slot for taken in owners.slots for slot in owners.left_to(taken)]
            assert sorted([*left, *owners.slots]) == list(range(owners.used)), "each slot is somebody's to look after"


def test_member_is_watched_while_another_beats() -> None:
    beats = {"a": Heartbeat(A, 1_000), "b": Heartbeat(B, 1_000)}
    assert membership.watched(beats, A, 1_000 + limits.MEMBER_LOST_MS)
    assert not membership.watched(beats, A, 1_001 + limits.MEMBER_LOST_MS)
    assert not membership.watched({"a": Heartbeat(A, 1_000)}, A, 1_000)


def test_this_process_lives_and_another_with_its_pid_does_not() -> None:
    me = membership.this_process()
    assert membership.is_alive(me)
    assert not membership.is_alive(Member("x", me.host, me.pid, me.started + 1))
    assert not membership.is_alive(Member("x", me.host, 2**22 + 1, 0))


def test_process_that_nobody_has_asked_for_since_it_died_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    member = Member("x", "here", child.pid, started_ticks(child.pid))
    assert membership.is_alive(member)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still listed
    assert not membership.is_alive(member)
    child.communicate()


class Clocked(MemoryStore):
    """With a clock moved by hand, and counting what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ms = 1_000_000
        self.written = 0
        self.now_ms = lambda: self.at_ms  # type: ignore[assignment] # a clock is a function

    def transact(self, operation: ops.Transact) -> None:
        super().transact(operation)
        self.written += 1


def member_of(store: Clocked, member: Member, *, alive: bool = True) -> Membership:
    return Membership(store, "p", member=member, alive=lambda _: alive)


def test_second_member_stands_by_until_the_first_leaves() -> None:
    store = Clocked()
    first, second = member_of(store, A), member_of(store, B)
    assert first.take() and not second.take()
    first.leave()
    assert second.take()
    assert second.owners == store.read(state_keys.OWNERS)[state_keys.OWNERS]


def test_member_keeps_what_it_has() -> None:
    store = Clocked()
    first = member_of(store, A)
    assert first.take()
    owners = first.owners
    assert first.take() and first.owners == owners


def test_standby_takes_over_at_once_when_the_process_is_dead() -> None:
    store = Clocked()
    assert member_of(store, A).take()
    assert member_of(store, B, alive=False).take()


def test_standby_takes_over_from_one_that_is_silent() -> None:
    store = Clocked()
    first, second = member_of(store, C), member_of(store, B)
    first.take()
    second.beat(always=True)
    for _ in range(10):
        store.at_ms += limits.MEMBER_BEAT_MS
        first.beat()
        second.beat(always=True)
        assert not second.take()
    store.at_ms += limits.MEMBER_LOST_MS
    assert not second.take(), "its beat is just as old as may be"
    store.at_ms += 1
    assert second.take()


def test_member_that_nobody_watches_writes_nothing() -> None:
    store = Clocked()
    first = member_of(store, A)
    first.take()
    written = store.written
    for _ in range(100):
        store.at_ms += limits.MEMBER_BEAT_MS
        first.beat()
    assert store.written == written


def test_thread_beats_while_a_batch_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBER_BEAT_MS", 1)
    store = Clocked()
    first = member_of(store, A)
    assert first.take(shards=2) and member_of(store, B).take(shards=2)
    first.take(shards=2)
    before = store.written
    with first.beating():
        while store.written < before + 3:
            pass
    assert state_keys.BEAT + b"a" in store.read(state_keys.BEAT)


def test_newcomer_is_not_taken_for_lost_before_its_first_beat() -> None:
    store = Clocked()
    first = member_of(store, A)
    assert first.take(shards=2)
    store.at_ms += limits.MEMBER_LOST_MS * 100
    assert member_of(store, C).take(shards=2)
    first.take(shards=2)
    assert not first.drop_lost()
    store.at_ms += limits.MEMBER_LOST_MS + 1
    assert first.drop_lost()
    assert membership.read_owners(first.owners).shards == (0, 0)


def test_beats_of_those_who_were_killed_are_removed() -> None:
    store = Clocked()
    member_of(store, C).beat(always=True)
    first = member_of(store, A)
    first.take()
    store.at_ms += limits.MEMBER_FORGOTTEN_MS + 1
    member_of(store, B).beat(always=True)
    assert list(store.read(state_keys.BEAT)) == [state_keys.BEAT + b"b"]


def test_one_who_leaves_takes_its_beat_along() -> None:
    store = Clocked()
    second = member_of(store, B)
    second.beat(always=True)
    second.leave()
    assert not store.read(state_keys.BEAT)


def test_of_two_that_take_over_at_once_one_has_it() -> None:
    store = Clocked()
    first = member_of(store, A)
    other = member_of(store, B)
    read = store.read

    def interleaved(prefix: bytes, limit: int | None = None) -> dict[bytes, bytes]:
        found = read(prefix, limit)
        store.read = read  # type: ignore[method-assign]
        if prefix == state_keys.OWNERS:
            assert other.take()
        return found

    store.read = interleaved  # type: ignore[method-assign]
    assert not first.take()
