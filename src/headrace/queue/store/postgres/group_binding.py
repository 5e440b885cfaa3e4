"""Which messages of a FIFO queue a claim binds: of groups of which none is in flight, and of those that the reader has claimed
from before.

A group's row is its lock (see `groups.py`): a group that is claimed is busy without end, and `reader` says whose. That reader
may go on in it, behind what it has; to all others it is busy. The groups are locked, their first messages read, without
bodies; then it is decided what becomes of each, and bound. A group that somebody has locked just now is passed over.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any, Final, LiteralString

import msgspec

from headrace.queue.model import Message
from headrace.queue.redrive import Verdict, verdict_of
from headrace.queue.store.postgres import fifo, fifo_lease, flight, groups, redriving, rows
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.fifo import First
from headrace.queue.store.postgres.leasing import THESE, these
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Cursor, Transaction

# The number is CLAIMED_MS, said so that the index is found. `head`: the first message behind those that are claimed.
_OWN: Final[LiteralString] = """
SELECT g.ctid AS at, g.queue, g.name, next.seq AS head, g.head AS claimed, g.head_sent_ms AS claimed_sent_ms
FROM message_group g CROSS JOIN LATERAL (
    SELECT m.seq, m.visible_ms, m.sent_ms FROM message m
    WHERE m.queue = g.queue AND m.grp = g.name AND m.seq >= greatest(g.head, %(floor)s)
        AND m.visible_ms < 4611686018427387904 ORDER BY m.seq LIMIT 1
) next WHERE g.queue = %(queue)s AND g.reader = %(reader)s AND g.busy_ms = 4611686018427387904
    AND next.visible_ms <= %(now)s AND next.sent_ms <= %(shown)s
"""
# A reader keeps a group for longer than a receive does, so it begins with none of which a message is leased.
_FREE: Final[LiteralString] = fifo_lease.free_groups("""name NOT IN (
        SELECT m.grp FROM message m WHERE m.queue = %(queue)s AND m.visible_ms > 0 AND m.visible_ms > %(now)s
            AND m.visible_ms < 4611686018427387904 AND m.seq >= %(floor)s AND m.grp IS NOT NULL
    )""")
_LOOK: Final[LiteralString] = f"SELECT 1 WHERE EXISTS ({_FREE}) OR EXISTS ({fifo_lease.ENDED}) OR EXISTS ({_OWN})"
_FIRST_FREE: Final[LiteralString] = fifo.first_rows(_FREE + " FOR UPDATE")
_FIRST_OWN: Final[LiteralString] = fifo.first_rows(
    _OWN + " FOR UPDATE OF g", "locked.claimed", "locked.claimed_sent_ms"
)
_BIND: Final[LiteralString] = f"UPDATE message m SET visible_ms = %(claimed)s {THESE} RETURNING {rows.COLUMNS}"  # noqa: S608


class Plan(msgspec.Struct):
    """What becomes of the messages of one round.

    Attributes:
        bound: the messages to bind, in their order, and their bytes.
        held: what `groups.hold` takes.
        expired, dead: messages that go; with their groups.
        touched: groups that gave nothing, and must be settled.
        open: groups of the other queue that dead letters may go to.
    """

    open: set[groups.Group]
    bound: list[First] = []
    size: int = 0
    held: list[tuple[str, int, int]] = []
    expired: list[int] = []
    dead: list[tuple[str, First]] = []
    touched: set[str] = set()


class Found(msgspec.Struct):
    """A locked group: its name, its head and when that was sent (of one that is free: what is taken first), the messages that
    it may give."""

    name: str
    head: tuple[int, int] | None
    messages: list[First]


def look(tx: Transaction, queue: StoredQueue, reader: str) -> Cursor:
    """See `binding.look`; it is not known how long the first message is."""
    return tx.execute(_LOOK, _known(tx, queue, reader))


def bind(tx: Transaction, queue: StoredQueue, reader: str, *, limit: int, bytes_max: int) -> list[Message]:
    """See `binding.bind`."""
    room = flight.room(tx, queue, limit)
    for _ in range(fifo.ROUNDS_MAX if room else 0):
        found = _found(tx, queue, reader, room)
        plan = _plan(tx, queue, found, limit=room, bytes_max=bytes_max)
        bound = _write(tx, queue, reader, plan)
        if bound or not (plan.expired or plan.dead):
            return bound
    tx.ready.add(queue.number)  # all that was looked at was in vain: those who wait go on from there
    return []


def _known(tx: Transaction, queue: StoredQueue, reader: str) -> dict[str, Any]:
    known = {"queue": queue.number, "now": tx.now, "shown": queue.shown_ms(tx.now), "floor": queue.floor}
    return {**known, "reader": reader}


def _found(tx: Transaction, queue: StoredQueue, reader: str, limit: int) -> list[Found]:
    """Groups that are free or the reader's, now locked; that with the oldest message first."""
    wanted = {**_known(tx, queue, reader), "each": limit, "all": limit}
    fifo.end_leases(tx, wanted)
    own = tx.execute(_FIRST_OWN, wanted)
    free = tx.execute(_FIRST_FREE, wanted)
    found = [
        Found(name, ones[0][6:], [First(*row[1:6]) for row in ones])
        for name, ones in ((name, list(ones)) for name, ones in groupby(own.fetchall(), itemgetter(0)))
    ]
    found += [
        Found(name, None, [First(*row[1:]) for row in ones]) for name, ones in groupby(free.fetchall(), itemgetter(0))
    ]
    return sorted(found, key=lambda group: group.messages[0].seq)


