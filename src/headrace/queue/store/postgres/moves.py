"""Message move tasks: dead letters go back to where they came from, or elsewhere, at a bounded rate.

A task is a row, and belongs to no node: whichever keeps house moves a slice of it, in one transaction with its progress. So
a node that dies takes none with it, and no message is lost or doubled. Source: SQS, StartMessageMoveTask.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, LiteralString, TypeAlias
from uuid import uuid4

import msgspec

from headrace.errors import InvalidParameter, MoveTaskNotFound, MoveTaskRefused
from headrace.queue import limits
from headrace.queue.model import MoveTask
from headrace.queue.operations import CancelMove, ListMoves, StartMove
from headrace.queue.redrive import same_account
from headrace.queue.store.postgres import counting, groups
from headrace.queue.store.postgres.arrays import Blobs, Ints
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.groups import Group
from headrace.queue.store.postgres.leasing import THESE, these
from headrace.queue.store.postgres.transaction import Transaction

SLICE: Final = 500  # messages a transaction: others are served between two slices
TASKS_AT_ONCE: Final = 10  # whose slices are in one transaction
TICK_MS: Final = 100  # a task with a rate moves every so often
_NO_SOURCE: Final = "CouldNotDetermineMessageSource"  # SQS's FailureReason
_NO_QUEUE: Final = "AWS.SimpleQueueService.NonExistentQueue"
_TWO: Final = "There is already a task running. Only one active task is allowed for a source queue arn at a given time."

_COLUMNS: Final[LiteralString] = "handle, source, target, rate_max, status, started_ms, moved, to_move, failure"
_START: Final[LiteralString] = """
INSERT INTO move_task (handle, source, target, rate_max, status, started_ms, to_move, earned_ms, earned)
VALUES (%(handle)s, %(source)s, %(target)s, %(rate_max)s, 'RUNNING', %(now)s, %(to_move)s, %(earned_ms)s, %(earned)s)
ON CONFLICT (source) WHERE status = 'RUNNING' DO NOTHING RETURNING handle
"""
_FORGET: Final[LiteralString] = """
DELETE FROM move_task WHERE handle IN (
    SELECT handle FROM move_task WHERE source = %s ORDER BY started_ms DESC, number DESC OFFSET %s
)
"""
_CANCEL: Final[LiteralString] = (
    "UPDATE move_task SET status = 'CANCELLED' WHERE handle = %s AND status = 'RUNNING' RETURNING "  # noqa: S608
    + _COLUMNS
)
_FIND: Final[LiteralString] = "SELECT source FROM move_task WHERE handle = %s"
_LIST: Final[LiteralString] = (
    "SELECT " + _COLUMNS + " FROM move_task WHERE source = %s ORDER BY started_ms DESC, number DESC LIMIT %s"  # noqa: S608
)
_RUNNING: Final[LiteralString] = (
    "SELECT "  # noqa: S608 - our own columns
    + _COLUMNS
    + """, earned_ms, earned FROM move_task
WHERE status = 'RUNNING' AND (rate_max IS NULL OR earned_ms + %s <= %s) ORDER BY earned_ms LIMIT %s FOR UPDATE SKIP LOCKED
"""
)
_NEXT: Final[LiteralString] = "SELECT min(earned_ms) FROM move_task WHERE status = 'RUNNING'"
_PROGRESS: Final[LiteralString] = """
UPDATE move_task SET status = %(status)s, moved = %(moved)s, failure = %(failure)s, earned_ms = %(now)s, earned = %(earned)s
WHERE handle = %(handle)s
"""
# What is ready, in the order in which it would be received.
_TAKE: Final[LiteralString] = """
WITH again AS MATERIALIZED (
    SELECT seq, sent_ms, source FROM message
    WHERE queue = %(queue)s AND visible_ms > 0 AND visible_ms <= %(now)s AND seq >= %(floor)s
    ORDER BY visible_ms, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT seq, sent_ms, source FROM message
    WHERE queue = %(queue)s AND visible_ms = 0 AND seq >= %(floor)s
    ORDER BY seq LIMIT %(limit)s - (SELECT count(*) FROM again) FOR UPDATE SKIP LOCKED
)
SELECT * FROM again UNION ALL SELECT * FROM fresh
"""
# What is ready of a FIFO queue: of each group the messages before the first that is in flight. First to see which groups are to
# be locked, then, of these messages, what is so still.
_READY: Final[LiteralString] = """
SELECT m.seq, m.sent_ms, m.source, m.grp FROM message m JOIN message_group g ON g.queue = m.queue AND g.name = m.grp
WHERE m.queue = %(queue)s AND m.seq >= %(floor)s AND m.sent_ms <= %(shown)s AND g.busy_ms <= %(now)s
    AND (%(seqs)s::bigint[] IS NULL OR m.seq = ANY (%(seqs)s))
    AND NOT EXISTS (SELECT FROM message b WHERE b.queue = m.queue AND b.grp = m.grp AND b.seq > g.head AND b.seq <= m.seq
        AND b.visible_ms > %(now)s)
