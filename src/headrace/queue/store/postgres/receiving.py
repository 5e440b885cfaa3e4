"""Receiving: the requests of one queue are one statement, which leases for all of them and skips what others hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import msgspec

from headrace.errors import InvalidParameter
from headrace.queue import limits
from headrace.queue.model import Delivery
from headrace.queue.operations import Receive, ReceiveAny
from headrace.queue.store.checks import check_limit, check_visibility
from headrace.queue.store.postgres import rows
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.transaction import Answers, Transaction, answer

LEASE: Final[LiteralString] = """
UPDATE message m SET visible_ms = %(until)s, receives = receives + 1, received_ms = %(now)s,
    first_ms = coalesce(first_ms, %(now)s)
"""
RETURNING: Final[LiteralString] = " RETURNING " + rows.COLUMNS + ", m.receives, m.first_ms"
"""The rows that `delivered` reads."""
# What is due again comes first, then what was never received, oldest first. By ctid: the rows are locked, so it holds.
_LEASE: Final[LiteralString] = (
    """
WITH again AS MATERIALIZED (
    SELECT ctid FROM message
    WHERE queue = %(queue)s AND visible_ms > 0 AND visible_ms <= %(now)s AND seq >= %(floor)s AND sent_ms > %(oldest)s
    ORDER BY visible_ms, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT ctid FROM message
    WHERE queue = %(queue)s AND visible_ms = 0 AND seq >= %(floor)s AND sent_ms > %(oldest)s
    ORDER BY seq LIMIT %(limit)s - (SELECT count(*) FROM again) FOR UPDATE SKIP LOCKED
)
"""  # noqa: S608 - our own columns
    + LEASE
    + " WHERE ctid = ANY (ARRAY(SELECT ctid FROM again UNION ALL SELECT ctid FROM fresh))"
    + RETURNING
)


class Wish(msgspec.Struct):
    """A request, and what it is given. Those with the same queue and visibility share a statement."""

    queue: StoredQueue
    limit: int
    visibility_ms: int
    deliveries: list[Delivery] = []


def receive(tx: Transaction, operations: Sequence[Receive]) -> Answers:
    wishes = [answer(_wish, tx, operation) for operation in operations]
    together: dict[tuple[int, int], list[Wish]] = {}
    for wish in wishes:
        if isinstance(wish, Wish):
            together.setdefault((wish.queue.number, wish.visibility_ms), []).append(wish)
    cursors = [
        (ones, lease(tx, ones[0].queue, sum(one.limit for one in ones), ones[0].visibility_ms))
        for ones in together.values()
    ]
    yield
    for ones, cursor in cursors:
        _share_out(tx, ones, delivered(tx, ones[0].queue, cursor.fetchall(), ones[0].visibility_ms))
    return [wish.deliveries if isinstance(wish, Wish) else wish for wish in wishes]


def receive_any(tx: Transaction, operation: ReceiveAny) -> list[tuple[str, list[Delivery]]]:
    """Everything that can be refused is refused before the first lease."""
    count = len(operation.queues)
    if not 1 <= count <= limits.QUEUES_ASKED_MAX:
        raise InvalidParameter("queues", str(count), f"1 to {limits.QUEUES_ASKED_MAX} queues a call")
    check_limit(operation.limit)
    queues = [tx.catalog.queue(arn) for arn in dict.fromkeys(operation.queues)]
    asked = [(queue, visibility_of(queue, operation.visibility_ms)) for queue in queues]
    out: list[tuple[str, list[Delivery]]] = []
    left = operation.limit
    for queue, visibility_ms in asked:
        deliveries = delivered(tx, queue, lease(tx, queue, left, visibility_ms).fetchall(), visibility_ms)
        if deliveries:
            out.append((queue.arn, deliveries))
            left -= len(deliveries)
        else:
            tx.count(queue.number, "empty_receives")
            tx.empty.add(queue.number)
        if not left:
            break
    return out


def _wish(tx: Transaction, operation: Receive) -> Wish:
    queue = tx.catalog.queue(operation.queue)
    visibility_ms = visibility_of(queue, operation.visibility_ms)
    check_limit(operation.limit)
    return Wish(queue, operation.limit, visibility_ms)


def visibility_of(queue: StoredQueue, visibility_ms: int | None) -> int:
    """How long leases of the queue last; `visibility_ms` None: as it is set to."""
    if visibility_ms is None:
        return queue.info.settings.visibility_ms
    check_visibility(visibility_ms)
    return visibility_ms


def lease(tx: Transaction, queue: StoredQueue, limit: int, visibility_ms: int) -> Any:
    """Send the statement that leases up to `limit` messages of a standard queue; `delivered` reads its rows."""
    return tx.execute(
        _LEASE,
        {
            "queue": queue.number,
            "now": tx.now,
            "until": tx.now + visibility_ms,
            "floor": queue.floor,
            "oldest": tx.now - queue.info.settings.retention_ms,
            "limit": min(limit, limits.NATIVE_BATCH_MAX),
        },
    )


def delivered(tx: Transaction, queue: StoredQueue, found: list[tuple[Any, ...]], visibility_ms: int) -> list[Delivery]:
    """Rows of a lease as deliveries, those received before first, then the oldest; what follows from them is noted."""
    if not found:
        return []
    tx.wrote(durable=queue.info.settings.fifo)
    tx.count(queue.number, "received", len(found))
    tx.due_at(queue.number, tx.now + visibility_ms)
    if not visibility_ms:
        tx.ready.add(queue.number)
    found.sort(key=lambda row: (row[rows.WIDTH] == 1, row[0]))
    mint = queue.receipts.mint
    out = []
    for row in found:
        message = rows.message_of(row)
        receives, first_ms = row[rows.WIDTH :]
        if message.first_received_ms is not None:
            first_ms = message.first_received_ms
        out.append(Delivery(message, mint(message.seq, receives), message.receives + receives, first_ms))
    return out


def _share_out(tx: Transaction, wishes: list[Wish], deliveries: list[Delivery]) -> None:
    """Give each request its own, in the order in which they came."""
    at = 0
    for wish in wishes:
        wish.deliveries = deliveries[at : at + wish.limit]
        at += wish.limit
        if not wish.deliveries:
            tx.count(wish.queue.number, "empty_receives")
            tx.empty.add(wish.queue.number)
