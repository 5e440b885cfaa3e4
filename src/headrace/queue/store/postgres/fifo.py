"""Receiving from FIFO queues: strict order in a group, one owner of a group at a time, on any number of nodes.

Most receives are one statement (`fifo_lease.py`). Where that gives nothing, and there is something:

    1. free groups whose heads' leases have ended; lock free groups in their turn, and read the first messages that each may
       give: groups are locked one by one as they are read, so no more of them than there are messages wanted
    2. share them out: each request has groups of its own, and takes as many messages of a group as it may, in order; what
       has expired goes
    3. lease the messages, and hold the groups until the leases end

What a group may give, and how a group is passed over that others have just changed: see `fifo_lease.py`. A group that somebody
else has locked just now is skipped; if there was nothing else, the receive waits for it, a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, LiteralString

import msgspec

from headrace.queue import limits
from headrace.queue.model import Delivery
from headrace.queue.redrive import Verdict, verdict_of
from headrace.queue.store.postgres import fifo_lease, flight, groups, redriving, rows
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.fifo_lease import ENDED, FREE, first_messages
from headrace.queue.store.postgres.leasing import LEASE_THESE, THESE, Wish, delivery_of, these
from headrace.queue.store.postgres.transaction import Cursor, Transaction

ROUNDS_MAX: Final = 20
"""So often a receive goes on behind messages that fall out; then it is empty, and whoever waits goes on."""

WAIT_MS: Final = 100
"""So long a receive waits for a group that somebody has locked: for a commit under way, not for an application's transaction
that stays open, since receives from other queues wait behind it."""
AGAIN_MS: Final = 20
"""After so long whoever polls looks again for a group that was locked."""
ENDED_AT_ONCE: Final = 100
"""So many groups whose heads' leases have ended a receive frees: behind more of them, a group may come a little late."""

_END: Final[LiteralString] = """
UPDATE message_group SET busy_ms = 0 WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM message_group WHERE queue = %(queue)s AND busy_ms > 0 AND busy_ms <= %(now)s
    ORDER BY queue, busy_ms LIMIT %(ended)s FOR UPDATE SKIP LOCKED
)) RETURNING queue
"""


def first_rows(groups: LiteralString, *columns: LiteralString) -> LiteralString:
    """The statement that locks groups and reads their first messages: rows of the group's name, `First`, and the columns. The
    executor locks a group when those before have not had enough messages."""
    size: LiteralString = f"octet_length({rows.BODY})"
    shown: LiteralString = ", ".join(["locked.name", "m.seq", "m.receives", "m.sent_ms", "m.id", size, *columns])
    return f"SELECT {shown} FROM {first_messages(groups)} LIMIT %(all)s"  # noqa: S608 - our own text, here and below


_FIRST: Final[LiteralString] = first_rows(FREE + " FOR UPDATE")
_SOME: Final[LiteralString] = f"SELECT 1 WHERE EXISTS ({FREE}) OR EXISTS ({ENDED})"
# Waits for who has the first group that should be free, and keeps it.
_WAIT: Final[LiteralString] = f"""
SELECT FROM message_group WHERE queue = %(queue)s AND name = (SELECT name FROM ({FREE} LIMIT 1) free) FOR UPDATE
"""  # noqa: S608
_DROP: Final[LiteralString] = f"DELETE FROM message m USING {THESE.removeprefix(' FROM ')} RETURNING m.seq"  # noqa: S608


class First(msgspec.Struct, gc=False):
    """A message among the first ones of a locked group."""

    seq: int
    receives: int
    sent_ms: int
    id: bytes
    size: int


class Given(msgspec.Struct):
    """What a wish is given, and how many bytes of bodies that is."""

    messages: list[First] = []
    size: int = 0


class Plan(msgspec.Struct):
    """What becomes of the messages of one round.

    Attributes:
        given: for each wish its messages, in order.
        held: what `groups.hold` takes.
        expired: messages that go.
        dead: messages that go to the dead-letter queue, and their groups.
        touched: groups that gave nothing, and must be settled.
    """

    given: list[Given] = []
    held: list[tuple[str, int, int]] = []
    expired: list[int] = []
    dead: list[tuple[str, First]] = []
    touched: set[str] = set()


