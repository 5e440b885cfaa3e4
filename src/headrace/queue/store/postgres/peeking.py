"""Looking at messages without receiving them."""

from __future__ import annotations

from typing import Final, LiteralString

from headrace.queue.model import Peeked
from headrace.queue.operations import Peek
from headrace.queue.store.checks import check_limit
from headrace.queue.store.postgres import rows
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

_PEEK: Final[LiteralString] = (
    "SELECT "  # noqa: S608 - our own columns
    + rows.COLUMNS
    + """, m.receives, m.visible_ms FROM message m
WHERE m.queue = %s AND m.seq > %s AND m.seq >= %s AND m.sent_ms > %s ORDER BY m.seq LIMIT %s
"""
)


def peek(tx: Transaction, operation: Peek) -> list[Peeked]:
    queue = tx.catalog.queue(operation.queue)
    check_limit(operation.limit)
    oldest_ms = tx.now - queue.info.settings.retention_ms
    found = tx.execute(_PEEK, (queue.number, operation.after, queue.floor, oldest_ms, operation.limit)).fetchall()
    out = []
    for row in found:
        receives, visible_ms = row[rows.WIDTH :]
        message = rows.message_of(row)
        if not visible_ms and message.sent_ms > queue.shown_ms(tx.now):
            visible_ms = tx.now + 1  # a FIFO queue's own delay is not over
        out.append(Peeked(message, state_of(receives, visible_ms, tx.now), message.receives + receives))
    return out


def state_of(receives: int, visible_ms: int, now: int) -> str:
    """visible, in_flight, delayed or claimed: what a row is at `now`."""
    if visible_ms <= now:
        return "visible"
    if visible_ms >= CLAIMED_MS:
        return "claimed"
    return "in_flight" if receives else "delayed"
