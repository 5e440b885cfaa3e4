"""Message move tasks: StartMessageMoveTask, CancelMessageMoveTask, ListMessageMoveTasks.

A task handle names its source queue besides the task, as AWS's does: that queue's owner and policy decide who may cancel
the task.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from functools import partial
from typing import Final

import msgspec

from headrace.queue.limits import MOVE_RATE_MAX, MOVE_TASKS_LISTED_MAX
from headrace.queue.model import MoveTask, QueueInfo
from headrace.queue.operations import CancelMove, ListMoves, StartMove
from headrace.sqs import shapes
from headrace.sqs.call import Call
from headrace.sqs.errors import (
    INVALID_PARAMETER_VALUE,
    QUEUE_DOES_NOT_EXIST,
    RESOURCE_NOT_FOUND,
    Fault,
    missing,
)
from headrace.sqs.urls import valid_arn

_RUNNING: Final = ("RUNNING", "CANCELLING")


class _Handle(msgspec.Struct, frozen=True, rename="camel"):
    task_id: str
    source_arn: str


def start_message_move_task(call: Call, request: shapes.StartMessageMoveTask) -> None:
    source = _queue(call, "SourceArn", request.source_arn)
    target, rate = request.destination_arn, request.max_number_of_messages_per_second
    if target is not None:
        target = _queue(call, "DestinationArn", target).arn
    if rate is not None and not 1 <= rate <= MOVE_RATE_MAX:
        raise _not_between("MaxNumberOfMessagesPerSecond", MOVE_RATE_MAX)

    def started(task: MoveTask) -> None:
        call.answer(shapes.StartMoveResult(_encode(task)))

    call.submit(StartMove(source.arn, target, rate), started)


def cancel_message_move_task(call: Call, request: shapes.CancelMessageMoveTask) -> None:
    if not request.task_handle:
        raise missing("TaskHandle")
    handle = _decode(request.task_handle)
    source = _queue(call, "SourceArn", handle.source_arn)
    # The handle comes from the client: the task must belong to the queue for which the caller was authorized.
    call.submit(ListMoves(source.arn, MOVE_TASKS_LISTED_MAX), partial(_cancel, call, handle.task_id))


def _cancel(call: Call, task_id: str, tasks: list[MoveTask]) -> None:
    if all(task.handle != task_id for task in tasks):
        raise Fault(RESOURCE_NOT_FOUND, "Task does not exist.")
    call.submit(CancelMove(task_id), lambda task: call.answer(shapes.CancelMoveResult(task.moved)))


def list_message_move_tasks(call: Call, request: shapes.ListMessageMoveTasks) -> None:
    source = _queue(call, "SourceArn", request.source_arn)
    limit = 1 if request.max_results is None else request.max_results
    if not 1 <= limit <= MOVE_TASKS_LISTED_MAX:
        raise _not_between("MaxResults", MOVE_TASKS_LISTED_MAX)

    def listed(tasks: list[MoveTask]) -> None:
        call.answer(shapes.MoveTasksResult([_entry(task) for task in tasks]))

    call.submit(ListMoves(source.arn, limit), listed)


def _entry(task: MoveTask) -> shapes.MoveTaskEntry:
    return shapes.MoveTaskEntry(
        status=task.status,
        source_arn=task.source,
        moved=task.moved,
        to_move=task.to_move,
        started=task.started_ms,
        task_handle=_encode(task) if task.status in _RUNNING else None,
        destination_arn=task.target,
        max_number_of_messages_per_second=task.rate_max,
        failure_reason=task.failure,
    )


def _not_between(parameter: str, most: int) -> Fault:
    """The fault for a number out of range; unlike in other operations its text does not repeat the number."""
    rule = f"You must enter a number that's between 1 and {most}."
    return Fault(INVALID_PARAMETER_VALUE, f"Value for parameter {parameter} is invalid. Reason: {rule}")


def _queue(call: Call, parameter: str, arn: str | None) -> QueueInfo:
    """The queue `arn`, after a check that the caller may use it.

    Raises:
        Fault: MissingParameter, InvalidParameterValue for an invalid ARN, ResourceNotFoundException.
    """
    if arn is None:
        raise missing(parameter)
    if not valid_arn(arn):
        raise Fault(INVALID_PARAMETER_VALUE, f"You must use this format to specify the {parameter}: "
                    "arn:<partition>:<service>:<region>:<account-id>:<resource-id>")  # fmt: skip
    try:
        return call.queue_by_arn(arn)
    except Fault as fault:
        if fault.kind is not QUEUE_DOES_NOT_EXIST:
            raise
        text = f"The resource that you specified for the {parameter} parameter doesn't exist."
        raise Fault(RESOURCE_NOT_FOUND, text) from None


def _encode(task: MoveTask) -> str:
    return b64encode(msgspec.json.encode(_Handle(task.handle, task.source))).decode()


def _decode(text: str) -> _Handle:
    try:
        return msgspec.json.decode(b64decode(text.encode("ascii"), validate=True), type=_Handle)
    except (UnicodeError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise Fault(INVALID_PARAMETER_VALUE, "Value for parameter TaskHandle is invalid.") from None
