"""New messages: those of all requests of a batch, whatever their queues, are one insert."""

from __future__ import annotations

import os
from typing import Final, LiteralString

from headrace.queue.model import Entry
from headrace.queue.store.postgres.arrays import Blobs, Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.transaction import Cursor, Transaction

_INSERT: Final[LiteralString] = """
INSERT INTO message (queue, seq, visible_ms, sent_ms, due_ms, id, body, attributes, grp, trace, sender, source,
    body_topic, body_seq)
SELECT queue, nextval('message_seq'), coalesce(due_ms, 0), %s, due_ms, id, body, attributes, grp, trace, sender, source,
    body_topic, body_seq
FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    AS entry (queue, due_ms, id, body, attributes, grp, trace, sender, source, body_topic, body_seq)
RETURNING seq
"""


class New:
    """Messages of standard queues that are to be stored, gathered over the requests of a batch."""

    def __init__(self, now: int) -> None:
        self._now = now
        self.numbers: list[int] = []
        self.due: list[int | None] = []
        self.entries: list[Entry] = []
        self._copied: dict[int, bytes] = {}  # place -> id
        self._shared: dict[int, tuple[int, int]] = {}  # place -> where its body is in `published`

    def add(self, queue: StoredQueue, entry: Entry) -> int:
        """Returns its place: `ids` and the rows of `insert` are in this order."""
        delay_ms = queue.info.settings.delay_ms if entry.delay_ms is None else entry.delay_ms
        return self._add(queue, entry, self._now + delay_ms if delay_ms else None)

    def add_copy(
        self, queue: StoredQueue, id_: bytes, entry: Entry, due_ms: int | None, shared: tuple[int, int] | None
    ) -> int:
        """Add a message that has an id, and is hidden until `due_ms`. `shared`: its body is in `published`, there."""
        place = self._add(queue, entry, due_ms)
        self._copied[place] = id_
        if shared is not None:
            self._shared[place] = shared
        return place

    def _add(self, queue: StoredQueue, entry: Entry, due_ms: int | None) -> int:
        self.numbers.append(queue.number)
        self.due.append(due_ms)
        self.entries.append(entry)
        return len(self.entries) - 1

    def insert(self, tx: Transaction) -> Cursor:
        """Send the insert; it answers the seqs, which rise in order. `ids` are known from now on."""
        chance = os.urandom(16 * len(self.entries))
        self.ids = [chance[at : at + 16] for at in range(0, len(chance), 16)]
        for place, id_ in self._copied.items():
            self.ids[place] = id_
        entries = self.entries
        tx.wrote()
        for number, due in zip(self.numbers, self.due, strict=True):
            tx.count(number, "sent")
            if due is None:
                tx.ready.add(number)
            else:
                tx.due_at(number, due)
        return tx.execute(
            _INSERT,
            (
                self._now, Ints(self.numbers), Ints(self.due), Blobs(self.ids), Blobs(self._bodies()),
                Blobs([one.attributes or None for one in entries]), Texts([one.group for one in entries]),
                Texts([one.trace for one in entries]), Texts([one.sender for one in entries]),
                Texts([one.source for one in entries]), *self._places(),
            ),
        )  # fmt: skip

    def _bodies(self) -> list[bytes | None]:
        if not self._shared:
            return [one.body for one in self.entries]
        return [one.body if place not in self._shared else None for place, one in enumerate(self.entries)]

    def _places(self) -> tuple[Ints, Ints]:
        if not self._shared:
            return Ints(()), Ints(())
        places = [self._shared.get(place, (None, None)) for place in range(len(self.entries))]
        return Ints([topic for topic, _ in places]), Ints([seq for _, seq in places])
