"""New messages: those of all requests of a batch, whatever their queues, are one insert; those of FIFO queues another, behind
the lock of their groups."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable
from typing import Final, LiteralString

from headrace.queue import limits
from headrace.queue.model import Entry, Message, Sent
from headrace.queue.store.postgres import dedup, groups
from headrace.queue.store.postgres.arrays import Blobs, Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.transaction import Cursor, Transaction

_INSERT: Final[LiteralString] = """
INSERT INTO message (queue, seq, visible_ms, sent_ms, due_ms, id, body, attributes, grp, trace, sender, source,
    body_topic, body_seq)
SELECT queue, nextval('message_seq'), coalesce(due_ms, 0), %(now)s, due_ms, id, body, attributes, grp, trace, sender, source,
    body_topic, body_seq
FROM unnest(%(queues)s, %(due)s, %(ids)s, %(bodies)s, %(attributes)s, %(groups)s, %(traces)s, %(senders)s, %(sources)s,
    %(topics)s, %(places)s)
    AS entry (queue, due_ms, id, body, attributes, grp, trace, sender, source, body_topic, body_seq)
RETURNING seq
"""
# Numbered in their order, keys taken in that of the keys: so that nodes do not deadlock. `IS TRUE` keeps the look into
# `fresh` a hashed one: as a join it would be a loop in a loop. A key whose message was purged is free again. A group that is
# new gets its head. A row an entry, in order.
_INSERT_FIFO: Final[LiteralString] = """
WITH entry AS MATERIALIZED (
    SELECT *, nextval('message_seq') AS seq
    FROM unnest(%(queues)s, %(ids)s, %(bodies)s, %(attributes)s, %(groups)s, %(traces)s, %(senders)s, %(sources)s,
        %(topics)s, %(places)s, %(dedup_ids)s, %(keys)s)
        AS entry (queue, id, body, attributes, grp, trace, sender, source, body_topic, body_seq, dedup_id, key)
), fresh AS (
    INSERT INTO dedup AS d (queue, key, expires_ms, seq, id)
    SELECT queue, key, %(expires)s, seq, id FROM entry WHERE key IS NOT NULL ORDER BY queue, key
    ON CONFLICT (queue, key) DO UPDATE SET expires_ms = excluded.expires_ms, seq = excluded.seq, id = excluded.id
        WHERE d.expires_ms <= %(now)s OR d.seq < (SELECT q.floor FROM queue q WHERE q.id = d.queue)
    RETURNING d.seq
), judged AS MATERIALIZED (
    SELECT *, key IS NULL OR (seq IN (SELECT seq FROM fresh)) IS TRUE AS is_new FROM entry
), headed AS (
    UPDATE message_group g SET head = first.seq, head_sent_ms = %(now)s, turn = first.seq
    FROM (SELECT queue, grp, min(seq) AS seq FROM judged WHERE is_new GROUP BY queue, grp) AS first
    WHERE g.queue = first.queue AND g.name = first.grp AND g.head = 0
), inserted AS (
    INSERT INTO message (queue, seq, visible_ms, sent_ms, id, body, attributes, grp, trace, sender, source, body_topic,
        body_seq, dedup_id)
    SELECT queue, seq, 0, %(now)s, id, body, attributes, grp, trace, sender, source, body_topic, body_seq, dedup_id
    FROM judged WHERE is_new
)
SELECT seq, is_new FROM judged
"""


class New:
    """Messages that are to be stored, gathered over the requests of a batch."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._queues: list[StoredQueue] = []
        self._due: list[int | None] = []
        self.entries: list[Entry] = []
        self._copied: dict[int, bytes] = {}  # place -> id
        self._shared: dict[int, tuple[int, int]] = {}  # place -> where its body is in `published`
        self._keys: dict[int, bytes] = {}  # place -> its dedup key, if it is deduplicated
        self._firsts: dict[dedup.Key, int] = {}  # dedup key -> the first place in this batch that has it
        self._ids: list[bytes] = []

    def add(self, queue: StoredQueue, entry: Entry) -> int:
        """Returns its place in what `store` answers. Raises, of a FIFO queue, if it has no group or no dedup id."""
        settings, place = queue.info.settings, len(self.entries)
        if settings.fifo:
            self._keys[place] = key = dedup.digest_of(settings, entry)
            self._firsts.setdefault((queue.number, key), place)
        delay_ms = settings.delay_ms if entry.delay_ms is None else entry.delay_ms
        return self._add(queue, entry, self._now + delay_ms if delay_ms else None)

    def add_copy(
        self, queue: StoredQueue, message: Message, due_ms: int | None, shared: tuple[int, int] | None
    ) -> None:
        """Add a topic's message, with its id, hidden until `due_ms`; it is not deduplicated. `shared`: its body is in
        `published`, there."""
        dedup_id = message.dedup_id if queue.info.settings.fifo else None
        entry = Entry(message.body, message.attributes, None, message.group, dedup_id, message.trace, message.sender)
        place = self._add(queue, entry, due_ms)
        self._copied[place] = message.id
        if shared is not None:
            self._shared[place] = shared

    def _add(self, queue: StoredQueue, entry: Entry, due_ms: int | None) -> int:
        self._queues.append(queue)
        self._due.append(due_ms)
        self.entries.append(entry)
        return len(self.entries) - 1

    def groups(self) -> set[groups.Group]:
        """Those of FIFO queues that `store` locks; who locks more of them does so himself, before."""
        return {(self._queues[place].number, self.entries[place].group or "") for place in self._places(fifo=True)}

    def store(self, tx: Transaction) -> Generator[None, None, list[Sent]]:
        """Store them. Returns what each send answers, by its place; seqs rise in order."""
        if not self.entries:
            return []
        chance = os.urandom(16 * len(self.entries))
        self._ids = [self._copied.get(at) or chance[16 * at : 16 * at + 16] for at in range(len(self.entries))]
        tx.wrote()
        own = self.groups()
        made = groups.lock_beside(tx, own)
        standard = self._places(fifo=False)
        fifo = [place for place in self._places(fifo=True) if not self._repeats(place)]
        cursors = [(places, self._insert(tx, places)) for places in (standard, fifo) if places]
        yield
        sent: dict[int, Sent] = {}
        for places, cursor in cursors:
            sent.update(self._stored(tx, zip(places, cursor.fetchall(), strict=True)))
        if len(sent) < len(self.entries):
            self._find_originals(tx, sent)
        if made is not None:  # a group of a delete may have been gone, and is there again
            groups.settle(tx, set(made.fetchall()) - own)
        return [sent[place] for place in range(len(self.entries))]

    def _places(self, *, fifo: bool) -> list[int]:
        return [place for place, queue in enumerate(self._queues) if queue.info.settings.fifo == fifo]

    def _key(self, place: int) -> dedup.Key:
        return self._queues[place].number, self._keys[place]

    def _repeats(self, place: int) -> bool:
        """Whether another one of this batch, before it, has its dedup key."""
        return place in self._keys and self._firsts[self._key(place)] != place

    def _insert(self, tx: Transaction, places: list[int]) -> Cursor:
        entries = [self.entries[place] for place in places]
        shared = [self._shared.get(place, (None, None)) for place in places] if self._shared else []
        known = {
            "now": self._now, "queues": Ints([self._queues[place].number for place in places]),
            "ids": Blobs([self._ids[place] for place in places]),
            "bodies": Blobs([None if place in self._shared else self.entries[place].body for place in places]),
            "attributes": Blobs([one.attributes or None for one in entries]),
            "groups": Texts([one.group for one in entries]), "traces": Texts([one.trace for one in entries]),
            "senders": Texts([one.sender for one in entries]), "sources": Texts([one.source for one in entries]),
            "topics": Ints([topic for topic, _ in shared]), "places": Ints([seq for _, seq in shared]),
        }  # fmt: skip
        if not self._queues[places[0]].info.settings.fifo:
            return tx.execute(_INSERT, {**known, "due": Ints([self._due[place] for place in places])})
        keys = Blobs([self._keys.get(place) for place in places])
        ids = Texts([one.dedup_id for one in entries])
        return tx.execute(
            _INSERT_FIFO, {**known, "dedup_ids": ids, "keys": keys, "expires": self._now + limits.DEDUP_MS}
        )

    def _stored(self, tx: Transaction, found: Iterable[tuple[int, tuple[int, ...]]]) -> dict[int, Sent]:
        """Those that are stored; a row with a second column, which is false, is a duplicate's."""
        sent = {place: Sent(self._ids[place], row[0]) for place, row in found if len(row) == 1 or row[1]}
        for number, times in Counter([self._queues[place].number for place in sent]).items():
            tx.count(number, "sent", times)
        tx.ready.update([self._queues[place].number for place in sent if self._due[place] is None])
        for number, due in [(self._queues[place].number, self._due[place]) for place in sent]:
            if due is not None:
                tx.due_at(number, due)
        return sent

    def _find_originals(self, tx: Transaction, sent: dict[int, Sent]) -> None:
        """Add what duplicates answer; groups that are new may have no message after all."""
        repeated = [place for place in range(len(self.entries)) if place not in sent]
        originals = dedup.originals(tx, [self._key(place) for place in repeated])
        for place in repeated:
            sent[place] = originals[self._key(place)]
            tx.count(self._queues[place].number, "duplicates")
        groups.settle(tx, self.groups())
