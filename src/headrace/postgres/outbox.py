"""Sending and acknowledging in a transaction of one's own, for threads. `aio` is the twin for an event loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.native.bodies import AttributeValue, Body
from headrace.native.messages import Outgoing, SentMessage
from headrace.postgres import plans
from headrace.postgres.connections import Guest, connection_of
from headrace.queue.operations import Transact, TransactOutcome
from headrace.queue.store.postgres import guests


def send(
    connection: Any,
    queue: plans.Place,
    body: Body,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    delay: float | None = None,
    group: str | None = None,
    dedup_id: str | None = None,
    wake: bool = True,
) -> SentMessage:
    """Send one message in the transaction that the connection is in. It exists if and only if that commits.

    Args:
        connection: psycopg's, SQLAlchemy's (or a session), Django's; in a transaction, not in autocommit.
        queue: a handle, a name or an ARN; also a topic's handle or ARN: then it is published.
        body, attributes, delay, group, dedup_id: as in Outgoing. A FIFO `group` is locked until the transaction ends: nobody
            else sends to it or receives from it meanwhile.
        wake: whether the commit wakes those who wait for messages. Commits that do take turns in PostgreSQL; without,
            they find the message within a second.

    Returns:
        What a send answers; its id and sequence are those of the message, should the transaction commit.

    Raises:
        CallerError: it was refused, by the same rules and with the same errors as a broker's; the transaction may go on.
        StoreUnusable: there is no store in this database, it is of another version, or the role may not do this.
        psycopg.Error: as of any statement (a deadlock, a serialization failure): roll back, and do it all again.
    """
    entry = Outgoing(body, attributes, delay, group, dedup_id)
    return send_many(connection, queue, [entry], wake=wake)[0]


def send_many(
    connection: Any,
    queue: plans.Place,
    messages: Iterable[Body | Outgoing],
    *,
    delay: float | None = None,
    group: str | None = None,
    wake: bool = True,
) -> list[SentMessage]:
    """Send up to 10,000 messages in the transaction that the connection is in: all of them, or none.

    Args:
        connection, queue, wake: as in `send`.
        messages: bodies, or Outgoing where a body alone does not say enough.
        delay, group: for the bodies.

    Returns:
        An answer a message, in order.

    Raises:
        As `send`. If one is refused, all are.
    """
    return plans.sent(_run(connection, plans.sending(queue, messages, delay=delay, group=group), wake=wake))


def acknowledge(connection: Any, queue: plans.Place, *receipts: bytes | str, wake: bool = True) -> None:
    """Delete received messages in the transaction that the connection is in: what it writes besides, it writes once.

    Each message is locked until the transaction ends; if that rolls back, the message is visible again when its lease ends.

    Args:
        connection, wake: as in `send`. Only acknowledging in a FIFO queue wakes anybody: the next of the group may come.
        queue: the queue that they were received from: a handle, a name or an ARN.
        receipts: `message.receipt`, or an SQS client's ReceiptHandle.

    Raises:
        ReceiptExpired: a lease has ended, or was another's; nothing is deleted: roll back, somebody else does the work.
        ReceiptInvalid: it is no receipt of this queue.
        StoreUnusable, psycopg.Error: as `send`.
    """
    if receipts:
        _run(connection, plans.acknowledging(queue, receipts), wake=wake)


def _run(connection: Any, operation: Transact, *, wake: bool) -> TransactOutcome:
    guest = Guest(connection_of(connection))
    return guests.run(guest, guest.place, operation, wake=wake)
