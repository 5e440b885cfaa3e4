"""Redrive: a message that has been received too often goes to the dead-letter queue instead of being delivered.

The lease finds it: its count says so. In the same transaction its row is put into the other queue, under a new number, and
the lease is asked again for what is left. So a message is in one place at any moment, and it is moved once, by whichever node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, LiteralString, TypeAlias

from headrace.queue.model import uuid_text
from headrace.queue.store.postgres import rows
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.transaction import Transaction

ROUNDS_MAX: Final = 20  # of one receive: so it moves some 10,000 at most; what waits goes on from there
LOT: Final = 500  # looked through at a time, once all that was leased was dead

Dead: TypeAlias = tuple[int, int, bytes]
"""A message that is to be moved: its seq, how often it has been received from this queue, its id."""

# A new number, above all that a purge of the other queue may have set as its floor. In their order.
_MOVE: Final[LiteralString] = """
UPDATE message m SET queue = %(target)s, seq = dead.next, visible_ms = 0, due_ms = NULL,
    prior_receives = m.prior_receives + dead.receives, prior_first_ms = coalesce(m.prior_first_ms, m.first_ms),
    receives = 0, received_ms = NULL, first_ms = NULL, source = %(source)s,
    sent_ms = coalesce(%(sent)s::bigint, m.sent_ms), dedup_id = coalesce(dead.dedup_id, m.dedup_id)
FROM (
    SELECT seq, receives, dedup_id, nextval('message_seq') AS next
    FROM unnest(%(seqs)s, %(receives)s, %(dedup_ids)s) AS dead (seq, receives, dedup_id)
) AS dead
WHERE m.queue = %(queue)s AND m.seq = dead.seq
"""
_DUE: Final[LiteralString] = """
WITH due AS MATERIALIZED (
    SELECT seq, receives, id FROM message
    WHERE queue = %(queue)s AND visible_ms > 0 AND visible_ms <= %(now)s AND seq >= %(floor)s AND sent_ms > %(oldest)s
    ORDER BY visible_ms, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
SELECT seq, receives, id FROM due WHERE receives >= %(bound)s
"""


def target_of(tx: Transaction, queue: StoredQueue) -> StoredQueue | None:
    """Where dead letters of the queue go; None: nowhere, or that queue is gone, and all is delivered."""
    redrive = queue.info.settings.redrive
    return tx.catalog.queues.get(redrive.target) if redrive is not None else None


def is_dead(queue: StoredQueue, receives: int) -> bool:
    """Whether a message that has been received so often from the queue may not be received once more."""
    redrive = queue.info.settings.redrive
    return redrive is not None and receives >= redrive.receives_max


def bury(tx: Transaction, queue: StoredQueue, target: StoredQueue, dead: Sequence[Dead]) -> None:
    """Move messages, whose rows are locked, to the dead-letter queue. Of a FIFO queue: the groups of both queues are
    locked before, and settled afterwards, by whoever calls."""
    if not dead:
        return
    ordered = sorted(dead)
    fifo = target.info.settings.fifo
    known = {
        "queue": queue.number, "target": target.number, "source": queue.arn,
        "sent": tx.now if fifo else None,  # SQS: retention goes on from the first send; on FIFO the move resets it
        "seqs": Ints([seq for seq, _, _ in ordered]), "receives": Ints([receives for _, receives, _ in ordered]),
        # so that two of the same dedup id survive there
        "dedup_ids": Texts([uuid_text(id_) if fifo else None for _, _, id_ in ordered]),
    }  # fmt: skip
    tx.execute(_MOVE, known)
    tx.wrote()
    tx.count(queue.number, "dead_lettered", len(dead))
    tx.ready.add(target.number)


def living(
    tx: Transaction, queue: StoredQueue, found: list[Any], limit: int, lease: Callable[[int], list[Any]]
) -> list[Any]:
    """Rows of a lease without those that are dead, which are moved. `lease`: leases more instead of them."""
    target = target_of(tx, queue)
    if target is None:
        return found
    out: list[Any] = []
    for left in reversed(range(ROUNDS_MAX)):
        alive = [row for row in found if not is_dead(queue, row[rows.WIDTH] - 1)]
        bury(tx, queue, target, [_dead(row) for row in found if is_dead(queue, row[rows.WIDTH] - 1)])
        out += alive
        if len(alive) == len(found) or len(out) >= limit:
            return out
        if not alive:
            _bury_due(tx, queue, target)
        found = lease(limit - len(out)) if left else []
    tx.ready.add(queue.number)  # those who wait go on from there
    return out


def _dead(row: tuple[Any, ...]) -> Dead:
    return row[0], row[rows.WIDTH] - 1, row[1]


def _bury_due(tx: Transaction, queue: StoredQueue, target: StoredQueue) -> None:
    """Many more may be dead where all were: look through a lot of what comes next."""
    redrive = queue.info.settings.redrive
    assert redrive is not None
    asked = {
        "queue": queue.number, "now": tx.now, "floor": queue.floor, "limit": LOT, "bound": redrive.receives_max,
        "oldest": tx.now - queue.info.settings.retention_ms,
    }  # fmt: skip
    bury(tx, queue, target, tx.execute(_DUE, asked).fetchall())
