"""Plans of the operations on stored messages: receive, delete, change visibility, peek."""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

import msgspec

from headrace.errors import (
    CallerError,
    InFlightLimit,
    InvalidParameter,
    MessageNotFound,
    MessageNotInFlight,
    ReceiptExpired,
    ReceiptInvalid,
)
from headrace.queue import limits
from headrace.queue.leases import Lease
from headrace.queue.model import ID, Delivery, Message, Peeked, uuid_text
from headrace.queue.operations import ChangeVisibility, Delete, Peek, Receive
from headrace.queue.redrive import Verdict, judge
from headrace.queue.store.disk import LeaseRecord, StoredAttempt, seq_of
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import Held, LocalState
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

_PEEK_BYTES_MAX: Final = 16 * 1_048_576


# --- receive ---


def receive(state: LocalState, operation: Receive, now: int) -> list[Delivery]:
    queue = state.queue(operation.queue)
    settings = queue.info.settings
    visibility_ms = settings.visibility_ms if operation.visibility_ms is None else operation.visibility_ms
    if not 0 <= visibility_ms <= limits.VISIBILITY_MAX_MS:
        raise InvalidParameter("VisibilityTimeout", f"{visibility_ms / 1_000:g}", "it must be from 0 to 43200 seconds")
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    state.advance_queue(queue, now)
    if operation.attempt_id is not None:
        replayed = _replay(state, queue, operation.attempt_id, visibility_ms, now)
        if replayed is not None:
            return replayed
    room = queue.order.room()
    if room <= 0:
        if settings.fifo:
            return []
        raise InFlightLimit(queue.info.arn, limits.IN_FLIGHT_MAX)
    taken = take_deliverable(state, queue, min(operation.limit, room), now)
    return _lease(state, queue, taken, visibility_ms, operation.attempt_id, now)


def take_deliverable(
    state: LocalState, queue: LocalQueue, limit: int, now: int, *, reader: str | None = None
) -> list[Message]:
    """Up to `limit` ready messages, of about NATIVE_BATCH_BYTES_MAX at most; expired, dead and damaged ones met on the
    way go where they belong."""
    order, settings = queue.order, queue.info.settings
    past = order.leases.past
    plain = settings.redrive is None
    oldest_ms = now - settings.retention_ms
    out: list[Message] = []
    lot = limit if settings.fifo else limits.LOT  # a FIFO group is locked by what is taken of it, so all at once
    wanted, looked, size = min(limit, lot), 0, 0
    while len(out) < limit and looked < limits.HEAD_LOOK_AHEAD and size < limits.NATIVE_BATCH_BYTES_MAX:
        seqs = queue.take(wanted, now, state, reader=reader)
        if not seqs:
            break
        looked += len(seqs)
        before = len(out)
        for seq, message in zip(seqs, state.load(queue, seqs), strict=True):
            if message is None:
                order.dropped(seq)
            elif plain and message.sent_ms > oldest_ms:
                out.append(message)
            else:
                receives = past[seq].receives if seq in past else 0
                verdict = judge(message, receives, settings, now)
                if not _fell_out(state, queue, message, verdict, now):
                    out.append(message)
        if len(out) > before:
            size += sum([len(message.body) for message in out[before:]])
            wanted = min(limit - len(out), lot)
        else:  # all fell out: many more may, so ask for more and more at a time
            wanted = max(limit - len(out), min(2 * wanted, limits.TAKEN_AT_ONCE))
    for message in out[limit:]:
        order.untake(message.seq, message.group, message.sent_ms)
    if len(out) < limit and (queue.hungry() or looked >= limits.HEAD_LOOK_AHEAD):
        state.ready.add(queue.info.arn)  # what was looked at was in vain: those who wait go on from there
    return out[:limit]


def _fell_out(state: LocalState, queue: LocalQueue, message: Message, verdict: Verdict, now: int) -> bool:
    """Let an expired or dead message go where it belongs; whether it was one."""
    if verdict is Verdict.EXPIRE:
        drop_taken(state, queue, message, "expired")
        return True
    return verdict is Verdict.DEAD_LETTER and _dead_letter(state, queue, message, now)


def drop_taken(state: LocalState, queue: LocalQueue, message: Message, counter: str | None) -> None:
    """Delete a message that was taken, and count it. If the commit is refused it is back at its place.

    Args:
        counter: the queue's counter that grows, `expired` or `dead_lettered`; None for one that has none.
    """
    order = queue.order
    past = order.leases.past.get(message.seq)
    order.dropped(message.seq)
    counted = state.remove(queue, [queue.key(message.seq)])
    if counter is not None:
        setattr(queue, counter, getattr(queue, counter) + 1)

    def put_back() -> None:
        queue.messages += counted
        if counter is not None:
            setattr(queue, counter, getattr(queue, counter) - 1)
        if past is not None:
            order.leases.past[message.seq] = past
        order.recall(message.seq, message.group, message.sent_ms)

    state.plan.undo.append(put_back)


