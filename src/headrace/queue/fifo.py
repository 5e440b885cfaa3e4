"""Which messages of a FIFO queue are next: strict order in a group, in turn between groups.

A message is *away* from its take until it waits again or is gone: leased, claimed, or being deleted. Visibility is a
message's: a group is served from its first message that waits, up to its first that is away or delayed. So no message is
given out while an earlier one of its group is away, but an earlier one that is visible again is, while later ones of its
group are still in flight.

Groups take turns: a new group is the last in the line; one that was served goes behind all others. One receive takes as
many as possible of the first group, in order, then of the next.

A reader's claims last longer than one receive: while a reader has claimed messages of a group, nobody but this reader goes
on in it, and a reader begins only with a group of which nothing is away.

Pure state, as in `standard.py`. Source: SQS, "FIFO queue delivery logic", and recorded answers of the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final

from headrace.queue import limits
from headrace.queue.leases import Lease, LeaseTable
from headrace.queue.model import Message

SENT_BITS: Final = 44  # milliseconds since 1970 fit until the year 2527
SENT_MASK: Final = (1 << SENT_BITS) - 1

_EVERYBODY: Final = ""  # no reader has this name
_END: Final = 1 << 128  # above every entry of a group's heap


class Group:
    """One message group: which of its messages wait, which are away, and when its turn comes."""

    __slots__ = ("away", "in_flight", "pending", "reader", "turn")

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.pending: list[int] = []  # heap of seq << 44 | sent_ms: 44 bytes a message, a tuple would take 120
        self.in_flight = 0  # messages that are away
        self.away: list[
            int
        ] = []  # their seqs, descending: the last one is away, others may be back; empty for a reader
        self.reader: str | None = None  # who has claimed the messages that are away

    def head(self) -> int | None:
        """The seq of the first message that waits."""
        return self.pending[0] >> SENT_BITS if self.pending else None

    def visible_ms(self, delay_ms: int) -> int:
        """When the first message that waits may be received."""
        return (self.pending[0] & SENT_MASK) + delay_ms


class FifoOrder:
    """The order of one FIFO queue's known messages.

    Invariant: a group that anybody may go on with is in `_free` under its turn, or in `_later`; one that only its reader
    may go on with is there or in `_reserved`. Entries that no longer hold are skipped.
    """

    __slots__ = ("_away", "_closed_ms", "_free", "_later", "_ready", "_reserved", "_turns", "groups", "leases")

    def __init__(self) -> None:
        self.leases = LeaseTable()
        self.groups: dict[str, Group] = {}
        self._away: dict[int, str] = {}  # seq -> group
        self._free: list[tuple[int, str]] = []  # heap of (turn, group)
        self._later: list[tuple[int, str]] = []  # heap of (visible_ms, group): the first message is delayed
        self._reserved: dict[str, list[str]] = {}  # reader -> groups
        self._turns = 0
        self._ready = 0
        self._closed_ms = 0

    def close_until(self, ms: int) -> None:
        """Give out nothing before `ms`: leases were lost to damage, and no message may have a second owner while the
        first one's lease may last."""
        self._closed_ms = ms

    def __len__(self) -> int:
        """How many known messages wait, those behind a message in flight included."""
        return self._ready

    def add(self, seq: int, group: str | None, sent_ms: int) -> None:
        """A message becomes known, at its place in its group."""
        assert group is not None, "a FIFO message has a group"
        state = self.groups.get(group)
        if state is None:
            state = self._new_group(group)
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
        """Up to `limit` messages to lease, claim (for `reader`) or drop now; they are away from here on."""
        del all_known  # a group's order does not depend on what is behind the head
        if now < self._closed_ms:
            return []
        self._show_due(now)
        for name in self._reserved.pop(reader, ()) if reader is not None else ():
            self._put_in_line(name)
        out: list[int] = []
        passed: list[tuple[int, str]] = []
        while self._free and len(out) < limit:
            entry = heappop(self._free)
            if not self._is_current(entry):
                continue
            state = self.groups[entry[1]]
            served_to = self._served_to(state)
            if served_to == (reader or _EVERYBODY) or (served_to == _EVERYBODY and not state.in_flight):
                self._take_group(entry[1], state, out, limit=limit, now=now, delay_ms=delay_ms, reader=reader)
            elif served_to == _EVERYBODY:
                passed.append(entry)
            elif served_to is not None:
                self._reserved.setdefault(served_to, []).append(entry[1])
        for entry in passed:
            heappush(self._free, entry)
        return out

    def _take_group(
        self, name: str, state: Group, out: list[int], *, limit: int, now: int, delay_ms: int, reader: str | None
    ) -> None:
        pending = state.pending
        end = state.away[-1] << SENT_BITS if state.away else _END
        room = limit - len(out)
        taken: list[int] = []
        while pending and len(taken) < room and pending[0] < end and state.visible_ms(delay_ms) <= now:
            taken.append(heappop(pending) >> SENT_BITS)
        if not taken:
            heappush(self._later, (state.visible_ms(delay_ms), name))
            return
        self._ready -= len(taken)
        self._leave(taken, name, state, reader)
        out += taken
        if reader is not None and pending:
            self._offer(name, state)

    def _leave(self, seqs: list[int], name: str, state: Group, reader: str | None) -> None:
        """Messages, ascending, are away: for a reader, or for somebody whose leases will end."""
        for seq in seqs:
            self._away[seq] = name
        state.in_flight += len(seqs)
        if reader is not None:
            state.reader = reader
        else:
            state.away += seqs[::-1]  # what is served is before all that is away

    def pick(self, message: Message, now: int, *, delay_ms: int) -> bool:
        """Take the first message of a group out of turn, if the group may be gone on with; whether it may."""
        assert message.group is not None
        state = self.groups.get(message.group)
        if now < self._closed_ms or state is None or state.head() != message.seq:
            return False
        if self._served_to(state) != _EVERYBODY or state.visible_ms(delay_ms) > now:
            return False
        if len(self._free) > 2 * len(self.groups) + limits.STALE_KEPT:  # entries of past turns, which `take` would skip
            self._free = sorted({entry for entry in self._free if self._is_current(entry)})
        heappop(state.pending)
        self._leave([message.seq], message.group, state, None)
        self._ready -= 1
        return True

    def counts_groups(self) -> bool:
        return True

    def started(self, leases: Sequence[Lease]) -> None:
        """Messages that were taken together have been leased: their groups were served."""
        name = None
        for lease in leases:
            if lease.group != name:
                name = lease.group
                assert name is not None
                self._end_turn(name)

    def claim(self, message: Message) -> None:
        """A message that was taken is bound to a reader's claim."""
        self._end_turn(self._away[message.seq])
        self.leases.claim(message)

    def dropped(self, seq: int) -> None:
        """A message that was taken is gone: expired, dead, damaged."""
        self.leases.past.pop(seq, None)
        self._end_away(seq)

    def untake(self, seq: int, group: str | None, sent_ms: int) -> None:
        """A message that was taken is visible again."""
        del group
        self._end_away(seq, sent_ms)

    def release(self, seq: int, now: int) -> None:
        """A lease ended without a delete: the message is back at its place."""
        del now
        self._end_away(seq, self.leases.release(seq).sent_ms)

    def unclaim(self, seq: int) -> None:
        """A claimed message is back at its place."""
        self._end_away(seq, self.leases.unclaim(seq).sent_ms)

    def claim_deleted(self, seq: int) -> None:
        """A claimed message is gone."""
        del self.leases.claimed[seq]
        self._end_away(seq)

    def hold(self, seq: int) -> tuple[Lease, bool] | None:
        """Take a leased message out, to be deleted. It is away until the delete is durable: a successor must not be seen
        while its predecessor may come back. None: not in flight."""
        lease = self.leases.active.pop(seq, None)
        return (lease, True) if lease is not None else None

    def deleted(self, seq: int, lease: Lease, now: int, *, active: bool) -> None:
        """The delete of a held message is durable."""
        del lease, now, active
        self._end_away(seq)

    def put_back(self, seq: int, lease: Lease, *, active: bool) -> None:
        """The delete of a held message failed: all is as before `hold`."""
        del active
        self.leases.restore(seq, lease)

    def lock(self, seq: int, group: str, reader: str | None = None) -> None:
        """A message was in flight, or claimed by `reader`, when the store was last open."""
        state = self.groups.get(group)
        if state is None:
            state = self._new_group(group)
        self._leave([seq], group, state, reader)
        state.away.sort(reverse=True)

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]  # back to empty, one definition of empty

    def reconsider(self) -> None:
        """The queue's delay has changed: it reaches the messages that wait."""
        later, self._later = self._later, []
        for _, name in later:
            self._put_in_line(name)

    def next_ms(self) -> int | None:
        later_ms = self._later[0][0] if self._later else None
        due = [ms for ms in (self.leases.timers.next_ms(), later_ms, self._closed_ms or None) if ms is not None]
        return min(due, default=None)

    def due(self, now: int) -> bool:
        """Whether a delayed message has become visible, or the queue has opened; groups are offered from now on."""
        before = len(self._later)
        self._show_due(now)
        opened = 0 < self._closed_ms <= now
        if opened:
            self._closed_ms = 0
        return opened or len(self._later) != before

    def _show_due(self, now: int) -> None:
        while self._later and self._later[0][0] <= now:
            self._put_in_line(heappop(self._later)[1])

    def _new_group(self, name: str) -> Group:
        self._turns += 1
        state = self.groups[name] = Group(self._turns)
        return state

    def _end_turn(self, name: str) -> None:
        """The group was served. It has messages away that were before all that wait, so it is offered later, under its
        new turn (or, to its reader, without one)."""
        self._turns += 1
        self.groups[name].turn = self._turns

    def _end_away(self, seq: int, sent_ms: int | None = None) -> None:
        """A message is away no more: it waits again, or (without `sent_ms`) is gone."""
        name = self._away.pop(seq)
        state = self.groups[name]
        pending, away = state.pending, state.away
        was_empty = not pending
        opens = was_empty or pending[0] >> SENT_BITS > seq  # of the first one away: nobody could go on with the group
        state.in_flight -= 1
        if sent_ms is not None:
            heappush(pending, seq << SENT_BITS | sent_ms)
            self._ready += 1
        if state.reader is None:
            if away[-1] != seq:
                return  # what is behind the first one away stays behind it
            away.pop()
            while away and away[-1] not in self._away:
                away.pop()
        if state.in_flight:
            if pending and (opens if state.reader is None else was_empty):
                self._offer(name, state)
            return
        opens |= state.reader is not None
        state.reader = None
        away.clear()
        if not pending:
            del self.groups[name]
        elif opens:
            heappush(self._free, (state.turn, name))

    def _served_to(self, state: Group) -> str | None:
        """Who may go on with the group: its reader, everybody, or (None) nobody until a message is away no more."""
        if not state.pending:
            return None
        if state.reader is not None:
            return state.reader
        return _EVERYBODY if not state.away or state.pending[0] >> SENT_BITS < state.away[-1] else None

    def _offer(self, name: str, state: Group) -> None:
        """The group may be gone on with: by everybody, or by its reader."""
        served_to = self._served_to(state)
        if served_to == _EVERYBODY:
            heappush(self._free, (state.turn, name))
        elif served_to is not None:
            self._reserved.setdefault(served_to, []).append(name)

    def _is_current(self, entry: tuple[int, str]) -> bool:
        state = self.groups.get(entry[1])
        return state is not None and state.turn == entry[0]

    def _put_in_line(self, name: str) -> None:
        state = self.groups.get(name)
        if state is not None:
            heappush(self._free, (state.turn, name))

    def _check_invariants(self) -> None:
        free, later = set(self._free), {name for _, name in self._later}
        away: dict[str, set[int]] = {}
        for seq, name in self._away.items():
            away.setdefault(name, set()).add(seq)
        assert away.keys() <= self.groups.keys()
        assert self._ready == sum(len(state.pending) for state in self.groups.values())
        for name, state in self.groups.items():
            here = away.get(name, set())
            assert state.in_flight == len(here)
            assert state.pending or here, "an empty group is forgotten"
            assert here or state.reader is None
            assert state.reader is not None or here <= set(state.away)
            assert not state.away or state.away[-1] in here
            assert state.away == sorted(set(state.away), reverse=True)
            served_to = self._served_to(state)
            in_line = (state.turn, name) in free or name in later
            assert served_to != _EVERYBODY or in_line
            assert not served_to or in_line or name in self._reserved.get(served_to, ())
