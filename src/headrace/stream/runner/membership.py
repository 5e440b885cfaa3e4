"""This process's part in running a pipeline: taking it over, saying that it lives, leaving. The rules are in `members`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from headrace.errors import StateChanged
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.runner import keys, members
from headrace.stream.runner.members import Beat, Member, Owners
from headrace.stream.runner.store import Store

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

    def take(self, slot: int = 0) -> bool:
        """Take the slot if nobody has it, or who had it is lost; True if this member has it now."""
        self.owners = self._store.read(keys.OWNERS).get(keys.OWNERS)
        owners = members.read_owners(self.owners)
        holder = owners.slots.get(slot)
        if holder is not None and holder.id == self.member.id:
            return True
        if holder is not None and not self._is_lost(holder):
            return False
        if not self._put(members.join(owners, self.member, slot)):
            return False
        self._say_taken(slot, holder)
        return True

    def leave(self) -> None:
        """Give the slot up at once: somebody who stands by need not wait until this member is lost."""
        self.owners = self._store.read(keys.OWNERS).get(keys.OWNERS)
        owners = members.read_owners(self.owners)
        if any(holder.id == self.member.id for holder in owners.slots.values()):
            self._put(members.leave(owners, self.member))
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
        if always or members.watched(beats, self.member, now_ms):
            self._write(
                [(self._beat_key(), members.encode(Beat(self.member, now_ms))), *((key, None) for key in stale)]
            )
            self._beaten = True

    def _is_lost(self, holder: Member) -> bool:
        beat = self._beats().get(holder.id)
        heard_ms = max(beat.at_ms if beat is not None else 0, self._since_ms)
        return members.is_lost(
            holder, heard_ms=heard_ms, now_ms=self._store.now_ms(), host=self.member.host, alive=self._alive
        )

    def _beats(self) -> dict[str, Beat]:
        found = self._store.read(keys.BEAT)
        return {key.removeprefix(keys.BEAT).decode(): members.read_beat(value) for key, value in found.items()}

    def _beat_key(self) -> bytes:
        return keys.BEAT + self.member.id.encode()

    def _put(self, owners: Owners) -> bool:
        """Write the record if nobody else has written one meanwhile."""
        written = members.encode(owners)
        try:
            self._store.transact(
                ops.Transact(name=self._name, state=[(keys.OWNERS, written)], expect=[(keys.OWNERS, self.owners)])
            )
        except StateChanged:
            # An earlier try may have been done, and only its answer lost.
            if self._store.read(keys.OWNERS).get(keys.OWNERS) != written:
                return False
        self.owners = written
        return True

    def _write(self, state: list[tuple[bytes, bytes | None]]) -> None:
        self._store.transact(ops.Transact(name=self._name, state=state))

    def _say_taken(self, slot: int, holder: Member | None) -> None:
        before = f", after {holder.id} was lost" if holder is not None else ""
        _log.info(
            "pipeline %s is run by this process%s", self._pipeline, before,
            extra={"action": "stream.taken", "pipeline": self._pipeline, "member": self.member.id, "slot": slot},
        )  # fmt: skip
