"""Publishing: one commit puts a message into every live subscribed queue that lets it in, and into the topic's log.

A body that several want is stored once, in `published`: under the topic if that keeps a log, else in the pool.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import Final, LiteralString, TypeAlias

import msgspec

from headrace.errors import CallerError
from headrace.queue import limits
from headrace.queue.filters import Subject
from headrace.queue.model import ID, Entry, Message, QueueSettings, Sent
from headrace.queue.operations import Send
from headrace.queue.store.postgres import dedup, groups
from headrace.queue.store.postgres.arrays import Blobs, Ints, Texts
from headrace.queue.store.postgres.catalog import Catalog, StoredQueue, StoredSubscription, StoredTopic
from headrace.queue.store.postgres.new import New
from headrace.queue.store.postgres.transaction import CatalogMoved, Cursor, Transaction
from headrace.queue.topics import is_topic

POOL: Final = 0
"""In the place of a topic's number: bodies that are in no log."""

_LOCK: Final[LiteralString] = (
    "SELECT id, revision, first, last, last_ms FROM topic WHERE id = ANY (%s) ORDER BY id FOR UPDATE"
)
_DRAW: Final[LiteralString] = "SELECT nextval('message_seq') FROM generate_series(1, %s)"
_KEEP: Final[LiteralString] = """
INSERT INTO published (topic, seq, sent_ms, due_ms, id, body, attributes, grp, dedup_id, trace, sender, source)
SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_LOGGED: Final[LiteralString] = """
UPDATE topic SET last = greatest(last, %s), last_ms = %s, logged = logged + %s, log_bytes = log_bytes + %s WHERE id = %s
"""

Place: TypeAlias = tuple[int, int]
"""Where a body is in `published`: under which number, which seq."""


class Locked(msgspec.Struct, frozen=True):
    """The row of a topic, which nobody else changes until the commit: where its log begins and ends."""

    revision: int
    first: int
    last: int
    last_ms: int


class Publication(msgspec.Struct):
    """A message that is published, as it came in; `sent` is what that answers, once it is known.

    `due_ms`: until when it is delayed, in whatever queue. `key`: its dedup key, by a FIFO door.
    """

    topic: StoredTopic
    entry: Entry
    due_ms: int | None
    key: dedup.Key | None
    sent: Sent | None = None

    def message(self, sent: Sent, now: int) -> Message:
        """What is given to queues, and kept."""
        one = self.entry
        return Message(
            sent.seq, sent.id, one.body, one.attributes, now, self.due_ms, one.group, one.dedup_id, one.trace, one.sender,
            0, None, one.source,
        )  # fmt: skip


class Door(msgspec.Struct, frozen=True):
    """Where messages come in: a queue, a topic, or a topic by its inbox.

    `settings`: what they are checked by, in a queue's words. `number`: whose dedup ids count.
    """

    number: int
    settings: QueueSettings
    queue: StoredQueue | None
    topic: StoredTopic | None

    def fifo_queues(self, catalog: Catalog) -> list[int]:
        """The numbers of the FIFO queues into which it may lead."""
        if self.topic is None:
            return [self.number] if self.settings.fifo else []
        live = [catalog.by_number[one.number] for one in self.topic.subscriptions.values() if one.live]
        return [queue.number for queue in live if queue.info.settings.fifo]


def door_of(catalog: Catalog, arn: str) -> Door:
    """Raises QueueNotFound, TopicNotFound."""
    queue = catalog.queues.get(arn)
    if queue is None and is_topic(arn):
        topic = catalog.topic(arn)
        settings = topic.info.settings
        rules = QueueSettings(fifo=settings.fifo, content_dedup=settings.content_dedup)
        return Door(topic.number, rules, None, topic)
    queue = catalog.queue(arn)
    return Door(queue.number, queue.info.settings, queue, catalog.inboxes.get(arn))


def lock(tx: Transaction, topics: Iterable[StoredTopic]) -> Cursor:
    """Keep everybody from publishing to these topics, and from changing them; `locked` reads the rows."""
    return tx.execute(_LOCK, (Ints(sorted(topic.number for topic in topics)),))


def lock_all(tx: Transaction, arns: Iterable[str]) -> None:
    """Lock what is published to by sends to these, before groups are locked for others in the same transaction."""
    publications = Publications(tx.now)
    for arn in arns:
        queue, topic = tx.catalog.inboxes.get(arn), tx.catalog.topics.get(arn)
        if queue is not None or topic is not None:
            publications.expect(door_of(tx.catalog, arn))
    publications.lock(tx)


def groups_of(catalog: Catalog, send: Send) -> set[groups.Group]:
    """The groups of FIFO queues that a send may come into, also by what it publishes."""
    try:
        numbers = door_of(catalog, send.queue).fifo_queues(catalog)
    except CallerError:
        return set()
    names = {one.group for one in send.entries if one.group and ID.fullmatch(one.group)} if numbers else set()
    return {(number, name) for number in numbers for name in names}


def locked(cursor: Cursor, topics: Iterable[StoredTopic]) -> dict[int, Locked]:
    """The locked rows by number. Raises CatalogMoved: a topic is not any more what it is taken for."""
    rows = {number: Locked(*rest) for number, *rest in cursor.fetchall()}
    for topic in topics:
        if topic.number not in rows or rows[topic.number].revision != topic.revision:
            raise CatalogMoved
    return rows


class Publications:
    """What the requests of a batch publish. `expect` the doors, `lock`, `add`; then `publish`.

    Topics with a log, and FIFO topics, are locked: their numbers rise in the order of the commits. Others need no lock: who
    subscribes at the same moment comes behind.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._topics: dict[int, StoredTopic] = {}
        self._cursor: Cursor | None = None
        self._rows: dict[int, Locked] = {}
        self._all: list[Publication] = []

    def expect(self, door: Door) -> None:
        """Something may come in there."""
        topic = door.topic
        if topic is not None and (topic.logs or topic.info.settings.fifo):
            self._topics[topic.number] = topic

    def lock(self, tx: Transaction) -> None:
        """Send the statement that locks the topics; before groups and messages are locked, so that nodes do not deadlock."""
        if self._topics:
            self._cursor = lock(tx, self._topics.values())

    def check(self) -> None:
        """Wait for the locks; before anything is written. Raises CatalogMoved: a topic is not any more what it is taken for."""
        if self._cursor is not None:
            self._rows, self._cursor = locked(self._cursor, self._topics.values()), None

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, topic: StoredTopic, door: Door, entry: Entry) -> Publication:
        """Publish a valid entry that came in there. Raises, by a FIFO door, if it has no group or no dedup id."""
        settings = door.settings
        delay_ms = 0 if settings.fifo else settings.delay_ms if entry.delay_ms is None else entry.delay_ms
        key = (door.number, dedup.digest_of(settings, entry)) if settings.fifo else None
        self._all.append(Publication(topic, entry, self._now + delay_ms if delay_ms else None, key))
        return self._all[-1]

    def publish(self, tx: Transaction, new: New) -> Generator[None, None, None]:
        """Number them, store what is to be kept, and add what the queues are given to `new`."""
        if not self._all:
            return
        tx.wrote()
        cursor = tx.execute(_DRAW, (len(self._all),))
        yield
        self.check()
        for one, (seq,) in zip(self._all, cursor.fetchall(), strict=True):
            one.sent = Sent(os.urandom(16), seq)
        lots: dict[int, list[Publication]] = {}
        for one in _without_duplicates(tx, self._all):
            lots.setdefault(one.topic.number, []).append(one)
        kept = [row for number, lot in lots.items() for row in _give(tx, new, lot, self._rows.get(number))]
        if kept:
            _keep(tx, kept)


