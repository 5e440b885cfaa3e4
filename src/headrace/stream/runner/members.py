"""Who runs a pipeline: pure rules over the members, what they said last, and the time.

A pipeline is run by the members that its `owners` record names. Each has a slot, under which it claims messages and
commits, and shards: the keys whose state it has. Who finds no place stands by. All look at the beats: a member that is
silent for MEMBER_LOST_MS, or whose process is known to be dead, is lost, and its shards are given to others. Every commit
of a member expects the record unchanged: so a lost member that is alive after all changes nothing any more.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from headrace.clock import boot_id
from headrace.process import is_running, started_ticks
from headrace.stream import limits


class Member(msgspec.Struct, frozen=True):
    """A process that runs the pipeline or would. `started`: of the process, in the machine's ticks: pids come again."""

    id: str
    host: str
    pid: int
    started: int


class Owners(msgspec.Struct, frozen=True):
    """Who has which slot and shards.

    Attributes:
        epoch: grows with every change, so that no two records are equal.
        slots: by number; a new member has the smallest that is free.
        shards: the slot that has each.
        used: how many slots there ever were: in those that are free now, claims may be open still.
        alone: who is here shares with nobody.
    """

    epoch: int = 0
    slots: dict[int, Member] = {}
    shards: tuple[int, ...] = ()
    used: int = 0
    alone: bool = False

    def slot_of(self, member: Member) -> int | None:
        return next((slot for slot, holder in self.slots.items() if holder.id == member.id), None)

    def shards_of(self, slot: int) -> frozenset[int]:
        return frozenset(shard for shard, holder in enumerate(self.shards) if holder == slot)

    def left_to(self, slot: int) -> list[int]:
        """The free slots that this one looks after: the first does."""
        return [free for free in range(self.used) if free not in self.slots] if slot == min(self.slots) else []


class Beat(msgspec.Struct, frozen=True):
    """What a member says every MEMBER_BEAT_MS while others watch: that it lives. `at_ms` is steady time."""

    member: Member
    at_ms: int


def encode(record: Owners | Beat) -> bytes:
    return msgspec.json.encode(record)


def read_owners(data: bytes | None) -> Owners:
    return Owners() if data is None else msgspec.json.decode(data, type=Owners)


def read_beat(data: bytes) -> Beat:
    return msgspec.json.decode(data, type=Beat)


def join(owners: Owners, member: Member, *, shards: int = 1, alone: bool = False) -> Owners | None:
    """The record with the member in it; None: there is no place, it stands by.

    Args:
        shards: of the pipeline: so many members have work.
        alone: it would share with nobody.
    """
    if owners.slots and (alone or owners.alone or len(owners.slots) >= shards):
        return None
    slot = next(free for free in range(shards) if free not in owners.slots)
    slots = {**owners.slots, slot: member}
    before = owners.shards if len(owners.shards) == shards else [-1] * shards
    return Owners(owners.epoch + 1, slots, dealt(before, slots), max(owners.used, slot + 1), alone)


def leave(owners: Owners, gone: Iterable[Member]) -> Owners:
    """The record without these members; the others have their shards."""
    ids = {member.id for member in gone}
    slots = {slot: holder for slot, holder in owners.slots.items() if holder.id not in ids}
    shards = dealt(owners.shards, slots) if slots else owners.shards
    return Owners(owners.epoch + 1, slots, shards, owners.used, owners.alone and bool(slots))


def dealt(shards: Sequence[int], slots: Collection[int]) -> tuple[int, ...]:
    """The slot that each shard goes to: evenly, and as few as can be change hands. `shards`: who had each."""
    had = Counter(shards)
    few, more = divmod(len(shards), len(slots))
    most = sorted(slots, key=lambda slot: (-had[slot], slot))  # one more goes to those who have the most already
    room = Counter({slot: few + (place < more) for place, slot in enumerate(most)})
    kept: list[int | None] = []
    for slot in shards:
        kept.append(slot if room[slot] else None)
        room[slot] -= room[slot] > 0
    free = room.elements()
    return tuple(next(free) if slot is None else slot for slot in kept)


def is_lost(member: Member, *, heard_ms: int, now_ms: int, host: str, alive: Callable[[Member], bool]) -> bool:
    """Whether the member is not there any more.

    Args:
        heard_ms: its last beat, or when it was begun to be watched, if that is later: a member that nobody watched did
            not beat.
        host: of who asks: processes of the same host can be seen.
        alive: whether such a process is there.
    """
    if member.host == host and not alive(member):
        return True
    return now_ms - heard_ms > limits.MEMBER_LOST_MS


def watched(beats: Mapping[str, Beat], member: Member, now_ms: int) -> bool:
    """Whether anybody else is there who wants to know that the member lives."""
    return any(beat.member.id != member.id and now_ms - beat.at_ms <= limits.MEMBER_LOST_MS for beat in beats.values())


# What these rules are fed with.


def this_process() -> Member:
    host = f"{socket.gethostname()}/{boot_id()[:8]}"  # machines with the same name are not the same
    return Member(secrets.token_hex(6), host, os.getpid(), started_ticks(os.getpid()))


def is_alive(member: Member) -> bool:
    """Whether the member's process is there, if it is of this host."""
    return is_running(member.pid, member.started)
