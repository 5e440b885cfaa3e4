"""What time makes due, a slice at a time: expiry, the rows of purged and deleted queues, move tasks. One node at a time does it.

Each step takes (transaction, memory of this node) and returns whether there is more to do at once. Most have nothing to do
most of the time: one statement asks for all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, LiteralString, NamedTuple

import msgspec

from headrace.queue import limits
from headrace.queue.store.postgres import bodies, groups, log, moves, totals
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

QUEUES_AT_ONCE: Final = 50  # looked through in one slice
NODE_FORGOTTEN_MS: Final = limits.DAY_MS  # a lane that lives and has written nothing for so long makes its row anew
SLICE: Final = 2_000  # rows that one step looks at, or deletes, in one transaction

LATE_MS: Final = limits.COOLDOWN_MS
"""So long after a purge, or a deletion, a transaction may still be under way that did not know of it."""

_LOCK_NUMBER: Final = 0x686B  # "hk"
# The next slice of each queue: up to which seq it goes, and whether `_EXPIRE` may find something in it.
_LOOK: Final[LiteralString] = """
SELECT asked.queue, lot.last, lot.over
FROM unnest(%(queues)s, %(afters)s, %(oldest)s) AS asked (queue, after, oldest) CROSS JOIN LATERAL (
    SELECT max(seq) AS last, bool_or(sent_ms <= asked.oldest
        AND (visible_ms <= %(now)s OR receives = 0 AND visible_ms < %(claimed)s)) AS over
    FROM (
        SELECT m.seq, m.sent_ms, m.visible_ms, m.receives FROM message m
        WHERE m.queue = asked.queue AND m.seq > asked.after ORDER BY m.seq LIMIT %(limit)s
    ) AS front
) AS lot
"""
# Claimed and leased messages stay until their lease ends; a delayed one goes, it would never be seen.
_EXPIRE: Final[LiteralString] = """
WITH lot AS (
    SELECT seq, sent_ms FROM message WHERE queue = %(queue)s AND seq > %(after)s ORDER BY seq LIMIT %(limit)s
), gone AS (
    DELETE FROM message m USING lot
    WHERE lot.sent_ms <= %(oldest)s AND m.queue = %(queue)s AND m.seq = lot.seq
        AND (m.visible_ms <= %(now)s OR m.receives = 0 AND m.visible_ms < %(claimed)s)
        AND (%(groups)s::text[] IS NULL OR m.grp = ANY (%(groups)s))
    RETURNING m.seq
)
SELECT (SELECT count(*) FROM gone), (SELECT max(seq) FROM lot)
"""
# Of a FIFO queue: the groups of these.
_EXPIRING: Final[LiteralString] = """
SELECT DISTINCT m.grp FROM (
    SELECT * FROM message WHERE queue = %(queue)s AND seq > %(after)s ORDER BY seq LIMIT %(limit)s
) m WHERE m.sent_ms <= %(oldest)s AND m.visible_ms <= %(now)s
"""
_GARBAGE: Final[tuple[LiteralString, ...]] = tuple(
    f"""
WITH lot AS (SELECT ctid FROM {table} WHERE queue = (SELECT min(id) FROM deleted_queue WHERE NOT swept) LIMIT %s)
DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM lot)) RETURNING queue
"""  # noqa: S608 - our own names
    for table in ("message", "message_group", "dedup", "attempt")
)
_UNCLAIM: Final[LiteralString] = """
WITH lot AS (SELECT min(id) AS id FROM deleted_queue WHERE NOT swept),
    gone AS (DELETE FROM claim c USING lot WHERE c.queue = lot.id)
