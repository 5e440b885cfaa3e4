"""Admission control: which requests wait, which is served next, and which are shed.

Theory. A queue absorbs bursts and makes overload worse. A queue that is never empty is not yet overload: with more clients
than worker slots some request always waits, and waits shortly. Overload begins when a request has waited longer than its
*patience*: a multiple of the time that requests run, so short for fast apps and long for slow ones, and never beyond
`queue_timeout`. Such a request is shed (503). Without overload requests are served in order, and so wait about equally.
During overload the newest is served first: in order, every request would wait for its whole patience, and responses would
come after their clients have left. Overload ends when the queue is so short that in order no request would wait for long.
A queue that has just formed is a burst: only `queue_timeout` bounds it. The same holds for a queue that formed while there
was no worker, or forms right afterwards, for as long again as the pause lasted: a pause of the server is not overload.

Why newest first, not CoDel: simulated by `tests/web/dispatch/queue_simulation.py`; 8 slots, twice the load that they can do,
clients that leave after 1 s, at most 1,000 waiting:

  requests of          goodput   p50 / p99 of answers   503 after
  5 ms   newest first  101 %        6 / 328 ms          0.41 s
         CoDel         102 %      473 / 601 ms          0.60 s
         in order      103 %      629 / 643 ms          at once, the size bounds it
  50 ms  newest first  100 %       56 / 326 ms          0.57 s
         CoDel         100 %       87 / 809 ms          0.80 s
         in order        3 %      502 / 998 ms          never: half of all hang

The p99 is from the first moments, before it is known to be overload. And a closed loop of 64 clients is served in order,
without a single 503, whatever its requests take; one that is newest first as soon as it never empties starves some of them.

Priorities: 0 goes first; but of PRIORITY_TURN takes that pass over a waiting entry of lower priority, one goes to the
lower priority whose oldest entry has waited longest, so none starves. Requests that come back from a dead worker go
before all others.

No clock, no randomness, no I/O: `now_s` and `chance` are arguments.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

from headrace.web.dispatch.limits import (
    CALM,
    PATIENCE_MIN_S,
    PATIENCE_SERVICES,
    PRIORITIES,
    PRIORITY_TURN,
    RESUME_S,
    RETRY_AFTER_MAX_S,
    STOOD_S,
)

_RATE_WINDOW_S: Final = 1.0
_RATE_WINDOW_MIN_S: Final = 0.1  # a shorter one is too inaccurate
_COMPACT_AT: Final = 64  # fewer that have left are not worth a sweep


class Entry(Protocol):
    """An entry of the queue. `since_s` and `waiting` are written by Admission while it has the entry."""

    priority: int
    since_s: float
    """When it began to wait."""
    waiting: bool
    """Whether it is in the queue."""


E = TypeVar("E", bound=Entry)


class Admission(Generic[E]):
    """The queue. Every operation is O(1), amortised, but `advance`, which is O(shed).

    Invariants: `length` is the number of entries with `waiting`; each queue is sorted by `since_s`; without `put_back`,
    `length` is at most `queue_size`.
    """

    def __init__(self, *, queue_size: int, queue_timeout_s: float) -> None:
        self.length = 0
        self._size = queue_size
        self._timeout_s = queue_timeout_s
        self._queues: tuple[deque[E], ...] = tuple(deque() for _ in range(PRIORITIES + 1))  # [0]: came back
        self._left = 0  # entries in the queues that wait no more
        self.overloaded = False
        """A request has exceeded its patience, and the queue is still long: the newest is served first."""
        self._excused_s = 0.0  # a queue that forms before this holds requests that came during a pause
        self._since_s = 0.0  # since when the queue has stood: it was empty before, or there was no worker
        self._passed = 0  # takes that have passed over a lower priority, since one did not
        self._service_s = 0.0
        self._finished_s = -math.inf
        self._window_s = 0.0
        self._taken = 0
        self._rate_s = 0.0

    # Coming

    def offer(self, entry: E, now_s: float) -> E | None:
        """Queue `entry`. Returns the entry that is shed if the queue is full: `entry`, or one that waits.

        A full queue gives up the oldest of its lowest priority for an entry of a higher one; and under overload also for
        one of the same priority, since that will be served earlier.
        """
        victim = None
        if self.length >= self._size:
            victim = self._least(entry.priority)
            if victim is None:
                return entry
            self.leave(victim)
        self._add(self._queues[entry.priority + 1], entry, now_s)
        return victim

    def put_back(self, entry: E, now_s: float) -> None:
        """Queue an entry again that a worker has lost, before all others and beyond `queue_size`."""
        self._add(self._queues[0], entry, now_s)

    def leave(self, entry: E) -> None:
        """The entry waits no more: its client has left. Idempotent."""
        if entry.waiting:
            entry.waiting = False
            self.length -= 1
            self._left += 1
            if self._left > max(_COMPACT_AT, self.length):
                self._compact()

    # Going

    def take(self, now_s: float) -> E | None:
        """Take the next entry; None if none waits."""
        if not self.length:
            return None
        queue = self._next_queue()
        while True:
            entry = queue.pop() if self.overloaded else queue.popleft()
            if entry.waiting:
                break
            self._left -= 1
        entry.waiting = False
        self.length -= 1
        self._count_taken(now_s)
        return entry

    def finished(self, service_s: float, now_s: float) -> None:
        """A request has run for `service_s`. Slow ones count at once, fast ones little by little: impatience that is
        wrong fails a request, patience that is wrong only lets one wait."""
        self._finished_s = now_s
        mean_s = self._service_s
        self._service_s = mean_s + (service_s - mean_s) * (0.5 if service_s > mean_s else 0.0625)

    def resumed(self, now_s: float, *, paused_s: float) -> None:
        """A worker is there again; for `paused_s` there was none."""
        if self.length:
            excused_until_s = max(self._since_s, now_s) + max(paused_s, RESUME_S)  # after the last pause, and this one
            self._since_s = min(excused_until_s, now_s + self._timeout_s)
            self.overloaded = False
        else:  # those that came meanwhile may wait in the kernel still, and all come at once
            self._excused_s = now_s + min(max(paused_s, RESUME_S), self._timeout_s)

    def advance(self, now_s: float) -> tuple[list[E], float]:
        """Remove and return the entries that have waited too long; and when to look again (infinity: none waits)."""
        shed: list[E] = []
        deadline_s = math.inf
        bound_s = self.patience_s(now_s)
        for queue in self._queues:
            while (oldest := self._oldest(queue)) is not None:
                due_s = oldest.since_s + bound_s
                if due_s > now_s:
                    deadline_s = min(deadline_s, due_s)
                    break
                queue.popleft()
                oldest.waiting = False
                self.length -= 1
                shed.append(oldest)
        self._judge(now_s, bound_s, impatient=bool(shed))
        if self.length and not self.has_stood(now_s):
            deadline_s = min(deadline_s, self._since_s + STOOD_S)
        return shed, deadline_s

    def _judge(self, now_s: float, bound_s: float, *, impatient: bool) -> None:
        """Whether this is overload."""
        if impatient:
            self.overloaded = True
        elif self.overloaded:
            rate_s = self._rate(now_s)
            self.overloaded = self.length > rate_s * bound_s * CALM

    # State

    def has_stood(self, now_s: float) -> bool:
        """Whether the queue has not been empty for so long that this is no burst."""
        return self.length > 0 and now_s >= self._since_s + STOOD_S

    def patience_s(self, now_s: float) -> float:
        """How long an entry may wait now. While no request finishes, they run for at least that long."""
        if not self.has_stood(now_s):
            return self._timeout_s
        service_s = max(self._service_s, now_s - self._finished_s)
        return min(self._timeout_s, max(PATIENCE_MIN_S, PATIENCE_SERVICES * service_s))

    def retry_after_s(self, chance: float) -> int:
        """When to retry: the length of the queue divided by the rate at which it drains, but at most `queue_timeout`, when all
        current entries have been served or shed. `chance` in [0, 1) spreads the retries."""
        wait_s = self.length / self._rate_s if self._rate_s else self._timeout_s
        wait_s = max(1.0, min(wait_s, self._timeout_s))
        return min(RETRY_AFTER_MAX_S, round(wait_s + chance * max(1.0, wait_s / 2)))

    def oldest_wait_s(self, now_s: float) -> float:
        """The longest wait so far; 0 if no entry waits."""
        oldest = [entry.since_s for queue in self._queues if (entry := self._oldest(queue)) is not None]
        return max(0.0, now_s - min(oldest)) if oldest else 0.0

    # Inside

    def _add(self, queue: deque[E], entry: E, now_s: float) -> None:
        if not self.length:
            self._since_s = max(now_s, self._excused_s)
            self.overloaded = False
            self._open_window(now_s)
        entry.since_s = now_s
        entry.waiting = True
        self.length += 1
        queue.append(entry)

    def _least(self, priority: int) -> E | None:
        """The entry that is shed when one of `priority` comes and the queue is full."""
        for index in range(PRIORITIES, 0, -1):
            oldest = self._oldest(self._queues[index])
            if oldest is not None:
                return oldest if index > priority + 1 or (index == priority + 1 and self.overloaded) else None
        return None

    def _next_queue(self) -> deque[E]:
        waiting = [queue for queue in self._queues if self._oldest(queue) is not None]
        first = waiting[0]
        if len(waiting) == 1 or first is self._queues[0]:
            return first
        self._passed += 1
        if self._passed < PRIORITY_TURN:
            return first
        self._passed = 0
        return min(waiting[1:], key=lambda queue: queue[0].since_s)

    def _oldest(self, queue: deque[E]) -> E | None:
        while queue:
            if queue[0].waiting:
                return queue[0]
            queue.popleft()
            self._left -= 1
        return None

    def _compact(self) -> None:
        for queue in self._queues:
            waiting = [entry for entry in queue if entry.waiting]
            queue.clear()
            queue.extend(waiting)
        self._left = 0

    def _count_taken(self, now_s: float) -> None:
        self._taken += 1
        passed_s = now_s - self._window_s
        if passed_s >= _RATE_WINDOW_S:
            self._rate_s = self._taken / passed_s
            self._open_window(now_s)

    def _rate(self, now_s: float) -> float:
        """How many are taken in a second, by now."""
        passed_s = now_s - self._window_s
        return self._taken / passed_s if passed_s >= _RATE_WINDOW_MIN_S else self._rate_s

    def _open_window(self, now_s: float) -> None:
        self._taken = 0
        self._window_s = now_s

    def _check_invariants(self) -> None:
        entries = [entry for queue in self._queues for entry in queue]
        waiting = [entry for entry in entries if entry.waiting]
        assert len(waiting) == self.length, "length is the number of those that wait"
        assert len(entries) - len(waiting) == self._left, "those that have left are counted"
        for queue in self._queues:
            since = [entry.since_s for entry in queue]
            assert since == sorted(since), "a queue is in the order of arrival"
