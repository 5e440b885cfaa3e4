"""Moving marks up (`marks.py` says what they are): two or three statements, several times a second while a node receives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, LiteralString

from headrace.queue import limits
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.marks import FRONT, LATE_MS, Mark, Noted, mark_of
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

AFRESH_EACH_MS: Final = limits.MINUTE_MS
AFRESH_MAX_S: Final = 1.0  # a look from the front that takes longer is made no more: it is what marks are there to save

_DRAWN: Final[LiteralString] = "SELECT coalesce(pg_sequence_last_value('message_seq'), 0)"
# Who has drawn from the sequence keeps its lock until its end, as who has written keeps the table's.
# In this database: in one that was made from the same template, tables have the same numbers.
_HERE: Final[LiteralString] = """
database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relation IN ('message'::regclass, 'message_seq'::regclass)
"""
_WRITERS: Final[LiteralString] = f"""
SELECT DISTINCT virtualtransaction FROM pg_locks WHERE {_HERE} AND mode = 'RowExclusiveLock'
    AND pid IS DISTINCT FROM pg_backend_pid() -- it is null of a prepared transaction
"""  # noqa: S608 - our own text, here and below
_LEFT: Final[LiteralString] = f"SELECT count(*) FROM pg_locks WHERE virtualtransaction = ANY (%s) AND {_HERE}"  # noqa: S608
_FIRST: Final[LiteralString] = """
SELECT asked.queue,
    (SELECT m.seq FROM message m WHERE m.queue = asked.queue AND m.visible_ms = 0 AND m.seq >= asked.seq
        ORDER BY m.seq LIMIT 1),
    (SELECT m.seq FROM message m WHERE m.queue = asked.queue AND m.visible_ms > 0 AND m.visible_ms = %s AND m.seq >= asked.seq
        ORDER BY m.seq LIMIT 1),
    (SELECT m.visible_ms FROM message m WHERE m.queue = asked.queue AND m.visible_ms > 0 AND m.visible_ms >= asked.ms
        AND m.visible_ms <= %s ORDER BY m.visible_ms LIMIT 1)
FROM unnest(%s, %s, %s) AS asked (queue, seq, ms)
"""


def move(tx: Transaction) -> None:
    """Move the marks up as far as they may go, and note from where the next move may begin."""
    marks = tx.known.marks
    if not marks.due(tx.now):
        return
    era, noted = marks.era, marks.begin(tx.now)
    if noted is not None:
        if noted.writers and _count(tx, noted.writers):
            return
        marks.move(noted, _look(tx, noted))
    drawn = tx.execute(_DRAWN)  # first: who draws later draws more
    writers = [name for (name,) in tx.execute(_WRITERS).fetchall()]
    ((seq,),) = drawn.fetchall()
    marks.note(Noted(era, seq, tx.now, writers))


def _count(tx: Transaction, writers: Sequence[str]) -> int:
    """How many of them are not at their end."""
    row = tx.execute(_LEFT, (Texts(writers),)).fetchone()
    assert row is not None
    left: int = row[0]
    return left


def _look(tx: Transaction, noted: Noted) -> dict[int, Mark]:
    """The marks of the queues that are received from, by what is there now."""
    marks = tx.known.marks
    afresh = marks.afresh_ms is not None and tx.now >= marks.afresh_ms
    queues = marks.wanted(tx.now)
    before = [FRONT if afresh else marks.known(queue) for queue in queues]
    columns = Ints(queues), Ints([mark.seq for mark in before]), Ints([mark.ms for mark in before])
    began_s = time.monotonic()
    rows = tx.execute(_FIRST, (CLAIMED_MS, noted.ms - LATE_MS, *columns)).fetchall()
    if afresh:
        fast = time.monotonic() - began_s < AFRESH_MAX_S
        marks.afresh_ms = tx.now + AFRESH_EACH_MS if fast else None
    return {queue: mark_of(noted, fresh, claimed, again_ms) for queue, fresh, claimed, again_ms in rows}
