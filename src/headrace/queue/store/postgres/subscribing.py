"""Subscribing queues to topics, from now on or from somewhere in the log; and ending that."""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec

from headrace.errors import InvalidParameter, SubscriptionRefused
from headrace.queue import filters, limits
from headrace.queue.model import Subscription
from headrace.queue.operations import Subscribe, Unsubscribe
from headrace.queue.store.postgres import log, publishing, queues
from headrace.queue.store.postgres.catalog import StoredQueue, StoredSubscription, StoredTopic, subscription
from headrace.queue.store.postgres.publishing import Locked
from headrace.queue.store.postgres.transaction import Transaction
from headrace.queue.timers import SEQ_MASK

_POSITION: Final[LiteralString] = "SELECT position FROM subscription WHERE topic = %s AND queue = %s"
_HOLD: Final[LiteralString] = "SELECT position FROM subscription WHERE topic = %s AND queue = %s FOR UPDATE"
_STORE: Final[LiteralString] = """
INSERT INTO subscription AS s (topic, queue, filter, scope, position) VALUES (%s, %s, %s::json, %s, %s)
ON CONFLICT (topic, queue) DO UPDATE SET filter = excluded.filter, scope = excluded.scope, position = excluded.position
"""
_DELETE: Final[LiteralString] = "DELETE FROM subscription WHERE topic = %s AND queue = %s"
_NEXT: Final[LiteralString] = "SELECT seq, sent_ms FROM published WHERE topic = %s AND seq > %s ORDER BY seq LIMIT 1"


def subscribe(tx: Transaction, operation: Subscribe) -> Subscription:
    topic = tx.catalog.topic(operation.topic)
    queue = tx.catalog.queue(operation.queue)
    known = topic.subscriptions.get(queue.number)
    if known is not None and operation.if_absent:
        return _told(known, _position(tx, topic, known))
    if known is None:
        _check_subscriber(tx, topic, queue)
    _check_start(topic, operation)
    wanted = _wanted(queue, known, operation)
    tx.lock_directory()
    row = publishing.locked(publishing.lock(tx, [topic]), [topic])[topic.number]
    reached = tx.execute(_HOLD, (topic.number, queue.number)).fetchone()  # and no slice is on its way
    position = _start(tx, topic, operation, row)
    if position is None and reached is not None:
        position = reached[0]
    return _store(tx, topic, queue, wanted, position, purge=operation.purge)


def _store(
    tx: Transaction,
    topic: StoredTopic,
    queue: StoredQueue,
    wanted: StoredSubscription,
    position: int | None,
    *,
    purge: bool,
) -> Subscription:
    """Let it be so, and give a queue that begins in the log its first messages at once: a short log is given whole."""
    if purge:
        queues.empty(tx, queue)
    if position is not None:
        position = log.give(tx, topic, wanted, position)
    wanted = msgspec.structs.replace(wanted, live=position is None)
    text = msgspec.json.encode(wanted.filter).decode() if wanted.filter is not None else None
    tx.execute(_STORE, (topic.number, queue.number, text, wanted.scope, position))
    log.revise(tx, topic, {**topic.subscriptions, queue.number: wanted})
    return _told(wanted, position)


def _told(one: StoredSubscription, position: int | None) -> Subscription:
    return Subscription(one.arn, one.filter, one.scope, position)


def _position(tx: Transaction, topic: StoredTopic, one: StoredSubscription) -> int | None:
    """How far one that is catching up is; None: it is live."""
    row = tx.execute(_POSITION, (topic.number, one.number)).fetchone() if not one.live else None
    return row[0] if row is not None else None


def _check_subscriber(tx: Transaction, topic: StoredTopic, queue: StoredQueue) -> None:
    names = (topic.arn, queue.arn)
    if queue.info.settings.fifo and not topic.info.settings.fifo:
        raise SubscriptionRefused(*names, "a FIFO queue takes from FIFO topics only: a standard topic has no groups")
    if queue.arn in tx.catalog.inboxes:
        raise SubscriptionRefused(*names, "the queue is a topic's inbox; an inbox keeps no messages")
    if len(topic.subscriptions) >= limits.SUBSCRIPTIONS_MAX:
        raise SubscriptionRefused(
            *names, f"the topic has {limits.SUBSCRIPTIONS_MAX} subscriptions, the most it may have"
        )


def _wanted(queue: StoredQueue, known: StoredSubscription | None, operation: Subscribe) -> StoredSubscription:
    """The subscription that is asked for; what is not said stays."""
    filter_, scope = (known.filter, known.scope) if known is not None else (None, filters.SCOPES[0])
    if operation.filter is not None:
        filter_, scope = (operation.filter or None), operation.scope
    return subscription(queue.number, queue.arn, filter_, scope, live=True)


# --- from where ---


def _check_start(topic: StoredTopic, operation: Subscribe) -> None:
    if operation.after is None and operation.since_ms is None:
        return
    if not topic.info.settings.logs:
        raise SubscriptionRefused(
            operation.topic, operation.queue, "the topic keeps no log to begin from; give it a retention, or begin now"
        )
    if operation.after is not None and operation.since_ms is not None:
        raise InvalidParameter("since_ms", str(operation.since_ms), "give one start, after or since_ms")
    if operation.after is not None and not 0 <= operation.after <= SEQ_MASK:
        raise InvalidParameter("after", str(operation.after), "it must be a sequence number, or 0 for the beginning")


def _start(tx: Transaction, topic: StoredTopic, operation: Subscribe, row: Locked) -> int | None:
    """The seq behind which the queue is given the log of the locked topic; None: from now on."""
    if operation.since_ms is not None:
        return _before_time(tx, topic, operation.since_ms, row)
    return max(operation.after, row.first - 1) if operation.after is not None else None


def _before_time(tx: Transaction, topic: StoredTopic, since_ms: int, row: Locked) -> int:
    """The seq right before the first logged message sent at `since_ms` or later. Sent times rise: it is found by halves."""
    low, high = row.first - 1, max(row.last, row.first - 1)
    while low < high:
        middle = (low + high) // 2
        found = tx.execute(_NEXT, (topic.number, middle)).fetchone()
        if found is None or found[1] >= since_ms:
            high = middle
        else:
            low = min(found[0], high)
    return low


def unsubscribe(tx: Transaction, operation: Unsubscribe) -> None:
    topic = tx.catalog.topic(operation.topic)
    queue = tx.catalog.queue(operation.queue)
    if queue.number not in topic.subscriptions:
        return
    tx.lock_directory()
    publishing.locked(publishing.lock(tx, [topic]), [topic])
    tx.execute(_DELETE, (topic.number, queue.number))
    log.revise(tx, topic, {number: one for number, one in topic.subscriptions.items() if number != queue.number})
