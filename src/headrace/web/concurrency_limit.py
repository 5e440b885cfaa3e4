"""How many requests a worker holds at once: as many as it can keep up with.

Theory. One loop serves them all, so what counts is not their number but how late the loop is. An application that waits
for I/O may have hundreds and its loop still answers at once; one that computes is late with four. So the edge asks
(PING), and steers as TCP does: more while the credits are used up and the loop is quick, a third fewer when it is late.
What the worker does not hold waits in the edge's queue: where it can be ordered, shed, and given to another.

A loop is also late because others have the processor. Then fewer requests make it no quicker, and those that only wait, for
events or for their client's body, must not use up the few that are left: they take no credits (`quiet`).

Said of ASGI; threads share an interpreter as requests share a loop, and are steered likewise: by how late a thread that
does nothing else is (`adaptive_thread_limit.py`), or the loop of the same process (`local_dispatcher.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.web.limits import CONCURRENCY_START, LAG_HIGH_S, LAG_LOW_S, LAG_QUIET_S


class ConcurrencyLimit:
    """Invariant: count <= most; least <= count, unless most is less."""

    __slots__ = ("_eager", "_least", "count", "most")

    def __init__(self, most: int, *, start: int = CONCURRENCY_START, least: int = 1) -> None:
        """Args: most: that the worker allows; start, least: if that many are allowed."""
        self.most = most
        """May be raised."""
        self._least = least
        self._eager = True
        self.count = min(start, most)

    def lag(self, seconds: float, *, used_up: bool) -> None:
        """The loop was so late; `used_up`: whether a request might have been given since the last time, had there been
        more credits. Doubles until the loop is late for the first time, then grows by a quarter."""
        if seconds > LAG_HIGH_S:
            self._eager = False
            self.count = min(self.most, max(self._least, int(self.count * 0.7)))
        elif seconds < LAG_LOW_S and used_up:
            step = self.count if self._eager else self.count // 4
            self.count = min(self.most, self.count + max(1, step))

    def room(self, quiet: Iterable[bool], *, lag_s: float) -> int:
        """How many requests the worker may hold in all. `quiet`: of each that it holds whether it needs nothing of the loop."""
        return self.count if lag_s > LAG_QUIET_S else min(self.most, self.count + sum(quiet))
