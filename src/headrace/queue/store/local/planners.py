"""Which planner plans which operation, and which kinds of operations there are.

Kinds are sets of types: `isinstance` of eleven types would cost a send 0.3 µs, a tenth of its plan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from headrace.queue.operations import (
    AcknowledgeClaims,
    CancelMove,
    ChangeSettings,
    ChangeTopic,
    ChangeVisibility,
    Claim,
    CreateQueue,
    CreateTopic,
    Delete,
    DeleteQueue,
    DeleteTopic,
    Fence,
    GetClaims,
    GetQueue,
    GetState,
    GetTopic,
    ListMoves,
    ListQueues,
    ListTopics,
    Operation,
    Peek,
    Purge,
    ReadLog,
    Receive,
    ReceiveAny,
    ReleaseClaims,
    Send,
    StartMove,
    Subscribe,
    TagQueue,
    Take,
    Transact,
    Unsubscribe,
)  # fmt: skip
from headrace.queue.store.local import claims, messages, moves, publishing, queues, receiving, taking, topics, transact
from headrace.queue.store.local.state import LocalState

PLANNERS: Final[dict[type[Operation], Callable[[LocalState, Any, int], Any]]] = {
    Send: publishing.send,
    Receive: receiving.receive,
    ReceiveAny: receiving.receive_any,
    Take: taking.take,
    Delete: messages.delete,
    ChangeVisibility: messages.change_visibility,
    Peek: messages.peek,
    Transact: transact.transact,
    Fence: transact.fence,
    GetState: transact.get_state,
    Claim: claims.claim,
    AcknowledgeClaims: claims.acknowledge_claims,
    ReleaseClaims: claims.release_claims,
    GetClaims: claims.get_claims,
    CreateQueue: queues.create_queue,
    ChangeSettings: queues.change_settings,
    TagQueue: queues.tag_queue,
    Purge: queues.purge,
    DeleteQueue: queues.delete_queue,
    GetQueue: queues.get_queue,
    ListQueues: queues.list_queues,
    StartMove: moves.start_move,
    CancelMove: moves.cancel_move,
    ListMoves: moves.list_moves,
    CreateTopic: topics.create_topic,
    ChangeTopic: topics.change_topic,
    DeleteTopic: topics.delete_topic,
    GetTopic: topics.get_topic,
    ListTopics: topics.list_topics,
    Subscribe: topics.subscribe,
    Unsubscribe: topics.unsubscribe,
    ReadLog: topics.read_log,
}

READS: Final[frozenset[type[Operation]]] = frozenset((
    Receive, ReceiveAny, Take, ChangeVisibility, Peek, GetState, GetQueue, ListQueues, ListMoves, GetClaims, GetTopic, ListTopics, ReadLog,
))  # fmt: skip
"""Answered without waiting for the commit: nothing that they promise is in it (FIFO leases excepted)."""

LEASES: Final[frozenset[type[Operation]]] = frozenset((Receive, ReceiveAny, Take, ChangeVisibility))

FREES: Final[frozenset[type[Operation]]] = frozenset(
    (Delete, AcknowledgeClaims, Purge, DeleteQueue, DeleteTopic, Unsubscribe)
)
"""Go on when the disk is full: they make room."""

SETTLING_BYTES_MAX: Final = 1_024
"""Of state, for each message that a transaction acknowledges: a task's result and its line of the run log, about what its
message took. Without it, workers could not empty their queues when the disk is full, and would run the tasks again."""


def frees(operation: Operation) -> bool:
    """Whether an operation goes on when the disk is full."""
    if not isinstance(operation, Transact):
        return type(operation) in FREES
    acknowledged = sum(len(receipts) for _, receipts in operation.acknowledge) + len(operation.claims)
    put_bytes = sum(len(key) + len(value) for key, value in operation.state if value is not None)
    return not operation.sends and acknowledged > 0 and put_bytes <= SETTLING_BYTES_MAX * acknowledged
