"""Plans of publishing: one commit puts a message into every live subscribed queue that lets it in, and into the log.

The body is stored once, in the topic's row; the queues' rows refer to it. In memory their messages share the object.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import CallerError
from headrace.queue import limits, topics
from headrace.queue.filters import Subject
from headrace.queue.model import Entry, Message, Sent
from headrace.queue.operations import Send
from headrace.queue.store import checks
from headrace.queue.store.local import sending
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState
from headrace.queue.store.local.topic import LocalSubscription, LocalTopic


def send(state: LocalState, operation: Send, now: int) -> list[Sent | CallerError]:
    queue = state.queues.get(operation.queue)
    target = queue if queue is not None else destination(state, operation.queue)
    checks.check_batch(operation.entries)
    if queue is None or queue.inbox_of is not None:
        return send_to(state, target, operation.entries, now)
    state.watched[queue.number] = queue  # nearly all is sent to queues: `send_to` would cost them 0.2 µs of 2
    return sending.store(state, queue, operation.entries, now)


def destination(state: LocalState, arn: str) -> LocalQueue | LocalTopic:
    """The queue or topic of that name; raises QueueNotFound or TopicNotFound."""
    if arn not in state.queues and topics.is_topic(arn):
        return state.topic(arn)
    return state.queue(arn)


def send_to(
    state: LocalState, target: LocalQueue | LocalTopic, entries: list[Entry], now: int
) -> list[Sent | CallerError]:
    """Store entries in a queue, or publish them: an outcome an entry."""
    if isinstance(target, LocalQueue):
        if target.inbox_of is None:
            return sending.store(state, target, entries, now)
        topic = state.topics_by_number[target.inbox_of]
    else:
        topic = target
    outcomes, messages = sending.number_entries(state, target, target.rules, topic.allot, entries, now)
    if messages:
        _publish(state, topic, messages, now)
    return outcomes


def _publish(state: LocalState, topic: LocalTopic, messages: list[Message], now: int) -> None:
    subjects = [Subject(message.attributes, message.body) for message in messages]
    takers = [(one, _let_in(one, messages, subjects)) for one in topic.live()]
    stored = _stored(topic, messages, [taken for _, taken in takers])
    _append(state, topic, stored, len(messages), now)
    kept = {message.seq for message in stored}
    for one, taken in takers:
        put(state, topic, one.queue, taken, now, kept=kept)


def _let_in(one: LocalSubscription, messages: list[Message], subjects: list[Subject]) -> list[Message]:
    if one.policy is None:
        return messages
    return [message for message, subject in zip(messages, subjects, strict=True) if one.lets_in(subject)]


def _stored(topic: LocalTopic, messages: list[Message], taken: Sequence[list[Message]]) -> list[Message]:
    """The messages that get a row of the topic: those of its log; without one, those that several queues refer to."""
    if topic.logs:
        return messages
    if len(taken) < 2:
        return []
    times: dict[int, int] = {}
    for message in [message for lot in taken for message in lot]:
        times[message.seq] = times.get(message.seq, 0) + 1
    return [m for m in messages if len(m.body) >= limits.REFERENCE_BYTES_MIN and times.get(m.seq, 0) > 1]


def _append(state: LocalState, topic: LocalTopic, stored: list[Message], published: int, now: int) -> None:
    """Write the topic's rows and count them; without a log they stand before its beginning from the start."""
    plan = state.plan
    state.topics_due_ms = 0
    plan.batch.inserts += [(topic.number, message) for message in stored]
    plan.logs[topic.number] = topic
    before = (topic.logged, topic.log_bytes, topic.first)
    topic.published += published
    if topic.logs:
        size = sum([len(message.body) + len(message.attributes) for message in stored])
        topic.logged += len(stored)
        topic.log_bytes += size
        topic.retain_ms = now + limits.SECOND_MS if topic.retain_ms is None else topic.retain_ms
    else:
        topic.first = topic.next_seq
        if stored:
            topic.seek_trim(now + limits.SECOND_MS)
    added = (topic.logged - before[0], topic.log_bytes - before[1], topic.first - before[2])

    def undo() -> None:
        topic.published -= published
        topic.logged -= added[0]
        topic.log_bytes -= added[1]
        topic.first -= added[2]

    plan.undo.append(undo)


def put(
    state: LocalState, topic: LocalTopic, queue: LocalQueue, messages: list[Message], now: int, *, kept: set[int] | None
) -> None:
    """Give a topic's messages to a queue. `kept`: seqs of those that have a row of the topic; None: all have."""
    if not messages:
        return
    if queue.expire_check_ms is None:
        queue.expire_check_ms = now + queue.info.settings.retention_ms
    state.watched[queue.number] = queue
    copies = [_copy(queue, message, now) for message in messages]
    references = state.plan.batch.references
    for message, copy in zip(messages, copies, strict=True):
        if len(message.body) >= limits.REFERENCE_BYTES_MIN and (kept is None or message.seq in kept):
            references[queue.key(copy.seq)] = topic.key(message.seq)
    state.insert(queue, copies)


def _copy(queue: LocalQueue, message: Message, now: int) -> Message:
    """The message as the queue has it: its retention there begins now, its delay is the queue's unless it has its own."""
    settings = queue.info.settings
    visible_ms = None
    if not settings.fifo:
        if message.visible_ms is not None:
            visible_ms = message.visible_ms if message.visible_ms > now else None
        elif settings.delay_ms:
            visible_ms = now + settings.delay_ms
    return Message(
        queue.allot(), message.id, message.body, message.attributes, now, visible_ms, message.group,
        message.dedup_id if settings.fifo else None, message.trace, message.sender,
    )  # fmt: skip
