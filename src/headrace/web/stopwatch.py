"""How long a request took by itself: without the time for which its thread was ready to run and had no processor.

On a busy machine a thread stands still for some milliseconds again and again, and what it was at is not to blame. What
it waits for by its own will counts: a database, a lock, another thread's interpreter.
"""

from __future__ import annotations

import os
from typing import Final

_PATH: Final = "/proc/thread-self/schedstat"
"""Linux: nanoseconds on a processor, nanoseconds ready to run without one, turns."""


class Stopwatch:
    """Of one thread. Asks the system, which costs some 5 µs, only where it seems to have been long."""

    __slots__ = ("_stood_ns", "_threshold_s", "started_s")

    def __init__(self, threshold_s: float) -> None:
        self._threshold_s = threshold_s
        self._stood_ns = 0
        self.started_s = 0.0
        """Set it to `time.perf_counter()` when a request begins."""

    def is_long(self, now_s: float) -> bool:
        """Whether what began at `started_s` has taken longer than the threshold. The benefit of the doubt is given: the
        time without a processor is that since the last one that seemed long."""
        took_s = now_s - self.started_s
        if took_s <= self._threshold_s:
            return False
        stood_ns, self._stood_ns = self._stood_ns, stood_still_ns()
        return took_s - (self._stood_ns - stood_ns) / 1e9 > self._threshold_s


def stood_still_ns() -> int:
    """For how long, since it began, the calling thread was ready to run and had no processor; 0 where nobody knows."""
    try:
        fd = os.open(_PATH, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 128).split()[1])
    finally:
        os.close(fd)
