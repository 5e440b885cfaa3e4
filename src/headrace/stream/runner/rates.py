"""How fast something grows, of late. Pure."""

from __future__ import annotations

import math

_MEMORY_S = 5.0


class Rate:
    """A mean of the growth a second in which what is 5 s old weighs a third."""

    def __init__(self, now_s: float) -> None:
        self._at_s = now_s
        self._count: int | None = None
        self._rate = 0.0

    def of(self, count: int, now_s: float) -> float:
        """The rate, the total being `count` now."""
        if self._count is None:
            self._at_s, self._count = now_s, count
            return 0.0
        passed_s = now_s - self._at_s
        if passed_s > 0:
            weight = 1 - math.exp(-passed_s / _MEMORY_S)
            self._rate += weight * ((count - self._count) / passed_s - self._rate)
            self._at_s, self._count = now_s, count
        return self._rate
