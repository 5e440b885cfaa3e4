"""The one statement that serves most receives from a FIFO queue: it locks free groups, shares their first messages out, leases
them, and holds the groups.

It gives nothing where rules must judge: a message has expired or is dead, bodies are long, or the lease of a group's head has
ended. Then `fifo.py` does it step by step.

What a group may give is stated here, for all who receive or claim: its messages from the head on, up to the first that is in
flight or not shown yet.

A statement sees the messages as they were when it began, but the groups as they are when they are locked. What others have
done in a group between is committed. Whoever hides a message writes the group's row (`groups.py`), so a group is passed over
whose row is another version than the statement would see without the lock. If it is the same one, the head is still there;
a message behind it may be gone, and is then not leased; what is new comes behind those that are seen.

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


def free_groups(among: LiteralString = "true") -> LiteralString:
    """The groups whose first message may be received, in their turn. `among`: what else holds of them."""
    return f"""
    SELECT ctid AS at, queue, name, head FROM message_group
    WHERE queue = %(queue)s AND busy_ms = 0 AND head > 0 AND head_sent_ms <= %(shown)s AND {among}
    ORDER BY queue, turn
"""  # noqa: S608 - our own text, here and below


FREE: Final[LiteralString] = free_groups()


def first_messages(groups: LiteralString) -> LiteralString:
    """The tables `locked` and `m` of a FROM: groups that are locked now, and of each the messages that it may give.

    Args:
        groups: a query of groups: (at: the row's place, queue, name, head: the first message that is looked at). What makes a
            group one of them has made its head visible, too, whatever this node's clock says.
    """
    return f"""({groups} SKIP LOCKED) locked CROSS JOIN LATERAL (
        SELECT FROM message_group WHERE ctid = locked.at LIMIT 1
    ) unchanged CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT *, row_number() OVER until_here AS at,
                bool_and(visible_ms <= %(now)s AND sent_ms <= %(shown)s OR seq = locked.head) OVER until_here AS is_open
            FROM message WHERE queue = %(queue)s AND grp = locked.name AND seq >= greatest(locked.head, %(floor)s)
            WINDOW until_here AS (ORDER BY seq ROWS UNBOUNDED PRECEDING) ORDER BY seq LIMIT %(each)s
        ) first WHERE is_open
    ) m"""  # noqa: S608


_NEVER: Final = 1 << 31  # no message is received so often

# The executor locks a group when those before have not had enough messages. `at`: a message's place in its group. The queue
# comes with each message: named once more, it would let a plan that is made while the tables are empty look through all of it.
_LEASE: Final[LiteralString] = f"""
WITH found AS MATERIALIZED (
    SELECT locked.queue, locked.at AS group_at, m.seq, m.sent_ms, m.at, octet_length({rows.BODY}) AS size,
        (m.at > 1 OR m.seq = locked.head) AND m.sent_ms > %(oldest)s AND m.receives < %(dead)s AS plain
    FROM {first_messages(FREE + " FOR UPDATE")} LIMIT %(all)s
), placed AS (
    SELECT *, row_number() OVER () AS place FROM found
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY (place - at) / %(each)s ORDER BY place) AS nth FROM placed
), taken AS MATERIALIZED (
    SELECT queue, group_at, seq, sent_ms, at, place, (place - at) / %(each)s AS wish FROM numbered
    WHERE nth <= %(each)s AND NOT EXISTS ({ENDED}) AND (SELECT bool_and(plain) AND sum(size) <= %(bytes)s FROM found)
), served AS MATERIALIZED (
    SELECT *, nextval('message_seq') AS turn FROM (SELECT group_at, seq, sent_ms FROM taken WHERE at = 1 ORDER BY place) head
), held AS (
    UPDATE message_group g SET head = served.seq, head_sent_ms = served.sent_ms, busy_ms = %(busy)s, turn = served.turn,
        reader = NULL
    FROM served WHERE g.ctid = served.group_at
)
{LEASE} FROM taken WHERE m.queue = taken.queue AND m.seq = taken.seq
RETURNING {rows.COLUMNS}, m.receives, m.first_ms, taken.wish, taken.place
"""  # noqa: S608


def lease(tx: Transaction, queue: StoredQueue, *, limit: int, room: int, visibility_ms: int) -> Cursor:
    """Send it. `limit`: what a request is given at most; `room`: what all of them are."""
    settings, now = queue.info.settings, tx.now
    redrive = settings.redrive if redriving.target_of(tx, queue) is not None else None
    known: dict[str, Any] = {
        "queue": queue.number, "now": now, "shown": queue.shown_ms(now), "floor": queue.floor,
        "until": now + visibility_ms, "busy": now + visibility_ms if visibility_ms else 0,
        "oldest": now - settings.retention_ms, "dead": redrive.receives_max if redrive is not None else _NEVER,
        "bytes": limits.NATIVE_BATCH_BYTES_MAX, "each": limit, "all": room,
    }  # fmt: skip
    return tx.execute(_LEASE, known)


def read(queue: StoredQueue, cursor: Cursor) -> list[tuple[int, Delivery]]:
    """What is leased, in order: which request's it is, and the delivery."""
    found = sorted(cursor.fetchall(), key=itemgetter(-1))
    return [(row[-2], delivery_of(queue, row[:-2])) for row in found]
