"""This process's part in running a pipeline: taking it over, saying that it lives, leaving. The rules are in `members`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from headrace.errors import StateChanged
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.runner import keys, members
from headrace.stream.runner.members import Beat, Member, Owners
from headrace.stream.runner.store import PASSING, Store

_log = logging.getLogger("headrace.stream")


class Membership:
    """One member. `owners` is the record as this member last had it: what its commits expect."""

    def __init__(
        self,
        store: Store,
        pipeline: str,
        *,
        member: Member | None = None,
        alive: Callable[[Member], bool] = members.is_alive,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._name = keys.state_name(pipeline)
        self.member = member or members.this_process()
        self._alive = alive
        self.owners: bytes | None = None
        self._since_ms = store.now_ms()
        self._beaten = False

    def take(self, *, shards: int = 1, alone: bool = False) -> bool:
        """Take a slot if there is one, or who had it is lost; True if this member has one now. See `members.join`."""
        self.owners = self._store.read(keys.OWNERS).get(keys.OWNERS)
        owners = members.read_owners(self.owners)
        if owners.slot_of(self.member) is not None:
            return True
        lost = self._lost(owners)
        joined = members.join(members.leave(owners, lost), self.member, shards=shards, alone=alone)
        if joined is None or not self._put(joined):
            return False
        self._say_taken(joined, lost)
        return True

    @property
    def slot(self) -> int:
        """Which one this member has."""
        slot = members.read_owners(self.owners).slot_of(self.member)
        assert slot is not None
        return slot

    def drop_lost(self) -> bool:
        """Give what lost members have to the others; True if there was one: then the owners have changed."""
        owners = members.read_owners(self.owners)
        lost = self._lost(owners) if len(owners.slots) > 1 else []
        return bool(lost) and self._put(members.leave(owners, lost))

    def leave(self) -> None:
        """Give the slot up at once: somebody who stands by need not wait until this member is lost."""
        self.owners = self._store.read(keys.OWNERS).get(keys.OWNERS)
        owners = members.read_owners(self.owners)
        if owners.slot_of(self.member) is not None:
            self._put(members.leave(owners, [self.member]))
        if self._beaten:
            self._write([(self._beat_key(), None)])

    def beat(self, *, always: bool = False) -> None:
        """Say that this member lives, if anybody watches: an idle pipeline writes nothing. Removes what others left.

        Args:
            always: who stands by says so in any case, so that the owner knows that it is watched.
        """
        now_ms = self._store.now_ms()
        beats = self._beats()
        stale = [
            keys.BEAT + name.encode()
            for name, beat in beats.items()
            if now_ms - beat.at_ms > limits.MEMBER_FORGOTTEN_MS and name != self.member.id
        ]
        shared = len(members.read_owners(self.owners).slots) > 1
        if always or shared or members.watched(beats, self.member, now_ms):
            self._write([self._beat(), *((key, None) for key in stale)])
            self._beaten = True

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Within it a thread beats: a batch may take longer than members are waited for."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(over,), name="headrace beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(limits.RETRY_MAX_S)  # the broker may be away, and the beat wait for it

    def _beat_until(self, over: threading.Event) -> None:
        while not over.wait(limits.MEMBER_BEAT_MS / 1_000):
            with suppress(*PASSING):  # who cannot beat is not there
                self.beat()

    def _lost(self, owners: Owners) -> list[Member]:
        others = [holder for holder in owners.slots.values() if holder.id != self.member.id]
        beats = self._beats() if others else {}
        return [holder for holder in others if self._is_lost(holder, beats.get(holder.id))]

    def _is_lost(self, holder: Member, beat: Beat | None) -> bool:
        heard_ms = max(beat.at_ms if beat is not None else 0, self._since_ms)
        return members.is_lost(
            holder, heard_ms=heard_ms, now_ms=self._store.now_ms(), host=self.member.host, alive=self._alive
        )

    def _beats(self) -> dict[str, Beat]:
        found = self._store.read(keys.BEAT)
        return {key.removeprefix(keys.BEAT).decode(): members.read_beat(value) for key, value in found.items()}

    def _beat_key(self) -> bytes:
        return keys.BEAT + self.member.id.encode()

    def _beat(self) -> tuple[bytes, bytes | None]:
        return self._beat_key(), members.encode(Beat(self.member, self._store.now_ms()))

    def _put(self, owners: Owners) -> bool:
        """Write the record if nobody else has written one meanwhile; with a beat if there are others, who look for it."""
        written = members.encode(owners)
        state = [(keys.OWNERS, written), *([self._beat()] if len(owners.slots) > 1 else [])]
        try:
            self._store.transact(ops.Transact(name=self._name, state=state, expect=[(keys.OWNERS, self.owners)]))
        except StateChanged:
            # An earlier try may have been done, and only its answer lost.
            if self._store.read(keys.OWNERS).get(keys.OWNERS) != written:
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