def _without_duplicates(tx: Transaction, publications: Sequence[Publication]) -> list[Publication]:
    """Those that are new; the others answer what was published first with their dedup key."""
    firsts: dict[dedup.Key, Publication] = {}
    for one in publications:
        if one.key is not None:
            firsts.setdefault(one.key, one)
    if not firsts:
        return list(publications)
    fresh = dedup.remember(tx, {key: one.sent for key, one in firsts.items() if one.sent is not None})
    repeated = [
        one for one in publications if one.key is not None and not (one.key in fresh and firsts[one.key] is one)
    ]
    originals = dedup.originals(tx, [one.key for one in repeated if one.key is not None])
    for one in repeated:
        assert one.key is not None
        one.sent = originals[one.key]
        tx.count(one.key[0], "duplicates")
    return [one for one in publications if one.sent is not None and not one.sent.duplicate]


Kept: TypeAlias = tuple[int, int, Message]
"""A row of `published`: under which number, when it was sent, the message."""


def _give(tx: Transaction, new: New, publications: Sequence[Publication], row: Locked | None) -> list[Kept]:
    """Give what is published to a topic to its queues; returns what is to be kept."""
    topic = publications[0].topic
    lot = [one.message(one.sent, tx.now) for one in publications if one.sent is not None]
    tx.count(topic.number, "sent", len(lot))
    subjects = [Subject(message.attributes, message.body) for message in lot]
    takers = [(one, _let_in(one, lot, subjects)) for one in topic.subscriptions.values() if one.live]
    if topic.logs:
        assert row is not None
        sent_ms = max(tx.now, row.last_ms)  # rises: a start by time is found by halves
        size = sum([len(message.body) + len(message.attributes) for message in lot])
        tx.execute(_LOGGED, (lot[-1].seq, sent_ms, len(lot), size, topic.number))
        kept = [(topic.number, sent_ms, message) for message in lot]
    else:
        kept = [(POOL, tx.now, message) for message in _wanted_often(lot, [taken for _, taken in takers])]
    places = {message.seq: (number, message.seq) for number, _, message in kept}
    for one, taken in takers:
        queue = tx.catalog.by_number[one.number]
        for message in taken:
            put(new, queue, message, places.get(message.seq), tx.now)
    return kept


