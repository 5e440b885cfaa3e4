"""Leases: who has a message, until when, for the how-manieth time.

A message is in one of these places:

    ready      never received, or due after a delay: kept by the queue's order, not here
    active     leased: in flight until `expires_ms`
    past       received (or claimed) before and visible again; its count goes on when it is received again
    claimed    bound to a reader's claim: in flight without a timeout
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.queue import limits
from headrace.queue.model import Message
from headrace.queue.timers import Timers


class Lease(msgspec.Struct, gc=False):
    """One message's lease, or the memory of it. Replaced, not shared: each message has its own.

    Attributes:
        receives: how often the message has been received from this queue.
        first_ms: its first receive.
        received_ms: its latest receive; visibility may reach 12 hours from here.
        expires_ms: when it is visible again.
        sent_ms: when the message was sent: its place in time when it is visible again.
        group: its message group, or None.
        receipt: what was handed out with it, compared before anything is computed; None after a restart.
    """

    receives: int
    first_ms: int
    received_ms: int
    expires_ms: int
    sent_ms: int
    group: str | None = None
    receipt: bytes | None = None


class LeaseTable:
    """The leases of one queue. Pure state: nothing here decides who may have what.

    Invariant: a sequence number is in at most one of `active`, `past` and `claimed`.
    """

    __slots__ = ("active", "claimed", "past", "timers")

    def __init__(self) -> None:
        self.active: dict[int, Lease] = {}
        self.past: dict[int, Lease] = {}
        self.claimed: dict[int, Lease] = {}  # receives 0: claimed before it was ever received
        self.timers = Timers()

    def in_flight(self) -> int:
        return len(self.active) + len(self.claimed)

    def knows(self, seq: int) -> bool:
        return seq in self.active or seq in self.past or seq in self.claimed

    def grant(self, messages: Sequence[Message], *, now: int, expires_ms: int) -> list[Lease]:
        """Lease messages that were taken; each one's count goes on from an earlier lease."""
        active, past = self.active, self.past
        leases = []
        for message in messages:
            seq = message.seq
            before = past.pop(seq, None) if past else None
            if before is None:
                lease = Lease(1, now, now, expires_ms, message.sent_ms, message.group)
            else:
                first_ms = before.first_ms if before.receives else now
                lease = Lease(before.receives + 1, first_ms, now, expires_ms, message.sent_ms, message.group)
            active[seq] = lease
            leases.append(lease)
        self.timers.add_all(expires_ms, [message.seq for message in messages])
        return leases

    def move_expiry(self, seq: int, expires_ms: int) -> None:
        self.active[seq].expires_ms = expires_ms
        self.timers.add(expires_ms, seq)

    def expired(self, now: int) -> list[int]:
        """The active leases that end by `now`, earliest first. The caller releases each."""
        active = self.active
        ended = (
            seq
            for due_ms, seq in self.timers.due(now)
            if (lease := active.get(seq)) is not None and lease.expires_ms == due_ms
        )
        return list(dict.fromkeys(ended))  # an expiry moved to where it was is due twice

    def release(self, seq: int) -> Lease:
        """End an active lease: the message is visible again and its count is remembered."""
        lease = self.active.pop(seq)
        self.past[seq] = lease
        return lease

    def claim(self, message: Message) -> None:
        """Bind a message that was taken to a claim; its count is remembered."""
        past = self.past.pop(message.seq, None)
        self.claimed[message.seq] = past or Lease(0, 0, 0, 0, message.sent_ms, message.group)

    def unclaim(self, seq: int) -> Lease:
        """A claimed message is visible again."""
        lease = self.past[seq] = self.claimed.pop(seq)
        return lease

    def tidy(self) -> None:
        """Drop the deadlines of leases that have ended, once they are most of what is kept: at a high rate and hours of
        visibility they would be gigabytes."""
        if len(self.timers) > 2 * len(self.active) + limits.TIMERS_KEPT:
            self.timers.clear()
            for seq, lease in self.active.items():
                self.timers.add(lease.expires_ms, seq)

    def restore(self, seq: int, lease: Lease) -> None:
        """An active lease that was taken out is back."""
        self.active[seq] = lease
        self.timers.add(lease.expires_ms, seq)

    def receives(self, seq: int) -> int:
        """How often a message that is not in flight has been received."""
        past = self.past.get(seq)
        return past.receives if past is not None else 0

    def _check_invariants(self) -> None:
        assert not self.active.keys() & self.past.keys()
        assert not self.active.keys() & self.claimed.keys()
        assert not self.past.keys() & self.claimed.keys()
