"""Plans of the operations on topics: create, change, delete, describe, list, subscribe, unsubscribe, read the log."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.errors import InvalidParameter, SubscriptionRefused
from headrace.queue import filters, limits
from headrace.queue import topics as rules
from headrace.queue.model import Message, Subscription, SubscriptionState, TopicCounts, TopicDescription, TopicInfo
from headrace.queue.operations import (
    ChangeTopic,
    CreateTopic,
    DeleteTopic,
    GetTopic,
    ListTopics,
    ReadLog,
    Subscribe,
    Unsubscribe,
)
from headrace.queue.store.disk import PutSubscription, PutTopic
from headrace.queue.store.local import log_work, queues
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState
from headrace.queue.store.local.topic import LocalSubscription, LocalTopic
from headrace.queue.timers import SEQ_MASK


def create_topic(state: LocalState, operation: CreateTopic, now: int) -> TopicInfo:
    existing = state.topics.get(operation.topic)
    if existing is not None:
        rules.check_same(existing.info, operation.settings)
        return existing.info
    settings = rules.create(operation.settings)
    rules.check_arn(operation.topic, fifo=settings.fifo)
    info = TopicInfo(operation.topic, settings, now, now)
    _check_inbox(state, info, None)
    topic = LocalTopic(state.next_number, info)
    state.next_number += 1
    state.topics_due_ms = 0
    state.topics[info.arn] = state.topics_by_number[topic.number] = topic
    _mark_inbox(state, topic, None)
    state.plan.logs[topic.number] = topic

    def undo() -> None:
        del state.topics[info.arn], state.topics_by_number[topic.number]
        _unmark_inbox(state, topic)

    state.change(PutTopic(topic.number, info), undo)
    return info


def change_topic(state: LocalState, operation: ChangeTopic, now: int) -> TopicInfo:
    topic = state.topic(operation.topic)
    info = topic.with_settings(rules.change(topic.info.settings, operation.settings), now)
    _check_inbox(state, info, topic)
    _replace(state, topic, info)
    topic.retain_ms = now
    return info


def _replace(state: LocalState, topic: LocalTopic, info: TopicInfo) -> None:
    before = topic.info

    def undo() -> None:
        after, topic.info = topic.info, before
        _mark_inbox(state, topic, after.settings.inbox)

    topic.info = info
    _mark_inbox(state, topic, before.settings.inbox)
    state.change(PutTopic(topic.number, info), undo)


def _check_inbox(state: LocalState, info: TopicInfo, topic: LocalTopic | None) -> None:
    """Raise unless the inbox may be one: there, of the topic's kind, nobody else's, and not subscribed itself."""
    arn = info.settings.inbox
    if arn is None:
        return
    queue = state.queue(arn)
    if queue.info.settings.fifo != info.settings.fifo:
        raise SubscriptionRefused(
            info.arn, arn, "a FIFO topic's inbox is a FIFO queue, a standard topic's a standard one"
        )
    if queue.inbox_of is not None and (topic is None or queue.inbox_of != topic.number):
        raise SubscriptionRefused(info.arn, arn, "it is another topic's inbox")
    if any(queue.number in other.subscriptions for other in state.topics.values()):
        raise SubscriptionRefused(info.arn, arn, "it is subscribed to a topic; an inbox keeps no messages")


def _mark_inbox(state: LocalState, topic: LocalTopic, before: str | None) -> None:
    old, new = state.queues.get(before or ""), state.queues.get(topic.info.settings.inbox or "")
    if old is not None and old.inbox_of == topic.number:
        old.inbox_of = None
    if new is not None:
        new.inbox_of = topic.number


def _unmark_inbox(state: LocalState, topic: LocalTopic) -> None:
    inbox = state.queues.get(topic.info.settings.inbox or "")
    if inbox is not None and inbox.inbox_of == topic.number:
        inbox.inbox_of = None


def delete_topic(state: LocalState, operation: DeleteTopic, now: int) -> None:
    topic = state.topic(operation.topic)
    before = (topic.subscriptions, topic.logged, topic.log_bytes, topic.first)
    del state.topics[topic.info.arn]
    _unmark_inbox(state, topic)
    topic.deleted, topic.subscriptions = True, {}
    topic.drop_front(topic.logged, topic.log_bytes, topic.next_seq)
    topic.trim_ms = now
    state.plan.logs[topic.number] = topic

    def undo() -> None:
        state.topics[topic.info.arn] = topic
        topic.deleted = False
        topic.subscriptions, topic.logged, topic.log_bytes, topic.first = before
        _mark_inbox(state, topic, None)

    state.change(PutTopic(topic.number, None), undo)


def forget_queue(state: LocalState, queue: LocalQueue, now: int) -> None:
    """A queue is deleted: it is nobody's subscriber or inbox any more. (Its row's deletion takes its subscriptions.)"""
    state.topics_due_ms = 0
    for topic in state.topics.values():
        one = topic.subscriptions.pop(queue.number, None)
        if one is not None:
            state.plan.undo.append(_resubscribe(topic, one))
        if topic.info.settings.inbox == queue.info.arn:
            settings = msgspec.structs.replace(topic.info.settings, inbox=None)
            _replace(state, topic, topic.with_settings(settings, now))


# --- subscriptions ---


def subscribe(state: LocalState, operation: Subscribe, now: int) -> Subscription:
    topic = state.topic(operation.topic)
    queue = state.queue(operation.queue)
    known = topic.subscriptions.get(queue.number)
    if known is not None and operation.if_absent:
        return known.stored
    if known is None:
        _check_subscriber(topic, queue)
    stored = _wanted(state, topic, known.stored if known is not None else None, operation)
    one = topic.subscribe(queue, stored)  # raises if the filter is none
    if operation.purge:
        queues.purge_queue(state, queue, now)

    def undo() -> None:
        if known is not None:
            topic.subscriptions[queue.number] = known
        else:
            topic.subscriptions.pop(queue.number, None)

    state.change(PutSubscription(topic.number, queue.number, stored), undo)
    if not one.live:
        log_work.give_slice(state, topic, one, now)  # the first at once: a short log is given whole
    return one.stored


def _check_subscriber(topic: LocalTopic, queue: LocalQueue) -> None:
    names = (topic.info.arn, queue.info.arn)
    if queue.info.settings.fifo and not topic.info.settings.fifo:
        raise SubscriptionRefused(*names, "a FIFO queue takes from FIFO topics only: a standard topic has no groups")
    if queue.inbox_of is not None:
        raise SubscriptionRefused(*names, "the queue is a topic's inbox; an inbox keeps no messages")
    if len(topic.subscriptions) >= limits.SUBSCRIPTIONS_MAX:
        raise SubscriptionRefused(
            *names, f"the topic has {limits.SUBSCRIPTIONS_MAX} subscriptions, the most it may have"
        )


def _wanted(state: LocalState, topic: LocalTopic, known: Subscription | None, operation: Subscribe) -> Subscription:
    """The subscription that is asked for; what is not said stays."""
    filter_, scope = (known.filter, known.scope) if known is not None else (None, filters.SCOPES[0])
    if operation.filter is not None:
        filter_, scope = (operation.filter or None), operation.scope
    position = _start(state, topic, operation)
    if position is None and known is not None:
        position = known.position
    return Subscription(operation.queue, filter_, scope, position)


def _start(state: LocalState, topic: LocalTopic, operation: Subscribe) -> int | None:
    """The seq behind which the queue is given the log; None: from now on."""
    if operation.after is None and operation.since_ms is None:
        return None
    if not topic.info.settings.logs:
        raise SubscriptionRefused(
            operation.topic, operation.queue, "the topic keeps no log to begin from; give it a retention, or begin now"
        )
    if operation.after is not None and operation.since_ms is not None:
        raise InvalidParameter("since_ms", str(operation.since_ms), "give one start, after or since_ms")
    if operation.since_ms is not None:
        return _before_time(state, topic, operation.since_ms)
    if not 0 <= operation.after <= SEQ_MASK:  # type: ignore[operator]  # one of the two is there
        raise InvalidParameter("after", str(operation.after), "it must be a sequence number, or 0 for the beginning")
    return max(operation.after or 0, topic.first - 1)


def _before_time(state: LocalState, topic: LocalTopic, since_ms: int) -> int:
    """The seq right before the first logged message sent at `since_ms` or later. Sent times rise: it is found by halves."""
    low, high = topic.first - 1, topic.next_seq - 1
    while low < high:
        middle = (low + high) // 2
        found = state.disk.first(topic.number, after=middle)
        if found is None or found[1] >= since_ms:
            high = middle
        else:
            low = min(found[0], high)
    return low


def _resubscribe(topic: LocalTopic, one: LocalSubscription) -> Callable[[], None]:
    def undo() -> None:
        topic.subscriptions[one.queue.number] = one

    return undo


def unsubscribe(state: LocalState, operation: Unsubscribe, now: int) -> None:
    del now
    topic = state.topic(operation.topic)
    queue = state.queue(operation.queue)
    one = topic.subscriptions.pop(queue.number, None)
    if one is not None:
        state.change(PutSubscription(topic.number, queue.number, None), _resubscribe(topic, one))


# --- looking ---


def get_topic(state: LocalState, operation: GetTopic, now: int) -> TopicDescription:
    del now
    return _describe(state, state.topic(operation.topic))


def list_topics(state: LocalState, operation: ListTopics, now: int) -> list[TopicDescription]:
    del now
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    arns = sorted(arn for arn in state.topics if arn.startswith(operation.prefix) and arn > operation.after)
    return [_describe(state, state.topics[arn]) for arn in arns[: operation.limit]]


def _describe(state: LocalState, topic: LocalTopic) -> TopicDescription:
    oldest = state.disk.first(topic.number, after=topic.first - 1) if topic.logged else None
    counts = TopicCounts(
        topic.published, topic.duplicates, topic.damaged, topic.logged, topic.log_bytes,
        oldest[1] if oldest is not None else None, topic.first, topic.next_seq - 1,
    )  # fmt: skip
    subscribed = [
        SubscriptionState(one.stored, topic.lag(one), one.queue.messages)
        for one in sorted(topic.subscriptions.values(), key=lambda one: one.queue.info.arn)
    ]
    return TopicDescription(topic.info, counts, subscribed)


def read_log(state: LocalState, operation: ReadLog, now: int) -> list[Message]:
    del now
    topic = state.topic(operation.topic)
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    after, more = max(operation.after, topic.first - 1), True
    found: list[Message] = []
    while more and not found:  # damaged ones are passed over
        found, after, more = state.disk.scan(
            topic.number, after=after, limit=operation.limit,
            bytes_max=min(max(operation.bytes_max, 1), limits.NATIVE_BATCH_BYTES_MAX),
        )  # fmt: skip
    return found
