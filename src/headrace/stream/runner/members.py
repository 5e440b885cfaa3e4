"""Who runs a pipeline: pure rules over the members, what they said last, and the time.

A pipeline is run by the members that its `owners` record names. The others stand by, and look at the beats: a member
that is silent for MEMBER_LOST_MS, or whose process is known to be dead, is lost, and its place is taken. Every commit of
a member expects the record unchanged: so a lost member that is alive after all changes nothing any more.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from headrace.clock import boot_id
from headrace.stream import limits


class Member(msgspec.Struct, frozen=True):
    """A process that runs the pipeline or would. `started`: of the process, in the machine's ticks: pids come again."""

    id: str
    host: str
    pid: int
    started: int


class Owners(msgspec.Struct, frozen=True):
    """Who has which slot. `epoch` grows with every change, so that no two records are equal."""

    epoch: int = 0
    slots: dict[int, Member] = {}


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


def join(owners: Owners, member: Member, slot: int = 0) -> Owners:
    """The record in which `member` has the slot, whoever had it."""
    return Owners(owners.epoch + 1, {**owners.slots, slot: member})


def leave(owners: Owners, member: Member) -> Owners:
    """The record without the member."""
    kept = {slot: other for slot, other in owners.slots.items() if other.id != member.id}
    return Owners(owners.epoch + 1, kept)


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
    return Member(secrets.token_hex(6), host, os.getpid(), _started(os.getpid()))


def is_alive(member: Member) -> bool:
    """Whether a process of this host is the member's. Where the system does not tell when a process began: whether
    there is one of that pid."""
    try:
        os.kill(member.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's: it is there
    return member.started == _started(member.pid)


def _started(pid: int) -> int:
    """When the process began, in ticks since the machine did; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])
