"""Which processes run a pipeline: pure rules over the members, their last heartbeats and the time; then the membership of
this process, which applies them.

A pipeline is run by the members that its `owners` record names. Each has a slot, under which it claims messages and
commits, and shards: the keys whose state it holds. Other members stand by. All read the heartbeats: a member that is silent
for MEMBER_LOST_MS, or whose process has ended, is lost, and its shards go to others. Every commit of a member expects the
record unchanged, so a lost member that is still running can change nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec

from headrace.clock import boot_id
from headrace.errors import StateChanged
from headrace.process import is_running, started_ticks
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.runner import state_keys
from headrace.stream.runner.store import PASSING, Store


class Member(msgspec.Struct, frozen=True):
    """A process that runs the pipeline or stands by. `started`: its start in the machine's ticks, because pids are reused."""

    id: str
    host: str
    pid: int
    started: int


class Owners(msgspec.Struct, frozen=True):
    """The owners of the slots and shards.

    Attributes:
        epoch: grows with every change, so that no two records are equal.
        slots: members by number; a new member takes the smallest free one.
        shards: the slot of each shard.
        used: the number of slots ever used: free ones may still have open claims.
        alone: the present member cannot share the pipeline.
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
        """The free slots whose claims this slot processes: the first slot does so."""
        return [free for free in range(self.used) if free not in self.slots] if slot == min(self.slots) else []


class Heartbeat(msgspec.Struct, frozen=True):
    """The heartbeat of a member, every MEMBER_BEAT_MS while others observe it. `at_ms` is steady time."""

    member: Member
    at_ms: int


def encode_record(record: Owners | Heartbeat) -> bytes:
    return msgspec.json.encode(record)


def read_owners(data: bytes | None) -> Owners:
    return Owners() if data is None else msgspec.json.decode(data, type=Owners)


def read_heartbeat(data: bytes) -> Heartbeat:
    return msgspec.json.decode(data, type=Heartbeat)


def join(owners: Owners, member: Member, *, shards: int = 1, alone: bool = False) -> Owners | None:
    """The record with the member in it; None: no slot is free, so it stands by.

    Args:
        shards: of the pipeline, which is the maximum number of members.
        alone: it cannot share the pipeline.
    """
    if owners.slots and (alone or owners.alone or len(owners.slots) >= shards):
        return None
    slot = next(free for free in range(shards) if free not in owners.slots)
    slots = {**owners.slots, slot: member}
    before = owners.shards if len(owners.shards) == shards else [-1] * shards
    return Owners(owners.epoch + 1, slots, assign_shards(before, slots), max(owners.used, slot + 1), alone)


def leave(owners: Owners, gone: Iterable[Member]) -> Owners:
    """The record without these members; the others have their shards."""
    ids = {member.id for member in gone}
    slots = {slot: holder for slot, holder in owners.slots.items() if holder.id not in ids}
    shards = assign_shards(owners.shards, slots) if slots else owners.shards
    return Owners(owners.epoch + 1, slots, shards, owners.used, owners.alone and bool(slots))


def assign_shards(shards: Sequence[int], slots: Collection[int]) -> tuple[int, ...]:
    """Assign shards to slots evenly, moving as few as possible. `shards`: the previous slot of each."""
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
    """Whether the member is lost.

    Args:
        heard_ms: its last heartbeat, or the beginning of the observation, if that is later: a member that was not observed did
            not send any.
        host: the host of the caller, whose processes can be checked.
        alive: whether a process exists.
    """
    if member.host == host and not alive(member):
        return True
    return now_ms - heard_ms > limits.MEMBER_LOST_MS


def watched(beats: Mapping[str, Heartbeat], member: Member, now_ms: int) -> bool:
    """Whether other members observe this one."""
    return any(beat.member.id != member.id and now_ms - beat.at_ms <= limits.MEMBER_LOST_MS for beat in beats.values())


# What these rules are fed with.


def this_process() -> Member:
    host = f"{socket.gethostname()}/{boot_id()[:8]}"  # machines with the same name are not the same
    return Member(secrets.token_hex(6), host, os.getpid(), started_ticks(os.getpid()))


def is_alive(member: Member) -> bool:
    """Whether the member's process exists, if it is on this host."""
    return is_running(member.pid, member.started)


# --- The membership of this process: it takes a pipeline over, writes heartbeats, leaves ---


_log = logging.getLogger("headrace.stream")


