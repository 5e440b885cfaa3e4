"""How many messages of a queue are in which state: exact while they are few, remembered for a moment when they are many.

One statement looks at up to `EXACT_MAX` rows of each part of a queue. Where there are more, all are counted by the indexes alone, and
that count is good for as long as it was long: a backlog of millions is counted every minute or two, however often somebody
asks, and kept up meanwhile by what all nodes have sent and deleted since. Who needs every message counted waits for as long as
that takes, in statements that are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from headrace.queue.model import QueueCounts
from headrace.queue.store.postgres import totals
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.known import Counted, Waiting
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

EXACT_MAX: Final = 10_000  # rows of one part of a queue that are looked at each time: some 5 ms
SLICE: Final = 500_000  # rows of one statement of `count_all`: half a second, a second; `statement_timeout` is 30 s
REMEMBERED_PER_MS: Final = 50
"""A count of so many is good for a millisecond: counting costs a hundredth of a processor at most, whoever asks how often."""
COUNTED_MAX: Final = 20_000_000
"""Beyond, a queue is told as having so many: some 5 s of counting; `statement_timeout` is 30 s."""

# What has expired is not told, though its row may still be there. Waiting: received before, or delayed.
_EXACT: Final[LiteralString] = """
SELECT asked.queue, fresh.looked, fresh.visible, fresh.hidden,
    waiting.looked, waiting.visible, waiting.in_flight, waiting.delayed,
    (SELECT m.sent_ms FROM message m WHERE m.queue = asked.queue AND m.seq >= asked.floor ORDER BY m.seq LIMIT 1)
FROM unnest(%(queues)s, %(floors)s, %(oldest)s, %(shown)s) AS asked (queue, floor, oldest, shown)
CROSS JOIN LATERAL (
    SELECT count(*) AS looked, count(*) FILTER (WHERE sent_ms > asked.oldest AND sent_ms <= asked.shown) AS visible,
        count(*) FILTER (WHERE sent_ms > asked.oldest AND sent_ms > asked.shown) AS hidden
    FROM (
        SELECT m.sent_ms FROM message m WHERE m.queue = asked.queue AND m.visible_ms = 0 AND m.seq >= asked.floor
        LIMIT %(most)s
    ) m
) fresh
CROSS JOIN LATERAL (
    SELECT count(*) AS looked, count(*) FILTER (WHERE visible_ms <= %(now)s AND sent_ms > asked.oldest) AS visible,
        count(*) FILTER (WHERE visible_ms > %(now)s AND sent_ms > asked.oldest
            AND (receives > 0 OR visible_ms >= %(claimed)s)) AS in_flight,
        count(*) FILTER (WHERE visible_ms > %(now)s AND sent_ms > asked.oldest
            AND receives = 0 AND visible_ms < %(claimed)s) AS delayed
    FROM (
        SELECT m.visible_ms, m.receives, m.sent_ms FROM message m
        WHERE m.queue = asked.queue AND m.visible_ms > 0 AND m.seq >= asked.floor LIMIT %(most)s
    ) m
) waiting
"""
_LAST: Final[LiteralString] = "SELECT max(seq) FROM message WHERE queue = %s"
_SLICE: Final[LiteralString] = """
SELECT max(seq), count(*) FILTER (WHERE visible_ms <= %(now)s AND (visible_ms > 0 OR sent_ms <= %(shown)s) AND sent_ms > %(oldest)s),
    count(*) FILTER (WHERE visible_ms > %(now)s AND sent_ms > %(oldest)s AND (receives > 0 OR visible_ms >= %(claimed)s)),
    count(*) FILTER (WHERE sent_ms > %(oldest)s AND CASE
        WHEN visible_ms = 0 THEN sent_ms > %(shown)s
        ELSE visible_ms > %(now)s AND receives = 0 AND visible_ms < %(claimed)s END)
FROM (
    SELECT m.seq, m.visible_ms, m.receives, m.sent_ms FROM message m
    WHERE m.queue = %(queue)s AND m.seq > %(after)s AND m.seq <= %(last)s ORDER BY m.seq LIMIT %(slice)s
) m
"""
_FRESH: Final[LiteralString] = """
SELECT count(*) FROM (
    SELECT FROM message WHERE queue = %(queue)s AND visible_ms = 0 AND seq >= %(floor)s LIMIT %(most)s
) m
"""
_WAITING: Final[LiteralString] = """
SELECT count(*) FILTER (WHERE visible_ms <= %(now)s),
    count(*) FILTER (WHERE visible_ms > %(now)s AND (receives > 0 OR visible_ms >= %(claimed)s)),
    count(*) FILTER (WHERE visible_ms > %(now)s AND receives = 0 AND visible_ms < %(claimed)s)