class Receiving:
    """The requests of one queue, limit and visibility, in one transaction."""

    def __init__(self, tx: Transaction, wishes: Sequence[Wish]) -> None:
        self._tx = tx
        self._wishes = wishes
        self.queue: StoredQueue = wishes[0].queue
        self._limit = min(wishes[0].limit, limits.NATIVE_BATCH_MAX)
        self._visibility_ms = wishes[0].visibility_ms
        self._target = redriving.target_of(tx, self.queue)
        self._room = flight.room(tx, self.queue, self._limit * len(wishes))
        self._open: set[groups.Group] = set()  # groups that dead letters may go to
        self._lot = 0  # how many messages to look at, at least
        self._leased: Cursor | None = None

    def look(self) -> None:
        """Send the first statement; `run` reads its rows."""
        self._leased = fifo_lease.lease(
            self._tx, self.queue, limit=self._limit, room=self._room, visibility_ms=self._visibility_ms
        )

    def run(self, *, may_wait: bool) -> None:
        """Give the wishes their deliveries. `may_wait`: for a group that somebody has locked, if there is nothing else."""
        served = self._at_once()
        some = served or self._is_some()
        if some and not served:
            self._by_rounds(may_wait=may_wait)
        if left := self._left_over():
            self._is_empty(len(left), some=some)

    def _at_once(self) -> bool:
        """Whether the first statement has leased anything."""
        if self._leased is None:
            self.look()
        assert self._leased is not None
        deliveries = fifo_lease.read(self.queue, self._leased)
        for place, delivery in deliveries:
            self._wishes[place].deliveries.append(delivery)
        self._tx.holding |= bool(deliveries)
        self._note(self._tx.now + self._visibility_ms, leased=len(deliveries))
        return bool(deliveries)

    def _by_rounds(self, *, may_wait: bool) -> None:
        ended = end_leases(self._tx, self._known())  # read last: it leaves with the first look
        more = True
        for _ in range(ROUNDS_MAX):
            left = self._left_over()
            if not more or not left:
                break
            found = self._look(len(left)).fetchall()
            if found:
                self._tx.holding = True
                more = self._round(left, found)
                self._lot = limits.TAKEN_AT_ONCE  # many more may fall out
            else:
                more, may_wait = may_wait and self._waits(), False
        if ended.fetchone() is not None:
            self._tx.wrote(durable=False)

    def _left_over(self) -> list[Wish]:
        return [wish for wish in self._wishes if not wish.deliveries]

    def _is_empty(self, wishes: int, *, some: bool) -> None:
        tx, number = self._tx, self.queue.number
        tx.count(number, "empty_receives", wishes)
        tx.empty.add(number)
        if some and self._is_some():
            tx.due_at(number, tx.now + AGAIN_MS)

    def _is_some(self) -> bool:
        """Whether there is a group that is free, or should be; perhaps somebody has it locked."""
        return self._room > 0 and self._tx.execute(_SOME, self._known()).fetchone() is not None

    def _waits(self) -> bool:
        """Wait for a group that should be free; not while others are held, so that nodes do not deadlock."""
        if self._tx.holding or not self._room:
            return False
        self._tx.holding = self._tx.wait_briefly(_WAIT, self._known(), WAIT_MS) or False
        return self._tx.holding

    def _known(self) -> dict[str, Any]:
        now = self._tx.now
        queue = self.queue
        return {"queue": queue.number, "now": now, "shown": queue.shown_ms(now), "floor": queue.floor}

    def _look(self, wishes: int) -> Cursor:
        # Of its last group each but the last wish may leave what is read: so twice as many are enough for all.
        wanted = self._limit * wishes * (2 if wishes > 1 else 1) if self._room else 0
        each, all_ = max(self._limit, self._lot), max(wanted, self._lot)
        return self._tx.execute(_FIRST, {**self._known(), "each": each, "all": all_})

    # --- a round ---

    def _round(self, wishes: list[Wish], firsts: list[tuple[Any, ...]]) -> bool:
        """Share out what was found; whether something fell out, so that there may be more behind."""
        self._lock_targets(firsts)
        plan = self._plan(len(wishes), firsts)
        deliveries = self._write(plan)
        for wish, given in zip(wishes, plan.given, strict=True):
            wish.deliveries = [deliveries[one.seq] for one in given.messages if one.seq in deliveries]
        return bool(plan.expired or plan.dead) or len(deliveries) < sum(len(given.messages) for given in plan.given)

    def _lock_targets(self, firsts: list[tuple[Any, ...]]) -> None:
        """Lock the groups that dead letters go to. Others are held already: so whoever has one is not waited for."""
        target = self._target
        if target is not None:
            dead = {name for name, _, receives, *_ in firsts if redriving.is_dead(self.queue, receives)}
            self._open = groups.try_lock(self._tx, [(target.number, name) for name in dead])

    def _plan(self, wishes: int, firsts: list[tuple[Any, ...]]) -> Plan:
        found = deque((name, [First(*row[1:]) for row in ones]) for name, ones in groupby(firsts, itemgetter(0)))
        plan = Plan()
        for _ in range(wishes):
            given = Given()
            while found and self._left(given):
                self._take(*found.popleft(), given, plan)
            plan.given.append(given)
        return plan

    def _left(self, given: Given) -> bool:
        """Whether a wish may have more."""
        more = len(given.messages) < self._limit and given.size < limits.NATIVE_BATCH_BYTES_MAX
        return more and self._room > 0

    def _take(self, name: str, firsts: list[First], given: Given, plan: Plan) -> None:
        """Take as many of a group as the wish may have."""
        settings, now = self.queue.info.settings, self._tx.now
        taken: list[First] = []
        for one in firsts:
            if not self._left(given):
                break
            verdict = verdict_of(settings, sent_ms=one.sent_ms, receives=one.receives, now=now)
            if verdict is Verdict.EXPIRE:
                plan.expired.append(one.seq)
            elif verdict is Verdict.DEAD_LETTER and self._target is not None:
                if (self._target.number, name) not in self._open:
                    break  # what is behind it must wait, too
                plan.dead.append((name, one))
            else:
                taken.append(one)
                given.messages.append(one)
                given.size += one.size
                self._room -= 1
        if taken:
            plan.held.append((name, taken[0].seq, taken[0].sent_ms))
        else:
            plan.touched.add(name)

    def _write(self, plan: Plan) -> dict[int, Delivery]:
        """Drop, lease, hold. Returns the deliveries by seq: without those that are gone since they were read."""
        tx, number = self._tx, self.queue.number
        seqs = [one.seq for given in plan.given for one in given.messages]
        until = tx.now + self._visibility_ms
        leased = None
        if seqs:
            leased = tx.execute(LEASE_THESE, {**these(self.queue, seqs), "now": tx.now, "until": until})
            groups.hold(tx, number, until, plan.held)
        deliveries = [delivery_of(self.queue, row) for row in leased.fetchall()] if leased is not None else []
        drop(tx, self.queue, plan.expired)
        bury(tx, self.queue, plan.dead)
        self._note(until, leased=len(deliveries))
        lacking = {name for name, *_ in plan.held} if len(deliveries) < len(seqs) else set()
        groups.settle(tx, {*self._open, *[(number, name) for name in plan.touched | lacking]})
        return {one.message.seq: one for one in deliveries}

    def _note(self, until: int, *, leased: int) -> None:
        """A lease is durable before it is answered: a group must not have a second owner after a crash of the database."""
        tx, number = self._tx, self.queue.number
        if leased:
            tx.wrote()
            tx.count(number, "received", leased)
            flight.leased(tx, self.queue, leased)
            tx.due_at(number, until)
            if not self._visibility_ms:
                tx.ready.add(number)