class Membership:
    """The membership of this process. `owners` is the record that its commits expect."""

    def __init__(
        self,
        store: Store,
        pipeline: str,
        *,
        member: Member | None = None,
        alive: Callable[[Member], bool] = is_alive,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._name = state_keys.state_name(pipeline)
        self.member = member or this_process()
        self._alive = alive
        self.owners: bytes | None = None
        self._since_ms = store.now_ms()
        self._beaten = False

    def take(self, *, shards: int = 1, alone: bool = False) -> bool:
        """Take a free slot, or that of a lost member; True if this member has one now. See `join`."""
        self.owners = self._store.read(state_keys.OWNERS).get(state_keys.OWNERS)
        owners = read_owners(self.owners)
        if owners.slot_of(self.member) is not None:
            return True
        lost = self._lost(owners)
        joined = join(leave(owners, lost), self.member, shards=shards, alone=alone)
        if joined is None or not self._put(joined):
            return False
        self._say_taken(joined, lost)
        return True

    @property
    def slot(self) -> int:
        """The slot of this member."""
        slot = read_owners(self.owners).slot_of(self.member)
        assert slot is not None
        return slot

    def drop_lost(self) -> bool:
        """Give the shards of lost members to the others; True if the owners have changed."""
        owners = read_owners(self.owners)
        lost = self._lost(owners) if len(owners.slots) > 1 else []
        return bool(lost) and self._put(leave(owners, lost))

    def leave(self) -> None:
        """Give the slot up at once: a standby need not wait until this member is lost."""
        self.owners = self._store.read(state_keys.OWNERS).get(state_keys.OWNERS)
        owners = read_owners(self.owners)
        if owners.slot_of(self.member) is not None:
            self._put(leave(owners, [self.member]))
        if self._beaten:
            self._write([(self._beat_key(), None)])

    def beat(self, *, always: bool = False) -> None:
        """Write a heartbeat if other members observe this one, so that an idle pipeline writes nothing. Removes stale heartbeats.

        Args:
            always: a standby always writes one, so that the owner knows that it is observed.
        """
        now_ms = self._store.now_ms()
        beats = self._beats()
        stale = [
            state_keys.BEAT + name.encode()
            for name, beat in beats.items()
            if now_ms - beat.at_ms > limits.MEMBER_FORGOTTEN_MS and name != self.member.id
        ]
        shared = len(read_owners(self.owners).slots) > 1
        if always or shared or watched(beats, self.member, now_ms):
            self._write([self._beat(), *((key, None) for key in stale)])
            self._beaten = True

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Context in which a thread writes heartbeats: a batch may take longer than MEMBER_LOST_MS."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(over,), name="headrace beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(limits.RETRY_MAX_S)  # the broker may be unavailable, and the heartbeat wait for it

    def _beat_until(self, over: threading.Event) -> None:
        while not over.wait(limits.MEMBER_BEAT_MS / 1_000):
            with suppress(*PASSING):  # without heartbeats this member counts as lost
                self.beat()

    def _lost(self, owners: Owners) -> list[Member]:
        others = [holder for holder in owners.slots.values() if holder.id != self.member.id]
        beats = self._beats() if others else {}
        return [holder for holder in others if self._is_lost(holder, beats.get(holder.id))]

    def _is_lost(self, holder: Member, beat: Heartbeat | None) -> bool:
        heard_ms = max(beat.at_ms if beat is not None else 0, self._since_ms)
        return is_lost(holder, heard_ms=heard_ms, now_ms=self._store.now_ms(), host=self.member.host, alive=self._alive)

    def _beats(self) -> dict[str, Heartbeat]:
        found = self._store.read(state_keys.BEAT)
        return {key.removeprefix(state_keys.BEAT).decode(): read_heartbeat(value) for key, value in found.items()}

    def _beat_key(self) -> bytes:
        return state_keys.BEAT + self.member.id.encode()

    def _beat(self) -> tuple[bytes, bytes | None]:
        return self._beat_key(), encode_record(Heartbeat(self.member, self._store.now_ms()))

    def _put(self, owners: Owners) -> bool:
        """Write the record if no other process has written one meanwhile; with a heartbeat if there are other members."""
        written = encode_record(owners)
        state = [(state_keys.OWNERS, written), *([self._beat()] if len(owners.slots) > 1 else [])]
        try:
            self._store.transact(ops.Transact(name=self._name, state=state, expect=[(state_keys.OWNERS, self.owners)]))
        except StateChanged:
            # An earlier try may have succeeded and only its answer been lost.
            if self._store.read(state_keys.OWNERS).get(state_keys.OWNERS) != written:
                return False
        self.owners = written
        self._beaten |= len(state) > 1
        return True

    def _write(self, state: list[tuple[bytes, bytes | None]]) -> None:
        self._store.transact(ops.Transact(name=self._name, state=state))

    def _say_taken(self, owners: Owners, lost: list[Member]) -> None:
        others = len(owners.slots) - 1
        shared = f" and {others} more" if others else ""
        before = f", after {', '.join(member.id for member in lost)} was lost" if lost else ""
        _log.info(
            "pipeline %s is run by this process%s%s", self._pipeline, shared, before,
            extra={"action": "stream.taken", "pipeline": self._pipeline, "member": self.member.id, "slot": self.slot},
        )  # fmt: skip
