"""Whether the database takes commits: asked every few seconds, by a commit of nothing that is synced like a send.

To read would not do: a primary whose standby is gone reads well and commits nothing, and so does one that another has
replaced. The same look ends transactions of nodes that hang, whose locks others wait for, and breaks off connections of this node
at whose other end nobody works for it: what was sent or answered is lost, in a network that says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, LiteralString

from headrace.queue.operations import Operation
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.lane import Lane
from headrace.queue.store.postgres.transaction import Transaction

EACH_S: Final = 2.0
LATE_S: Final = 5.0  # as long as batches wait for a database that is away
FROZEN_S: Final = 10
"""A node that is paused in the middle of a transaction keeps its locks until it is told that it has lost them."""

SILENT_S: Final = 10.0
"""So long a lane has waited when the server is asked whether it works for it: a large batch may be on its way for seconds."""

# A node between two statements of a pipeline: for the server it is active, and waits for the client. So is a COPY.
_END_FROZEN: Final[LiteralString] = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = current_setting('application_name')
    AND state = 'active' AND wait_event = 'ClientRead' AND pid <> pg_backend_pid()
    AND query NOT LIKE 'COPY%%' AND query_start < clock_timestamp() - make_interval(secs => %s)
"""


# These wait for a client that waits for them, or are not there.
_UNHEARD: Final[LiteralString] = """
SELECT mine.pid FROM unnest(%s) AS mine (pid) LEFT JOIN pg_stat_activity a ON a.pid = mine.pid
WHERE a.pid IS NULL OR a.state <> 'active' OR a.wait_event = 'ClientRead'
"""


class Pulse:
    """Of one lane, which does nothing else, for itself and others. `beat` runs in a thread; `due` and `trouble` may be asked for in
    any."""

    def __init__(self, lane: Lane, now_s: Callable[[], float] = time.monotonic, *, others: Iterable[Lane] = ()) -> None:
        self._lane = lane
        self._others = list(others)
        self._now_s = now_s
        self._trouble: str | None = None
        self._beaten_s = -EACH_S
        self._began_s: float | None = None

    def due(self) -> bool:
        return self._now_s() >= self._beaten_s + EACH_S

    def beat(self) -> None:
        """Commit. Raises nothing."""
        self._beaten_s = self._began_s = self._now_s()
        (batch,) = self._lane.run([], self._commit)
        self._began_s = None
        self._trouble = None if batch.transaction is not None else "the database takes no commits"

    def trouble(self) -> str | None:
        """What is wrong with the database, or None."""
        began_s = self._began_s
        if began_s is not None and self._now_s() > began_s + LATE_S:
            return f"the database has not answered for {LATE_S:g} s"
        return self._trouble

    def _commit(self, tx: Transaction, operations: Sequence[Operation]) -> list[Any]:
        waiting = [connection for lane in self._others if (connection := lane.waits_for(SILENT_S)) is not None]
        by_pid = {connection.pid: connection for connection in waiting}
        tx.execute(_END_FROZEN, (FROZEN_S,))
        if by_pid:
            for (pid,) in tx.execute(_UNHEARD, (Ints(by_pid),)).fetchall():
                by_pid[pid].break_off()
        tx.wrote()
        return list(operations)
