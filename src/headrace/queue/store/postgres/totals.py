"""Totals of all nodes: what has been sent, received, deleted of each queue since it was made.

Each node counts what it does, and writes its sums into rows of its own every second: rows that no other node waits for, and
that may be written twice without being counted twice. A node that dies loses what it has counted since. What a node leaves
behind is added to the rows of no node (''), by the node itself when it stops, or when it has not been heard of for an hour.

A guest (an application's own transaction: `guests.py`) writes what it counts into a row of its own, which nobody else has and so
nobody waits for. It counts from the guest's commit on, and whoever keeps house adds it to the rows of no node.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final, LiteralString, TypeAlias

from headrace.queue import limits
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.catalog import StoredQueue, StoredTopic
from headrace.queue.store.postgres.known import FIELDS, Sums
from headrace.queue.store.postgres.transaction import Transaction

GUEST: Final = "guest/"  # what the names of guests' rows begin with, no node's does
GUESTS_END: Final = "guest0"  # behind all of these names
GUESTS_AT_ONCE: Final = 2_000  # rows of guests that one transaction adds up
GONE_MS: Final = limits.HOUR_MS  # a node that has told nothing for so long is gone

Told: TypeAlias = Sequence[tuple[int, Sums]]
"""Queues by number, and this node's sums of them."""

_LIST: Final[LiteralString] = ", ".join(FIELDS)
_NODE: Final[LiteralString] = """
INSERT INTO node AS n VALUES (%(node)s, %(now)s) ON CONFLICT (name) DO UPDATE SET told_ms = %(now)s RETURNING xmax = 0
"""
_IS_THERE: Final[LiteralString] = (
    "(EXISTS (SELECT FROM queue q WHERE q.id = told.queue) OR EXISTS (SELECT FROM topic t WHERE t.id = told.queue))"
)
_TELL: Final[LiteralString] = (
    "INSERT INTO queue_total (node, queue, "  # noqa: S608 - our own columns, here and below
    + _LIST
    + ") SELECT %s, * FROM unnest("
    + ", ".join(["%s"] * (1 + len(FIELDS)))
    + ") AS told (queue, "
    + _LIST
    + ") WHERE "
    + _IS_THERE
    + " ON CONFLICT (queue, node) DO UPDATE SET "
    + ", ".join(f"{field} = excluded.{field}" for field in FIELDS)
)
_READ: Final[LiteralString] = (
    "SELECT queue, "  # noqa: S608
    + ", ".join(f"sum({field})::bigint" for field in FIELDS)
    + " FROM queue_total WHERE queue = ANY (%s) AND node <> %s GROUP BY queue"
)
# In order, so that two who fold do not deadlock; not of queues that are gone: a guest may have been late.
_ADD: Final[LiteralString] = (
    ", added AS (INSERT INTO queue_total AS t (node, queue, "  # noqa: S608
    + _LIST
    + ") SELECT '', queue, "
    + ", ".join(f"sum({field})" for field in FIELDS)
    + " FROM told WHERE "
    + _IS_THERE
    + " GROUP BY queue ORDER BY queue ON CONFLICT (queue, node) DO UPDATE SET "
    + ", ".join(f"{field} = t.{field} + excluded.{field}" for field in FIELDS)
    + ") SELECT count(*) FROM told"
)
_FOLD: Final[LiteralString] = "WITH told AS (DELETE FROM queue_total WHERE node = ANY (%s) RETURNING *)" + _ADD  # noqa: S608
_FOLD_GUESTS: Final[LiteralString] = (
    "WITH told AS (DELETE FROM queue_total WHERE ctid = ANY (ARRAY("  # noqa: S608
    "SELECT ctid FROM queue_total WHERE node >= %s AND node < %s LIMIT %s)) RETURNING *)" + _ADD
)
TELL_AS_GUEST: Final[LiteralString] = (
    "INSERT INTO headrace.queue_total (node, queue, "  # noqa: S608
    + _LIST
    + ") SELECT %s, * FROM unnest("
    + ", ".join(["%s"] * (1 + len(FIELDS)))
    + ")"
)
"""What `guest_row` gives is inserted, by whoever may do nothing else to this table."""
_LEAVE: Final[LiteralString] = "DELETE FROM node WHERE name = %s"
_GONE: Final[LiteralString] = "DELETE FROM node WHERE told_ms < %s RETURNING name"


def tell(tx: Transaction, told: Told) -> None:
    """Write this node's sums, and that it lives."""
    row = tx.execute(_NODE, {"node": tx.known.node, "now": tx.now}).fetchone()
    tx.wrote(durable=False)
    if row is not None and row[0] and tx.known.has_told:
        tx.known.folded = True
    if told and not tx.known.folded:  # until this is known to be committed: its sums are others' already
        columns = zip(*[(queue, *sums) for queue, sums in sorted(told)], strict=True)
        tx.execute(_TELL, (tx.known.node, *[Ints(column) for column in columns]))


def read(tx: Transaction, queues: Iterable[StoredQueue | StoredTopic]) -> dict[int, dict[str, int]]:
    """The totals of queues, by their numbers: fields of QueueCounts; of topics `sent`, what was published, and `duplicates`."""
    numbers = [queue.number for queue in queues]
    others = {number: sums for number, *sums in tx.execute(_READ, (Ints(numbers), tx.known.node)).fetchall()}
    none = [0] * len(FIELDS)
    return {
        number: {
            field: other + tx.known.totals[number, field] + tx.totals[number, field]
            for field, other in zip(FIELDS, others.get(number, none), strict=True)
        }
        for number in numbers
    }


def leave(tx: Transaction, told: Told) -> None:
    """This node stops: what it has counted stays."""
    tell(tx, told)
    tx.execute(_FOLD, ([tx.known.node],))
    tx.execute(_LEAVE, (tx.known.node,))
    tx.wrote(durable=False)


def guest_row(tx: Transaction) -> tuple[Any, ...]:
    """Parameters of TELL_AS_GUEST: what this transaction has counted, a row a queue (there may be none)."""
    queues = sorted({number for number, _ in tx.totals})
    columns = [Ints([tx.totals[queue, field] for queue in queues]) for field in FIELDS]
    return (GUEST + os.urandom(12).hex(), Ints(queues), *columns)


def fold_guests(tx: Transaction) -> bool:
    """Add up what guests have counted; whether there may be more of it."""
    ((folded,),) = tx.execute(_FOLD_GUESTS, (GUEST, GUESTS_END, GUESTS_AT_ONCE)).fetchall()
    if folded:
        tx.wrote(durable=False)
    return bool(folded == GUESTS_AT_ONCE)


def fold_gone(tx: Transaction) -> None:
    """Keep what nodes that are gone have counted."""
    names = [name for (name,) in tx.execute(_GONE, (tx.now - GONE_MS,)).fetchall()]
    if names:
        tx.execute(_FOLD, (names,))
        tx.wrote(durable=False)
