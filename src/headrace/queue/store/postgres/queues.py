"""The operations on queues: create, change, tag, delete, describe, list."""

from __future__ import annotations

from typing import Any, Final, LiteralString

import msgspec

from headrace.errors import InvalidParameter, InvalidSetting, PurgeInProgress, QueueDeletedRecently
from headrace.queue import limits, redrive, settings
from headrace.queue.model import QueueCounts, QueueDescription, QueueInfo, QueueSettings
from headrace.queue.operations import ChangeSettings, CreateQueue, DeleteQueue, GetQueue, ListQueues, Purge, TagQueue
from headrace.queue.store.checks import seconds_left
from headrace.queue.store.postgres import groups
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

_CREATE: Final[LiteralString] = "INSERT INTO queue (arn, info) VALUES (%s, %s::jsonb) RETURNING id"
_CHANGE: Final[LiteralString] = "UPDATE queue SET info = %s::jsonb WHERE id = %s"
_PURGE: Final[LiteralString] = """
WITH gone AS (DELETE FROM message WHERE queue = %s RETURNING seq >= %s AND sent_ms > %s AS counted)
SELECT count(*) FILTER (WHERE counted) FROM gone
"""
_PURGED: Final[LiteralString] = "UPDATE queue SET purged_ms = %s WHERE id = %s"
_DELETED: Final[LiteralString] = "SELECT max(deleted_ms) FROM deleted_queue WHERE arn = %s"
_DROP: Final[LiteralString] = (
    "WITH gone AS (DELETE FROM queue WHERE id = %s RETURNING id, arn)"
    " INSERT INTO deleted_queue SELECT id, arn, %s FROM gone"
)
_COUNTS: Final[LiteralString] = """
SELECT count(*) FILTER (WHERE visible_ms <= %(now)s AND (visible_ms > 0 OR sent_ms <= %(shown)s)),
    count(*) FILTER (WHERE visible_ms > %(now)s AND (receives > 0 OR visible_ms >= %(claimed)s)),
    count(*) FILTER (WHERE visible_ms > %(now)s AND receives = 0 AND visible_ms < %(claimed)s
        OR visible_ms = 0 AND sent_ms > %(shown)s),
    (SELECT sent_ms FROM message WHERE queue = %(queue)s AND seq >= %(floor)s ORDER BY seq LIMIT 1)
FROM message WHERE queue = %(queue)s AND seq >= %(floor)s AND sent_ms > %(oldest)s
"""


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
    """All its messages are gone with the commit, also those in flight. The directory is locked after the long part."""
    queue = tx.catalog.queue(operation.queue)
    if tx.cooldowns and queue.purged_ms is not None and tx.now < queue.purged_ms + limits.COOLDOWN_MS:
        raise PurgeInProgress(operation.queue, seconds_left(queue.purged_ms, tx.now))
    oldest_ms = tx.now - queue.info.settings.retention_ms
    if queue.info.settings.fifo:
        groups.lock_all(tx, queue.number)
    row = tx.execute(_PURGE, (queue.number, queue.floor, oldest_ms)).fetchone()
    assert row is not None
    if queue.info.settings.fifo:
        groups.drop_empty(tx, queue.number)
    tx.lock_directory()
    tx.execute(_PURGED, (tx.now, queue.number))
    tx.catalog = tx.catalog.with_queue(msgspec.structs.replace(queue, purged_ms=tx.now))
    tx.count(queue.number, "deleted", row[0])
    tx.ready.add(queue.number)
    gone: int = row[0]
    return gone


def delete_queue(tx: Transaction, operation: DeleteQueue) -> None:
    """Its messages are nobody's from now on; they go later, in slices."""
    queue = tx.catalog.queue(operation.queue)
    tx.lock_directory()
    tx.execute(_DROP, (queue.number, tx.now))
    tx.catalog = tx.catalog.without_queue(queue.arn)
    tx.ready.add(queue.number)  # its waiting polls learn that it is gone


def get_queue(tx: Transaction, operation: GetQueue) -> QueueDescription:
    return describe(tx, tx.catalog.queue(operation.queue))


def list_queues(tx: Transaction, operation: ListQueues) -> list[QueueDescription]:
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    arns = sorted(
        arn
        for arn, queue in tx.catalog.queues.items()
        if arn.startswith(operation.prefix) and arn > operation.after and _redrives_to(queue, operation.target)
    )
    return [describe(tx, tx.catalog.queues[arn]) for arn in arns[: operation.limit]]


def _redrives_to(queue: StoredQueue, target: str | None) -> bool:
    policy = queue.info.settings.redrive
    return target is None or (policy is not None and policy.target == target)


def describe(tx: Transaction, queue: StoredQueue) -> QueueDescription:
    oldest_ms = tx.now - queue.info.settings.retention_ms
    known = {
        "queue": queue.number, "floor": queue.floor, "oldest": oldest_ms, "now": tx.now, "claimed": CLAIMED_MS,
        "shown": queue.shown_ms(tx.now),
    }  # fmt: skip
    row = tx.execute(_COUNTS, known).fetchone()
    assert row is not None
    return QueueDescription(queue.info, QueueCounts(*row, **tx.totals_of(queue.number)))


def _json(info: QueueInfo) -> str:
    text: Any = msgspec.json.encode(info)
    return str(text, "utf-8")