FROM (
    SELECT visible_ms, receives FROM message WHERE queue = %(queue)s AND visible_ms > 0 AND seq >= %(floor)s LIMIT %(most)s
) m
"""


def count(tx: Transaction, queues: Sequence[StoredQueue]) -> dict[int, QueueCounts]:
    """The counts of queues, by their numbers, totals included."""
    known = totals.read(tx, queues)
    rows = _look(tx, queues, EXACT_MAX)
    return {queue.number: _told(tx, queue, rows[queue.number], known[queue.number], EXACT_MAX) for queue in queues}


def count_all(tx: Transaction, queue: StoredQueue) -> QueueCounts:
    """As `count`, every message: each that is there when this begins, and is there still when it comes to it, once; none that
    comes later."""
    known = totals.read(tx, [queue])[queue.number]
    *_, oldest_ms = _look(tx, [queue], 0)[queue.number]
    ((last,),) = tx.execute(_LAST, (queue.number,)).fetchall()
    asked = {**_asked(tx, queue), "oldest": tx.now - queue.info.settings.retention_ms, "shown": queue.shown_ms(tx.now)}
    sums = [0, 0, 0]
    seq: int | None = queue.floor - 1
    while seq is not None and last is not None:
        ((seq, *parts),) = tx.execute(_SLICE, {**asked, "after": seq, "last": last, "slice": SLICE}).fetchall()
        sums = [before + more for before, more in zip(sums, parts, strict=True)]
    visible, in_flight, delayed = sums
    return QueueCounts(visible, in_flight, delayed, oldest_ms, **known)


def _look(tx: Transaction, queues: Sequence[StoredQueue], most: int) -> dict[int, tuple[Any, ...]]:
    asked = {
        "queues": Ints([queue.number for queue in queues]), "floors": Ints([queue.floor for queue in queues]),
        "oldest": Ints([tx.now - queue.info.settings.retention_ms for queue in queues]),
        "shown": Ints([queue.shown_ms(tx.now) for queue in queues]), "now": tx.now,
        "claimed": CLAIMED_MS, "most": most + 1,
    }  # fmt: skip
    return {row[0]: row[1:] for row in tx.execute(_EXACT, asked).fetchall()} if queues else {}


def _told(tx: Transaction, queue: StoredQueue, row: Sequence[Any], known: dict[str, int], most: int) -> QueueCounts:
    fresh_looked, fresh, hidden, waiting_looked, visible, in_flight, delayed, oldest_ms = row
    if waiting_looked > most:
        many = _waiting(tx, queue)
        visible, in_flight, delayed = many.visible, many.in_flight, many.delayed
    if fresh_looked > most:
        waiting = visible + in_flight + delayed
        fresh = max(most, _all(tx, queue, known, waiting) - waiting) - hidden
    return QueueCounts(fresh + visible, in_flight, delayed + hidden, oldest_ms, **known)


def _waiting(tx: Transaction, queue: StoredQueue) -> Waiting:
    many = tx.known.waiting.get(queue.number)
    if many is None or many.floor != queue.floor or tx.now >= many.until_ms:
        (parts,) = tx.execute(_WAITING, _asked(tx, queue)).fetchall()
        many = tx.known.waiting[queue.number] = Waiting(_until(tx, sum(parts)), queue.floor, *parts)
    return many


def _all(tx: Transaction, queue: StoredQueue, known: dict[str, int], waiting: int) -> int:
    """All messages of a queue of which `waiting` have been received before or delayed."""
    stays = known["sent"] - known["deleted"] - known["expired"] - known["dead_lettered"]
    many = tx.known.counted.get(queue.number)
    if many is None or many.floor != queue.floor or tx.now >= many.until_ms:
        ((fresh,),) = tx.execute(_FRESH, _asked(tx, queue)).fetchall()
        many = Counted(_until(tx, fresh), queue.floor, fresh + waiting, stays)
        tx.known.counted[queue.number] = many
    return many.all + stays - many.stays


def _asked(tx: Transaction, queue: StoredQueue) -> dict[str, int]:
    return {
        "queue": queue.number, "floor": queue.floor, "now": tx.now, "claimed": CLAIMED_MS, "most": COUNTED_MAX
    }  # fmt: skip


def _until(tx: Transaction, counted: int) -> int:
    return tx.now + counted // REMEMBERED_PER_MS
