"""Plans of the operations on queues: create, change, tag, purge, delete, describe, list."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.errors import InvalidParameter, InvalidSetting, PurgeInProgress, QueueDeletedRecently
from headrace.queue import limits, redrive, settings
from headrace.queue.dedup import DedupWindow
from headrace.queue.fifo import FifoOrder
from headrace.queue.model import QueueDescription, QueueInfo, QueueSettings
from headrace.queue.operations import (
    ChangeSettings,
    CreateQueue,
    DeleteQueue,
    GetQueue,
    ListQueues,
    Purge,
    TagQueue,
)
from headrace.queue.store.checks import seconds_left
from headrace.queue.store.disk import DropQueue, PutGarbage, PutQueue, key_of
from headrace.queue.store.local import topics
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState
from headrace.queue.timers import SEQ_MASK


def create_queue(state: LocalState, operation: CreateQueue, now: int) -> QueueInfo:
    existing = state.queues.get(operation.queue)
    if existing is not None:
        settings.check_same(existing.info, operation.settings, operation.stored)
        return existing.info
    made = settings.create(operation.settings, operation.stored)
    settings.check_arn(operation.queue, fifo=made.fifo)
    _check_recently_deleted(state, operation.queue, now)
    _check_redrive(state, operation.queue, made)
    info = QueueInfo(operation.queue, made, dict(operation.tags), now, now)
    queue = LocalQueue(state.next_number, info)
    state.next_number += 1
    state.queues[info.arn] = state.by_number[queue.number] = queue

    def undo() -> None:
        del state.queues[info.arn], state.by_number[queue.number]

    state.change(queue.row(), undo)
    return info


def _check_recently_deleted(state: LocalState, arn: str, now: int) -> None:
    deleted_ms = state.deleted_queues.get(arn)
    if state.cooldowns and deleted_ms is not None and now < deleted_ms + limits.COOLDOWN_MS:
        raise QueueDeletedRecently(arn, seconds_left(deleted_ms, now))


def _check_redrive(state: LocalState, arn: str, wanted: QueueSettings) -> None:
    if wanted.redrive is None:
        return
    target = state.queues.get(wanted.redrive.target)
    redrive.check_target(
        arn, fifo=wanted.fifo, target_arn=wanted.redrive.target, target=target.info if target is not None else None
    )


def change_settings(state: LocalState, operation: ChangeSettings, now: int) -> QueueInfo:
    queue = state.queue(operation.queue)
    before = queue.info
    changed = settings.change(before.settings, operation.settings, operation.stored)
    if changed.redrive != before.settings.redrive:
        _check_redrive(state, operation.queue, changed)
    if changed.fifo != before.settings.fifo:
        raise InvalidSetting("fifo", str(changed.fifo), "it is fixed when the queue is created")
    info = msgspec.structs.replace(before, settings=changed, modified_ms=now)
    _replace(state, queue, info)
    if changed.retention_ms < before.settings.retention_ms and queue.messages:
        queue.expire_check_ms = now
    if isinstance(queue.order, FifoOrder) and changed.delay_ms != before.settings.delay_ms:
        queue.order.reconsider()
        state.ready.add(info.arn)
    return info


def tag_queue(state: LocalState, operation: TagQueue, now: int) -> QueueInfo:
    del now  # tags are not a modification of the queue's settings
    queue = state.queue(operation.queue)
    tags = {key: value for key, value in queue.info.tags.items() if key not in operation.remove}
    info = msgspec.structs.replace(queue.info, tags={**tags, **operation.tags})
    _replace(state, queue, info)
    return info


def _replace(state: LocalState, queue: LocalQueue, info: QueueInfo) -> None:
    before = queue.info

    def undo() -> None:
        queue.info = before

    queue.info = info
    state.change(queue.row(), undo)


def purge(state: LocalState, operation: Purge, now: int) -> int:
    queue = state.queue(operation.queue)
    if state.cooldowns and queue.purged_ms is not None and now < queue.purged_ms + limits.COOLDOWN_MS:
        raise PurgeInProgress(operation.queue, seconds_left(queue.purged_ms, now))
    return purge_queue(state, queue, now)


def purge_queue(state: LocalState, queue: LocalQueue, now: int) -> int:
    """Every message of the queue is gone with the commit; how many there were. The rows go later, in slices.

    So are the deduplication ids: on the disk those of messages below the floor count no more.
    """
    gone, before_ms, before, floor = queue.messages, queue.purged_ms, queue.purging, queue.next_seq
    queue.messages, queue.purged_ms, queue.purging = 0, now, floor
    seen, queue.dedup = queue.dedup, DedupWindow()
    queue.deleted += gone
    first, last = key_of(queue.number, 0), key_of(queue.number, floor - 1)

    def settle(_now: int) -> None:
        queue.purge(floor)
        state.cache.drop(first, last)
        state.garbage = True
        state.ready.add(queue.info.arn)

    def undo() -> None:
        queue.messages, queue.purged_ms, queue.purging = queue.messages + gone, before_ms, before
        queue.deleted -= gone
        queue.dedup = seen

    state.plan.settle.append(settle)
    state.change(PutQueue(queue.number, queue.info, floor, now), undo)
    state.change(PutGarbage(first, last))
    state.plan.touched[queue.number] = queue
    return gone


def delete_queue(state: LocalState, operation: DeleteQueue, now: int) -> None:
    queue = state.queue(operation.queue)
    arn = queue.info.arn
    del state.queues[arn], state.by_number[queue.number]
    for old in [name for name, ms in state.deleted_queues.items() if ms + limits.COOLDOWN_MS <= now]:
        del state.deleted_queues[old]
    state.deleted_queues[arn] = now
    state.change(DropQueue(queue.number, arn, now), _undelete(state, queue, arn))
    state.change(PutGarbage(key_of(queue.number, 0), key_of(queue.number, SEQ_MASK)))
    topics.forget_queue(state, queue, now)
    state.plan.touched.pop(queue.number, None)
    state.ready.add(arn)  # its waiting polls learn that it is gone

    def settle(_now: int) -> None:
        queue.dropped = True
        state.garbage = True
        state.cache.drop(key_of(queue.number, 0), key_of(queue.number, SEQ_MASK))

    state.plan.settle.append(settle)


def _undelete(state: LocalState, queue: LocalQueue, arn: str) -> Callable[[], None]:
    def undo() -> None:
        state.queues[arn] = state.by_number[queue.number] = queue
        del state.deleted_queues[arn]

    return undo


def get_queue(state: LocalState, operation: GetQueue, now: int) -> QueueDescription:
    queue = state.queue(operation.queue)
    state.advance_queue(queue, now)
    return describe(state, queue, now)


def describe(state: LocalState, queue: LocalQueue, now: int) -> QueueDescription:
    first = state.disk.first(queue.number, after=max(0, queue.floor - 1)) if queue.messages else None
    return QueueDescription(queue.info, queue.counts(first[1] if first is not None else None, now, state.disk))


def list_queues(state: LocalState, operation: ListQueues, now: int) -> list[QueueDescription]:
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    arns = sorted(
        arn
        for arn, queue in state.queues.items()
        if arn.startswith(operation.prefix) and arn > operation.after and _redrives_to(queue, operation.target)
    )
    return [describe(state, state.queues[arn], now) for arn in arns[: operation.limit]]


def _redrives_to(queue: LocalQueue, target: str | None) -> bool:
    policy = queue.info.settings.redrive
    return target is None or (policy is not None and policy.target == target)
