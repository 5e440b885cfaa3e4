"""Retention: messages that are too old leave their queue, a slice a commit."""

from __future__ import annotations

from typing import Final

from headrace.queue import limits
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState

_SLICE: Final = 1_000  # messages expired in one go


def expire(state: LocalState, queue: LocalQueue, now: int) -> None:
    """Delete messages past their retention, a slice of them; those in flight when their lease ends."""
    retention_ms = queue.info.settings.retention_ms
    after = max(0, queue.floor - 1)
    seqs = state.disk.expired(queue.number, after=after, sent_before_ms=now - retention_ms, limit=_SLICE)
    leases = queue.order.leases
    gone = [
        seq
        for seq in seqs
        if seq not in leases.active and seq not in leases.claimed and not state.deleting(queue.key(seq))
    ]
    if gone:
        _expire_these(state, queue, gone)
        queue.expire_check_ms = now
    else:
        first = state.disk.first(queue.number, after=after)
        queue.expire_check_ms = max(now + limits.SECOND_MS, first[1] + retention_ms) if first else None


def _expire_these(state: LocalState, queue: LocalQueue, seqs: list[int]) -> None:
    held = [(seq, queue.order.hold(seq)) for seq in seqs]
    keys = [queue.key(seq) for seq in seqs]
    state.cache.pop(keys)
    counted = state.remove(queue, keys)
    queue.expired += len(seqs)

    def put_back() -> None:
        queue.messages += counted
        queue.expired -= len(seqs)
        for seq, lease in held:
            if lease is not None:
                queue.order.put_back(seq, lease[0], active=lease[1])

    state.plan.undo.append(put_back)
