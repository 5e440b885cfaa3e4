"""The operations that change topics: create, change, delete. Each moves the directory, and locks the topic's row: so
whoever publishes to it, locking that row too, has committed before, or sees that it was changed."""

from __future__ import annotations

from typing import Any, Final, LiteralString

import msgspec

from headrace.errors import SubscriptionRefused
from headrace.queue import topics as rules
from headrace.queue.model import TopicInfo
from headrace.queue.operations import ChangeTopic, CreateTopic, DeleteTopic
from headrace.queue.store.postgres.catalog import StoredQueue, StoredTopic
from headrace.queue.store.postgres.transaction import Transaction

_CREATE: Final[LiteralString] = "INSERT INTO topic (arn, info, revision) VALUES (%s, %s::jsonb, %s) RETURNING id"
_CHANGE: Final[LiteralString] = "UPDATE topic SET info = %s::jsonb, revision = %s WHERE id = %s"
_DELETE: Final[tuple[LiteralString, ...]] = (
    "DELETE FROM topic WHERE id = %s",
    "DELETE FROM subscription WHERE topic = %s",
    "DELETE FROM queue_total WHERE queue = %s",
    "INSERT INTO deleted_topic VALUES (%s)",
)
_FORGET_QUEUE: Final[LiteralString] = "DELETE FROM subscription WHERE queue = %s"


def create_topic(tx: Transaction, operation: CreateTopic) -> TopicInfo:
    existing = tx.catalog.topics.get(operation.topic)
    if existing is not None:
        rules.check_same(existing.info, operation.settings)
        return existing.info
    settings = rules.create(operation.settings)
    rules.check_arn(operation.topic, fifo=settings.fifo)
    info = TopicInfo(operation.topic, settings, tx.now, tx.now)
    _check_inbox(tx, info)
    tx.lock_directory()
    revision = tx.catalog.version + 1
    row = tx.execute(_CREATE, (info.arn, _json(info), revision)).fetchone()
    assert row is not None
    tx.catalog = tx.catalog.with_topics({info.arn: StoredTopic(row[0], info, revision)})
    return info


def change_topic(tx: Transaction, operation: ChangeTopic) -> TopicInfo:
    topic = tx.catalog.topic(operation.topic)
    settings = rules.change(topic.info.settings, operation.settings)
    info = msgspec.structs.replace(topic.info, settings=settings, modified_ms=tx.now)
    _check_inbox(tx, info)
    tx.lock_directory()
    tx.catalog = tx.catalog.with_topics({topic.arn: _changed(tx, topic, info=info)})
    return info


def _changed(tx: Transaction, topic: StoredTopic, **changes: Any) -> StoredTopic:
    """The topic, changed with the directory's next version, in the table too."""
    changed = msgspec.structs.replace(topic, revision=tx.catalog.version + 1, **changes)
    tx.execute(_CHANGE, (_json(changed.info), changed.revision, changed.number))
    return changed


def _check_inbox(tx: Transaction, info: TopicInfo) -> None:
    """Raise unless the inbox may be one: there, of the topic's kind, nobody else's, and not subscribed itself."""
    arn = info.settings.inbox
    if arn is None:
        return
    queue = tx.catalog.queue(arn)
    if queue.info.settings.fifo != info.settings.fifo:
        raise SubscriptionRefused(
            info.arn, arn, "a FIFO topic's inbox is a FIFO queue, a standard topic's a standard one"
        )
    other = tx.catalog.inboxes.get(arn)
    if other is not None and other.arn != info.arn:
        raise SubscriptionRefused(info.arn, arn, "it is another topic's inbox")
    if any(queue.number in topic.subscriptions for topic in tx.catalog.topics.values()):
        raise SubscriptionRefused(info.arn, arn, "it is subscribed to a topic; an inbox keeps no messages")


def delete_topic(tx: Transaction, operation: DeleteTopic) -> None:
    """What it has published stays as long as messages refer to it (`bodies.py`)."""
    topic = tx.catalog.topic(operation.topic)
    tx.lock_directory()
    for statement in _DELETE:
        tx.execute(statement, (topic.number,))
    tx.catalog = tx.catalog.with_topics({topic.arn: None})


def forget_queue(tx: Transaction, queue: StoredQueue) -> None:
    """A queue is being deleted: it is nobody's subscriber or inbox any more. Call with the directory locked, before the
    catalogue goes on to the next version."""
    changed: dict[str, StoredTopic | None] = {}
    for topic in tx.catalog.topics.values():
        left = {number: one for number, one in topic.subscriptions.items() if number != queue.number}
        info = topic.info
        if info.settings.inbox == queue.arn:
            settings = msgspec.structs.replace(info.settings, inbox=None)
            info = msgspec.structs.replace(info, settings=settings, modified_ms=tx.now)
        if len(left) < len(topic.subscriptions) or info is not topic.info:
            changed[topic.arn] = _changed(tx, topic, info=info, subscriptions=left)
    if changed:
        tx.execute(_FORGET_QUEUE, (queue.number,))
        tx.lock_directory()
        tx.catalog = tx.catalog.with_topics(changed)


def _json(info: TopicInfo) -> str:
    text: Any = msgspec.json.encode(info)
    return str(text, "utf-8")
