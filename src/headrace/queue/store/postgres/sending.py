"""Sending: the entries of all requests, whatever their queues, are one insert."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, LiteralString

from headrace.errors import CallerError
from headrace.queue.model import Entry, Sent
from headrace.queue.operations import Send
from headrace.queue.store.checks import check_batch, check_entry
from headrace.queue.store.postgres.arrays import Blobs, Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.transaction import Answers, Cursor, Transaction, answer

_INSERT: Final[LiteralString] = """
INSERT INTO message (queue, seq, visible_ms, sent_ms, due_ms, id, body, attributes, grp, trace, sender, source)
SELECT queue, nextval('message_seq'), coalesce(due_ms, 0), %s, due_ms, id, body, attributes, grp, trace, sender, source
FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s)
    AS entry (queue, due_ms, id, body, attributes, grp, trace, sender, source)
RETURNING seq
"""


class New:
    """Messages of standard queues that are to be stored, gathered over the requests of a batch."""

    def __init__(self, now: int) -> None:
        self._now = now
        self.numbers: list[int] = []
        self.due: list[int | None] = []
        self.entries: list[Entry] = []

    def add(self, queue: StoredQueue, entry: Entry) -> int:
        """Returns its place: `ids` and the rows of `insert` are in this order."""
        delay_ms = queue.info.settings.delay_ms if entry.delay_ms is None else entry.delay_ms
        self.numbers.append(queue.number)
        self.due.append(self._now + delay_ms if delay_ms else None)
        self.entries.append(entry)
        return len(self.entries) - 1

    def insert(self, tx: Transaction) -> Cursor:
        """Send the insert; it answers the seqs, which rise in order. `ids` are known from now on."""
        chance = os.urandom(16 * len(self.entries))
        self.ids = [chance[at : at + 16] for at in range(0, len(chance), 16)]
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
                self._now, Ints(self.numbers), Ints(self.due), Blobs(self.ids), Blobs([one.body for one in entries]),
                Blobs([one.attributes or None for one in entries]), Texts([one.group for one in entries]),
                Texts([one.trace for one in entries]), Texts([one.sender for one in entries]),
                Texts([one.source for one in entries]),
            ),
        )  # fmt: skip


def send(tx: Transaction, operations: Sequence[Send]) -> Answers:
    new = New(tx.now)
    planned = [answer(lambda tx, one: _plan(tx, new, one), tx, operation) for operation in operations]
    if not new.entries:
        return planned
    cursor = new.insert(tx)
    yield
    seqs = [seq for (seq,) in cursor.fetchall()]
    sent = [Sent(id_, seq) for id_, seq in zip(new.ids, seqs, strict=True)]
    return [
        [sent[place] if isinstance(place, int) else place for place in places] if isinstance(places, list) else places
        for places in planned
    ]


def _plan(tx: Transaction, new: New, operation: Send) -> list[Any]:
    """For each entry its place among the new messages, or its error."""
    queue = tx.catalog.queue(operation.queue)
    check_batch(operation.entries)
    places: list[int | CallerError] = []
    for entry in operation.entries:
        try:
            check_entry(queue.info.settings, entry)
        except CallerError as error:
            places.append(error)
        else:
            places.append(new.add(queue, entry))
    return places
