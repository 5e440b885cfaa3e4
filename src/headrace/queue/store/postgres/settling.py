"""Settling deliveries by their receipts: delete, change visibility.

A receipt names a message and the number of the receive. In a FIFO queue the row's own number is the fence: a receipt counts
while its own lease lasts. In a standard queue any receipt counts, as with SQS: who deletes has done the work, even if the
message has been received again since; so it does if the database has lost the lease in a crash (those of standard queues are
not synced). A claimed message is out of reach of all receipts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, LiteralString, TypeAlias

import msgspec

from headrace.errors import CallerError, InvalidParameter, MessageNotFound, MessageNotInFlight, ReceiptExpired
from headrace.formatting import seconds_text
from headrace.queue import limits
from headrace.queue.operations import ChangeVisibility, Delete, Operation, Take
from headrace.queue.store.checks import check_receipts, check_visibility
from headrace.queue.store.postgres import flight, groups
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Answers, Cursor, Transaction, answer

_DELETE: Final[LiteralString] = """
DELETE FROM message m USING unnest(%s, %s) AS held (queue, seq)
WHERE m.queue = held.queue AND m.seq = held.seq AND m.visible_ms < %s
RETURNING m.queue, m.visible_ms, m.grp, m.received_ms
"""
_GONE: Final[LiteralString] = """
WITH gone AS (
    DELETE FROM message m
    USING unnest(%(queues)s, %(seqs)s, %(receives)s, %(floors)s) AS held (queue, seq, receives, floor)
    WHERE m.queue = held.queue AND m.seq = held.seq AND m.receives = held.receives
        AND m.visible_ms > %(now)s AND m.visible_ms < %(claimed)s
    RETURNING m.queue, m.grp, m.seq, held.floor
), asked AS (
    SELECT queue, grp AS name, floor, min(seq) AS seq FROM gone GROUP BY queue, grp, floor
)"""
_COUNTED: Final[LiteralString] = "SELECT queue, NULL, count(*) FROM gone GROUP BY queue UNION ALL"
# The groups were locked in a statement before, so all that is in them is seen here, and they are settled at once. A group
# whose head is behind a message is not that message's: it was purged with its group, and the name has been used again.
_DELETE_LEASED: Final[LiteralString] = (
    groups.settling(
        _GONE, among="g.head <= asked.seq", stays="((m.queue, m.seq) IN (SELECT queue, seq FROM gone)) IS NOT TRUE"
    )
    + _COUNTED
    + groups.SETTLED
)
_LEFT: Final[LiteralString] = """
SELECT held.queue, held.seq, held.receives FROM unnest(%s, %s, %s) AS held (queue, seq, receives)
JOIN message m ON m.queue = held.queue AND m.seq = held.seq
"""
_MOVE: Final[LiteralString] = """
UPDATE message m SET visible_ms = CASE WHEN held.timeout_ms > 0 THEN %(now)s + held.timeout_ms ELSE least(m.visible_ms, %(now)s) END
FROM unnest(%(places)s, %(queues)s, %(seqs)s, %(receives)s, %(hidden)s, %(timeouts)s)
    AS held (place, queue, seq, receives, hidden_from, timeout_ms)
JOIN message before ON before.queue = held.queue AND before.seq = held.seq
WHERE m.queue = held.queue AND m.seq = held.seq AND m.visible_ms < %(claimed)s
    AND (held.receives IS NULL OR m.receives = held.receives) AND (m.visible_ms > %(now)s OR m.sent_ms >= held.hidden_from)
    AND %(now)s + held.timeout_ms <= m.received_ms + %(longest)s
RETURNING held.place, before.visible_ms <= %(now)s AND held.timeout_ms > 0
"""
_WHY: Final[LiteralString] = """
SELECT held.place, m.visible_ms < %(claimed)s AND m.received_ms IS NOT NULL
    AND (held.receives IS NULL OR m.receives = held.receives)
    AND coalesce(m.visible_ms > %(now)s OR m.sent_ms >= held.hidden_from, false)
FROM unnest(%(places)s, %(queues)s, %(seqs)s, %(receives)s, %(hidden)s, %(oldest)s)
    AS held (place, queue, seq, receives, hidden_from, oldest_ms)
