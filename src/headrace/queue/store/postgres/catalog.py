"""The catalogue: every queue and topic as the database has them, in memory. Immutable: a change makes a new one, readers
keep theirs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, LiteralString

import msgspec
import psycopg

from headrace.errors import QueueNotFound, TopicNotFound
from headrace.queue import limits
from headrace.queue.filters import Policy
from headrace.queue.model import QueueInfo, TopicInfo
from headrace.queue.receipts import Receipts
from headrace.queue.store.postgres import schema
from headrace.queue.store.postgres.connecting import Connection, Executes

_READ: Final[LiteralString] = "SELECT id, info::text, floor, purged_ms FROM queue"
_READ_TOPICS: Final[LiteralString] = "SELECT id, info::text, revision FROM topic"
_READ_SUBSCRIPTIONS: Final[LiteralString] = (
    "SELECT s.topic, s.queue, q.arn, s.filter::text, s.scope, s.position IS NULL"
    " FROM subscription s JOIN queue q ON q.id = s.queue ORDER BY s.topic, s.queue"
)
_VERSION: Final[LiteralString] = "SELECT version FROM directory"


class StoredQueue(msgspec.Struct, frozen=True):
    """A queue: its number (never reused), what is known of it, and the seq below which everything is purged.

    `receipts`: mints and reads this queue's, and no other's.
    """

    number: int
    info: QueueInfo
    floor: int
    purged_ms: int | None
    receipts: Receipts

    @property
    def arn(self) -> str:
        return self.info.arn

    def shown_ms(self, now: int) -> int:
        """What was sent to a FIFO queue by this moment may be received at `now`: its delay is over. The delay of a standard
        queue is in its messages."""
        settings = self.info.settings
        return now - settings.delay_ms if settings.fifo and settings.delay_ms else now + limits.DAY_MS


class StoredSubscription(msgspec.Struct, frozen=True):
    """A queue that is given what a topic publishes. `live`: not catching up. `policy`: the filter, ready to match."""

    number: int
    arn: str
    filter: dict[str, Any] | None
    scope: str
    live: bool
    policy: Policy | None


class StoredTopic(msgspec.Struct, frozen=True):
    """A topic: its number (negative, never reused), the directory's version when it was changed last, its subscriptions
    by the queue's number."""

    number: int
    info: TopicInfo
    revision: int
    subscriptions: dict[int, StoredSubscription] = {}

    @property
    def arn(self) -> str:
        return self.info.arn

    @property
    def logs(self) -> bool:
        """Whether what is published goes to the log: it has a retention, or a queue has yet to be given all of it."""
        return self.info.settings.logs or any(not one.live for one in self.subscriptions.values())


class Catalog:
    """All queues and topics at one version of the directory. `inboxes`: ARN of a queue -> the topic whose inbox it is."""

    def __init__(
        self,
        secret: bytes,
        version: int,
        queues: Mapping[str, StoredQueue],
        topics: Mapping[str, StoredTopic] | None = None,
    ) -> None:
        self.secret = secret
        self.version = version
        self.queues = queues
        self.topics: Mapping[str, StoredTopic] = topics or {}
        self.by_number = {queue.number: queue for queue in queues.values()}
        inboxes = [(topic.info.settings.inbox, topic) for topic in self.topics.values()]
        self.inboxes = {inbox: topic for inbox, topic in inboxes if inbox is not None}

    def queue(self, arn: str) -> StoredQueue:
        """Raises QueueNotFound."""
        queue = self.queues.get(arn)
        if queue is None:
            raise QueueNotFound(arn)
        return queue

    def topic(self, arn: str) -> StoredTopic:
        """Raises TopicNotFound."""
        topic = self.topics.get(arn)
        if topic is None:
            raise TopicNotFound(arn)
        return topic

    def with_queue(self, queue: StoredQueue) -> Catalog:
        """The next version, in which this queue is as given."""
        return Catalog(self.secret, self.version + 1, {**self.queues, queue.arn: queue}, self.topics)

    def without_queue(self, arn: str) -> Catalog:
        """The next version, without this queue; `topics.forget_queue` has taken it out of its topics."""
        queues = {name: one for name, one in self.queues.items() if name != arn}
        return Catalog(self.secret, self.version + 1, queues, self.topics)

    def with_topics(self, topics: Mapping[str, StoredTopic | None]) -> Catalog:
        """The next version, in which topics are as given; None: not there."""
        merged = {**self.topics, **topics}
        known = {arn: topic for arn, topic in merged.items() if topic is not None}
        return Catalog(self.secret, self.version + 1, self.queues, known)

    def stored(self, number: int, info: QueueInfo, floor: int = 0, purged_ms: int | None = None) -> StoredQueue:
        return StoredQueue(number, info, floor, purged_ms, Receipts(self.secret, queue=number))


def load(connection: Connection, before: Catalog) -> Catalog:
    """The catalogue as it is now, in four round trips. Raises StoreUnusable: the tables are of another version by now."""
    statements = connection.statements
    try:
        with statements.together():
            statements.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            schema.check_version(schema.place_of(connection), schema.version_of(statements))
            found = read(statements, before)
            statements.execute("COMMIT")
    except BaseException:
        with suppress(psycopg.Error):
            connection.rollback()
        raise
    return found


def read(connection: Executes, before: Catalog) -> Catalog:
    """The catalogue as the current transaction sees it: of one version only if all its statements see the same."""
    asked = [connection.execute(sql) for sql in (_VERSION, _READ, _READ_TOPICS, _READ_SUBSCRIPTIONS)]
    ((version,),), rows, topics, subscriptions = (one.fetchall() for one in asked)
    queues = {}
    for number, text, floor, purged_ms in rows:
        info = msgspec.json.decode(text, type=QueueInfo)
        queues[info.arn] = before.stored(number, info, floor, purged_ms)
    return Catalog(before.secret, version, queues, _topics(topics, subscriptions, before))


def _topics(
    rows: list[tuple[Any, ...]], subscriptions: list[tuple[Any, ...]], before: Catalog
) -> dict[str, StoredTopic]:
    """The topics by ARN; those that have not changed are the objects of before, whose filters are parsed."""
    known = {(topic.number, topic.revision): topic for topic in before.topics.values()}
    changed = [row for row in rows if (row[0], row[2]) not in known]
    found: dict[int, dict[int, StoredSubscription]] = {number: {} for number, _, _ in changed}
    for number, queue, arn, filter_text, scope, live in subscriptions:
        if number in found:
            filter_ = msgspec.json.decode(filter_text) if filter_text is not None else None
            found[number][queue] = subscription(queue, arn, filter_, scope, live=live)
    topics = [topic for row in rows if (topic := known.get((row[0], row[2]))) is not None]
    for number, text, revision in changed:
        topics.append(StoredTopic(number, msgspec.json.decode(text, type=TopicInfo), revision, found[number]))
    return {topic.arn: topic for topic in topics}


def subscription(
    number: int, arn: str, filter_: dict[str, Any] | None, scope: str, *, live: bool
) -> StoredSubscription:
    """Raises InvalidFilter."""
    policy = Policy(filter_, scope) if filter_ else None
    return StoredSubscription(number, arn, filter_, scope, live, policy)
