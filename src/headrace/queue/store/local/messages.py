"""Plans of the operations on stored messages: delete, change visibility, peek."""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

from headrace.errors import (
    CallerError,
    InFlightLimit,
    InvalidParameter,
    MessageNotFound,
    MessageNotInFlight,
    ReceiptExpired,
    ReceiptInvalid,
)
from headrace.formatting import seconds_text
from headrace.queue import limits
from headrace.queue.model import Message, Peeked
from headrace.queue.operations import ChangeVisibility, Delete, Peek
from headrace.queue.standard import StandardOrder
from headrace.queue.store.checks import check_limit, check_receipts, check_visibility
from headrace.queue.store.disk import LeaseRecord, seq_of
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.receiving import journal
from headrace.queue.store.local.state import Held, LocalState
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

_PEEK_BYTES_MAX: Final = 16 * 1_048_576


def delete(state: LocalState, operation: Delete, now: int) -> list[CallerError | None]:
    queue = state.queue(operation.queue)
    check_receipts(operation.receipts)
    state.advance_queue(queue, now)
    outcomes: list[CallerError | None] = []
    strict = queue.info.settings.fifo
    active, number, seen = queue.order.leases.active, queue.number, state.receipts.seen
    gone: list[Held] = []
    for receipt in operation.receipts:
        key = seen(receipt)
        lease = active.get(key & SEQ_MASK) if key >> SEQ_BITS == number else None
        if lease is not None and lease.receipt is not None and compare_digest(lease.receipt, receipt):
            seq = key & SEQ_MASK
            del active[seq]
            gone.append((queue, seq, lease, True, int(seq >= queue.purging)))
            outcomes.append(None)
            continue
        gone = _remove_held(state, queue, gone)  # what comes may be a repeat of one of them
        try:
            plan_delete(state, queue, receipt, strict=strict)
        except CallerError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    _remove_held(state, queue, gone)
    return outcomes


def _remove_held(state: LocalState, queue: LocalQueue, held: list[Held]) -> list[Held]:
    """Delete the rows of messages whose leases have been taken out. Returns a list to gather the next."""
    if held:
        if queue.order.room() <= len(held):
            state.ready.add(queue.info.arn)  # polls that wait for a place in flight
        first = queue.number << SEQ_BITS
        state.remove(queue, [first | seq for _, seq, _, _, _ in held])
        state.plan.held += held
        queue.deleted += len(held)
    return []


def held_by(state: LocalState, queue: LocalQueue, receipt: bytes) -> int:
    """The seq of the message that is in flight by this very receipt; raises ReceiptInvalid, ReceiptExpired."""
    active = queue.order.leases.active
    key = state.receipts.seen(receipt)
    lease = active.get(key & SEQ_MASK) if key >> SEQ_BITS == queue.number else None
    if lease is not None and lease.receipt is not None and compare_digest(lease.receipt, receipt):
        return key & SEQ_MASK
    key, receives = read_receipt(state, queue, receipt)
    lease = active.get(key & SEQ_MASK)
    if lease is None or lease.receives != receives:
        raise ReceiptExpired
    return key & SEQ_MASK


def delete_held(state: LocalState, queue: LocalQueue, seqs: list[int]) -> None:
    """Delete messages that are in flight."""
    active, purging = queue.order.leases.active, queue.purging
    _remove_held(state, queue, [(queue, seq, active.pop(seq), True, int(seq >= purging)) for seq in seqs])


def plan_delete(state: LocalState, queue: LocalQueue, receipt: bytes, *, strict: bool) -> None:
    """Delete a received message. `strict`: a receipt that does not hold it any more is refused (ReceiptExpired)."""
    key, receives = state.receipts.read(receipt)
    seq = key & SEQ_MASK
    if key >> SEQ_BITS != queue.number:
        raise ReceiptInvalid
    leases = queue.order.leases
    lease = leases.active.get(seq)
    if strict and (lease is None or lease.receives != receives):
        if seq >= queue.floor and not state.deleting(key) and (leases.knows(seq) or state.read(queue, [seq])):
            raise ReceiptExpired
        return
    held = queue.order.hold(seq)
    if held is not None:
        _remove_held(state, queue, [(queue, seq, *held, int(seq >= queue.purging))])
    elif seq >= queue.floor and seq not in leases.claimed and not state.deleting(key):
        _delete_unleased(state, queue, seq)


