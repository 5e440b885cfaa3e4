"""The plan of Take: messages that are asked for by their sequence numbers, out of turn."""

from __future__ import annotations

from headrace.errors import (
    BatchTooLong,
    CallerError,
    InFlightLimit,
    InvalidParameter,
    MessageNotFound,
    MessageNotVisible,
)
from headrace.queue import limits
from headrace.queue.model import Delivery, Message
from headrace.queue.operations import Take
from headrace.queue.redrive import Verdict, judge
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.receiving import grant, visibility_of
from headrace.queue.store.local.state import LocalState


def take(state: LocalState, operation: Take, now: int) -> list[Delivery | CallerError]:
    queue = state.queue(operation.queue)
    visibility_ms = visibility_of(queue, operation.visibility_ms)
    count = len(operation.seqs)
    if not 1 <= count <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("seqs", str(count), f"1 to {limits.NATIVE_BATCH_MAX} sequence numbers a call")
    state.advance_queue(queue, now)
    picked: dict[int, Message] = {}
    outcomes: list[int | CallerError] = []
    for start in range(0, count, limits.LOT):
        outcomes += _pick_lot(state, queue, operation.seqs[start : start + limits.LOT], picked, now)
    granted = grant(state, queue, list(picked.values()), visibility_ms, None, now) if picked else []
    deliveries = dict(zip(picked, granted, strict=True))
    return [deliveries[one] if isinstance(one, int) else one for one in outcomes]


def _pick_lot(
    state: LocalState, queue: LocalQueue, seqs: list[int], picked: dict[int, Message], now: int
) -> list[int | CallerError]:
    """Some that are read together; a lot of bodies beyond what a call may carry is not read."""
    size = sum(len(message.body) for message in picked.values())
    if size > limits.NATIVE_BATCH_BYTES_MAX:
        return [BatchTooLong(size, limits.NATIVE_BATCH_BYTES_MAX) for _ in seqs]
    first = max(1, queue.floor, queue.purging)
    shown = [seq for seq in seqs if first <= seq < queue.next_seq and not state.deleting(queue.key(seq))]
    found = state.read(queue, set(shown) - _unsettled(state, queue))
    outcomes: list[int | CallerError] = []
    for seq in seqs:
        try:
            _pick(state, queue, seq, found.get(seq), picked, now)
        except CallerError as error:
            outcomes.append(error)
        else:
            outcomes.append(seq)
    return outcomes


def _unsettled(state: LocalState, queue: LocalQueue) -> set[int]:
    """Messages whose commit is not done: nobody can know of them yet."""
    plans = [plan for plan in (state.plan, state.flying) if plan is not None]
    return {one.seq for plan in plans for where, sent, _ in plan.sent if where is queue for one in sent}


def _pick(
    state: LocalState, queue: LocalQueue, seq: int, message: Message | None, picked: dict[int, Message], now: int
) -> None:
    leases = queue.order.leases
    if message is None or judge(message, 0, queue.info.settings, now) is Verdict.EXPIRE:
        raise MessageNotFound
    if seq in leases.active or seq in leases.claimed:
        raise MessageNotVisible("it is in flight")
    if seq in picked:
        raise MessageNotVisible("it is asked for twice")
    if queue.order.room() <= len(picked):
        raise InFlightLimit(queue.info.arn, limits.IN_FLIGHT_MAX)
    if not queue.pick(message, now, state):
        raise MessageNotVisible("another one of its group comes first, or the queue's delay is not over")
    state.cache.pop([queue.key(seq)])
    picked[seq] = message
