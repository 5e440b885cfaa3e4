"""The operations on queues: create, change, tag, delete, describe, list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import msgspec

from headrace.errors import InvalidParameter, InvalidSetting, PurgeInProgress, QueueDeletedRecently
from headrace.queue import limits, redrive, settings
from headrace.queue.model import QueueDescription, QueueInfo, QueueSettings
from headrace.queue.operations import ChangeSettings, CreateQueue, DeleteQueue, GetQueue, ListQueues, Purge, TagQueue
from headrace.queue.store.checks import seconds_left
from headrace.queue.store.postgres import counting, groups, topics
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.transaction import Transaction

_CREATE: Final[LiteralString] = "INSERT INTO queue (arn, info) VALUES (%s, %s::jsonb) RETURNING id"
_CHANGE: Final[LiteralString] = "UPDATE queue SET info = %s::jsonb WHERE id = %s"
# Numbers rise: what is sent after the purge has a higher one.
_PURGE: Final[LiteralString] = (
    "UPDATE queue SET floor = nextval('message_seq'), purged_ms = %s WHERE id = %s RETURNING floor"
)
_DELETED: Final[LiteralString] = "SELECT max(deleted_ms) FROM deleted_queue WHERE arn = %s"
_DROP: Final[LiteralString] = (
    "WITH gone AS (DELETE FROM queue WHERE id = %s RETURNING id, arn)"
    " INSERT INTO deleted_queue SELECT id, arn, %s FROM gone"
)


def create_queue(tx: Transaction, operation: CreateQueue) -> QueueInfo:
    existing = tx.catalog.queues.get(operation.queue)
    if existing is not None:
        settings.check_same(existing.info, operation.settings, operation.stored)
        return existing.info
    made = settings.create(operation.settings, operation.stored)
    settings.check_arn(operation.queue, fifo=made.fifo)
    _check_recently_deleted(tx, operation.queue)
    _check_redrive(tx, operation.queue, made)
    tx.lock_directory()
    info = QueueInfo(operation.queue, made, dict(operation.tags), tx.now, tx.now)
    row = tx.execute(_CREATE, (info.arn, _json(info))).fetchone()
    assert row is not None
    tx.catalog = tx.catalog.with_queue(tx.catalog.stored(row[0], info))
    return info


def _check_recently_deleted(tx: Transaction, arn: str) -> None:
    if not tx.cooldowns:
        return
    row = tx.execute(_DELETED, (arn,)).fetchone()
    deleted_ms = row[0] if row is not None else None
    if deleted_ms is not None and tx.now < deleted_ms + limits.COOLDOWN_MS:
        raise QueueDeletedRecently(arn, seconds_left(deleted_ms, tx.now))


def _check_redrive(tx: Transaction, arn: str, wanted: QueueSettings) -> None:
    if wanted.redrive is None:
        return
    target = tx.catalog.queues.get(wanted.redrive.target)
    redrive.check_target(
        arn, fifo=wanted.fifo, target_arn=wanted.redrive.target, target=target.info if target is not None else None
    )


def change_settings(tx: Transaction, operation: ChangeSettings) -> QueueInfo:
    queue = tx.catalog.queue(operation.queue)
    before = queue.info
    changed = settings.change(before.settings, operation.settings, operation.stored)
    if changed.redrive != before.settings.redrive:
        _check_redrive(tx, operation.queue, changed)
    if changed.fifo != before.settings.fifo:
        raise InvalidSetting("fifo", str(changed.fifo), "it is fixed when the queue is created")
    tx.ready.add(queue.number)  # a changed delay or retention may show something
    return _replace(tx, queue, msgspec.structs.replace(before, settings=changed, modified_ms=tx.now))


def tag_queue(tx: Transaction, operation: TagQueue) -> QueueInfo:
    queue = tx.catalog.queue(operation.queue)
    tags = {key: value for key, value in queue.info.tags.items() if key not in operation.remove}
    return _replace(tx, queue, msgspec.structs.replace(queue.info, tags={**tags, **operation.tags}))


def _replace(tx: Transaction, queue: StoredQueue, info: QueueInfo) -> QueueInfo:
    tx.lock_directory()
    tx.execute(_CHANGE, (_json(info), queue.number))
    tx.catalog = tx.catalog.with_queue(msgspec.structs.replace(queue, info=info))
    return info


def purge(tx: Transaction, operation: Purge) -> int:
    """All its messages are gone with the commit, also those in flight: they are below the floor. Their rows go later, in
    slices. What is being sent meanwhile may have drawn its number before, and goes too. How many: as `counting` tells."""
    queue = tx.catalog.queue(operation.queue)
    if tx.cooldowns and queue.purged_ms is not None and tx.now < queue.purged_ms + limits.COOLDOWN_MS:
        raise PurgeInProgress(operation.queue, seconds_left(queue.purged_ms, tx.now))
    return empty(tx, queue)


def empty(tx: Transaction, queue: StoredQueue) -> int:
    """Purge a queue; whether that may be is the caller's to know. Returns how many messages are gone."""
    counts = counting.count(tx, [queue])[queue.number]
    if queue.info.settings.fifo:
        groups.drop_all(tx, queue.number)
    tx.lock_directory()
    row = tx.execute(_PURGE, (tx.now, queue.number)).fetchone()
    assert row is not None
    tx.catalog = tx.catalog.with_queue(msgspec.structs.replace(queue, floor=row[0], purged_ms=tx.now))
    gone = counts.visible + counts.in_flight + counts.delayed
    tx.count(queue.number, "deleted", gone)
    tx.ready.add(queue.number)
    return gone


def delete_queue(tx: Transaction, operation: DeleteQueue) -> None:
    """Its messages are nobody's from now on; they go later, in slices."""
    queue = tx.catalog.queue(operation.queue)
    tx.lock_directory()
    topics.forget_queue(tx, queue)
    tx.execute(_DROP, (queue.number, tx.now))
    tx.catalog = tx.catalog.without_queue(queue.arn)
    tx.ready.add(queue.number)  # its waiting polls learn that it is gone


def get_queue(tx: Transaction, operation: GetQueue) -> QueueDescription:
    queue = tx.catalog.queue(operation.queue)
    return QueueDescription(queue.info, counting.count_all(tx, queue)) if operation.exact else _describe(tx, [queue])[0]


def list_queues(tx: Transaction, operation: ListQueues) -> list[QueueDescription]:
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    arns = sorted(
        arn
        for arn, queue in tx.catalog.queues.items()
        if arn.startswith(operation.prefix) and arn > operation.after and _redrives_to(queue, operation.target)
    )
    return _describe(tx, [tx.catalog.queues[arn] for arn in arns[: operation.limit]])


def _redrives_to(queue: StoredQueue, target: str | None) -> bool:
    policy = queue.info.settings.redrive
    return target is None or (policy is not None and policy.target == target)


def _describe(tx: Transaction, queues: Sequence[StoredQueue]) -> list[QueueDescription]:
    counts = counting.count(tx, queues)
    return [QueueDescription(queue.info, counts[queue.number]) for queue in queues]


def _json(info: QueueInfo) -> str:
    text: Any = msgspec.json.encode(info)
    return str(text, "utf-8")
