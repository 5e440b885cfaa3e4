"""Which message of a standard queue is next: about the order of arrival, fair between tenants.

Pure state: sequence numbers and groups, no bodies, no clock. Only the head of the queue is here; the rest is a cursor
into the store, and `add` brings it in chunk by chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from headrace.queue import limits
from headrace.queue.fairness import Tenants
from headrace.queue.leases import Lease, LeaseTable
from headrace.queue.model import Message


class StandardOrder:
    """The order of one standard queue's known messages.

    A message that is visible again, or due after a delay, goes before those never received, oldest first.
    It does not know which messages the store has beyond the head: a `take` that falls short asks for more.
    """

    __slots__ = ("_grouped", "_groups", "_passed", "_ready", "_recalled", "_waiting", "leases", "tenants")

    def __init__(self) -> None:
        self.leases = LeaseTable()
        self.tenants = Tenants()
        self._ready: deque[int] = deque()
        self._passed: set[int] = set()  # what in _ready was taken out of turn
        self._recalled: list[int] = []  # heap
        self._waiting: set[int] = set()  # what in _recalled still waits; the rest of it is gone
        self._grouped = False  # whether a message with a group has ever come
        self._groups: dict[int, str] = {}  # seq -> tenant, of known messages that have one and are not leased

    def __len__(self) -> int:
        """How many known messages are ready."""
        return len(self._ready) - len(self._passed) + len(self._waiting) + self.tenants.deferred_count

    def add_all(self, messages: list[Message]) -> None:
        """New messages become ready, in their order, behind those known."""
        self._ready.extend([message.seq for message in messages])
        groups = {message.seq: message.group for message in messages if message.group is not None}
        if groups:
            self._groups.update(groups)
            self._grouped = True

    def recall(self, seq: int, group: str | None, _sent_ms: int) -> None:
        """A message is visible again, or due: before the others."""
        heappush(self._recalled, seq)
        self._waiting.add(seq)
        if len(self._recalled) > 2 * len(self._waiting) + limits.STALE_KEPT:
            self._recalled = sorted(self._waiting)
        if group is not None:
            self._groups[seq] = group
            self._grouped = True

    def room(self) -> int:
        """How many more messages may be leased: beyond, a receive is refused."""
        return limits.IN_FLIGHT_MAX - self.leases.in_flight()

    def take(self, limit: int, now: int, *, all_known: bool, delay_ms: int = 0, reader: str | None = None) -> list[int]:
        """Up to `limit` messages to lease, claim or drop now; they are out of the order.

        `all_known`: the store has no more; only then, or when very many stand back, are noisy tenants served. A `reader` is
        given all in the order of arrival, whoever the tenants are: it reads everything, and to it what stood back would be late.
        """
        del delay_ms  # a FIFO queue's
        if not self._groups:
            return self._take_first(limit)
        if reader is None:
            return self._take_fair(limit, now, all_known=all_known)
        for group, seq in self.tenants.recall_deferred():
            self.recall(seq, group, 0)
        out = self._take_first(limit)
        for seq in out:
            self._groups.pop(seq, None)
        return out

    def _take_first(self, limit: int) -> list[int]:
        out: list[int] = []
        while self._recalled and len(out) < limit:
            seq = heappop(self._recalled)
            if seq in self._waiting:
                self._waiting.discard(seq)
                out.append(seq)
        ready = self._ready
        while self._passed and len(out) < limit and (found := self._pop()) is not None:
            out.append(found)
        out.extend([ready.popleft() for _ in range(min(limit - len(out), len(ready)))])
        return out

    def pick_recalled(self, message: Message) -> bool:
        """Take a message out of turn, if it is visible again or stands back; whether it was."""
        seq, group = message.seq, message.group
        self._grouped |= group is not None  # it may be the first one that is known of
        if seq in self._waiting:
            self._waiting.discard(seq)
        elif group is None or not self.tenants.forget(group, seq):
            return False
        self._groups.pop(seq, None)
        return True

    def pick_ready(self, message: Message) -> None:
        """Take a message out of turn that was never received."""
        self._passed.add(message.seq)
        self._groups.pop(message.seq, None)

    def counts_groups(self) -> bool:
        """Whether `started` must be called with each lease: no tenant has sent anything otherwise."""
        return self._grouped

    def started(self, leases: Sequence[Lease]) -> None:
        """Messages that were taken have been leased."""
        for lease in leases:
            if lease.group is not None:
                self.tenants.started(lease.group)

    def dropped(self, seq: int) -> None:
        """A message that was taken is gone: expired, dead, damaged."""
        self.leases.past.pop(seq, None)

    def untake(self, seq: int, group: str | None, sent_ms: int) -> None:
        """A message that was taken is not wanted after all."""
        self.recall(seq, group, sent_ms)

    def release(self, seq: int, now: int) -> None:
        """A lease ended without a delete: the message is visible again."""
        lease = self.leases.release(seq)
        self._ended(lease, now)
        self.recall(seq, lease.group, lease.sent_ms)

    def hold(self, seq: int) -> tuple[Lease, bool] | None:
        """Take a received message out, to be deleted: its lease, and whether that was active. None: not known here."""
        leases = self.leases
        lease = leases.active.pop(seq, None)
        if lease is not None:
            return lease, True
        lease = leases.past.pop(seq, None)
        if lease is None:
            return None
        self._waiting.discard(seq)
        self._groups.pop(seq, None)
        if lease.group is not None:
            self.tenants.forget(lease.group, seq)
        return lease, False

    def deleted(self, seq: int, lease: Lease, now: int, *, active: bool) -> None:
        """The delete of a held message is durable."""
        del seq
        if active:
            self._ended(lease, now)

    def put_back(self, seq: int, lease: Lease, *, active: bool) -> None:
        """The delete of a held message failed: all is as before `hold`."""
        if active:
            self.leases.restore(seq, lease)
        else:
            self.leases.past[seq] = lease
            self.recall(seq, lease.group, lease.sent_ms)

    def hide(self, seq: int) -> None:
        """The ended lease of a message that nobody has received since begins again; the caller says until when."""
        held = self.hold(seq)
        assert held is not None
        lease, active = held
        assert not active
        self.leases.active[seq] = lease
        self.started([lease])

    def claim(self, message: Message) -> None:
        """A message that was taken is bound to a reader's claim."""
        self.leases.claim(message)
        if message.group is not None:
            self._grouped = True
            self.tenants.started(message.group)

    def unclaim(self, seq: int) -> None:
        """A claimed message is visible again."""
        lease = self.leases.unclaim(seq)
        self._unclaimed(lease)
        self.recall(seq, lease.group, lease.sent_ms)

    def claim_deleted(self, seq: int) -> None:
        """A claimed message is gone."""
        self._unclaimed(self.leases.claimed.pop(seq))

    def clear(self) -> None:
        """Every message is gone (purge)."""
        self.__init__()  # type: ignore[misc]  # back to empty, one definition of empty

    def next_ms(self) -> int | None:
        return self.leases.timers.next_ms()

    def _ended(self, lease: Lease, now: int) -> None:
        if lease.group is not None:
            self.tenants.ended(lease.group, busy_ms=max(0, now - lease.received_ms), now=now)

    def _unclaimed(self, lease: Lease) -> None:
        """A claim ended, which took none of the consumers' time."""
        if lease.group is not None:
            self.tenants.stopped(lease.group)

    def _take_fair(self, limit: int, now: int, *, all_known: bool) -> list[int]:
        out: list[int] = []
        taken: dict[str, int] = {}  # counts as in flight already, so that one receive cannot flood
        try:
            while len(out) < limit:
                seq = self._next_fair(now, all_known=all_known, taken=len(out))
                if seq is None:
                    break
                out.append(seq)
                group = self._groups.get(seq)
                if group is not None:
                    self.tenants.started(group)
                    taken[group] = taken.get(group, 0) + 1
        finally:
            self._give_back(taken)
        for seq in out:
            self._groups.pop(seq, None)
        if not len(self) and all_known:
            self.tenants.forget_time()
        return out

    def _give_back(self, taken: dict[str, int]) -> None:
        """The counts of `_take_fair` were provisional: `started` counts again when the leases are granted."""
        for group, count in taken.items():
            self.tenants.stopped(group, count)

    def _next_fair(self, now: int, *, all_known: bool, taken: int) -> int | None:
        tenants = self.tenants
        in_flight = self.leases.in_flight() + taken
        quiet = tenants.quiet_again(in_flight=in_flight, now=now) if tenants.deferred else None
        if quiet is not None:
            return tenants.take_deferred(quiet)
        while (seq := self._pop()) is not None:
            group = self._groups.get(seq)
            if group is None or not tenants.noisy(group, in_flight=in_flight, now=now):
                return seq
            tenants.defer(group, seq)
        if not all_known and tenants.deferred_count < limits.FAIR_LOOK_AHEAD_MAX:
            return None
        least_busy = tenants.least_busy()
        return tenants.take_deferred(least_busy) if least_busy is not None else None

    def _pop(self) -> int | None:
        while self._recalled:
            seq = heappop(self._recalled)
            if seq in self._waiting:
                self._waiting.discard(seq)
                return seq
        while self._ready:
            seq = self._ready.popleft()
            if seq not in self._passed:
                return seq
            self._passed.discard(seq)
        return None
