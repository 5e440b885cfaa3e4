"""How long commits take, for the statistics."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_RECENT: Final = 0.05  # weight of the newest commit in the running mean: some twenty count


class CommitTimes:
    """Totals since the store was opened, and a running mean."""

    def __init__(self) -> None:
        self._commits = self._operations = 0
        self._seconds = self._recent_s = 0.0
        self._buckets = [0] * (len(BOUNDS_S) + 1)

    def note(self, seconds: float, operations: int) -> None:
        self._commits += 1
        self._operations += operations
        self._seconds += seconds
        self._recent_s += (seconds - self._recent_s) * _RECENT
        self._buckets[bisect_left(BOUNDS_S, seconds)] += 1

    def statistics(self) -> dict[str, Any]:
        """Fields of StoreStatistics."""
        return {
            "commits": self._commits,
            "commit_operations": self._operations,
            "commit_seconds": self._seconds,
            "commit_seconds_recent": self._recent_s,
            "commit_buckets": tuple(self._buckets),
            "commit_bounds": BOUNDS_S,
        }