ORDER BY m.seq LIMIT %(limit)s
"""
# A moved message is a new one: id, send time, retention and count begin anew.
_MOVE: Final[LiteralString] = """
UPDATE message m SET queue = going.queue, seq = going.next, id = going.id, sent_ms = %(now)s, visible_ms = 0,
    due_ms = NULL, receives = 0, received_ms = NULL, first_ms = NULL, prior_receives = 0, prior_first_ms = NULL,
    source = NULL
FROM (
    SELECT seq, queue, id, nextval('message_seq') AS next
    FROM unnest(%(seqs)s, %(targets)s, %(ids)s) AS going (seq, queue, id)
) AS going
WHERE m.queue = %(source)s AND m.seq = going.seq
"""
_EXPIRE: Final[LiteralString] = f"DELETE FROM message m USING {THESE.removeprefix(' FROM ')}"  # noqa: S608 - our own text


Rows: TypeAlias = list[tuple[Any, ...]]
"""Messages that a task may move: (seq, sent_ms, source, and, of a FIFO queue, the group)."""


class Running(msgspec.Struct):
    """A task that may move now, and what its rate had earned it at `earned_ms`."""

    task: MoveTask
    earned_ms: int
    earned: float

    def earn(self, now: int) -> int:
        """How many messages it may move: its rate since it moved last, a second's worth at most (a pause is not caught up
        with)."""
        rate = self.task.rate_max
        if rate is None:
            return SLICE
        earned = min(float(rate), self.earned + max(0, now - self.earned_ms) * rate / 1_000)
        allowed = min(int(earned), SLICE)
        self.earned = earned - allowed
        return allowed


class Found(msgspec.Struct):
    """What a slice moves of what it has locked: (seq, number of the queue), what has expired, why it ends there."""

    going: list[tuple[int, int]] = []
    expired: list[int] = []
    failure: str | None = None


# --- the operations ---


def start_move(tx: Transaction, operation: StartMove) -> MoveTask:
    source = tx.catalog.queue(operation.source)
    _check(tx, source, operation)
    counts = counting.count(tx, [source])[source.number]
    task = MoveTask(
        str(uuid4()),
        source.arn,
        operation.target,
        operation.rate_max,
        "RUNNING",
        tx.now,
        0,
        counts.visible,
    )
    rate = operation.rate_max or 0
    credit = {"now": tx.now, "earned_ms": tx.now - TICK_MS, "earned": 1 - rate * TICK_MS / 1_000}  # one at once
    if tx.execute(_START, {**msgspec.structs.asdict(task), **credit}).fetchone() is None:
        raise MoveTaskRefused(source.arn, _TWO)
    tx.execute(_FORGET, (source.arn, limits.MOVE_TASKS_LISTED_MAX))
    tx.wrote()
    return task


def _check(tx: Transaction, source: StoredQueue, operation: StartMove) -> None:
    arn = source.arn
    rate = operation.rate_max
    if rate is not None and not 1 <= rate <= limits.MOVE_RATE_MAX:
        raise InvalidParameter(
            "MaxNumberOfMessagesPerSecond", str(rate), f"it must be from 1 to {limits.MOVE_RATE_MAX}"
        )
    policies = [queue.info.settings.redrive for queue in tx.catalog.queues.values()]
    if not any(policy is not None and policy.target == arn for policy in policies):
        raise MoveTaskRefused(arn, "Source queue must be configured as a Dead Letter Queue.")
    if operation.target is not None:
        _check_target(source, tx.catalog.queue(operation.target))


def _check_target(source: StoredQueue, target: StoredQueue) -> None:
    if not same_account(source.arn, target.arn):
        raise MoveTaskRefused(source.arn, "Source and destination must be of the same account and region.")
    if target.number == source.number:
        raise MoveTaskRefused(source.arn, "Source queue arn and destination queue arn cannot be the same.")
    if target.info.settings.fifo != source.info.settings.fifo:
        raise MoveTaskRefused(source.arn, "The source queue and destination queue must be of the same queue type.")


def cancel_move(tx: Transaction, operation: CancelMove) -> MoveTask:
    row = tx.execute(_CANCEL, (operation.handle,)).fetchone()
    if row is not None:
        tx.wrote()
        return MoveTask(*row)
    found = tx.execute(_FIND, (operation.handle,)).fetchone()
    if found is None:
        raise MoveTaskNotFound(operation.handle)
    raise MoveTaskRefused(found[0], "Only active tasks can be cancelled.")


def list_moves(tx: Transaction, operation: ListMoves) -> list[MoveTask]:
    source = tx.catalog.queue(operation.source)
    if not 1 <= operation.limit <= limits.MOVE_TASKS_LISTED_MAX:
        raise InvalidParameter(
            "MaxResults", str(operation.limit), f"it must be from 1 to {limits.MOVE_TASKS_LISTED_MAX}"
        )
    return [MoveTask(*row) for row in tx.execute(_LIST, (source.arn, operation.limit)).fetchall()]


# --- what maintenance does ---


def step(tx: Transaction) -> int | None:
    """Move a slice of every task that may; of those from FIFO queues one, since each locks groups, and who locks some while it
    holds others may deadlock. Returns when to come again: a time; None: no task runs."""
    found = tx.execute(_RUNNING, (TICK_MS, tx.now, TASKS_AT_ONCE)).fetchall()
    running = [Running(MoveTask(*row[:-2]), *row[-2:]) for row in found]
    ordered = [one for one in running if one.task.source.endswith(".fifo")]
    for one in [one for one in running if one not in ordered[1:]]:
        _move_slice(tx, one, one.earn(tx.now))
        tx.wrote()
    row = tx.execute(_NEXT).fetchone()
    if row is None or row[0] is None:
        return None
    fast = len(ordered) > 1 or any(one.task.rate_max is None for one in running)
    return tx.now if fast else max(tx.now + 1, row[0] + TICK_MS)


def _move_slice(tx: Transaction, running: Running, allowed: int) -> None:
    task = running.task
    source = tx.catalog.queues.get(task.source)
    if source is None or (task.target is not None and task.target not in tx.catalog.queues):
        _note(tx, running, "FAILED", 0, _NO_QUEUE)
        return
    take = _take_fifo if source.info.settings.fifo else _take
    taken, locked = take(tx, source, task, allowed) if allowed else ([], [])
    found = _sort(tx, source, task, taken)
    if found.expired:
        tx.execute(_EXPIRE, these(source, found.expired))
        tx.count(source.number, "expired", len(found.expired))
    _move(tx, source, found.going)
    groups.settle(tx, locked)
    status = "FAILED" if found.failure else "RUNNING" if taken or not allowed else "COMPLETED"
    _note(tx, running, status, len(found.going), found.failure)


def _take(tx: Transaction, source: StoredQueue, _: MoveTask, allowed: int) -> tuple[Rows, list[Group]]:
    """Lock what may be moved, oldest first."""
    asked = {"queue": source.number, "now": tx.now, "floor": source.floor, "limit": allowed}
    return tx.execute(_TAKE, asked).fetchall(), []


def _take_fifo(tx: Transaction, source: StoredQueue, task: MoveTask, allowed: int) -> tuple[Rows, list[Group]]:
    """As `_take`, from a FIFO queue: also the groups that are locked for it, here and where the messages go."""
    asked = {"queue": source.number, "now": tx.now, "floor": source.floor, "shown": source.shown_ms(tx.now)}
    seen: Rows = tx.execute(_READY, {**asked, "limit": allowed, "seqs": None}).fetchall()
    locked = [(source.number, name) for *_, name in seen]
    targets = [(_target(tx, task, origin), name) for _, _, origin, name in seen]
    locked += [(target.number, name) for target, name in targets if target is not None]
    groups.lock(tx, locked)
    again = {**asked, "limit": allowed, "seqs": Ints([seq for seq, *_ in seen])}
    return tx.execute(_READY, again).fetchall() if seen else [], locked


def _target(tx: Transaction, task: MoveTask, origin: str | None) -> StoredQueue | None:
    return tx.catalog.queues.get(task.target or origin or "")


def _sort(tx: Transaction, source: StoredQueue, task: MoveTask, taken: Rows) -> Found:
    found = Found()
    oldest_ms = tx.now - source.info.settings.retention_ms
    for seq, sent_ms, origin, *_ in taken:
        target = _target(tx, task, origin)
        if sent_ms <= oldest_ms:
            found.expired.append(seq)
        elif target is None:
            found.failure = _NO_SOURCE
            break
        else:
            found.going.append((seq, target.number))
    return found


def _move(tx: Transaction, source: StoredQueue, going: Sequence[tuple[int, int]]) -> None:
    if not going:
        return
    seqs, targets = zip(*going, strict=True)
    chance = os.urandom(16 * len(going))
    ids = [chance[at : at + 16] for at in range(0, len(chance), 16)]
    known = {"source": source.number, "now": tx.now, "seqs": Ints(seqs), "targets": Ints(targets), "ids": Blobs(ids)}
    tx.execute(_MOVE, known)
    tx.ready.update(targets)


def _note(tx: Transaction, running: Running, status: str, moved: int, failure: str | None) -> None:
    known = {
        "handle": running.task.handle, "status": status, "moved": running.task.moved + moved, "failure": failure,
        "now": tx.now, "earned": running.earned,
    }  # fmt: skip
    tx.execute(_PROGRESS, known)
