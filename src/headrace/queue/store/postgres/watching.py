"""Looking into watched queues: whether something is visible, and when the next will be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, LiteralString

from headrace.queue.store.postgres import groups
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

_LOOK: Final[LiteralString] = """
SELECT asked.queue,
    EXISTS (SELECT FROM message m WHERE m.queue = asked.queue AND m.visible_ms = 0 AND m.seq >= asked.fresh_from)
        OR EXISTS (SELECT FROM message m
            WHERE m.queue = asked.queue AND m.visible_ms > 0 AND m.visible_ms >= asked.since AND m.visible_ms <= %s
                AND m.seq >= asked.floor),
    (SELECT min(m.visible_ms) FROM message m
        WHERE m.queue = asked.queue AND m.visible_ms > 0 AND m.visible_ms > %s AND m.visible_ms < %s)
FROM unnest(%s, %s, %s, %s) AS asked (queue, floor, fresh_from, since)
"""


def look(tx: Transaction, queues: Sequence[int]) -> dict[int, int | None]:
    """Mark the queues that have something as ready. Returns when each will have its next, None: nothing is due."""
    known = tx.catalog.by_number
    fifo = {number for number in queues if number in known and known[number].info.settings.fifo}
    standard = [number for number in queues if number not in fifo]
    floors = [known[number].floor if number in known else 0 for number in standard]
    marks = [tx.known.marks.known(number) for number in standard]
    fresh_from = [max(mark.seq, floor) for mark, floor in zip(marks, floors, strict=True)]
    columns = Ints(standard), Ints(floors), Ints(fresh_from), Ints([mark.ms for mark in marks])
    asked = tx.now, tx.now, CLAIMED_MS, *columns
    rows = tx.execute(_LOOK, asked).fetchall() if standard else []
    rows += groups.look(tx, [known[number] for number in sorted(fifo)])
    tx.ready.update(queue for queue, ready, _ in rows if ready)
    return {queue: next_ms for queue, _, next_ms in rows}
