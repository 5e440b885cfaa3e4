"""Message move tasks: dead letters go back to where they came from, or elsewhere, at a bounded rate.

A task is a row; `step` moves a slice of messages, each slice one commit with the task's progress in it, so that a crash
neither loses nor doubles a message. Source: SQS, StartMessageMoveTask.
"""

from __future__ import annotations

import os
from typing import Final
from uuid import uuid4

import msgspec

from headrace.errors import InvalidParameter, MoveTaskNotFound, MoveTaskRefused
from headrace.queue import limits
from headrace.queue.model import Message, MoveTask
from headrace.queue.operations import CancelMove, ListMoves, StartMove
from headrace.queue.redrive import Verdict, judge, same_account
from headrace.queue.store.disk import PutMove
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.receiving import drop_taken
from headrace.queue.store.local.state import LocalState

ACTIVE: Final = ("RUNNING", "CANCELLING")
SLICE: Final = 500  # messages a commit: others are served between two slices
_TICK_MS: Final = 100  # a task with a rate moves every so often
_NO_SOURCE: Final = "CouldNotDetermineMessageSource"  # SQS's FailureReason


def start_move(state: LocalState, operation: StartMove, now: int) -> MoveTask:
    source = state.queue(operation.source)
    _check(state, source, operation)
    task = MoveTask(
        str(uuid4()), operation.source, operation.target, operation.rate_max, "RUNNING", now, 0,
        source.counts(None, now, state.disk).visible,
    )  # fmt: skip
    state.moves[task.handle] = task
    ended = [old for old in state.moves.values() if old.source == task.source and old.status not in ACTIVE]
    for old in sorted(ended, key=lambda old: old.started_ms)[: 1 - limits.MOVE_TASKS_LISTED_MAX]:
        del state.moves[old.handle]

    def undo() -> None:
        del state.moves[task.handle]

    state.change(PutMove(task), undo)
    return task


def _check(state: LocalState, source: LocalQueue, operation: StartMove) -> None:
    arn = operation.source
    rate = operation.rate_max
    if rate is not None and not 1 <= rate <= limits.MOVE_RATE_MAX:
        raise InvalidParameter(
            "MaxNumberOfMessagesPerSecond", str(rate), f"it must be from 1 to {limits.MOVE_RATE_MAX}"
        )
    if not any(
        queue.info.settings.redrive is not None and queue.info.settings.redrive.target == arn
        for queue in state.queues.values()
    ):
        raise MoveTaskRefused(arn, "Source queue must be configured as a Dead Letter Queue.")
    if any(task.source == arn and task.status in ACTIVE for task in state.moves.values()):
        raise MoveTaskRefused(
            arn,
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
        )
    if operation.target is not None:
        target = state.queue(operation.target)
        if not same_account(arn, operation.target):
            raise MoveTaskRefused(arn, "Source and destination must be of the same account and region.")
        if target is source:
            raise MoveTaskRefused(arn, "Source queue arn and destination queue arn cannot be the same.")
        if target.info.settings.fifo != source.info.settings.fifo:
            raise MoveTaskRefused(arn, "The source queue and destination queue must be of the same queue type.")


def cancel_move(state: LocalState, operation: CancelMove, now: int) -> MoveTask:
    del now
    task = state.moves.get(operation.handle)
    if task is None:
        raise MoveTaskNotFound(operation.handle)
    if task.status != "RUNNING":
        raise MoveTaskRefused(task.source, "Only active tasks can be cancelled.")
    return _put(state, task, status="CANCELLED")


def list_moves(state: LocalState, operation: ListMoves, now: int) -> list[MoveTask]:
    del now
    state.queue(operation.source)
    if not 1 <= operation.limit <= limits.MOVE_TASKS_LISTED_MAX:
        raise InvalidParameter(
            "MaxResults", str(operation.limit), f"it must be from 1 to {limits.MOVE_TASKS_LISTED_MAX}"
        )
    tasks = [task for task in state.moves.values() if task.source == operation.source]
    return sorted(tasks, key=lambda task: task.started_ms, reverse=True)[: operation.limit]


def next_ms(state: LocalState, now: int) -> int | None:
    """When `step` should be called again; None when no task runs."""
    running = [task for task in state.moves.values() if task.status == "RUNNING"]
    if not running:
        return None
    return now if any(task.rate_max is None for task in running) else now + _TICK_MS


def step(state: LocalState, now: int) -> None:
    """Move a slice of every running task into the commit being planned."""
    for task in [task for task in state.moves.values() if task.status == "RUNNING"]:
        allowed = _allowed(state, task, now)
        if allowed:
            _move_slice(state, task, allowed, now)


def _allowed(state: LocalState, task: MoveTask, now: int) -> int:
    """How many messages the task may move now: its rate since it started, less what it has moved, a second's worth at
    most (a pause is not caught up with)."""
    if task.rate_max is None:
        return SLICE
    earned_at, earned = state.move_credit.get(task.handle, (task.started_ms, 1.0))
    earned = min(float(task.rate_max), earned + max(0, now - earned_at) * task.rate_max / 1_000)
    whole = min(int(earned), SLICE)
    state.move_credit[task.handle] = (now, earned - whole)
    return whole


def _move_slice(state: LocalState, task: MoveTask, allowed: int, now: int) -> None:
    source = state.queues.get(task.source)
    if source is None or (task.target is not None and task.target not in state.queues):
        _put(state, task, status="FAILED", failure="AWS.SimpleQueueService.NonExistentQueue")
        return
    state.advance_queue(source, now)
    seqs = source.take(allowed, now, state)
    moved, failure = 0, None
    for seq, message in zip(seqs, state.load(source, seqs), strict=True):
        if message is None:
            source.order.dropped(seq)
        elif failure is not None:
            source.order.untake(seq, message.group, message.sent_ms)
        elif judge(message, 0, source.info.settings, now) is Verdict.EXPIRE:
            drop_taken(state, source, message, "expired")
        else:
            target = state.queues.get(task.target or message.source or "")
            if target is None:
                failure = _NO_SOURCE
                source.order.untake(seq, message.group, message.sent_ms)
            else:
                _move(state, source, target, message, now)
                moved += 1
    status = "FAILED" if failure else "RUNNING" if seqs or source.hungry() else "COMPLETED"
    _put(state, task, status=status, moved=task.moved + moved, failure=failure)


def _move(state: LocalState, source: LocalQueue, target: LocalQueue, message: Message, now: int) -> None:
    """A moved message is a new one: id, send time, retention and count begin anew."""
    drop_taken(state, source, message, None)
    if target.expire_check_ms is None:
        target.expire_check_ms = now + target.info.settings.retention_ms
    new = Message(
        target.allot(), os.urandom(16), message.body, message.attributes, now, None, message.group, message.dedup_id,
        message.trace, message.sender,
    )  # fmt: skip
    state.insert(target, [new], counted=False)


def _put(state: LocalState, task: MoveTask, **changes: object) -> MoveTask:
    changed = msgspec.structs.replace(task, **changes)

    def undo() -> None:
        state.moves[task.handle] = task

    state.moves[task.handle] = changed
    state.change(PutMove(changed), undo)
    return changed
