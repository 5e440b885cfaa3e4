"""Plans of receiving: from one queue, from several, by an attempt id again; and what is met on the way.

A message that is taken and has expired, or was received too often, goes where it belongs instead of being delivered.
"""

from __future__ import annotations

import msgspec

from headrace.errors import InFlightLimit, InvalidParameter
from headrace.queue import limits
from headrace.queue.leases import Lease
from headrace.queue.model import ID, Delivery, Message, uuid_text
from headrace.queue.operations import Receive, ReceiveAny
from headrace.queue.redrive import Verdict, judge
from headrace.queue.store.checks import check_limit, check_visibility
from headrace.queue.store.disk import LeaseRecord, StoredAttempt
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState
from headrace.queue.timers import SEQ_BITS


def receive(state: LocalState, operation: Receive, now: int) -> list[Delivery]:
    queue = state.queue(operation.queue)
    visibility_ms = visibility_of(queue, operation.visibility_ms)
    check_limit(operation.limit)
    state.advance_queue(queue, now)
    if operation.attempt_id is not None:
        replayed = _replay(state, queue, operation.attempt_id, visibility_ms, now)
        if replayed is not None:
            return replayed
    return receive_from(state, queue, operation.limit, visibility_ms, operation.attempt_id, now)


def receive_any(state: LocalState, operation: ReceiveAny, now: int) -> list[tuple[str, list[Delivery]]]:
    """Everything that can be refused is refused before the first lease."""
    count = len(operation.queues)
    if not 1 <= count <= limits.QUEUES_ASKED_MAX:
        raise InvalidParameter("queues", str(count), f"1 to {limits.QUEUES_ASKED_MAX} queues a call")
    check_limit(operation.limit)
    queues = [state.queue(arn) for arn in dict.fromkeys(operation.queues)]
    asked = [(queue, visibility_of(queue, operation.visibility_ms)) for queue in queues]
    out: list[tuple[str, list[Delivery]]] = []
    left, full = operation.limit, None
    for queue, visibility_ms in asked:
        state.advance_queue(queue, now)
        try:
            deliveries = receive_from(state, queue, left, visibility_ms, None, now)
        except InFlightLimit as error:
            full = full or error
            continue
        if deliveries:
            out.append((queue.info.arn, deliveries))
            left -= len(deliveries)
        if not left:
            break
    if full is not None and not out:
        raise full
    return out


def receive_from(
    state: LocalState, queue: LocalQueue, limit: int, visibility_ms: int, attempt_id: str | None, now: int
) -> list[Delivery]:
    """Lease up to `limit` ready messages of a queue that has been advanced."""
    room = queue.order.room()
    if room <= 0:
        if queue.info.settings.fifo:
            return []
        raise InFlightLimit(queue.info.arn, limits.IN_FLIGHT_MAX)
    taken = take_deliverable(state, queue, min(limit, room), now)
    return grant(state, queue, taken, visibility_ms, attempt_id, now)


def visibility_of(queue: LocalQueue, visibility_ms: int | None) -> int:
    """How long leases of the queue last; `visibility_ms` None: as it is set to."""
    if visibility_ms is None:
        return queue.info.settings.visibility_ms
    check_visibility(visibility_ms)
    return visibility_ms


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


def grant(
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
        order.started(leases)
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
    journal(state, queue, LeaseRecord(queue.number, now, expires_ms, items, attempt_id))
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


def journal(state: LocalState, queue: LocalQueue, record: LeaseRecord) -> None:
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
    journal(state, queue, LeaseRecord(queue.number, attempt.at_ms, expires_ms, items, attempt_id))
    return out
