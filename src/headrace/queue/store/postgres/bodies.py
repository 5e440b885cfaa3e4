"""Bodies that are stored once, and when they may go: in front of a topic's log, in the pool, or of a topic that is gone, and
no message refers to them.

New references are made in the commit that stores a body, or while it is in a log: so one that nobody refers to now, and that
is in no log, stays so.
"""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec

from headrace.queue import limits
from headrace.queue.store.postgres.publishing import POOL
from headrace.queue.store.postgres.transaction import Transaction

_BEFORE_ALL: Final = -1 << 31
PAUSE_MS: Final = limits.SECOND_MS  # others' upkeep may be more urgent: a queue that catches up comes each 20 ms
SLICE: Final = 2_000  # bodies that one look asks about: an index entry of `message` each, some 10 ms

# Not a join: whatever the planner thinks of how many there are, each is looked up in the index.
_FREE: Final[LiteralString] = """
WITH lot AS MATERIALIZED (
    SELECT p.seq, (SELECT 1 FROM message m WHERE m.body_topic = p.topic AND m.body_seq = p.seq LIMIT 1) AS used
    FROM published p WHERE p.topic = %(topic)s AND p.seq > %(after)s
        AND p.seq < coalesce((SELECT first FROM topic WHERE id = %(topic)s), 9223372036854775807)
    ORDER BY p.seq LIMIT %(limit)s
), gone AS (
    DELETE FROM published p USING lot WHERE p.topic = %(topic)s AND p.seq = lot.seq AND lot.used IS NULL RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM lot), (SELECT max(seq) FROM lot)
"""
_NEXT: Final[LiteralString] = """
SELECT id FROM (SELECT id, first AS bound FROM topic UNION ALL SELECT id, 9223372036854775807 FROM deleted_topic) AS t
WHERE id > %s AND EXISTS (SELECT FROM published p WHERE p.topic = t.id AND p.seq < t.bound) ORDER BY id LIMIT 1
"""
_FORGET: Final[LiteralString] = """
DELETE FROM deleted_topic d WHERE NOT EXISTS (SELECT FROM published p WHERE p.topic = d.id) RETURNING id
"""


class Round(msgspec.Struct):
    """When this node looks again; and how far it has looked: the topic whose turn it was; a topic -> the seq up to which it was
    looked through."""

    due_ms: int = 0
    topic: int = _BEFORE_ALL
    looked: dict[int, int] = {}

    def at_start(self) -> bool:
        """Whether no round is half done."""
        return not self.looked and self.topic == _BEFORE_ALL


class Found(msgspec.Struct, frozen=True):
    """How many bodies were deleted, how many looked at, and the seq of the last one of these."""

    freed: int
    seen: int
    last: int


def free(tx: Transaction, round_: Round) -> bool:
    """Delete a slice of what nobody refers to: of the pool, and of one topic in turn; once a second, or again at once while
    there is much to delete."""
    if tx.now < round_.due_ms:
        return False
    more = _free(tx, POOL, round_)
    row = tx.execute(_NEXT, (round_.topic,)).fetchone()
    round_.topic = row[0] if row is not None else _BEFORE_ALL
    if row is not None:
        more |= _free(tx, row[0], round_)
    elif tx.execute(_FORGET).fetchone() is not None:
        tx.wrote(durable=False)
    round_.due_ms = tx.now if more else tx.now + PAUSE_MS
    return more


def _free(tx: Transaction, topic: int, round_: Round) -> bool:
    """A slice of a round over all, and the front again each time: consumers mostly free what is oldest."""
    front = found = _slice(tx, topic, 0)
    after = round_.looked.get(topic, 0)
    if found.seen == SLICE and after >= found.last:
        found = _slice(tx, topic, after)
    if found.seen == SLICE:
        round_.looked[topic] = found.last
    else:
        round_.looked.pop(topic, None)
    return 2 * max(front.freed, found.freed) >= SLICE


def _slice(tx: Transaction, topic: int, after: int) -> Found:
    row = tx.execute(_FREE, {"topic": topic, "after": after, "limit": SLICE}).fetchone()
    assert row is not None
    found = Found(*row)
    if found.freed:
        tx.wrote(durable=False)
    return found