DELETE FROM reader r USING lot WHERE r.queue = lot.id
"""
_SWEPT: Final[LiteralString] = (
    "UPDATE deleted_queue SET swept = true WHERE id = (SELECT min(id) FROM deleted_queue WHERE NOT swept) RETURNING id"
)
# Skipped: one that a send takes anew just now.
_FORGET_DEDUP: Final[LiteralString] = """
WITH lot AS (SELECT ctid FROM dedup WHERE expires_ms <= %s ORDER BY expires_ms LIMIT %s FOR UPDATE SKIP LOCKED)
DELETE FROM dedup WHERE ctid = ANY (ARRAY(SELECT ctid FROM lot)) RETURNING queue
"""
_FORGET_ATTEMPTS: Final[LiteralString] = """
WITH lot AS (SELECT ctid FROM attempt WHERE at_ms <= %s ORDER BY at_ms LIMIT %s FOR UPDATE SKIP LOCKED)
DELETE FROM attempt WHERE ctid = ANY (ARRAY(SELECT ctid FROM lot)) RETURNING queue
"""
_UNTOTAL: Final[LiteralString] = (
    "DELETE FROM queue_total WHERE queue = (SELECT min(id) FROM deleted_queue WHERE NOT swept)"
)
# A node that knew the queue still may have sent into it a moment too late.
_LATE: Final[LiteralString] = """
UPDATE deleted_queue d SET swept = false
WHERE swept AND deleted_ms < %s AND EXISTS (SELECT FROM message m WHERE m.queue = d.id) RETURNING id
"""
_FORGET_QUEUES: Final[LiteralString] = "DELETE FROM deleted_queue WHERE swept AND deleted_ms < %s RETURNING id"
_PURGED: Final[LiteralString] = """
WITH lot AS (SELECT ctid FROM message WHERE queue = %s AND seq < %s ORDER BY seq LIMIT %s)
DELETE FROM message WHERE ctid = ANY (ARRAY(SELECT ctid FROM lot)) RETURNING seq
"""
_TO_PURGE: Final[LiteralString] = "SELECT id, floor, purged_ms FROM queue WHERE swept < floor ORDER BY id"
_ALL_PURGED: Final[LiteralString] = "UPDATE queue SET swept = %s WHERE id = %s"
# Not this node's own: the mark of this very transaction is in one of them.
_FORGET: Final[LiteralString] = "DELETE FROM lane WHERE seen_ms < %s AND NOT starts_with(id, %s) RETURNING id"
_FORGET_HOLDERS: Final[LiteralString] = "DELETE FROM holder WHERE told_ms < %s RETURNING name"


class Memory(msgspec.Struct):
    """What the steps of this node keep between two calls: nothing that another node would miss.

    `looked`: number of a queue -> the seq up to which it has been looked through for what has expired.
    `last_queue`: the last queue whose turn it was.
    `due_ms`: when the next slice of a move task is due.
    `kept_out`: the last time, another node was at it.
    `turn`: whose turn it is in the logs; `bodies`: how far shared bodies have been looked through.
    """

    looked: dict[int, int] = {}
    last_queue: int = 0
    due_ms: int | None = None
    kept_out: bool = False
    turn: log.Turn = msgspec.field(default_factory=log.Turn)
    bodies: bodies.Round = msgspec.field(default_factory=bodies.Round)

    def at_start(self) -> bool:
        """Whether no round is half done, as far as this node can tell."""
        return not self.kept_out and not self.looked and not self.last_queue and self.bodies.at_start()


class Step(NamedTuple):
    """`due`: SQL, whether there may be something to do; with what `_asked` gives."""

    run: Callable[[Transaction, Memory], bool]
    due: LiteralString = "true"


def expire(tx: Transaction, memory: Memory) -> bool:
    """Look at the next slice of each queue, round and round: seqs are not quite in the order of time."""
    queues = _next_queues(tx, memory)
    afters = [max(queue.floor - 1, memory.looked.get(queue.number, 0)) for queue in queues]
    oldest = [tx.now - queue.info.settings.retention_ms for queue in queues]
    asked = {
        "queues": Ints([queue.number for queue in queues]), "afters": Ints(afters), "oldest": Ints(oldest),
        "now": tx.now, "claimed": CLAIMED_MS, "limit": SLICE,
    }  # fmt: skip
    found = {number: (last, over) for number, last, over in tx.execute(_LOOK, asked).fetchall()} if queues else {}
    more = False
    for queue, after in zip(queues, afters, strict=True):
        last, over = found[queue.number]
        if over:
            gone, last = _expire(tx, queue, after)
            more |= gone > 0
        _note_looked(memory, queue.number, last)
    return more


def _note_looked(memory: Memory, number: int, last: int | None) -> None:
    if last is None:
        memory.looked.pop(number, None)
    else:
        memory.looked[number] = last


def _expire(tx: Transaction, queue: StoredQueue, after: int) -> tuple[int, int | None]:
    """Delete what has expired of a queue's slice. Returns how many, and the slice's last seq."""
    known: dict[str, Any] = {
        "queue": queue.number, "after": after, "limit": SLICE, "now": tx.now,
        "oldest": tx.now - queue.info.settings.retention_ms, "claimed": CLAIMED_MS, "groups": None,
    }  # fmt: skip
    expiring = _lock_expiring(tx, known) if queue.info.settings.fifo else []
    if queue.info.settings.fifo:
        known["groups"] = Texts(expiring)
    row = tx.execute(_EXPIRE, known).fetchone()
    assert row is not None
    groups.settle(tx, [(queue.number, name) for name in expiring])
    if row[0]:
        tx.count(queue.number, "expired", row[0])
        tx.wrote(durable=False)
    return row[0], row[1]


def _lock_expiring(tx: Transaction, known: dict[str, Any]) -> list[str]:
    """The groups in which something expires, locked."""
    names = [name for (name,) in tx.execute(_EXPIRING, known).fetchall()]
    groups.lock(tx, [(known["queue"], name) for name in names])
    return names


def _next_queues(tx: Transaction, memory: Memory) -> list[StoredQueue]:
    """Some queues, the next ones with each call: a slice of a thousand queues would be a thousand statements."""
    numbers = sorted(tx.catalog.by_number)
    at = bisect_right(numbers, memory.last_queue)
    chosen = numbers[at : at + QUEUES_AT_ONCE]
    memory.last_queue = chosen[-1] if len(numbers) > at + QUEUES_AT_ONCE else 0
    return [tx.catalog.by_number[number] for number in chosen]


def sweep(tx: Transaction, memory: Memory) -> bool:
    """Delete a slice of the messages of deleted queues; after the last of them, what their readers had claimed."""
    del memory
    for garbage in _GARBAGE:
        if tx.execute(garbage, (SLICE,)).fetchone() is not None:
            tx.wrote(durable=False)
            return True
    tx.execute(_UNCLAIM)
    tx.execute(_UNTOTAL)
    if tx.execute(_SWEPT).fetchone() is not None:
        tx.wrote(durable=False)
        return True
    return False


def forget_ids(tx: Transaction, memory: Memory) -> bool:
    """Delete dedup ids and receive attempts whose five minutes are over."""
    del memory
    more = [tx.execute(sql, (before, SLICE)).fetchone() is not None for sql, before in (
        (_FORGET_DEDUP, tx.now), (_FORGET_ATTEMPTS, tx.now - limits.ATTEMPT_MS)
    )]  # fmt: skip
    if any(more):
        tx.wrote(durable=False)
    return any(more)


def sweep_purged(tx: Transaction, memory: Memory) -> bool:
    """Delete a slice of the messages that a purge has left. A queue is looked at for a while after the last one: what was
    sent while it was purged may have been committed afterwards."""
    del memory
    left = SLICE
    for number, floor, purged_ms in tx.execute(_TO_PURGE).fetchall():
        groups.settle_purged(tx, number, floor, SLICE)
        gone = len(tx.execute(_PURGED, (number, floor, left)).fetchall())
        left -= gone
        if not gone and purged_ms < tx.now - LATE_MS:
            tx.execute(_ALL_PURGED, (floor, number))
            tx.wrote(durable=False)
        if not left:
            break
    if left < SLICE:
        tx.wrote(durable=False)
    return left < SLICE


def forget_queues(tx: Transaction, memory: Memory) -> bool:
    """Forget deleted queues whose cool-down is over, unless somebody has sent into one since it was swept."""
    del memory
    before_ms = tx.now - LATE_MS
    if tx.execute(_LATE, (before_ms,)).fetchone() is not None:
        tx.wrote(durable=False)
        return True
    if tx.execute(_FORGET_QUEUES, (before_ms,)).fetchone() is not None:
        tx.wrote(durable=False)
    return False


def move(tx: Transaction, memory: Memory) -> bool:
    """Go on with move tasks."""
    memory.due_ms = moves.step(tx)
    return False


def forget_nodes(tx: Transaction, memory: Memory) -> bool:
    """Delete what nodes that died have left."""
    del memory
    lanes = tx.execute(_FORGET, (tx.now - NODE_FORGOTTEN_MS, f"{tx.known.node}/"))
    holders = tx.execute(_FORGET_HOLDERS, (tx.now - limits.HOLDERS_FRESH_MS,))
    if lanes.fetchone() is not None or holders.fetchone() is not None:
        tx.wrote(durable=False)
    totals.fold_gone(tx)
    return False


def add_up(tx: Transaction, memory: Memory) -> bool:
    """Add up the totals of guests."""
    del memory
    return totals.fold_guests(tx)


def tend_logs(tx: Transaction, memory: Memory) -> bool:
    """End the retention of topics' logs, give them to queues that are catching up."""
    return log.tend(tx, memory.turn)