def _dead_letter(state: LocalState, queue: LocalQueue, message: Message, now: int) -> bool:
    """Move a taken message to the dead-letter queue in one commit; False if that queue is gone (it is delivered)."""
    redrive = queue.info.settings.redrive
    target = state.queues.get(redrive.target) if redrive is not None else None
    if target is None:
        return False
    past = queue.order.leases.past.get(message.seq)
    drop_taken(state, queue, message, "dead_lettered")
    fifo = target.info.settings.fifo
    moved = Message(
        target.allot(), message.id, message.body, message.attributes,
        now if fifo else message.sent_ms,  # SQS: retention goes on from the first send; on FIFO the move resets it
        None, message.group,
        uuid_text(message.id) if fifo else message.dedup_id,  # so that two of the same id survive there
        message.trace, message.sender,
        message.receives + (past.receives if past is not None else 0),
        message.first_received_ms if message.first_received_ms is not None else past.first_ms if past else None,
        queue.info.arn,
    )  # fmt: skip
    if target.expire_check_ms is None:
        target.expire_check_ms = now
    state.insert(target, [moved], counted=False)
    return True


def _lease(
    state: LocalState, queue: LocalQueue, messages: list[Message], visibility_ms: int, attempt_id: str | None, now: int
) -> list[Delivery]:
    if not messages:
        queue.empty_receives += 1
        return []
    order = queue.order
    expires_ms = now + visibility_ms
    number = queue.number << SEQ_BITS
    mint = state.receipts.mint
    leases = order.leases.grant(messages, now=now, expires_ms=expires_ms)
    if order.counts_groups():
        for message, lease in zip(messages, leases, strict=True):
            order.started(message.seq, lease)
    items: list[tuple[int, int, int]] = []
    out: list[Delivery] = []
    for message, lease in zip(messages, leases, strict=True):
        receives, first_ms = lease.receives, lease.first_ms
        items.append((message.seq, receives, first_ms))
        lease.receipt = receipt = mint(number | message.seq, receives)
        if message.first_received_ms is not None:
            first_ms = message.first_received_ms
        out.append(Delivery(message, receipt, message.receives + receives, first_ms))
    queue.received += len(out)
    _journal(state, queue, LeaseRecord(queue.number, now, expires_ms, items, attempt_id))
    if attempt_id is not None:
        leased = [(seq, receives) for seq, receives, _ in items]
        queue.attempts[attempt_id] = StoredAttempt(queue.number, attempt_id, now, expires_ms, leased)
    if visibility_ms == 0:
        state.advance_queue(queue, now)
    return out


def _delivery(message: Message, lease: Lease, receipt: bytes) -> Delivery:
    first_ms = message.first_received_ms
    return Delivery(
        message, receipt, message.receives + lease.receives, lease.first_ms if first_ms is None else first_ms
    )


def _journal(state: LocalState, queue: LocalQueue, record: LeaseRecord) -> None:
    """Leases survive a kill; a FIFO queue's also a power cut, since a group must never have two owners."""
    state.disk.lease(record)
    if queue.info.settings.fifo:
        state.plan.batch.sync_leases = True


def _replay(
    state: LocalState, queue: LocalQueue, attempt_id: str, visibility_ms: int, now: int
) -> list[Delivery] | None:
    """What this attempt was answered before, its visibility begun anew; None: not seen, or something has changed."""
    if not queue.info.settings.fifo:
        raise InvalidParameter("ReceiveRequestAttemptId", attempt_id[:200], "only a FIFO queue has it")
    if not ID.fullmatch(attempt_id):
        raise InvalidParameter(
            "ReceiveRequestAttemptId", attempt_id[:200], "1 to 128 alphanumeric and punctuation characters"
        )
    attempt = queue.attempts.get(attempt_id)
    if attempt is None or attempt.at_ms + limits.ATTEMPT_MS <= now:
        queue.attempts.pop(attempt_id, None)
        return None
    leases = queue.order.leases
    held = [(seq, leases.active.get(seq)) for seq, _ in attempt.leased]
    if any(
        lease is None or lease.receives != receives or lease.expires_ms != attempt.expires_ms
        for (_, lease), (_, receives) in zip(held, attempt.leased, strict=True)
    ):
        del queue.attempts[attempt_id]
        return None
    messages = state.read(queue, [seq for seq, _ in held])
    expires_ms = now + visibility_ms
    queue.attempts[attempt_id] = msgspec.structs.replace(attempt, expires_ms=expires_ms)
    out, items = [], []
    for seq, lease in held:
        assert lease is not None
        leases.move_expiry(seq, expires_ms)
        items.append((seq, lease.receives, lease.first_ms))
        if seq in messages:
            out.append(_delivery(messages[seq], lease, state.receipts.mint(queue.key(seq), lease.receives)))
    _journal(state, queue, LeaseRecord(queue.number, attempt.at_ms, expires_ms, items, attempt_id))
    return out


