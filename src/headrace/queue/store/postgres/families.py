"""Which operations the store knows, in which lane each runs, by which function; and how a batch of them runs.

The one table to extend for an operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

import msgspec

from headrace.errors import InvalidParameter
from headrace.queue.between import ListElsewhere, TellHolders
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
from headrace.queue.store.postgres import (
    claims,
    groups,
    log,
    moves,
    peeking,
    presence,
    publishing,
    queues,
    receiving,
    sending,
    settling,
    states,
    subscribing,
    taking,
    topic_looks,
    topics,
    transact,
)
from headrace.queue.store.postgres.transaction import Answers, Cursor, Transaction, each


class LaneName(Enum):
    """The lanes of a node: what may wait for what."""

    SEND = "send"  # and deletes of a few messages: to share a transaction and a sync saves a tenth of what tens cost
    ORDER = "order"  # the same of FIFO queues and topics: they wait for whoever holds the group, or the log
    TRANSACT = "transact"  # so do these; they lock fences and values before, so a batch with others would have no order
    RECEIVE = "receive"
    CLAIM = "claim"  # thousands of messages at once: who receives a few does not wait behind
    SETTLE = "settle"  # and Take: a receive's attempt is locked before groups
    DIRECTORY = "directory"  # queues and topics, and what only looks: slow statements that nobody should wait behind
    COUNT = "count"  # of every message: minutes, if they are so many


class Family(msgspec.Struct, frozen=True):
    """`run` answers all operations of the type in one batch."""

    lane: LaneName
    run: Callable[[Transaction, Any], Answers]


FAMILIES: Final[dict[type[Operation], Family]] = {
    Send: Family(LaneName.SEND, sending.send),
    Transact: Family(LaneName.TRANSACT, transact.transact),
    Fence: Family(LaneName.TRANSACT, each(states.fence)),
    GetState: Family(LaneName.DIRECTORY, each(states.get_state)),
    Receive: Family(LaneName.RECEIVE, receiving.receive),
    ReceiveAny: Family(LaneName.RECEIVE, each(receiving.receive_any)),
    Take: Family(LaneName.SETTLE, each(taking.take)),
    Claim: Family(LaneName.CLAIM, claims.claim),
    GetClaims: Family(LaneName.DIRECTORY, each(claims.get_claims)),
    AcknowledgeClaims: Family(LaneName.SETTLE, each(claims.acknowledge_claims)),
    ReleaseClaims: Family(LaneName.SETTLE, each(claims.release_claims)),
    Delete: Family(LaneName.SETTLE, settling.delete),
    ChangeVisibility: Family(LaneName.SETTLE, settling.change_visibility),
    Peek: Family(LaneName.DIRECTORY, each(peeking.peek)),
    TellHolders: Family(LaneName.SETTLE, each(presence.tell_holders)),
    ListElsewhere: Family(LaneName.DIRECTORY, each(presence.list_elsewhere)),
    CreateQueue: Family(LaneName.DIRECTORY, each(queues.create_queue)),
    ChangeSettings: Family(LaneName.DIRECTORY, each(queues.change_settings)),
    TagQueue: Family(LaneName.DIRECTORY, each(queues.tag_queue)),
    DeleteQueue: Family(LaneName.DIRECTORY, each(queues.delete_queue)),
    Purge: Family(LaneName.DIRECTORY, each(queues.purge)),
    GetQueue: Family(LaneName.DIRECTORY, each(queues.get_queue)),
    ListQueues: Family(LaneName.DIRECTORY, each(queues.list_queues)),
    StartMove: Family(LaneName.DIRECTORY, each(moves.start_move)),
    CancelMove: Family(LaneName.DIRECTORY, each(moves.cancel_move)),
    ListMoves: Family(LaneName.DIRECTORY, each(moves.list_moves)),
    CreateTopic: Family(LaneName.DIRECTORY, each(topics.create_topic)),
    ChangeTopic: Family(LaneName.DIRECTORY, each(topics.change_topic)),
    DeleteTopic: Family(LaneName.DIRECTORY, each(topics.delete_topic)),
    GetTopic: Family(LaneName.DIRECTORY, each(topic_looks.get_topic)),
    ListTopics: Family(LaneName.DIRECTORY, each(topic_looks.list_topics)),
    Subscribe: Family(LaneName.DIRECTORY, each(subscribing.subscribe)),
    Unsubscribe: Family(LaneName.DIRECTORY, each(subscribing.unsubscribe)),
    ReadLog: Family(LaneName.DIRECTORY, each(log.read_log)),
}


_ONE_ORDER: Final = {Take, AcknowledgeClaims, ReleaseClaims}
"""Families of which each operation locks groups by itself."""
WITH_SENDS_MAX: Final = 100
"""A delete of more messages than this is not done in the lane of the sends: it fills a transaction of its own, and would only
wait."""


def lane_of(operation: Operation) -> LaneName:
    """The lane that an operation runs in."""
    if isinstance(operation, Send) or (isinstance(operation, Delete) and len(operation.receipts) <= WITH_SENDS_MAX):
        return LaneName.ORDER if _is_ordered(operation.queue) else LaneName.SEND
    if isinstance(operation, GetQueue) and operation.exact:
        return LaneName.COUNT
    return family_of(type(operation)).lane


def _is_ordered(arn: str) -> bool:
    """Whether it is a FIFO queue's or a topic's, by its name."""
    return arn.endswith(".fifo") or ":sns:" in arn


def family_of(kind: type[Operation]) -> Family:
    """The family of an operation; one that refuses it where the store does not know it."""
    return FAMILIES.get(kind) or Family(LaneName.DIRECTORY, each(_refuse))


def _refuse(tx: Transaction, operation: Operation) -> None:
    del tx
    name = type(operation).__name__
    raise InvalidParameter("operation", name, "a PostgreSQL store does not do this yet; use one in a folder (--data)")


def run_together(tx: Transaction, operations: Sequence[Operation]) -> list[Any]:
    """Run operations that were asked for at the same time: by type, all types at once. An outcome each, in order."""
    places: dict[type[Operation], list[int]] = {}
    for place, operation in enumerate(operations):
        places.setdefault(type(operation), []).append(place)
    several = len(places) > 1 or (len(operations) > 1 and not _ONE_ORDER.isdisjoint(places))
    beside = several and _is_beside(tx, operations)
    if beside:
        places = {kind: places[kind] for kind in (Send, Delete)}
        tx.beside = {place for operation in operations for place in settling.places(tx, operation)}
    locked = _lock(tx, operations) if several and not beside else None
    outcomes: list[Any] = [None] * len(operations)
    running = [(family_of(kind).run(tx, [operations[one] for one in ones]), ones) for kind, ones in places.items()]
    checked = False
    while running:
        left = []
        for family, ones in running:
            answers = _go_on(family)
            if answers is None:
                left.append((family, ones))
                continue
            for one, answer in zip(ones, answers, strict=True):
                outcomes[one] = answer
        running = left
        if not checked:
            checked = True
            tx.check()
    if locked is not None:
        groups.settle(tx, [*locked[0], *locked[1].fetchall()])
    return outcomes


def _is_beside(tx: Transaction, operations: Sequence[Operation]) -> bool:
    """Whether these are sends to queues, and deletes: then the sends lock for both. What is published locks later."""
    topics, inboxes = tx.catalog.topics, tx.catalog.inboxes
    return all(
        isinstance(one, Delete) or (isinstance(one, Send) and one.queue not in topics and one.queue not in inboxes)
        for one in operations
    )


def _lock(tx: Transaction, operations: Sequence[Operation]) -> tuple[set[groups.Group], Cursor] | None:
    """Lock the topics, and then the groups of FIFO queues, that operations are about, all in one order: each type by itself (or
    each operation) would take some while it holds others. Returns the groups that must be settled at the end, whatever comes
    of the operations."""
    sends = [operation for operation in operations if isinstance(operation, Send)]
    publishing.lock_all(tx, [send.queue for send in sends])
    leases = {place for operation in operations for place in settling.places(tx, operation)}
    claimed = claims.named_by(tx, operations)
    named = {group for send in sends for group in publishing.groups_of(tx.catalog, send)}
    named.update(claimed)
    return (named, groups.lock_both(tx, named, leases)) if named or leases else None


def run_in_order(tx: Transaction, operations: Sequence[Operation]) -> list[Any]:
    """Run operations one after the other: each sees what those before it did."""
    tx.check()
    outcomes: list[Any] = []
    at = 0
    while at < len(operations):
        kind, end = type(operations[at]), at
        while end < len(operations) and type(operations[end]) is kind:
            end += 1
        family = family_of(kind).run(tx, operations[at:end])
        while (answers := _go_on(family)) is None:
            pass
        outcomes += answers
        at = end
    return outcomes


def _go_on(family: Answers) -> list[Any] | None:
    """Let a family run until it waits (None) or is done."""
    try:
        next(family)
    except StopIteration as done:
        answers: list[Any] = done.value
        return answers
    return None
