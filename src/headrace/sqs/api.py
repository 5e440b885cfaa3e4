"""The 23 operations: for each, its request and the function that serves it.

To add one: its request (and answer) in `shapes.py`, a function in the fitting `actions_*.py`, a row here, its parameter
names in `codec_query.py`, a row in `docs/sqs.md`. A test holds this table against AWS's own service model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from headrace.sqs import (
    actions_moves,
    actions_queues,
    actions_receipts,
    actions_receive,
    actions_send,
    actions_settings,
    shapes,
)
from headrace.sqs.call import Call
from headrace.sqs.codec_json import TARGET_PREFIX


@dataclass(frozen=True, slots=True)
class Action:
    """An operation. `serve` answers the call, or raises before it changes anything."""

    name: str
    shape: type[Any]
    serve: Callable[[Call, Any], None]
    decoder: msgspec.json.Decoder[Any]


def _action(shape: type[shapes.Shape], serve: Callable[[Call, Any], None]) -> Action:
    return Action(shape.__name__, shape, serve, msgspec.json.Decoder(shape))


ACTIONS: Final[dict[str, Action]] = {
    action.name: action
    for action in (
        _action(shapes.AddPermission, actions_settings.add_permission),
        _action(shapes.CancelMessageMoveTask, actions_moves.cancel_message_move_task),
        _action(shapes.ChangeMessageVisibility, actions_receipts.change_message_visibility),
        _action(shapes.ChangeMessageVisibilityBatch, actions_receipts.change_message_visibility_batch),
        _action(shapes.CreateQueue, actions_queues.create_queue),
        _action(shapes.DeleteMessage, actions_receipts.delete_message),
        _action(shapes.DeleteMessageBatch, actions_receipts.delete_message_batch),
        _action(shapes.DeleteQueue, actions_queues.delete_queue),
        _action(shapes.GetQueueAttributes, actions_settings.get_queue_attributes),
        _action(shapes.GetQueueUrl, actions_queues.get_queue_url),
        _action(shapes.ListDeadLetterSourceQueues, actions_queues.list_dead_letter_source_queues),
        _action(shapes.ListMessageMoveTasks, actions_moves.list_message_move_tasks),
        _action(shapes.ListQueueTags, actions_settings.list_queue_tags),
        _action(shapes.ListQueues, actions_queues.list_queues),
        _action(shapes.PurgeQueue, actions_queues.purge_queue),
        _action(shapes.ReceiveMessage, actions_receive.receive_message),
        _action(shapes.RemovePermission, actions_settings.remove_permission),
        _action(shapes.SendMessage, actions_send.send_message),
        _action(shapes.SendMessageBatch, actions_send.send_message_batch),
        _action(shapes.SetQueueAttributes, actions_settings.set_queue_attributes),
        _action(shapes.StartMessageMoveTask, actions_moves.start_message_move_task),
        _action(shapes.TagQueue, actions_settings.tag_queue),
        _action(shapes.UntagQueue, actions_settings.untag_queue),
    )
}

NOT_AT_QUEUE_URLS: Final = frozenset(("CreateQueue", "ListQueues"))
"""Actions that the Query protocol refuses at a queue's URL. AWS accepts GetQueueUrl there, of any queue."""

TARGETS: Final = {TARGET_PREFIX + name.encode(): action for name, action in ACTIONS.items()}
"""By the value of the JSON protocol's target header."""
