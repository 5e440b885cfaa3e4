"""Which messages a claim binds: those that are ready, in their order, up to so many and so many bytes.

The database cannot stop at a number of bytes without looking at all candidates, and each candidate is locked. So they are
taken lot by lot, each about as many as will fit: by the first message's size, then by those bound so far.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

from headrace.queue.model import Message
from headrace.queue.store.postgres import flight, group_binding, redriving, rows
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Cursor, Transaction

ROUNDS_MAX: Final = 50
"""So many lots at most, if all that they find is dead; then it is empty, and whoever waits goes on from there."""

_LOT_MIN: Final = 16  # so that one long message at the front does not make lots of one
_SIZE: Final[LiteralString] = "octet_length(" + rows.BODY + ") + coalesce(octet_length(m.attributes), 0)"
_AGAIN: Final[LiteralString] = (
    " FROM message m WHERE queue = %(queue)s AND visible_ms > 0 AND visible_ms >= %(since)s AND visible_ms <= %(now)s"
    " AND seq >= %(floor)s AND sent_ms > %(oldest)s ORDER BY visible_ms, seq"
)
_FRESH: Final[LiteralString] = (
    " FROM message m WHERE queue = %(queue)s AND visible_ms = 0"
    " AND seq > %(after)s AND seq >= %(from)s AND sent_ms > %(oldest)s ORDER BY seq"
)
_LOOK: Final[LiteralString] = (
    "SELECT size FROM ("  # noqa: S608 - our own columns
    f"(SELECT {_SIZE} AS size {_AGAIN} LIMIT 1) UNION ALL (SELECT {_SIZE} {_FRESH} LIMIT 1)"
    ") AS first LIMIT 1"
)
# What is visible again comes first, then what was never received, oldest first. By ctid: the rows are locked, so it holds.
_BIND: Final[LiteralString] = (
    "WITH again AS MATERIALIZED ("  # noqa: S608 - our own columns
    f"SELECT ctid AS at, seq, {_SIZE} AS size {_AGAIN} LIMIT %(lot)s FOR UPDATE OF m SKIP LOCKED"
    "), fresh AS MATERIALIZED ("
    f"SELECT ctid AS at, seq, {_SIZE} AS size {_FRESH}"
    " LIMIT %(lot)s - (SELECT count(*) FROM again) FOR UPDATE OF m SKIP LOCKED"
    """), lot AS (
    SELECT at, fresh, row_number() OVER (ORDER BY fresh, seq) AS place, sum(size) OVER (ORDER BY fresh, seq) AS total
    FROM (SELECT at, seq, size, false AS fresh FROM again UNION ALL SELECT at, seq, size, true FROM fresh) AS candidate
)
UPDATE message m SET visible_ms = %(claimed)s FROM lot
WHERE m.ctid = lot.at AND (lot.total <= %(bytes)s OR %(first)s AND lot.place = 1)
RETURNING """ + rows.COLUMNS + ", lot.place, lot.fresh, m.receives"
)


def look(tx: Transaction, queue: StoredQueue, reader: str) -> Cursor:
    """Ask whether `reader` would be given anything; `first_size` reads it. Locks nothing."""
    if queue.info.settings.fifo:
        return group_binding.look(tx, queue, reader)
    return tx.execute(_LOOK, _known(tx, queue))


def first_size(cursor: Cursor) -> int | None:
    """How many bytes the first ready message has, about; None: there is none."""
    row = cursor.fetchone()
    size: int | None = row[0] if row is not None else None
    return size


def bind(
    tx: Transaction, queue: StoredQueue, reader: str, *, limit: int, bytes_max: int, first_size: int
) -> list[Message]:
    """Take ready messages out of everybody's sight, until they are released or deleted. In their order.

    Args:
        limit: so many messages at most.
        bytes_max: and so many bytes of bodies and attributes; but one message at least.
        first_size: what `first_size` said.
    """
    if queue.info.settings.fifo:
        return group_binding.bind(tx, queue, reader, limit=limit, bytes_max=bytes_max)
    limit = flight.room(tx, queue, limit)
    if not limit:
        return []
    bound: list[Message] = []
    size = after = 0
    for _ in range(ROUNDS_MAX):
        lot = _lot(limit - len(bound), bytes_max - size, size // len(bound) if bound else first_size)
        wanted = {"lot": lot, "bytes": bytes_max - size, "first": not bound, "after": after}
        found = tx.execute(_BIND, _known(tx, queue) | wanted).fetchall()
        messages = rows.in_order(_living(tx, queue, found))
        bound += messages
        size += sum([len(message.body) + len(message.attributes) for message in messages])
        if len(bound) >= limit or size >= bytes_max or (len(found) < lot and (bound or not found)):
            break
        after = max([after, *(row[0] for row in found if row[-2])])
    else:
        tx.ready.add(queue.number)
    flight.leased(tx, queue, len(bound))
    return bound


def _living(tx: Transaction, queue: StoredQueue, found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of a lot without those that have been received too often: they are dead letters."""
    target = redriving.target_of(tx, queue)
    if target is None:
        return found
    redriving.bury(tx, queue, target, [(row[0], row[-1], row[1]) for row in found if redriving.is_dead(queue, row[-1])])
    return [row for row in found if not redriving.is_dead(queue, row[-1])]


def _lot(messages: int, size: int, each: int) -> int:
    """How many to take next, if so many messages and bytes are left, and each has so many: rather too many, a little."""
    return min(messages, max(_LOT_MIN, size * 9 // (8 * max(each, 1))))


def _known(tx: Transaction, queue: StoredQueue) -> dict[str, int]:
    mark = tx.known.marks.of(queue.number, tx.now)
    return {
        "queue": queue.number, "now": tx.now, "floor": queue.floor, "claimed": CLAIMED_MS, "after": 0,
        "oldest": tx.now - queue.info.settings.retention_ms, "since": mark.ms, "from": max(mark.seq, queue.floor),
    }  # fmt: skip