# --- delete, change visibility ---


def delete(state: LocalState, operation: Delete, now: int) -> list[CallerError | None]:
    queue = state.queue(operation.queue)
    _check_receipts(operation.receipts)
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


def plan_delete(state: LocalState, queue: LocalQueue, receipt: bytes, *, strict: bool) -> None:
    """Delete a received message. `strict`: a receipt whose lease has ended is refused (ReceiptExpired)."""
    key, receives = state.receipts.read(receipt)
    seq = key & SEQ_MASK
    if key >> SEQ_BITS != queue.number:
        raise ReceiptInvalid
    active = queue.order.leases.active
    lease = active.get(seq)
    if lease is not None and lease.receives == receives:
        del active[seq]
        _remove_held(state, queue, [(queue, seq, lease, True, int(seq >= queue.purging))])
    elif seq >= queue.floor and not state.deleting(key):
        _delete_late(state, queue, seq, receives, strict=strict)


def _delete_late(state: LocalState, queue: LocalQueue, seq: int, receives: int, *, strict: bool) -> None:
    """A receipt whose lease has ended, or whose message another consumer has, or that is gone."""
    leases = queue.order.leases
    if strict:
        if leases.knows(seq) or state.read(queue, [seq]):
            raise ReceiptExpired
    elif (past := leases.past.get(seq)) is not None and past.receives == receives:
        held = queue.order.hold(seq)
        assert held is not None
        _remove_held(state, queue, [(queue, seq, *held, int(seq >= queue.purging))])
    elif not leases.knows(seq):
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


def _check_receipts(receipts: list[bytes]) -> None:
    if not 1 <= len(receipts) <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("receipts", str(len(receipts)), f"1 to {limits.NATIVE_BATCH_MAX} receipts a call")


def change_visibility(state: LocalState, operation: ChangeVisibility, now: int) -> list[CallerError | None]:
    queue = state.queue(operation.queue)
    _check_receipts([receipt for receipt, _ in operation.changes])
    state.advance_queue(queue, now)
    outcomes: list[CallerError | None] = []
    for receipt, timeout_ms in operation.changes:
        try:
            _change_visibility(state, queue, receipt, timeout_ms, now)
        except CallerError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    return outcomes


def _change_visibility(state: LocalState, queue: LocalQueue, receipt: bytes, timeout_ms: int, now: int) -> None:
    if not 0 <= timeout_ms <= limits.VISIBILITY_MAX_MS:
        raise InvalidParameter("VisibilityTimeout", f"{timeout_ms / 1_000:g}", "it must be from 0 to 43200 seconds")
    key, receives = read_receipt(state, queue, receipt)
    seq = seq_of(key)
    leases = queue.order.leases
    lease = leases.active.get(seq)
    if lease is None or lease.receives != receives:
        raise _not_in_flight(state, queue, seq)
    if now + timeout_ms > lease.received_ms + limits.VISIBILITY_MAX_MS:
        raise InvalidParameter(
            "VisibilityTimeout",
            f"{timeout_ms / 1_000:g}",
            "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]",
        )
    item = (seq, lease.receives, lease.first_ms)
    leases.move_expiry(seq, now + timeout_ms)
    _journal(state, queue, LeaseRecord(queue.number, lease.received_ms, now + timeout_ms, [item]))
    if timeout_ms == 0:
        state.advance_queue(queue, now)


def _not_in_flight(state: LocalState, queue: LocalQueue, seq: int) -> CallerError:
    known = queue.order.leases.knows(seq) and not state.deleting(queue.key(seq))
    if known or (seq >= queue.floor and not state.deleting(queue.key(seq)) and state.read(queue, [seq])):
        return MessageNotInFlight()
    return MessageNotFound()


# --- peek ---


def peek(state: LocalState, operation: Peek, now: int) -> list[Peeked]:
    queue = state.queue(operation.queue)
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
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