def _let_in(one: StoredSubscription, lot: Sequence[Message], subjects: Sequence[Subject]) -> Sequence[Message]:
    if one.policy is None:
        return lot
    return [message for message, subject in zip(lot, subjects, strict=True) if one.policy.lets_in(subject)]


def _wanted_often(lot: Sequence[Message], taken: Sequence[Sequence[Message]]) -> list[Message]:
    """Those whose body is better stored once."""
    if len(taken) < 2:
        return []
    times = Counter(message.seq for ones in taken for message in ones)
    return [one for one in lot if len(one.body) >= limits.REFERENCE_BYTES_MIN and times[one.seq] > 1]


def put(new: New, queue: StoredQueue, message: Message, place: Place | None, now: int) -> None:
    """Give a topic's message to a queue: its retention there begins now, its delay is the queue's unless it has its own.

    `place`: where its body is in `published`, if it is; a short one that is known is copied all the same.
    """
    settings, due_ms = queue.info.settings, message.visible_ms
    if due_ms is None or settings.fifo:
        due_ms = now + settings.delay_ms
    if due_ms <= now:
        due_ms = None
    short = 0 < len(message.body) < limits.REFERENCE_BYTES_MIN
    new.add_copy(queue, message, due_ms, None if short else place)


def _keep(tx: Transaction, kept: Sequence[Kept]) -> None:
    """In the pool are bodies alone: the rest stands with each message."""
    rows = [
        message if number != POOL else Message(message.seq, message.id, message.body, b"", 0)
        for number, _, message in kept
    ]
    tx.execute(
        _KEEP,
        (
            Ints([number for number, _, _ in kept]), Ints([one.seq for one in rows]), Ints([ms for _, ms, _ in kept]),
            Ints([one.visible_ms for one in rows]), Blobs([one.id for one in rows]), Blobs([one.body for one in rows]),
            Blobs([one.attributes or None for one in rows]), Texts([one.group for one in rows]),
            Texts([one.dedup_id for one in rows]), Texts([one.trace for one in rows]),
            Texts([one.sender for one in rows]), Texts([one.source for one in rows]),
        ),
    )  # fmt: skip
