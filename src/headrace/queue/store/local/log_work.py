"""What time does to topics, in slices: give the log to queues that are catching up, end retention, delete what nobody needs.

Catching up: each slice is one commit that puts logged messages into the queue and moves its position. The last slice takes
what is published and still on its way to the disk, too: from then on the subscription is live, in the same commit, so that
there is no gap, no duplicate, and the order is kept.
"""

from __future__ import annotations

import msgspec

from headrace.queue import limits
from headrace.queue import topics as rules
from headrace.queue.filters import Subject
from headrace.queue.model import Message
from headrace.queue.store.disk import ForgetTopic, PutSubscription
from headrace.queue.store.local import publishing
from headrace.queue.store.local.state import LocalState
from headrace.queue.store.local.topic import TRIM_PAUSE_MS, TRIM_ROUND_MS, LocalSubscription, LocalTopic


def due(state: LocalState, now: int) -> bool:
    """Whether anything here may be. A thousand idle topics cost the traffic of queues nothing."""
    return state.topics_due_ms is not None and state.topics_due_ms <= now


def next_ms(state: LocalState, now: int) -> int | None:
    """When something here is due; None while nothing is."""
    if due(state, now):
        times = []
        for topic in state.topics_by_number.values():
            times += [topic.retain_ms, topic.trim_ms, now if topic.bare or topic.held() is not None else None]
            times.append(now + limits.MINUTE_MS if topic.dedup else None)
        state.topics_due_ms = min((ms for ms in times if ms is not None), default=None)
    return state.topics_due_ms


# --- catching up ---


def catch_up(state: LocalState, now: int) -> None:
    """Give every queue that is catching up its next slice; one slice a commit."""
    if state.plan.caught_up or not due(state, now):
        return
    for topic in state.topics.values():
        for one in topic.catching_up():
            give_slice(state, topic, one, now)
            state.plan.caught_up = True


def give_slice(state: LocalState, topic: LocalTopic, one: LocalSubscription, now: int) -> None:
    """Give a queue that is catching up the next messages of the log, with the commit that is being planned."""
    before = one.stored
    assert before.position is not None
    start = max(before.position, topic.first - 1)
    found, last, more = state.disk.scan(
        topic.number, after=start, limit=limits.CATCH_UP_SLICE, bytes_max=limits.CATCH_UP_BYTES_MAX
    )
    if not more:
        found += _on_the_way(state, topic, max(last, start))
    chosen = [message for message in found if one.lets_in(Subject(message.attributes, message.body))]
    publishing.put(state, topic, one.queue, chosen, now, kept=None)
    one.stored = msgspec.structs.replace(before, position=last if more else None)

    def undo() -> None:
        one.stored = before

    state.change(PutSubscription(topic.number, one.queue.number, one.stored), undo)


def _on_the_way(state: LocalState, topic: LocalTopic, after: int) -> list[Message]:
    """What is published and not seen on the disk yet, in order."""
    plans = [plan for plan in (state.flying, state.plan) if plan is not None]
    inserts = [pair for plan in plans for pair in plan.batch.inserts]
    return [message for number, message in inserts if number == topic.number and message.seq > after]


# --- retention ---


def retain(state: LocalState, now: int) -> None:
    """Let what is past its retention leave the logs, a slice of each."""
    for topic in list(state.topics_by_number.values()) if due(state, now) else ():
        topic.dedup.expire(now)
        if topic.bare:
            _forget(state, topic)
        elif topic.retain_ms is not None and topic.retain_ms <= now:
            _retain(state, topic, now)


def _retain(state: LocalState, topic: LocalTopic, now: int) -> None:
    settings, held = topic.info.settings, topic.held()
    front = state.disk.log_front(topic.number, after=topic.first - 1, limit=limits.LOG_SLICE)
    count = rules.droppable(front, settings, log_bytes=topic.log_bytes, held=held, now=now)
    if count:
        _drop_front(state, topic, front[:count])
    if count < len(front):
        topic.retain_ms = rules.due_ms(
            settings, oldest_ms=front[count][1], log_bytes=topic.log_bytes, held=held is not None, now=now
        )
    else:
        topic.retain_ms = now if count else None


def _drop_front(state: LocalState, topic: LocalTopic, dropped: list[rules.Logged]) -> None:
    size = sum(bytes_ for _, _, bytes_ in dropped)
    before = topic.first
    topic.drop_front(len(dropped), size, dropped[-1][0] + 1)
    state.plan.logs[topic.number] = topic

    def undo() -> None:
        topic.logged += len(dropped)
        topic.log_bytes += size
        topic.first = before
        topic.retain_ms = 0

    state.plan.undo.append(undo)


# --- rows that nobody needs ---


def trim(state: LocalState, now: int) -> None:
    """Delete rows before the logs that nobody refers to, a slice of each. Call while no commit is being planned or on its
    way: a reference that is only planned would not be seen."""
    for topic in list(state.topics_by_number.values()) if due(state, now) else ():
        if topic.trim_ms is not None and topic.trim_ms <= now:
            _trim(state, topic, now)


def _trim(state: LocalState, topic: LocalTopic, now: int) -> None:
    """A slice of a round over all references, and the front again each time: consumers mostly free what is oldest."""
    limit = limits.LOG_SLICE
    front = found = state.disk.trim(topic.number, after=0, before=topic.first, limit=limit)
    if topic.trimmed >= front.last:
        found = state.disk.trim(topic.number, after=topic.trimmed, before=topic.first, limit=limit)
    topic.trimmed = found.last
    topic.kept += found.references
    if 2 * max(front.gone, found.gone) >= limit:
        topic.trim_ms, topic.trim_pause_ms = now, TRIM_PAUSE_MS
        return
    topic.trim_ms = now + topic.trim_pause_ms
    topic.trim_pause_ms = min(2 * topic.trim_pause_ms, TRIM_ROUND_MS)
    if not found.more:
        _end_round(topic, now)


def _end_round(topic: LocalTopic, now: int) -> None:
    topic.trim_ms = now + TRIM_ROUND_MS if topic.kept else None
    topic.bare = topic.deleted and not topic.kept
    topic.trimmed = topic.kept = 0


def _forget(state: LocalState, topic: LocalTopic) -> None:
    del state.topics_by_number[topic.number]

    def undo() -> None:
        state.topics_by_number[topic.number] = topic

    state.change(ForgetTopic(topic.number), undo)
