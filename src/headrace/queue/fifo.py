"""Which messages of a FIFO queue are next: strict order in a group, one owner of a group at a time.

A group with a message in flight is locked. One receive takes as many as possible of one group, in order, then of other
groups, oldest head first. Pure state, as in `standard.py`. Source: SQS, "FIFO queue delivery logic".
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from headrace.queue import limits
from headrace.queue.leases import Lease, LeaseTable
from headrace.queue.model import Message

SENT_BITS: Final = 44  # milliseconds since 1970 fit until the year 2527
SENT_MASK: Final = (1 << SENT_BITS) - 1


class Group:
    """One message group: what waits, and what keeps it locked."""

    __slots__ = ("in_flight", "pending", "reader")

    def __init__(self) -> None:
        self.pending: list[int] = []  # heap of seq << 44 | sent_ms: 44 bytes a message, a tuple would take 120
        self.in_flight = 0  # leased or claimed messages
        self.reader: str | None = None  # who claimed them; its next claims may go on in the group

    def head(self) -> int | None:
        """The seq of the first message that waits."""
        return self.pending[0] >> SENT_BITS if self.pending else None

    def visible_ms(self, delay_ms: int) -> int:
        """When the first message that waits may be received."""
        return (self.pending[0] & SENT_MASK) + delay_ms


class FifoOrder:
    """The order of one FIFO queue's known messages.

    Invariant: an unlocked group with pending messages stands in `_free` (or `_later`) under its head's number.
    Entries there that no longer match a group's head, or whose group is locked, are stale and skipped.
    """

    __slots__ = ("_closed_ms", "_free", "_later", "_ready", "_reserved", "_taken", "groups", "leases")

    def __init__(self) -> None:
        self.leases = LeaseTable()
        self.groups: dict[str, Group] = {}
        self._free: list[tuple[int, str]] = []  # heap of (head's seq, group)
        self._later: list[tuple[int, int, str]] = []  # heap of (visible_ms, head's seq, group): heads still delayed
        self._reserved: dict[str, list[tuple[int, str]]] = {}  # reader -> heads of groups that it has claimed from
        self._taken: dict[int, str] = {}  # taken and neither leased, claimed nor dropped yet -> group
        self._ready = 0
        self._closed_ms = 0

    def close_until(self, ms: int) -> None:
        """Give out nothing before `ms`: leases were lost to damage, and no group may have a second owner while the first
        one's may be alive."""
        self._closed_ms = ms

    def __len__(self) -> int:
        """How many known messages wait, those of locked groups included."""
        return self._ready

    def add(self, seq: int, group: str | None, sent_ms: int) -> None:
        """A message becomes known, at its place in its group."""
        assert group is not None, "a FIFO message has a group"
        state = self.groups.get(group)
        if state is None:
            state = self.groups[group] = Group()
        heappush(state.pending, seq << SENT_BITS | sent_ms)
        self._ready += 1
        if state.head() == seq:
            self._offer(group, state)

    def add_all(self, messages: list[Message]) -> None:
        """Messages become known, each at its place in its group."""
        for message in messages:
            self.add(message.seq, message.group, message.sent_ms)

    def recall(self, seq: int, group: str | None, sent_ms: int) -> None:
        self.add(seq, group, sent_ms)

    def room(self) -> int:
        """How many more messages may be leased: beyond, a receive gets no more."""
        return limits.IN_FLIGHT_MAX - self.leases.in_flight()

    def take(self, limit: int, now: int, *, all_known: bool, delay_ms: int = 0, reader: str | None = None) -> list[int]:
        """Up to `limit` messages to lease, claim (for `reader`) or drop now; their groups are locked."""
        del all_known  # a group's order does not depend on what is behind the head
        if now < self._closed_ms:
            return []
        self._show_due(now)
        if reader is not None:
            for head in self._reserved.pop(reader, ()):
                heappush(self._free, head)
        out: list[int] = []
        while self._free and len(out) < limit:
            head = heappop(self._free)
            state = self.groups.get(head[1])
            if state is None or state.head() != head[0]:
                continue
            if not state.in_flight or (reader is not None and state.reader == reader):
                self._take_group(head[1], state, out, limit=limit, now=now, delay_ms=delay_ms, reader=reader)
            elif state.reader is not None:
                self._reserved.setdefault(state.reader, []).append(head)
        return out

    def _take_group(
        self, name: str, state: Group, out: list[int], *, limit: int, now: int, delay_ms: int, reader: str | None
    ) -> None:
        pending = state.pending
        before = len(out)
        while pending and len(out) < limit and state.visible_ms(delay_ms) <= now:
            out.append(heappop(pending) >> SENT_BITS)
        taken = len(out) - before
        for seq in out[before:]:
            self._taken[seq] = name
        self._ready -= taken
        state.in_flight += taken
        if taken and reader is not None:
            state.reader = reader
        if taken:
            self._offer(name, state)
        else:
            heappush(self._later, (state.visible_ms(delay_ms), pending[0] >> SENT_BITS, name))

    def pick(self, message: Message, now: int, *, delay_ms: int) -> bool:
        """Take the first message of a group out of turn, if the group is free; whether it was."""
        assert message.group is not None
        state = self.groups.get(message.group)
        if now < self._closed_ms or state is None or state.in_flight or state.head() != message.seq:
            return False
        if state.visible_ms(delay_ms) > now:
            return False
        heappop(state.pending)
        self._taken[message.seq] = message.group
        self._ready -= 1
        state.in_flight += 1
        return True

    def counts_groups(self) -> bool:
        return True

    def started(self, seq: int, lease: Lease) -> None:
        """A message that was taken has been leased: the lock that `take` set is the lease's."""
        del lease
        del self._taken[seq]

    def claim(self, message: Message) -> None:
        """A message that was taken is bound to a reader's claim: its group stays locked, but for that reader."""
        del self._taken[message.seq]
        self.leases.claim(message)

    def dropped(self, seq: int) -> None:
        """A message that was taken is gone: expired, dead, damaged."""
        self.leases.past.pop(seq, None)
        self.unlock(self._taken.pop(seq))

    def untake(self, seq: int, group: str | None, sent_ms: int) -> None:
        """A message that was taken is visible again."""
        del group
        self._back(seq, self._taken.pop(seq), sent_ms)

    def release(self, seq: int, now: int) -> None:
        """A lease ended without a delete: the message is back at its place."""
        del now
        lease = self.leases.release(seq)
        assert lease.group is not None
        self._back(seq, lease.group, lease.sent_ms)

    def unclaim(self, seq: int) -> None:
        """A claimed message is back at its place."""
        lease = self.leases.unclaim(seq)
        assert lease.group is not None
        self._back(seq, lease.group, lease.sent_ms)

    def claim_deleted(self, seq: int) -> None:
        """A claimed message is gone."""
        lease = self.leases.claimed.pop(seq)
        assert lease.group is not None
        self.unlock(lease.group)

    def _back(self, seq: int, group: str, sent_ms: int) -> None:
        self.add(seq, group, sent_ms)
        self.unlock(group)

    def hold(self, seq: int) -> tuple[Lease, bool] | None:
        """Take a leased message out, to be deleted. Its group stays locked until the delete is durable: a successor
        must not be seen while its predecessor may come back. None: not in flight."""
        lease = self.leases.active.pop(seq, None)
        return (lease, True) if lease is not None else None

    def deleted(self, lease: Lease, now: int, *, active: bool) -> None:
        """The delete of a held message is durable."""
        del now, active
        assert lease.group is not None
        self.unlock(lease.group)

    def put_back(self, seq: int, lease: Lease, *, active: bool) -> None:
        """The delete of a held message failed: all is as before `hold`."""
        del active
        self.leases.restore(seq, lease)

    def lock(self, group: str, reader: str | None = None) -> None:
        """A message of the group was in flight when the store was last open."""
        state = self.groups.setdefault(group, Group())
        state.in_flight += 1
        state.reader = reader if reader is not None else state.reader

    def unlock(self, group: str) -> None:
        """A message of the group is in flight no more."""
        state = self.groups[group]
        state.in_flight -= 1
        if state.in_flight:
            return
        state.reader = None
        if state.pending:
            self._offer(group, state)
        else:
            del self.groups[group]

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]  # back to empty, one definition of empty

    def reconsider(self) -> None:
        """The queue's delay has changed: it reaches the messages that wait."""
        self._free.extend((seq, group) for _, seq, group in self._later)
        heapify(self._free)
        self._later.clear()

    def next_ms(self) -> int | None:
        later_ms = self._later[0][0] if self._later else None
        due = [ms for ms in (self.leases.timers.next_ms(), later_ms, self._closed_ms or None) if ms is not None]
        return min(due, default=None)

    def due(self, now: int) -> bool:
        """Whether a delayed head has become visible, or the queue has opened; heads are offered from now on."""
        before = len(self._later)
        self._show_due(now)
        opened = 0 < self._closed_ms <= now
        if opened:
            self._closed_ms = 0
        return opened or len(self._later) != before

    def _show_due(self, now: int) -> None:
        while self._later and self._later[0][0] <= now:
            _, seq, group = heappop(self._later)
            heappush(self._free, (seq, group))

    def _offer(self, name: str, state: Group) -> None:
        """The group's head may be taken: by anybody, or by the reader that has claimed from the group."""
        seq = state.head()
        if seq is None:
            return
        head = (seq, name)
        if not state.in_flight:
            heappush(self._free, head)
        elif state.reader is not None:
            self._reserved.setdefault(state.reader, []).append(head)