JOIN message m ON m.queue = held.queue AND m.seq = held.seq AND (m.visible_ms > %(now)s OR m.sent_ms > held.oldest_ms)
"""

Lease: TypeAlias = tuple[int, int, int]
"""What a receipt names: a queue's number, a message's seq, which of its receives."""


def delete(tx: Transaction, operations: Sequence[Delete]) -> Answers:
    held: set[tuple[int, int]] = set()
    strict: set[Lease] = set()
    outcomes = [answer(lambda tx, one: _read_all(tx, one, held, strict), tx, operation) for operation in operations]
    strictly = _delete_leased(tx, strict) if strict else None
    cursor = tx.execute(_DELETE, (*_sorted(held), CLAIMED_MS)) if held else None
    if held:
        tx.wrote()
    yield
    for queue, visible_ms, group, received_ms in cursor.fetchall() if cursor is not None else ():
        tx.count(queue, "deleted")
        if visible_ms > tx.now:
            tx.landed[queue] += 1
        if group is not None and received_ms is not None:
            tx.ended.append((queue, group, tx.now - received_ms))
    if strictly is None:
        return outcomes
    kept = _delete_strictly(tx, strict, strictly)
    return [[_settled(one, kept) for one in ones] if isinstance(ones, list) else ones for ones in outcomes]


def _sorted(held: Iterable[tuple[int, ...]]) -> list[Ints]:
    """As columns; in one order for all, so that two lanes do not deadlock."""
    return [Ints(column) for column in zip(*sorted(held), strict=True)]


def _delete_leased(tx: Transaction, held: set[Lease]) -> Cursor:
    """Send what deletes from FIFO queues what is still leased."""
    places = {lease[:2] for lease in held}
    if not tx.locked.issuperset(places):
        groups.lock_of(tx, sorted(places))
    queues, seqs, receives = _sorted(held)
    known = tx.catalog.by_number
    floors = Ints([known[queue].floor for queue, *_ in sorted(held)])
    columns = {"queues": queues, "seqs": seqs, "receives": receives, "floors": floors}
    return tx.execute(_DELETE_LEASED, {**columns, "now": tx.now, "claimed": CLAIMED_MS})


def _delete_strictly(tx: Transaction, held: set[Lease], cursor: Cursor) -> set[Lease]:
    """Read what became of leases in FIFO queues. Returns what is there, and leased no more or anew."""
    gone = 0
    settled = []
    for queue, busy_ms, number in cursor.fetchall():
        if busy_ms is None:
            gone += number
            tx.count(queue, "deleted", number)
            tx.landed[queue] += number
        else:
            settled.append((queue, busy_ms, number))
    groups.note(tx, settled)
    if gone:
        tx.wrote()
    return set(tx.execute(_LEFT, _sorted(held)).fetchall()) if gone < len(held) else set()


def _settled(outcome: CallerError | Lease | None, kept: set[Lease]) -> CallerError | None:
    if isinstance(outcome, tuple):
        return ReceiptExpired() if outcome in kept else None
    return outcome


def _read_all(
    tx: Transaction, operation: Delete, held: set[tuple[int, int]], strict: set[Lease]
) -> list[CallerError | Lease | None]:
    """Add what the receipts name to `held`, or, of a FIFO queue, to `strict`: it is then its place's outcome for the time
    being. An error for each receipt that is none of this queue's."""
    queue = tx.catalog.queue(operation.queue)
    check_receipts(operation.receipts)
    outcomes: list[CallerError | Lease | None] = []
    fifo = queue.info.settings.fifo
    for receipt in operation.receipts:
        try:
            lease = queue.number, *queue.receipts.read(receipt)
        except CallerError as error:
            outcomes.append(error)
        else:
            if lease[1] < queue.floor:  # what is purged is gone
                outcomes.append(None)
            else:
                outcomes.append(lease if fifo else None)
                if fifo:
                    strict.add(lease)
                else:
                    held.add(lease[:2])
    return outcomes


def places(tx: Transaction, operation: Operation) -> list[tuple[int, int]]:
    """The messages of FIFO queues, (queue, seq), that an operation deletes or lets go by their receipts, or takes."""
    out: list[tuple[int, int]] = []
    if isinstance(operation, Take):
        taken_of = tx.catalog.queues.get(operation.queue)
        if taken_of is not None and taken_of.info.settings.fifo:
            out += [(taken_of.number, seq) for seq in operation.seqs]
    for arn, receipts in _receipts(operation):
        queue = tx.catalog.queues.get(arn)
        if queue is not None and queue.info.settings.fifo:
            out += [(queue.number, queue.receipts.seen(receipt)) for receipt in receipts]
    return out


def _receipts(operation: Operation) -> list[tuple[str, list[bytes]]]:
    if isinstance(operation, Delete):
        return [(operation.queue, operation.receipts)]
    if isinstance(operation, ChangeVisibility):
        return [(operation.queue, [receipt for receipt, _ in operation.changes])]
    return []