def end_leases(tx: Transaction, known: Mapping[str, Any]) -> Cursor:
    """Send what frees groups whose leases have ended; a row each."""
    return tx.execute(_END, {**known, "ended": ENDED_AT_ONCE})


def drop(tx: Transaction, queue: StoredQueue, expired: Sequence[int]) -> None:
    """Delete messages that have expired."""
    if expired:
        tx.wrote()
        tx.count(queue.number, "expired", len(tx.execute(_DROP, these(queue, expired)).fetchall()))


def bury(tx: Transaction, queue: StoredQueue, dead: Sequence[tuple[str, First]]) -> None:
    """Move dead letters (and their groups' names): into the same groups of the other queue, in their order."""
    target = redriving.target_of(tx, queue)
    if dead and target is not None:
        others = [(target.number, name) for name, _ in dead]
        groups.lock(tx, others)
        redriving.bury(tx, queue, target, [(one.seq, one.receives, one.id) for _, one in dead])
        groups.settle(tx, others)


def sorted_out(tx: Transaction, wishes: Sequence[Wish]) -> list[Receiving]:
    """The requests by queue, in one order everywhere; each queue's first statement is sent."""
    together: dict[tuple[int, int, int], list[Wish]] = {}
    for wish in wishes:
        together.setdefault((wish.queue.number, wish.limit, wish.visibility_ms), []).append(wish)
    receiving = [Receiving(tx, together[key]) for key in sorted(together)]
    for one in {one.queue.number: one for one in reversed(receiving)}.values():
        one.look()
    return receiving


def run_all(receiving: Sequence[Receiving]) -> None:
    """Give the wishes their deliveries. What is asked of several queues waits for no group: those who poll look again."""
    one_queue = len({one.queue.number for one in receiving}) == 1
    for one in receiving:
        one.run(may_wait=one_queue)
