"""One turn of a node's upkeep, a transaction: look into watched queues, move their marks, maintain a slice, tell totals, measure the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import msgspec

from headrace.queue import limits
from headrace.queue.operations import Operation
from headrace.queue.store.postgres import maintenance, marking, totals, watching
from headrace.queue.store.postgres.known import LIVES_EACH_MS, Sums
from headrace.queue.store.postgres.transaction import Transaction

MEASURE_EACH_MS: Final = limits.MINUTE_MS  # asks the file system for each table and index

_SIZE: Final[LiteralString] = """
SELECT sum(pg_total_relation_size(oid))::bigint, (SELECT count(*) FROM node WHERE told_ms > %s) FROM pg_class
WHERE relnamespace = 'headrace'::regnamespace AND relkind IN ('r', 'p')
"""


class Turn(msgspec.Struct):
    """What is to be done, and what came of it (the latter as of the last try).

    Attributes:
        due: queues to look into.
        memory: of maintenance, if a slice of it is due.
        sums: to be told, None: not now.
        measures: whether the store's size, and how many nodes there are, is asked for.
        seen: what looking has found: queue -> when its next is due.
        next_ms: when maintenance goes on.
        size_bytes: how large the store is.
    """

    due: Sequence[int]
    memory: maintenance.Memory | None
    sums: list[tuple[int, Sums]] | None
    measures: bool
    seen: dict[int, int | None] = {}
    next_ms: int | None = None
    size_bytes: int | None = None

    def run(self, tx: Transaction, _: Sequence[Operation]) -> list[Any]:
        self.seen = watching.look(tx, self.due)
        marking.move(tx)
        if self.sums is not None:
            totals.tell(tx, self.sums)
        if self.measures:
            ((self.size_bytes, tx.known.nodes),) = tx.execute(_SIZE, (tx.now - 2 * LIVES_EACH_MS,)).fetchall()
        if self.memory is not None:
            self.next_ms = maintenance.run(tx, self.memory)
        return []
