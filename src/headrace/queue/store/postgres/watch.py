"""When a queue will have something: what to look into next, and whose polls to wake. Pure.

A queue is watched while something may become visible in it that this node knows or is waited for: a lease that it
granted, a delayed message, a receive that found nothing. What other nodes send or release they tell; what becomes visible
by time alone nobody tells: so a queue that is waited for is looked into each second, and when its next message is due.
One statement looks into all that are due.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from headrace.queue import limits

LOOK_EACH_MS: Final = limits.SECOND_MS
"""What another node leased for less than this is seen late by at most as much."""
WAITED_FOR_MS: Final = limits.WAIT_MAX_MS + 5_000  # a poll waits so long at most; a new one begins with a receive


class Watch:
    """The watched queues of one node, by number."""

    def __init__(self) -> None:
        self._due: dict[int, int] = {}  # when to look
        self._waited: dict[int, int] = {}  # until when it is taken as waited for

    def note(self, now: int, *, empty: Iterable[int], due: Mapping[int, int]) -> None:
        """What a transaction has found: nothing in `empty`; something that will be visible in `due`."""
        for queue in empty:
            self._waited[queue] = now + WAITED_FOR_MS
            self._due[queue] = min(self._due.get(queue, now + LOOK_EACH_MS), now + LOOK_EACH_MS)
        for queue, ms in due.items():
            self._due[queue] = min(self._due.get(queue, ms), ms)

    def to_look_into(self, now: int) -> list[int]:
        """The queues that are due now; they are forgotten unless `seen` names when to look again."""
        queues = [queue for queue, ms in self._due.items() if ms <= now]
        for queue in queues:
            del self._due[queue]
        return queues

    def seen(self, queue: int, next_ms: int | None, now: int) -> None:
        """What was found: something will be visible at `next_ms`, or nothing yet."""
        waited = self._waited.get(queue, 0) > now
        if not waited:
            self._waited.pop(queue, None)
        moments = [now + LOOK_EACH_MS] if waited else []
        moments += [next_ms] if next_ms is not None else []
        if moments:
            self._due[queue] = min([*moments, self._due.get(queue, moments[0])])

    def next_ms(self) -> int | None:
        return min(self._due.values(), default=None)