def free(tx: Transaction, memory: Memory) -> bool:
    """Delete shared bodies that nobody needs."""
    return bodies.free(tx, memory.bodies)


# Topics first: their rows are locked before messages, everywhere.
STEPS: Final = (
    Step(tend_logs),
    Step(free),
    Step(expire),
    Step(sweep, "EXISTS (SELECT FROM deleted_queue WHERE NOT swept)"),
    Step(sweep_purged, "EXISTS (SELECT FROM queue WHERE swept < floor)"),
    Step(forget_queues, "EXISTS (SELECT FROM deleted_queue WHERE swept AND deleted_ms < %(late)s)"),
    Step(
        forget_ids,
        "EXISTS (SELECT FROM dedup WHERE expires_ms <= %(now)s) OR EXISTS (SELECT FROM attempt WHERE at_ms <= %(attempts)s)",
    ),
    Step(
        forget_nodes,
        "EXISTS (SELECT FROM lane WHERE seen_ms < %(lanes)s AND NOT starts_with(id, %(own)s))"
        " OR EXISTS (SELECT FROM holder WHERE told_ms < %(holders)s)"
        " OR EXISTS (SELECT FROM node WHERE told_ms < %(nodes)s)",
    ),
    Step(add_up, "EXISTS (SELECT FROM queue_total WHERE node >= %(guests)s AND node < %(guests_end)s)"),
    Step(move, "EXISTS (SELECT FROM move_task WHERE status = 'RUNNING')"),
)
# One statement for all that is mostly not there: an idle node asks once. No row: another node is at it.
_GLANCE: Final[LiteralString] = (
    "SELECT " + ", ".join(step.due for step in STEPS) + " WHERE pg_try_advisory_xact_lock(%(lock)s)"
)


def run(tx: Transaction, memory: Memory) -> int | None:
    """A slice of everything, unless another node is at it. Returns when there is more to do, ms; None: nothing that has
    a time."""
    row = tx.execute(_GLANCE, _asked(tx)).fetchone()
    memory.due_ms, memory.kept_out = None, row is None
    if row is None:
        return None
    more = [step.run(tx, memory) for step, due in zip(STEPS, row, strict=True) if due]  # each, whatever the others say
    return tx.now if any(more) else memory.due_ms


def _asked(tx: Transaction) -> dict[str, Any]:
    """The times before which something is due."""
    return {
        "lock": _LOCK_NUMBER,
        "now": tx.now,
        "late": tx.now - LATE_MS,
        "attempts": tx.now - limits.ATTEMPT_MS,
        "lanes": tx.now - NODE_FORGOTTEN_MS,
        "own": f"{tx.known.node}/",
        "holders": tx.now - limits.HOLDERS_FRESH_MS,
        "nodes": tx.now - totals.GONE_MS,
        "guests": totals.GUEST,
        "guests_end": totals.GUESTS_END,
    }