class Change(msgspec.Struct):
    """One change of a visibility, and what becomes of it."""

    queue: StoredQueue
    seq: int
    receives: int
    timeout_ms: int
    strict: bool
    full: bool = False  # as many as may be are in flight, so a message that is visible stays so
    outcome: CallerError | None = None


def change_visibility(tx: Transaction, operations: Sequence[ChangeVisibility]) -> Answers:
    planned = [answer(_plan, tx, operation) for operation in operations]
    changes = [change for plan in planned if isinstance(plan, list) for change in plan if isinstance(change, Change)]
    fifo = sorted({(one.queue.number, one.seq) for one in changes if one.queue.info.settings.fifo})
    locked = groups.lock_of(tx, fifo) if fifo else None
    yield
    touched = locked.fetchall() if locked is not None else []
    for lot in _lots(changes):
        _move(tx, lot)
    groups.settle(tx, touched, hidden=True)
    return [
        [change.outcome if isinstance(change, Change) else change for change in plan]
        if isinstance(plan, list)
        else plan
        for plan in planned
    ]


def _plan(tx: Transaction, operation: ChangeVisibility) -> list[Change | CallerError]:
    queue = tx.catalog.queue(operation.queue)
    check_receipts([receipt for receipt, _ in operation.changes])
    strict = operation.strict or queue.info.settings.fifo
    plan: list[Change | CallerError] = []
    for receipt, timeout_ms in operation.changes:
        try:
            check_visibility(timeout_ms)
            change = Change(queue, *queue.receipts.read(receipt), timeout_ms, strict)
            plan.append(change if change.seq >= queue.floor else MessageNotFound())
        except CallerError as error:
            plan.append(error)
    return plan


def _lots(changes: list[Change]) -> list[list[Change]]:
    """Changes of one message go into different statements, in their order."""
    lots: list[dict[int, Change]] = []
    for change in changes:
        lot = next((lot for lot in lots if change.seq not in lot), None)
        if lot is None:
            lots.append(lot := {})
        lot[change.seq] = change
    return [sorted(lot.values(), key=lambda change: (change.queue.number, change.seq)) for lot in lots]


def _columns(tx: Transaction, lot: list[Change]) -> dict[str, Any]:
    """`receives`: None where any receipt counts; `hidden`: from when on messages were sent that are hidden though they are
    visible, None for none of them."""
    oldest = [tx.now - one.queue.info.settings.retention_ms for one in lot]
    hides = [not one.strict and not one.full for one in lot]
    return {
        "places": Ints(range(len(lot))),
        "queues": Ints([one.queue.number for one in lot]),
        "seqs": Ints([one.seq for one in lot]),
        "receives": Ints([one.receives if one.strict else None for one in lot]),
        "hidden": Ints([ms + 1 if hide else None for ms, hide in zip(oldest, hides, strict=True)]),
        "oldest": Ints(oldest),
        "now": tx.now,
        "claimed": CLAIMED_MS,
    }


def _move(tx: Transaction, lot: list[Change]) -> None:
    for change in lot:
        change.full = not change.strict and change.timeout_ms > 0 and not flight.room(tx, change.queue, 1)
    timeouts = Ints([one.timeout_ms for one in lot])
    asked = {**_columns(tx, lot), "timeouts": timeouts, "longest": limits.VISIBILITY_MAX_MS}
    moved: dict[int, bool] = dict(tx.execute(_MOVE, asked).fetchall())
    for change, hidden in [(lot[place], hidden) for place, hidden in moved.items()]:
        if hidden:
            flight.leased(tx, change.queue, 1)
        tx.wrote(durable=change.queue.info.settings.fifo)
        if change.timeout_ms:
            tx.due_at(change.queue.number, tx.now + change.timeout_ms)
        else:
            tx.ready.add(change.queue.number)
    unmoved = [change for place, change in enumerate(lot) if place not in moved]
    if unmoved:
        _explain(tx, unmoved)


def _explain(tx: Transaction, unmoved: list[Change]) -> None:
    """Why a receipt moved nothing."""
    found: dict[int, bool] = dict(tx.execute(_WHY, _columns(tx, unmoved)).fetchall())
    for place, change in enumerate(unmoved):
        if place not in found:
            change.outcome = MessageNotFound()
        elif not found[place]:
            change.outcome = flight.full(change.queue) if change.full else MessageNotInFlight()
        else:
            change.outcome = InvalidParameter(
                "VisibilityTimeout",
                seconds_text(change.timeout_ms),
                "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]",
            )
