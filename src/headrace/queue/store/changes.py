"""The rare rows of a commit in SQL: one function a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import apsw
import msgspec

from headrace.queue import limits
from headrace.queue.store.disk import (
    PAGE,
    Change,
    DropQueue,
    ForgetTopic,
    PutClaim,
    PutFence,
    PutGarbage,
    PutMove,
    PutQueue,
    PutReader,
    PutState,
    PutSubscription,
    PutTopic,
    Quarantine,
)
from headrace.queue.store.rows import BODY


def apply(db: apsw.Connection, change: Change) -> None:
    """Write one record, in the transaction that is open."""
    _WRITERS[type(change)](db, change)


def _put_queue(db: apsw.Connection, change: PutQueue) -> None:
    info = msgspec.json.encode(change.info).decode()
    db.execute(
        "INSERT INTO queue VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET info = excluded.info, floor = max(floor, excluded.floor), purged_ms = excluded.purged_ms",
        (change.number, change.info.arn, info, change.floor, change.purged_ms),
    )
    db.execute("DELETE FROM deleted_queue WHERE arn = ?", (change.info.arn,))


def _drop_queue(db: apsw.Connection, change: DropQueue) -> None:
    for table in ("progress", "claim", "reader", "dedup", "subscription"):
        db.execute(f"DELETE FROM {table} WHERE queue = ?", (change.number,))  # noqa: S608 - fixed names
    db.execute("DELETE FROM queue WHERE id = ?", (change.number,))
    db.execute("DELETE FROM deleted_queue WHERE deleted_ms <= ?", (change.deleted_ms - limits.COOLDOWN_MS,))
    db.execute("INSERT OR REPLACE INTO deleted_queue VALUES (?, ?)", (change.arn, change.deleted_ms))


def _put_garbage(db: apsw.Connection, change: PutGarbage) -> None:
    db.execute("INSERT INTO garbage (first, last) VALUES (?, ?)", (change.first, change.last))


def _put_state(db: apsw.Connection, change: PutState) -> None:
    if change.value is None:
        db.execute("DELETE FROM state WHERE name = ? AND key = ?", (change.name, change.key))
    else:
        db.execute(
            "INSERT INTO state VALUES (?, ?, ?) ON CONFLICT (name, key) DO UPDATE SET value = excluded.value",
            (change.name, change.key, change.value),
        )


def _put_fence(db: apsw.Connection, change: PutFence) -> None:
    db.execute("INSERT OR REPLACE INTO fence VALUES (?, ?)", (change.name, change.epoch))


def _put_claim(db: apsw.Connection, change: PutClaim) -> None:
    seqs = msgspec.msgpack.encode(change.seqs)
    db.execute("INSERT INTO claim VALUES (?, ?, ?, ?)", (change.queue, change.reader, change.number, seqs))


def _put_reader(db: apsw.Connection, change: PutReader) -> None:
    if change.acknowledged is None:
        db.execute("DELETE FROM claim WHERE queue = ? AND reader = ?", (change.queue, change.reader))
        db.execute("DELETE FROM reader WHERE queue = ? AND reader = ?", (change.queue, change.reader))
        return
    db.execute(
        "DELETE FROM claim WHERE queue = ? AND reader = ? AND number <= ?",
        (change.queue, change.reader, change.acknowledged),
    )
    db.execute("INSERT OR REPLACE INTO reader VALUES (?, ?, ?)", (change.queue, change.reader, change.acknowledged))


def _put_move(db: apsw.Connection, change: PutMove) -> None:
    task = change.task
    db.execute(
        "INSERT OR REPLACE INTO move_task VALUES (?, ?, ?, ?)",
        (task.handle, task.source, task.started_ms, msgspec.json.encode(task).decode()),
    )
    db.execute(  # no more than can be listed
        "DELETE FROM move_task WHERE source = ? AND handle NOT IN"
        " (SELECT handle FROM move_task WHERE source = ? ORDER BY started_ms DESC LIMIT ?)",
        (task.source, task.source, limits.MOVE_TASKS_LISTED_MAX),
    )


def _put_topic(db: apsw.Connection, change: PutTopic) -> None:
    if change.info is None:
        db.execute("UPDATE topic SET arn = NULL WHERE id = ?", (change.number,))
        db.execute("DELETE FROM subscription WHERE topic = ?", (change.number,))
        db.execute("DELETE FROM dedup WHERE queue = ?", (change.number,))
        return
    db.execute(
        "INSERT INTO topic VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET info = excluded.info",
        (change.number, change.info.arn, msgspec.json.encode(change.info).decode()),
    )


def _forget_topic(db: apsw.Connection, change: ForgetTopic) -> None:
    db.execute("DELETE FROM topic WHERE id = ?", (change.number,))
    db.execute("DELETE FROM topic_log WHERE topic = ?", (change.number,))


def _put_subscription(db: apsw.Connection, change: PutSubscription) -> None:
    if change.details is None:
        db.execute("DELETE FROM subscription WHERE topic = ? AND queue = ?", (change.topic, change.queue))
        return
    db.execute(
        "INSERT INTO subscription VALUES (?, ?, ?) ON CONFLICT (topic, queue) DO UPDATE SET details = excluded.details",
        (change.topic, change.queue, msgspec.json.encode(change.details).decode()),
    )


def _quarantine(db: apsw.Connection, change: Quarantine) -> None:
    """Keep what can still be read of the row, which leaves its queue in this commit."""
    if change.reason == PAGE:  # to read it again would end the commit
        db.execute(
            "INSERT OR REPLACE INTO quarantine (key, at_ms, reason) VALUES (?, ?, ?)",
            (change.key, change.at_ms, change.reason),
        )
        return
    db.execute(
        f"INSERT OR REPLACE INTO quarantine SELECT key, ?, ?, id, {BODY}, attributes FROM message WHERE key = ?",  # noqa: S608
        (change.at_ms, change.reason, change.key),
    )


_WRITERS: Final[dict[type[Any], Callable[[apsw.Connection, Any], None]]] = {
    PutQueue: _put_queue,
    DropQueue: _drop_queue,
    PutGarbage: _put_garbage,
    PutState: _put_state,
    PutFence: _put_fence,
    PutClaim: _put_claim,
    PutReader: _put_reader,
    PutMove: _put_move,
    PutTopic: _put_topic,
    ForgetTopic: _forget_topic,
    PutSubscription: _put_subscription,
    Quarantine: _quarantine,
}
