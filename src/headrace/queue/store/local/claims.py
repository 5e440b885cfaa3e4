"""Plans of claims: ready messages bound to a reader's numbered claim, so that a reader may read them again.

A stream's batch n is claim n. Whoever runs batch n, the first time or after a crash, reads the same messages in the
same order; when the batch's output is committed, the claim is acknowledged and its messages are gone.
"""

from __future__ import annotations

from headrace.errors import ClaimRefused, InvalidParameter
from headrace.queue import limits
from headrace.queue.model import ClaimState, Message
from headrace.queue.operations import AcknowledgeClaims, Claim, GetClaims, ReleaseClaims
from headrace.queue.store.disk import PutClaim, PutReader
from headrace.queue.store.local import receiving
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState


def claim_state(queue: LocalQueue, reader: str) -> ClaimState:
    acknowledged = queue.acknowledged.get(reader, 0)
    return ClaimState(acknowledged, max(queue.claims.get(reader, ()), default=acknowledged))


def get_claims(state: LocalState, operation: GetClaims, now: int) -> ClaimState:
    del now
    return claim_state(state.queue(operation.queue), operation.reader)


def claim(state: LocalState, operation: Claim, now: int) -> list[Message]:
    queue = state.queue(operation.queue)
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    known = claim_state(queue, operation.reader)
    bound = queue.claims.get(operation.reader, {}).get(operation.number)
    if bound is not None:
        return _read(state, queue, bound)
    if operation.number != known.last + 1:
        raise ClaimRefused(
            operation.queue,
            operation.reader,
            f"number {operation.number}; open are {known.acknowledged + 1} to {known.last}, next is {known.last + 1}",
        )
    state.advance_queue(queue, now)
    return _bind(state, queue, operation, now)


def _read(state: LocalState, queue: LocalQueue, seqs: list[int]) -> list[Message]:
    found = state.read(queue, seqs)
    return [found[seq] for seq in seqs if seq in found]


def _bind(state: LocalState, queue: LocalQueue, operation: Claim, now: int) -> list[Message]:
    room = min(operation.limit, max(0, queue.order.room()))
    taken = receiving.take_deliverable(state, queue, room, now, reader=operation.reader) if room else []
    if not taken:
        return []  # nothing is ready: no claim is made, the same number binds later
    order = queue.order
    chosen: list[Message] = []
    size = 0
    for message in taken:
        size += len(message.body) + len(message.attributes)
        if chosen and size > operation.bytes_max:
            order.untake(message.seq, message.group, message.sent_ms)
            size = operation.bytes_max + 1  # and every one after it, to keep the order
        else:
            order.claim(message)
            chosen.append(message)
    seqs = [message.seq for message in chosen]
    queue.claims.setdefault(operation.reader, {})[operation.number] = seqs

    def undo() -> None:
        del queue.claims[operation.reader][operation.number]
        for message in chosen:
            order.unclaim(message.seq)

    state.change(PutClaim(queue.number, operation.reader, operation.number, seqs), undo)
    queue.received += len(chosen)
    return chosen


def check_acknowledge(queue: LocalQueue, reader: str, number: int) -> None:
    """Raise ClaimRefused for a number that was never claimed."""
    last = claim_state(queue, reader).last
    if not 0 <= number <= last:
        raise ClaimRefused(queue.info.arn, reader, f"number {number} was never claimed; the last is {last}")


def acknowledge_claims(state: LocalState, operation: AcknowledgeClaims, now: int) -> ClaimState:
    del now
    queue = state.queue(operation.queue)
    check_acknowledge(queue, operation.reader, operation.number)
    plan_acknowledge(state, queue, operation.reader, operation.number)
    return claim_state(queue, operation.reader)


def plan_acknowledge(state: LocalState, queue: LocalQueue, reader: str, number: int) -> None:
    """Delete the messages of the reader's claims up to `number`; nothing if they are acknowledged already."""
    before = queue.acknowledged.get(reader, 0)
    if number <= before:
        return
    open_claims = queue.claims.get(reader, {})
    done = {n: open_claims.pop(n) for n in sorted(open_claims) if n <= number}
    seqs = [seq for claimed in done.values() for seq in claimed if seq in queue.order.leases.claimed]
    counted = state.remove(queue, [queue.key(seq) for seq in seqs])
    queue.acknowledged[reader] = number
    queue.deleted += len(seqs)

    def settle(_now: int) -> None:
        for seq in seqs:
            if seq in queue.order.leases.claimed:  # a purge may have come between
                queue.order.claim_deleted(seq)
        state.ready.add(queue.info.arn)  # a group may be free, a place in flight too

    def undo() -> None:
        queue.acknowledged[reader] = before
        queue.claims.setdefault(reader, {}).update(done)
        queue.messages += counted

    state.plan.settle.append(settle)
    state.change(PutReader(queue.number, reader, number), undo)


def release_claims(state: LocalState, operation: ReleaseClaims, now: int) -> None:
    del now
    queue = state.queue(operation.queue)
    open_claims = queue.claims.pop(operation.reader, {})
    before = queue.acknowledged.pop(operation.reader, None)
    seqs = [seq for number in sorted(open_claims) for seq in open_claims[number]]

    def settle(_now: int) -> None:
        claimed = queue.order.leases.claimed
        for seq in seqs:
            if seq in claimed:
                queue.order.unclaim(seq)
        state.ready.add(queue.info.arn)

    def undo() -> None:
        queue.claims[operation.reader] = open_claims
        if before is not None:
            queue.acknowledged[operation.reader] = before

    state.plan.settle.append(settle)
    state.change(PutReader(queue.number, operation.reader, None), undo)
