"""Taking messages that are asked for by their sequence numbers, out of turn."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, LiteralString

import msgspec

from headrace.errors import BatchTooLong, CallerError, InvalidParameter, MessageNotFound, MessageNotVisible
from headrace.queue import limits
from headrace.queue.model import Delivery
from headrace.queue.operations import Take
from headrace.queue.store.postgres import flight, groups, receiving, rows
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.leasing import LEASE_THESE, these, visibility_of
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

_LOOK: Final[LiteralString] = (
    "SELECT m.seq, m.visible_ms > %s AND (m.receives > 0 OR m.visible_ms >= %s), octet_length("
    + rows.BODY
    + """)
FROM unnest(%s, %s) AS these (queue, seq) JOIN message m ON m.queue = these.queue AND m.seq = these.seq
WHERE m.seq >= %s AND m.sent_ms > %s ORDER BY m.seq FOR UPDATE OF m
"""
)
_HEADS: Final[LiteralString] = """
SELECT g.name, g.head, g.head_sent_ms
FROM unnest(%s, %s) AS named (queue, name) JOIN message_group g ON g.queue = named.queue AND g.name = named.name
WHERE g.busy_ms <= %s AND g.head_sent_ms <= %s
"""


class Named(msgspec.Struct):
    """A message that is there: whether somebody has it, how long its body is."""

    in_flight: bool
    size: int


def take(tx: Transaction, operation: Take) -> list[Delivery | CallerError]:
    queue = tx.catalog.queue(operation.queue)
    visibility_ms = visibility_of(queue, operation.visibility_ms)
    count = len(operation.seqs)
    if not 1 <= count <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("seqs", str(count), f"1 to {limits.NATIVE_BATCH_MAX} sequence numbers a call")
    heads = _lock_groups(tx, queue, operation.seqs) if queue.info.settings.fifo else None
    there = _look(tx, queue, operation.seqs)
    picked = _pick(there, operation.seqs, heads)
    room = flight.room(tx, queue, len(picked))
    given = [one for one in picked if isinstance(one, int)][:room]
    leased = _lease(tx, queue, given, visibility_ms)
    if heads is not None and leased:
        groups.hold(tx, queue.number, tx.now + visibility_ms, [heads[seq] for seq in given if seq in leased])
    return [leased.get(one) or flight.full(queue) if isinstance(one, int) else one for one in picked]


def _lock_groups(tx: Transaction, queue: StoredQueue, seqs: list[int]) -> dict[int, tuple[str, int, int]]:
    """The messages that are the first of a free group: the group's name, their seq, their sent time."""
    tx.holding = True
    locked = groups.lock_of(tx, [(queue.number, seq) for seq in sorted(set(seqs))]).fetchall()
    named = Ints([number for number, _ in locked]), Texts([name for _, name in locked])
    found = tx.execute(_HEADS, (*named, tx.now, queue.shown_ms(tx.now))).fetchall()
    return {head: (name, head, sent_ms) for name, head, sent_ms in found}


def _look(tx: Transaction, queue: StoredQueue, seqs: list[int]) -> dict[int, Named]:
    """The messages that are there, locked."""
    wanted = sorted(set(seqs))
    oldest_ms = tx.now - queue.info.settings.retention_ms
    found = tx.execute(_LOOK, (tx.now, CLAIMED_MS, *these(queue, wanted).values(), queue.floor, oldest_ms)).fetchall()
    return {seq: Named(in_flight, size) for seq, in_flight, size in found}


def _pick(there: dict[int, Named], seqs: list[int], heads: Container[int] | None) -> list[int | CallerError]:
    """The seqs that are given, errors for the others. `heads`: of a FIFO queue, those that may be."""
    picked: set[int] = set()
    size = 0
    outcomes: list[int | CallerError] = []
    for seq in seqs:
        error = _refusal(there.get(seq), seq in picked, size)
        if error is None and heads is not None and seq not in heads:
            error = MessageNotVisible("another one of its group comes first, or the queue's delay is not over")
        outcomes.append(seq if error is None else error)
        if error is None:
            picked.add(seq)
            size += there[seq].size
    return outcomes


def _refusal(named: Named | None, again: bool, size: int) -> CallerError | None:
    """Why a message is not given to who has been given `size` bytes so far."""
    if size > limits.NATIVE_BATCH_BYTES_MAX:
        return BatchTooLong(size, limits.NATIVE_BATCH_BYTES_MAX)
    if named is None:
        return MessageNotFound()
    if named.in_flight:
        return MessageNotVisible("it is in flight")
    return MessageNotVisible("it is asked for twice") if again else None


def _lease(tx: Transaction, queue: StoredQueue, seqs: list[int], visibility_ms: int) -> dict[int, Delivery]:
    wanted = {**these(queue, seqs), "now": tx.now, "until": tx.now + visibility_ms}
    found = tx.execute(LEASE_THESE, wanted).fetchall() if seqs else []
    return {one.message.seq: one for one in receiving.delivered(tx, queue, found, visibility_ms)}
