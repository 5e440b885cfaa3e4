"""The one statement that serves most receives from a FIFO queue: it locks free groups, shares their first messages out, leases
them, and holds the groups.

It gives nothing where rules must judge: a message has expired, is dead or is not shown yet, bodies are long, or a lease of a
group has ended. Then `fifo.py` does it step by step.

It sees the messages as they were when it began, but the groups as they are when they are locked. What others have done in a
group between is committed. Its first message is still there, or its head would be another one, and the group is not leased
from; one behind it may be gone, and is then not leased; what is new comes behind those that are seen.

Groups are not divided between requests. So each request has the groups that begin within its share of what was found, and of
these its limit: none goes without.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final, LiteralString

from headrace.queue import limits
from headrace.queue.model import Delivery
from headrace.queue.store.postgres import redriving, rows
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.leasing import LEASE, delivery_of
from headrace.queue.store.postgres.transaction import Cursor, Transaction

ENDED: Final[LiteralString] = "SELECT FROM message_group WHERE queue = %(queue)s AND busy_ms > 0 AND busy_ms <= %(now)s"
FREE: Final[LiteralString] = """
    SELECT queue, name, head FROM message_group
    WHERE queue = %(queue)s AND busy_ms = 0 AND head > 0 AND head_sent_ms <= %(shown)s
    ORDER BY queue, head_sent_ms, head
"""
_NEVER: Final = 1 << 31  # no message is received so often

# The executor locks a group when those before have not had enough messages. `at`: a message's place in its group. The queue
# comes with each message: named once more, it would let a plan that is made while the tables are empty look through all of it.
_LEASE: Final[LiteralString] = f"""
WITH found AS MATERIALIZED (
    SELECT free.queue, free.name, m.seq, m.sent_ms, m.at, octet_length({rows.BODY}) AS size,
        (m.at > 1 OR m.seq = free.head) AND m.sent_ms <= %(shown)s AND m.sent_ms > %(oldest)s AND m.receives < %(dead)s AS plain
    FROM ({FREE} FOR UPDATE SKIP LOCKED) free CROSS JOIN LATERAL (
        SELECT *, row_number() OVER (ORDER BY seq) AS at FROM message
        WHERE queue = %(queue)s AND grp = free.name AND seq >= greatest(free.head, %(floor)s) ORDER BY seq LIMIT %(each)s
    ) m LIMIT %(all)s
), placed AS (
    SELECT *, row_number() OVER () AS place FROM found
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY (place - at) / %(each)s ORDER BY place) AS nth FROM placed
), taken AS MATERIALIZED (
    SELECT queue, name, seq, sent_ms, at, place, (place - at) / %(each)s AS wish FROM numbered
    WHERE nth <= %(each)s AND NOT EXISTS ({ENDED}) AND (SELECT bool_and(plain) AND sum(size) <= %(bytes)s FROM found)
), held AS (
    UPDATE message_group g SET head = first.head, head_sent_ms = first.head_sent_ms, busy_ms = %(until)s,
        taken = greatest(g.taken, first.last), reader = NULL
    FROM (
        SELECT queue, name, min(seq) AS head, min(sent_ms) FILTER (WHERE at = 1) AS head_sent_ms, max(seq) AS last
        FROM taken GROUP BY queue, name
    ) AS first WHERE g.queue = first.queue AND g.name = first.name
)
{LEASE} FROM taken WHERE m.queue = taken.queue AND m.seq = taken.seq
RETURNING {rows.COLUMNS}, m.receives, m.first_ms, taken.wish, taken.place
"""  # noqa: S608 - our own text


def lease(tx: Transaction, queue: StoredQueue, *, limit: int, room: int, visibility_ms: int) -> Cursor:
    """Send it. `limit`: what a request is given at most; `room`: what all of them are."""
    settings, now = queue.info.settings, tx.now
    redrive = settings.redrive if redriving.target_of(tx, queue) is not None else None
    known: dict[str, Any] = {
        "queue": queue.number, "now": now, "until": now + visibility_ms, "shown": queue.shown_ms(now), "floor": queue.floor,
        "oldest": now - settings.retention_ms, "dead": redrive.receives_max if redrive is not None else _NEVER,
        "bytes": limits.NATIVE_BATCH_BYTES_MAX, "each": limit, "all": room,
    }  # fmt: skip
    return tx.execute(_LEASE, known)


def read(queue: StoredQueue, cursor: Cursor) -> list[tuple[int, Delivery]]:
    """What is leased, in order: which request's it is, and the delivery."""
    found = sorted(cursor.fetchall(), key=itemgetter(-1))
    return [(row[-2], delivery_of(queue, row[:-2])) for row in found]
