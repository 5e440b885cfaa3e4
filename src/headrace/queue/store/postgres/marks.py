"""How far back a receive need not look: below a queue's mark there is nothing for it.

An index keeps the entries of messages that have gone until vacuum, and vacuum waits for the oldest snapshot of the database. A
receive that begins at the front passes over all of them: behind a `pg_dump` of an hour each would read millions of entries
for a few messages. So each node keeps two marks a queue that it receives from, moved up several times a second:

    seq   no message below it that was never received
    ms    no message that was visible again before it

A mark is safe, also against a seq that was drawn long ago and is committed now: first it is noted where the sequence stands, and
then who may have drawn from it or written messages and is not at its end: everybody with a lock on either. When the last of
them has ended, all that they have written is seen, and what others write is above what was noted. The clock of a node that
writes may be late by up to LATE_MS. Released claims go back to where they were: what is claimed counts as not received.

A database that has crashed may have lost leases, so what was taken is there again: a node's marks are forgotten with each
connection that it makes. And each minute a look from the very front corrects whatever should be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Final

import msgspec

from headrace.queue import limits

MOVE_EACH_MS: Final = 200  # what goes meanwhile is passed over: at 10,000 messages a second some thousand entries
LATE_MS: Final = 2_000  # a node that stands still between its clock and its statement; clocks differ by far less
ASKED_MS: Final = 2 * limits.SECOND_MS  # so long after a receive: where little goes, marks that are old are as good
QUEUES_MAX: Final = 200  # of one move: those that were asked for last

KEPT_MAX: Final = 10_000  # queues; nobody tells which of them are deleted


class Mark(msgspec.Struct, frozen=True):
    """Of one queue: a receive looks at what is at or above it."""

    seq: int = 0
    ms: int = 0


class Noted(msgspec.Struct, frozen=True):
    """A moment: up to where seqs were drawn, and who may still write below that, or with an earlier time.

    `era`: which of the node's sets of connections it was; marks of an earlier one are worth nothing.
    """

    era: int
    seq: int
    ms: int
    writers: Sequence[str]


FRONT: Final = Mark()


class Marks:
    """One node's, by the numbers of queues. Thread-safe: lanes ask, the upkeep moves, whoever connects forgets."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._marks: dict[int, Mark] = {}
        self._asked: dict[int, int] = {}  # when the mark was wanted last
        self._moved_ms = 0
        self.era = 0
        self.noted: Noted | None = None
        self.afresh_ms: int | None = 0  # when the next look from the front is due; None: never

    def of(self, queue: int, now: int) -> Mark:
        """A queue's mark; asking keeps it moving."""
        self._asked[queue] = now
        return self._marks.get(queue, FRONT)

    def known(self, queue: int) -> Mark:
        """A queue's mark, as it is."""
        return self._marks.get(queue, FRONT)

    def forget(self) -> None:
        """Look at everything again, from the front."""
        with self._lock:
            self.era += 1
            self._marks, self.noted, self.afresh_ms = {}, None, 0

    def due(self, now: int) -> bool:
        """Whether a move would be of use."""
        return now >= self._moved_ms + MOVE_EACH_MS and any(ms + ASKED_MS > now for ms in list(self._asked.values()))

    def begin(self, now: int) -> Noted | None:
        """A move begins. Returns from what moment."""
        self._moved_ms = now
        return self.noted

    def wanted(self, now: int) -> list[int]:
        """The queues whose marks are to be moved."""
        for queue in [queue for queue, ms in list(self._asked.items()) if ms + ASKED_MS <= now]:
            self._asked.pop(queue, None)
        return sorted(self._asked, key=lambda queue: -self._asked[queue])[:QUEUES_MAX]

    def note(self, noted: Noted) -> None:
        """The moment from which the next move goes."""
        with self._lock:
            if self.era == noted.era:
                self.noted = noted

    def move(self, noted: Noted, marks: dict[int, Mark]) -> None:
        """These from now on, unless the node has connected since."""
        with self._lock:
            if self.era == noted.era:
                kept = self._marks if len(self._marks) < KEPT_MAX else {}
                self._marks = {**kept, **marks}


def mark_of(noted: Noted, fresh: int | None, claimed: int | None, again_ms: int | None) -> Mark:
    """Below what was found first, and below all that may come."""
    seqs = [seq for seq in (noted.seq + 1, fresh, claimed) if seq is not None]
    times = [ms for ms in (noted.ms - LATE_MS, again_ms) if ms is not None]
    return Mark(min(seqs), max(0, min(times)))
