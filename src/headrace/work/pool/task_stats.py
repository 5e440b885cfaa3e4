"""What a process has done: counts and histograms by task. Written by the committer alone, read by whoever tells it."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

from headrace.presence import Latency, Recent, TaskFacts, latency

BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
)  # fmt: skip
TASKS_MAX: Final = 200
"""Names that are counted apart, and are labels of metrics; further ones are counted as `other`."""


class TaskCounters(msgspec.Struct):
    """Of one task. Histograms: a count a bucket, one more than bounds."""

    dispositions: dict[str, int] = {}
    failed: int = 0
    wait: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    wait_s: float = 0.0
    run: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    run_s: float = 0.0


class TaskStats:
    """Of all tasks."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskCounters] = {}
        self.ended = 0
        self._recent = Recent()

    def note(self, task: str, disposition: str, *, failed: bool, wait_s: float, run_s: float) -> None:
        stats = self.tasks.get(task)
        if stats is None:
            name = task if len(self.tasks) < TASKS_MAX else "other"
            stats = self.tasks.setdefault(name, TaskCounters())
        self.ended += 1
        stats.dispositions[disposition] = stats.dispositions.get(disposition, 0) + 1
        stats.failed += failed
        stats.wait[bisect_left(BOUNDS_S, wait_s)] += 1
        stats.wait_s += wait_s
        stats.run[bisect_left(BOUNDS_S, run_s)] += 1
        stats.run_s += run_s

    def facts(self, now_s: float) -> tuple[list[TaskFacts], float]:
        """Of each task, and how many a second are done of late."""
        tasks = dict(self.tasks)
        totals: dict[object, int] = {None: sum(stats.dispositions.get("succeeded", 0) for stats in tasks.values())}
        for name, stats in tasks.items():
            totals[name] = stats.dispositions.get("succeeded", 0)
            totals |= {(name, "wait", place): count for place, count in enumerate(stats.wait) if count}
            totals |= {(name, "run", place): count for place, count in enumerate(stats.run) if count}
        self._recent.note(now_s, totals)
        return [self._of(name, stats) for name, stats in tasks.items()], self._recent.rate_s(None)

    def _of(self, name: str, stats: TaskCounters) -> TaskFacts:
        dispositions = stats.dispositions
        return TaskFacts(
            task=name,
            succeeded=dispositions.get("succeeded", 0),
            failed=stats.failed,
            retried=dispositions.get("retried", 0),
            dead=dispositions.get("dead", 0),
            succeeded_s=self._recent.rate_s(name),
            wait=self._latency(name, "wait"),
            run=self._latency(name, "run"),
        )

    def _latency(self, name: str, what: str) -> Latency:
        counts = [self._recent.grown((name, what, place)) for place in range(len(BOUNDS_S) + 1)]
        return latency(BOUNDS_S, counts)
