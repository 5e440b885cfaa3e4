"""When a call that failed is tried again. Pure: time and chance are arguments.

Never twice what may have been done once: a call whose outcome is unknown is repeated only if doing it twice is the
same as doing it once.
"""

from __future__ import annotations

from typing import Final

from headrace.errors import HeadraceError, OutcomeUnknown, StoreError, Unavailable
from headrace.queue import limits
from headrace.queue import operations as ops

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0
REMEMBERED_S: Final = min(limits.DEDUP_MS, limits.ATTEMPT_MS) / 1_000 - 60
"""So long after a try whose outcome is unknown another may begin, however patient the caller is: ids are remembered for five
minutes, and the try itself may be under way for a while."""

_ALWAYS_REPEATABLE: Final = (
    ops.Delete,
    ops.Fence,  # a second epoch supersedes the first, which nobody holds
    ops.GetState,
    ops.Hold,
    ops.ListHolders,
    ops.Claim,
    ops.AcknowledgeClaims,
    ops.ReleaseClaims,
    ops.GetClaims,
    ops.Peek,
    ops.CreateQueue,
    ops.ChangeSettings,
    ops.TagQueue,
    ops.GetQueue,
    ops.ListQueues,
    ops.ListMoves,
    ops.CreateTopic,
    ops.ChangeTopic,
    ops.GetTopic,
    ops.ListTopics,
    ops.Unsubscribe,
    ops.ReadLog,
)


def repeatable(operation: ops.Operation) -> bool:
    """Whether doing `operation` twice leaves and answers the same as doing it once.

    A send is if every entry has a dedup id, a receive if it has an attempt id, an extension of leases if no lease is
    ended by it. A subscription is if it does not give the log from a start, which would be given twice, or does so only
    to a queue that is not subscribed.
    """
    if isinstance(operation, ops.Send):
        return all(entry.dedup_id is not None for entry in operation.entries)
    if isinstance(operation, ops.Receive):
        return operation.attempt_id is not None
    if isinstance(operation, ops.ChangeVisibility):
        return all(timeout_ms > 0 for _, timeout_ms in operation.changes)
    if isinstance(operation, ops.Subscribe):
        return operation.if_absent or (operation.after is None and operation.since_ms is None and not operation.purge)
    return isinstance(operation, _ALWAYS_REPEATABLE)


class Attempts:
    """The tries of one call. Invariant: once a try's outcome was unknown, no later error says that nothing was done."""

    __slots__ = ("_deadline_s", "_operation", "_pause_s", "_unknown")

    def __init__(self, operation: ops.Operation, *, now_s: float, patience_s: float) -> None:
        self._operation = operation
        self._deadline_s = now_s + patience_s
        self._pause_s = PAUSE_FIRST_S
        self._unknown: OutcomeUnknown | None = None

    def pause_s(self, error: HeadraceError, *, now_s: float, chance: float) -> float:
        """How long to wait before the next try; raises when there is to be none.

        Args:
            error: what this try ended with.
            now_s: seconds, of any clock that is the same throughout.
            chance: 0 to 1, for jitter: clients of a restarted broker must not return all at once.
        """
        if isinstance(error, OutcomeUnknown):
            if not repeatable(self._operation):
                raise error
            if self._unknown is None:
                self._deadline_s = min(self._deadline_s, now_s + REMEMBERED_S)
            self._unknown = error
        elif isinstance(error, StoreError) and not isinstance(error, Unavailable) and self._unknown is not None:
            raise self._unknown  # a full disk says that nothing was done, and an earlier try may have been
        elif not isinstance(error, Unavailable):
            raise error
        pause_s = self._pause_s * (0.5 + chance / 2)
        if now_s + pause_s > self._deadline_s:
            raise self._unknown or error
        self._pause_s = min(self._pause_s * 2, PAUSE_MAX_S)
        return pause_s