def _delete_unleased(state: LocalState, queue: LocalQueue, seq: int) -> None:
    """A true receipt of a message that is not known as received: gone already, or its lease was lost in a power cut.
    Then the consumer is right, and the message must not come again."""
    if state.read(queue, [seq]):
        state.cache.pop([queue.key(seq)])
        counted = state.remove(queue, [queue.key(seq)])
        queue.deleted += 1

        def put_back() -> None:
            queue.messages += counted
            queue.deleted -= 1

        state.plan.undo.append(put_back)


def read_receipt(state: LocalState, queue: LocalQueue, receipt: bytes) -> tuple[int, int]:
    """(key, receives) of a receipt of this queue; raises ReceiptInvalid."""
    key, receives = state.receipts.read(receipt)
    if key >> SEQ_BITS != queue.number:
        raise ReceiptInvalid
    return key, receives


def change_visibility(state: LocalState, operation: ChangeVisibility, now: int) -> list[CallerError | None]:
    queue = state.queue(operation.queue)
    check_receipts([receipt for receipt, _ in operation.changes])
    state.advance_queue(queue, now)
    strict = operation.strict or queue.info.settings.fifo
    outcomes: list[CallerError | None] = []
    for receipt, timeout_ms in operation.changes:
        try:
            _change_visibility(state, queue, receipt, timeout_ms, now, strict=strict)
        except CallerError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    return outcomes


def _change_visibility(
    state: LocalState, queue: LocalQueue, receipt: bytes, timeout_ms: int, now: int, *, strict: bool
) -> None:
    """Let a message be visible later, or now. `strict`: a receipt that does not hold it any more is refused."""
    check_visibility(timeout_ms)
    key, receives = read_receipt(state, queue, receipt)
    seq = seq_of(key)
    leases = queue.order.leases
    active = leases.active.get(seq)
    lease = active if active is not None or strict else leases.past.get(seq)
    if lease is None or (strict and lease.receives != receives):
        raise _not_in_flight(state, queue, seq)
    if active is None and lease.sent_ms + queue.info.settings.retention_ms <= now:
        raise MessageNotFound
    if now + timeout_ms > lease.received_ms + limits.VISIBILITY_MAX_MS:
        raise InvalidParameter(
            "VisibilityTimeout",
            seconds_text(timeout_ms),
            "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]",
        )
    if active is None:
        if timeout_ms == 0:
            return
        _hide(queue, seq)
    item = (seq, lease.receives, lease.first_ms)
    leases.move_expiry(seq, now + timeout_ms)
    journal(state, queue, LeaseRecord(queue.number, lease.received_ms, now + timeout_ms, [item]))
    if timeout_ms == 0:
        state.advance_queue(queue, now)


def _hide(queue: LocalQueue, seq: int) -> None:
    """Let the lease of a message that is visible again begin again."""
    if queue.order.room() <= 0:
        raise InFlightLimit(queue.info.arn, limits.IN_FLIGHT_MAX)
    assert isinstance(queue.order, StandardOrder)
    queue.order.hide(seq)


def _not_in_flight(state: LocalState, queue: LocalQueue, seq: int) -> CallerError:
    known = queue.order.leases.knows(seq) and not state.deleting(queue.key(seq))
    if known or (seq >= queue.floor and not state.deleting(queue.key(seq)) and state.read(queue, [seq])):
        return MessageNotInFlight()
    return MessageNotFound()


# --- peek ---


def peek(state: LocalState, operation: Peek, now: int) -> list[Peeked]:
    queue = state.queue(operation.queue)
    check_limit(operation.limit)
    state.advance_queue(queue, now)
    out: list[Peeked] = []
    after, more = max(operation.after, queue.floor - 1), True
    while more and len(out) < operation.limit:
        found, after, more = state.disk.scan(
            queue.number, after=after, limit=operation.limit - len(out), bytes_max=_PEEK_BYTES_MAX
        )
        out += [_peeked(queue, message, now) for message in found if not state.deleting(queue.key(message.seq))]
    return out


def _peeked(queue: LocalQueue, message: Message, now: int) -> Peeked:
    leases = queue.order.leases
    seq = message.seq
    lease = leases.active.get(seq) or leases.past.get(seq) or leases.claimed.get(seq)
    receives = message.receives + (lease.receives if lease is not None else 0)
    settings = queue.info.settings
    visible_ms = message.sent_ms + settings.delay_ms if settings.fifo else message.visible_ms
    if seq in leases.active:
        shown = "in_flight"
    elif seq in leases.claimed:
        shown = "claimed"
    else:
        shown = "delayed" if visible_ms is not None and visible_ms > now and lease is None else "visible"
    return Peeked(message, shown, receives)
