"""Decides when a worker's thread may prefetch requests: only while requests are so short that none waits noticeably.

Theory. To wake a thread for one request costs more than the request's way through the server, and threads of a process
that compute at the same time hand the interpreter to and fro. So where requests are short, one thread of each process
gets up to PREFETCH_MAX of them at once and the others sleep; where they are long, each thread gets one, and what it cannot
take waits in the edge's queue, from where any worker may pull it. A request that turns out long holds up those behind it
only until the edge notices that the link does not move: then they are recalled, and another thread becomes the one
that gets requests ahead.

The worker says of each request whether it was long (`Stopwatch`). This is known only while no other thread of its
process runs: else a part of the time is theirs. So when requests are long, whether they have become short can only be
tried. A trial that fails costs a few requests some milliseconds; so the next one comes later and later.

No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from headrace.web.dispatch.limits import HOLD_BYTES, HOLD_S, LONG_MAX, TRIAL_MAX_S, TRIAL_MIN_S

_SHARE: Final = 1 / 16
"""Of the one that ended last: it is about the last dozen or two."""
_PROVEN: Final = 8
"""A trial that has gone well for this many pauses was right: the next pause is the shortest again."""
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class Head(Protocol):
    """An exchange, or the link's Request."""

    @property
    def method(self) -> str: ...
    @property
    def headers(self) -> Mapping[bytes, bytes]: ...
    @property
    def upgrade(self) -> bytes: ...


def is_repeatable(head: Head) -> bool:
    """Whether another worker may get the request, too, though one may have begun with it: by its method, or since the
    client has said so.

    A worker never begins with one that is not while it holds answers back, and sends its answer at once. So one that is
    not the first unanswered of its link has not begun, and may go to another worker all the same.
    """
    return (head.method in _IDEMPOTENT and not head.upgrade) or b"idempotency-key" in head.headers


def may_hold(*, held_s: float, held_bytes: int) -> bool:
    """Whether a worker's finished answer may wait for the next one, to leave together with it."""
    return held_s < HOLD_S and held_bytes < HOLD_BYTES


class PrefetchPolicy:
    """Whether an application's requests are short. Begins hopeful."""

    __slots__ = ("_long", "_pause_s", "_since_s", "fast")

    def __init__(self) -> None:
        self.fast = True
        self._long = 0.0
        """How many of the last are long, of 1."""
        self._pause_s = TRIAL_MIN_S
        self._since_s = 0.0
        """Since when `fast` is what it is."""

    def finished(self, now_s: float, *, begun_s: float, long: bool) -> None:
        """A request has ended. What had begun before a trial ran side by side with others, and says nothing about it."""
        if self.fast:
            if begun_s < self._since_s:
                return
            self._long += (long - self._long) * _SHARE
            if self._long > LONG_MAX:
                self._slow_down(now_s)
        elif now_s >= self._since_s + self._pause_s:
            self.fast, self._since_s, self._long = True, now_s, 0.0

    def _slow_down(self, now_s: float) -> None:
        proven = now_s - self._since_s >= _PROVEN * self._pause_s
        self._pause_s = TRIAL_MIN_S if proven else min(2 * self._pause_s, TRIAL_MAX_S)
        self.fast, self._since_s = False, now_s
