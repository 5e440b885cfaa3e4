"""From what the disk knew to the memory of a local store; and the leases, for the journal's snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.queue import limits
from headrace.queue.fifo import FifoOrder
from headrace.queue.model import Message
from headrace.queue.standard import StandardOrder
from headrace.queue.store.disk import LeaseRecord, Stored, StoredLease, seq_of
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState
from headrace.queue.store.local.topic import LocalTopic
from headrace.queue.timers import SEQ_BITS

_ITEMS_A_RECORD = 1_000


def restore(state: LocalState, stored: Stored, now: int) -> None:
    """Fill an empty state. Messages stay on the disk; what has been received, delayed or claimed is known at once."""
    for kept in stored.queues:
        queue = LocalQueue(kept.number, kept.info, messages=kept.messages, floor=kept.floor, reserved=kept.reserved)
        queue.purged_ms = kept.purged_ms
        state.watched[kept.number] = queue
        state.queues[kept.info.arn] = state.by_number[kept.number] = queue
        queue.damaged = stored.lost.get(kept.number, 0)
        if isinstance(queue.order, FifoOrder) and stored.fifo_closed_until_ms > now:
            queue.order.close_until(stored.fifo_closed_until_ms)
    state.damaged = sum(stored.lost.values())
    numbers = [queue.number for queue in stored.queues] + [topic.number for topic in stored.topics]
    state.next_number = 1 + max([*numbers, stored.last_queue, stored.last_topic])
    _restore_topics(state, stored, now)
    _restore_claims(state, stored)
    for lease in sorted(stored.leases, key=_key):  # a FIFO queue's groups take turns in the order that they come
        _restore_lease(state, lease, now)
    for key, visible_ms in stored.delayed:
        _restore_delay(
            state.by_number.get(key >> SEQ_BITS), seq_of(key), min(visible_ms, now + limits.MESSAGE_DELAY_MAX_MS)
        )
    for dedup in stored.dedups:
        door = state.by_number.get(dedup.queue) or state.topics_by_number.get(dedup.queue)
        if door is not None and dedup.expires_ms > now:
            door.dedup.add(dedup.key, dedup.sent, dedup.expires_ms)
    for attempt in stored.attempts:
        if attempt.queue in state.by_number and attempt.at_ms + limits.ATTEMPT_MS > now:
            state.by_number[attempt.queue].attempts[attempt.attempt_id] = attempt
    state.moves = {task.handle: task for task in stored.moves}
    state.fences = dict(stored.fences)
    state.deleted_queues = {arn: ms for arn, ms in stored.deleted_queues.items() if ms + limits.COOLDOWN_MS > now}
    state.garbage = bool(stored.garbage)


def _key(stored: StoredLease) -> int:
    return stored.key


def _restore_topics(state: LocalState, stored: Stored, now: int) -> None:
    for kept in stored.topics:
        topic = LocalTopic(kept.number, kept.info, kept.log)
        topic.retain_ms = topic.trim_ms = now
        state.topics_by_number[kept.number] = topic
        if kept.info is None:
            continue
        state.topics[kept.info.arn] = topic
        inbox = state.queues.get(kept.info.settings.inbox or "")
        if inbox is not None:
            inbox.inbox_of = topic.number
    for one in stored.subscriptions:
        found, queue = state.topics_by_number.get(one.topic), state.by_number.get(one.queue)
        if found is not None and queue is not None and one.details is not None:
            found.subscribe(queue, one.details)


def _restore_delay(queue: LocalQueue | None, seq: int, visible_ms: int) -> None:
    if queue is not None and seq >= queue.floor and not queue.order.leases.knows(seq):
        queue.delays.add(visible_ms, seq)
        queue.delayed += 1


def _restore_claims(state: LocalState, stored: Stored) -> None:
    for reader in stored.readers:
        queue = state.by_number.get(reader.queue)
        if queue is not None and reader.acknowledged is not None:
            queue.acknowledged[reader.reader] = reader.acknowledged
    for claim in stored.claims:
        queue = state.by_number.get(claim.queue)
        if queue is None:
            continue
        seqs = [seq for seq in claim.seqs if seq >= queue.floor]
        queue.claims.setdefault(claim.reader, {})[claim.number] = seqs
        found = state.read(queue, seqs)
        for message in found.values():
            _restore_claimed(queue.order, message, claim.reader)


def _restore_claimed(order: StandardOrder | FifoOrder, message: Message, reader: str) -> None:
    if isinstance(order, StandardOrder):
        order.claim(message)
        return
    order.leases.claim(message)
    assert message.group is not None
    order.lock(message.seq, message.group, reader)


def _restore_lease(state: LocalState, stored: StoredLease, now: int) -> None:
    queue = state.by_number.get(stored.key >> SEQ_BITS)
    seq = seq_of(stored.key)
    lease = stored.lease
    if queue is None or seq < queue.floor:
        return
    order = queue.order
    if seq in order.leases.claimed:
        order.leases.claimed[seq] = lease
    elif lease.expires_ms > now:
        order.leases.restore(seq, lease)
        if isinstance(order, FifoOrder):
            assert lease.group is not None
            order.lock(seq, lease.group)
        else:
            order.started([lease])
    else:
        order.leases.past[seq] = lease
        order.recall(seq, lease.group, lease.sent_ms)


def lease_records(state: LocalState) -> Iterator[LeaseRecord]:
    """All leases, active and past, as records: what a fresh journal starts with."""
    for queue in state.by_number.values():
        yield from _records(queue)


def _records(queue: LocalQueue) -> Iterator[LeaseRecord]:
    leases = queue.order.leases
    seen: set[int] = set()
    for attempt in queue.attempts.values():
        held = [(seq, leases.active.get(seq)) for seq, _ in attempt.leased]
        items = [(seq, lease.receives, lease.first_ms) for seq, lease in held if lease is not None]
        if len(items) == len(held):
            seen.update(seq for seq, _ in held)
            yield LeaseRecord(queue.number, attempt.at_ms, attempt.expires_ms, items, attempt.attempt_id)
    grouped: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for seq, lease in [*leases.active.items(), *leases.past.items(), *leases.claimed.items()]:
        if seq not in seen and lease.receives:
            grouped.setdefault((lease.received_ms, lease.expires_ms), []).append((seq, lease.receives, lease.first_ms))
    for (received_ms, expires_ms), items in grouped.items():
        for start in range(0, len(items), _ITEMS_A_RECORD):
            yield LeaseRecord(queue.number, received_ms, expires_ms, items[start : start + _ITEMS_A_RECORD])