def _plan(tx: Transaction, queue: StoredQueue, found: list[Found], *, limit: int, bytes_max: int) -> Plan:
    plan = Plan(_lock_targets(tx, queue, found))
    for group in found:
        if not _take(tx, queue, group, plan, limit=limit, bytes_max=bytes_max):
            break
    return plan


def _lock_targets(tx: Transaction, queue: StoredQueue, found: list[Found]) -> set[groups.Group]:
    """Lock the groups that dead letters go to. Others are held already: so whoever has one is not waited for."""
    target = redriving.target_of(tx, queue)
    dead = {group.name for group in found if any(redriving.is_dead(queue, one.receives) for one in group.messages)}
    return groups.try_lock(tx, [(target.number, name) for name in dead]) if target is not None else set()


def _take(tx: Transaction, queue: StoredQueue, group: Found, plan: Plan, *, limit: int, bytes_max: int) -> bool:
    """Take as many of the group as there may be; whether there may be more, of other groups."""
    taken: list[First] = []
    more = True
    for one in group.messages:
        falls_out = _falls_out(tx, queue, group.name, one, plan)
        if falls_out is None:
            break
        if falls_out:
            continue
        more = len(plan.bound) < limit and (not plan.bound or plan.size + one.size <= bytes_max)
        if not more:
            break
        taken.append(one)
        plan.bound.append(one)
        plan.size += one.size
    if taken:
        plan.held.append((group.name, *(group.head or (taken[0].seq, taken[0].sent_ms))))
    else:
        plan.touched.add(group.name)
    return more


def _falls_out(tx: Transaction, queue: StoredQueue, group: str, one: First, plan: Plan) -> bool | None:
    """Let an expired or dead message go where it belongs; whether it was one. None: it must wait, and what is behind it."""
    verdict = verdict_of(queue.info.settings, sent_ms=one.sent_ms, receives=one.receives, now=tx.now)
    target = redriving.target_of(tx, queue)
    if verdict is Verdict.EXPIRE:
        plan.expired.append(one.seq)
    elif verdict is Verdict.DEAD_LETTER and target is not None:
        if (target.number, group) not in plan.open:
            return None
        plan.dead.append((group, one))
    else:
        return False
    return True


def _write(tx: Transaction, queue: StoredQueue, reader: str, plan: Plan) -> list[Message]:
    """Drop, bury, bind, hold. Returns what is bound: without messages that are gone since they were read."""
    number = queue.number
    fifo.drop(tx, queue, plan.expired)
    fifo.bury(tx, queue, plan.dead)
    bound: dict[int, Message] = {}
    if plan.bound:
        wanted = these(queue, [one.seq for one in plan.bound])
        cursor = tx.execute(_BIND, {**wanted, "claimed": CLAIMED_MS})
        groups.hold(tx, number, CLAIMED_MS, plan.held, reader=reader)
        bound = {row[0]: rows.message_of(row) for row in cursor.fetchall()}
        flight.leased(tx, queue, len(bound))
    lacking = {name for name, *_ in plan.held} if len(bound) < len(plan.bound) else set()
    groups.settle(tx, {*plan.open, *[(number, name) for name in plan.touched | lacking]})
    return [bound[one.seq] for one in plan.bound if one.seq in bound]
