"""Plans of transactions, fences and state: all of it in one commit, or none.

A transaction is checked whole before anything is changed: first every part is read and judged, then all are planned.
"""

from __future__ import annotations

from headrace.errors import Fenced, InvalidParameter, ReceiptExpired, StateChanged
from headrace.queue import limits
from headrace.queue.model import Entry
from headrace.queue.operations import Fence, GetState, Transact, TransactOutcome
from headrace.queue.store import checks
from headrace.queue.store.disk import PutFence, PutState
from headrace.queue.store.local import claims, messages, publishing
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState
from headrace.queue.store.local.topic import LocalTopic


def transact(state: LocalState, operation: Transact, now: int) -> TransactOutcome:
    _check_fence(state, operation)
    checks.check_state([*operation.state, *operation.expect])
    _check_expected(state, operation)
    held = _check_acknowledgements(state, operation, now)
    _check_holds(state, operation, now)
    for arn, reader, number in operation.claims:
        claims.check_acknowledge(state.queue(arn), reader, number)
    sends = _check_sends(state, operation)
    for queue, seqs in held:
        messages.delete_held(state, queue, seqs)
    for arn, reader, number in operation.claims:
        claims.plan_acknowledge(state, state.queue(arn), reader, number)
    sent = []
    for target, entries in sends:
        sent.append(publishing.send_to(state, target, entries, now))
    for key, value in operation.state:
        state.put(PutState(operation.name, key, value))
    return TransactOutcome(sent)


def _check_fence(state: LocalState, operation: Transact) -> None:
    current = state.fences.get(operation.name, 0)
    if operation.epoch is not None and operation.epoch != current:
        raise Fenced(operation.name, operation.epoch, current)


def _check_expected(state: LocalState, operation: Transact) -> None:
    for key, value in operation.expect:
        if state.value(operation.name, key) != value:
            raise StateChanged(operation.name, key.decode("utf-8", "backslashreplace"))


def _check_acknowledgements(state: LocalState, operation: Transact, now: int) -> list[tuple[LocalQueue, list[int]]]:
    """The messages that are acknowledged; raises unless each is in flight, and is acknowledged once."""
    held: list[tuple[LocalQueue, list[int]]] = []
    seen: set[int] = set()
    for arn, receipts in operation.acknowledge:
        queue = state.queue(arn)
        state.advance_queue(queue, now)
        seqs = [messages.held_by(state, queue, receipt) for receipt in receipts]
        expected = len(seen) + len(seqs)
        seen.update([queue.key(seq) for seq in seqs])
        if len(seen) != expected:
            raise ReceiptExpired
        held.append((queue, seqs))
    return held


def _check_holds(state: LocalState, operation: Transact, now: int) -> None:
    for arn, receipts in operation.holds:
        queue = state.queue(arn)
        state.advance_queue(queue, now)
        for receipt in receipts:
            messages.held_by(state, queue, receipt)


def _check_sends(state: LocalState, operation: Transact) -> list[tuple[LocalQueue | LocalTopic, list[Entry]]]:
    out: list[tuple[LocalQueue | LocalTopic, list[Entry]]] = []
    for arn, entries in operation.sends:
        target = publishing.destination(state, arn)
        rules = target.rules
        for entry in entries:
            checks.check_entry(rules, entry)
            if rules.fifo:
                checks.dedup_key_of(rules, entry)
        out.append((target, entries))
    checks.check_sends([entry for _, entries in out for entry in entries])
    return out


def fence(state: LocalState, operation: Fence, now: int) -> int:
    del now
    before = state.fences.get(operation.name, 0)

    def undo() -> None:
        state.fences[operation.name] = before

    state.fences[operation.name] = before + 1
    state.change(PutFence(operation.name, before + 1), undo)
    return before + 1


def get_state(state: LocalState, operation: GetState, now: int) -> list[tuple[bytes, bytes]]:
    del now
    if not 1 <= operation.limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(operation.limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")
    return state.disk.state(operation.name, prefix=operation.prefix, after=operation.after, limit=operation.limit)
