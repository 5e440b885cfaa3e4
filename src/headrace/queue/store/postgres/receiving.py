"""Receiving: the requests of one queue are one statement, which leases for all of them and skips what others hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from headrace.errors import InvalidParameter
from headrace.queue import limits
from headrace.queue.model import Delivery
from headrace.queue.operations import Receive, ReceiveAny
from headrace.queue.store.checks import check_limit
from headrace.queue.store.postgres import attempts, fifo, flight, redriving, rows, tenants
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.leasing import LEASE, RETURNING, Wish, delivery_of, visibility_of
from headrace.queue.store.postgres.transaction import Answers, Cursor, Transaction, answer

# What is due again comes first, then what was never received, oldest first. By ctid: the rows are locked, so it holds.
_LEASE: Final[LiteralString] = (
    """
WITH again AS MATERIALIZED (
    SELECT ctid FROM message
    WHERE queue = %(queue)s AND visible_ms > 0 AND visible_ms >= %(since)s AND visible_ms <= %(now)s
        AND seq >= %(floor)s AND sent_ms > %(oldest)s
    ORDER BY visible_ms, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT ctid FROM message
    WHERE queue = %(queue)s AND visible_ms = 0 AND seq >= %(from)s AND sent_ms > %(oldest)s
    ORDER BY seq LIMIT %(limit)s - (SELECT count(*) FROM again) FOR UPDATE SKIP LOCKED
)
"""  # noqa: S608 - our own columns
    + LEASE
    + " WHERE ctid = ANY (ARRAY(SELECT ctid FROM again UNION ALL SELECT ctid FROM fresh))"
    + RETURNING
)


def receive(tx: Transaction, operations: Sequence[Receive]) -> Answers:
    wishes = [answer(_wish, tx, operation) for operation in operations]
    asked = [wish for wish in wishes if isinstance(wish, Wish)]
    together: dict[tuple[int, int], list[Wish]] = {}
    for wish in asked:
        if not wish.queue.info.settings.fifo:
            together.setdefault((wish.queue.number, wish.visibility_ms), []).append(wish)
    begun = [(ones, _begin(tx, ones)) for ones in together.values()]
    strict = [wish for wish in asked if wish.queue.info.settings.fifo]
    attempts.run_all(tx, [wish for wish in strict if wish.attempt_id is not None])
    ordered = fifo.sorted_out(tx, [wish for wish in strict if wish.attempt_id is None])
    yield
    for ones, (room, cursor) in begun:
        queue, visibility_ms = ones[0].queue, ones[0].visibility_ms
        found = _leased(tx, queue, cursor, room, visibility_ms) if room else []
        _share_out(tx, ones, found, room)
    fifo.run_all(ordered)
    return [wish.outcome() if isinstance(wish, Wish) else wish for wish in wishes]


def _begin(tx: Transaction, ones: list[Wish]) -> tuple[int, Cursor | None]:
    """Send the lease for wishes of one queue. The most that they are given, and the statement; None: it has tenants."""
    queue = ones[0].queue
    room = flight.room(tx, queue, sum(one.limit for one in ones))
    plain = room and queue.number not in tx.known.tenants
    return room, lease(tx, queue, room, ones[0].visibility_ms) if plain else None


def _leased(
    tx: Transaction, queue: StoredQueue, cursor: Cursor | None, limit: int, visibility_ms: int
) -> list[Delivery]:
    """What a lease gives, up to `limit`; what it found dead has gone, and others have taken its place."""

    def plain(wanted: int) -> list[Any]:
        return _in_order(lease(tx, queue, wanted, visibility_ms))

    def fair(wanted: int) -> list[Any]:
        return tenants.take(tx, queue, wanted, visibility_ms, plain)

    if cursor is not None:
        found = _in_order(cursor)
        tenants.check(tx, queue, found)
    else:
        found = fair(limit)
    return delivered(tx, queue, redriving.living(tx, queue, found, limit, plain if cursor else fair), visibility_ms)


def _in_order(cursor: Cursor) -> list[Any]:
    """Those received before first, then the oldest."""
    return sorted(cursor.fetchall(), key=lambda row: (row[rows.WIDTH] == 1, row[0]))


def receive_any(tx: Transaction, operation: ReceiveAny) -> list[tuple[str, list[Delivery]]]:
    """Everything that can be refused is refused before the first lease."""
    count = len(operation.queues)
    if not 1 <= count <= limits.QUEUES_ASKED_MAX:
        raise InvalidParameter("queues", str(count), f"1 to {limits.QUEUES_ASKED_MAX} queues a call")
    check_limit(operation.limit)
    queues = [tx.catalog.queue(arn) for arn in dict.fromkeys(operation.queues)]
    asked = [(queue, visibility_of(queue, operation.visibility_ms)) for queue in queues]
    out: list[tuple[str, list[Delivery]]] = []
    left, fulls = operation.limit, []
    for queue, visibility_ms in asked:
        wish = Wish(queue, left, visibility_ms)
        _receive_one(tx, wish)
        if wish.deliveries:
            out.append((queue.arn, wish.deliveries))
            left -= len(wish.deliveries)
        elif wish.refused:
            fulls.append(queue)
        if not left:
            break
    if fulls and not out:
        raise flight.full(fulls[0])
    return out


def _receive_one(tx: Transaction, wish: Wish) -> None:
    if wish.queue.info.settings.fifo:
        fifo.run_all(fifo.sorted_out(tx, [wish]))
        return
    room, cursor = _begin(tx, [wish])
    found = _leased(tx, wish.queue, cursor, room, wish.visibility_ms) if room else []
    _share_out(tx, [wish], found, room)


def _wish(tx: Transaction, operation: Receive) -> Wish:
    queue = tx.catalog.queue(operation.queue)
    visibility_ms = visibility_of(queue, operation.visibility_ms)
    check_limit(operation.limit)
    wish = Wish(queue, operation.limit, visibility_ms, operation.attempt_id)
    attempts.check(wish)
    return wish


def lease(tx: Transaction, queue: StoredQueue, limit: int, visibility_ms: int) -> Cursor:
    """Send the statement that leases up to `limit` messages of a standard queue; `delivered` reads its rows."""
    mark = tx.known.marks.of(queue.number, tx.now)
    return tx.execute(
        _LEASE,
        {
            "queue": queue.number,
            "now": tx.now,
            "until": tx.now + visibility_ms,
            "floor": queue.floor,
            "from": max(queue.floor, mark.seq),
            "since": mark.ms,
            "oldest": tx.now - queue.info.settings.retention_ms,
            "limit": min(limit, limits.NATIVE_BATCH_MAX),
        },
    )


def delivered(tx: Transaction, queue: StoredQueue, found: list[tuple[Any, ...]], visibility_ms: int) -> list[Delivery]:
    """Rows of a lease as deliveries; what follows from them is noted."""
    if not found:
        return []
    tx.wrote(durable=queue.info.settings.fifo)
    tx.count(queue.number, "received", len(found))
    flight.leased(tx, queue, len(found))
    tx.due_at(queue.number, tx.now + visibility_ms)
    if not visibility_ms:
        tx.ready.add(queue.number)
    return [delivery_of(queue, row) for row in found]


def _share_out(tx: Transaction, wishes: list[Wish], deliveries: list[Delivery], room: int) -> None:
    """Give each request its own, in the order in which they came. `room`: the most there can be."""
    at = 0
    for wish in wishes:
        wish.deliveries = deliveries[at : at + wish.limit]
        at += wish.limit
        if not wish.deliveries:
            wish.refused = len(deliveries) == room
            tx.empty.add(wish.queue.number)
            if not wish.refused:
                tx.count(wish.queue.number, "empty_receives")
