"""What a pool tells Prometheus: the table of metrics, the sum over its children, and the listener that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from headrace._version import __version__
from headrace.http import exposition
from headrace.http.exposition import CONTENT_TYPE, Metric, Reader, Sample, histogram, labels, plain
from headrace.http.listener import Listener
from headrace.http.messages import Request
from headrace.work.pool.control import Report
from headrace.work.pool.task_stats import BOUNDS_S, TaskCounters

HOST: Final = "127.0.0.1"


@dataclass(slots=True)
class Totals:
    """Of all children. Those that have ended count on, so that counters never fall."""

    gone: dict[str, TaskCounters] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    """Child → what it said last."""

    def note(self, child: int, report: Report) -> None:
        self.reports[child] = report

    def ended(self, child: int) -> None:
        report = self.reports.pop(child, None)
        if report is not None:
            self.gone = summed([self.gone, report.tasks])

    def tasks(self) -> dict[str, TaskCounters]:
        return summed([self.gone, *(report.tasks for report in self.reports.values())])


def summed(many: Iterable[dict[str, TaskCounters]]) -> dict[str, TaskCounters]:
    """Task by task."""
    sums: dict[str, TaskCounters] = {}
    for tasks in many:
        for name, stats in tasks.items():
            sums[name] = _plus(sums.get(name, TaskCounters()), stats)
    return sums


def _plus(one: TaskCounters, other: TaskCounters) -> TaskCounters:
    dispositions = {
        disposition: one.dispositions.get(disposition, 0) + other.dispositions.get(disposition, 0)
        for disposition in {**one.dispositions, **other.dispositions}
    }
    return TaskCounters(
        dispositions,
        one.failed + other.failed,
        [a + b for a, b in zip(one.wait, other.wait, strict=True)],
        one.wait_s + other.wait_s,
        [a + b for a, b in zip(one.run, other.run, strict=True)],
        one.run_s + other.run_s,
    )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is told."""

    tasks: dict[str, TaskCounters]
    reports: dict[int, Report]
    processes: dict[str, int]
    """Stage → how many."""
    restarts: int


def _ended(snapshot: Snapshot) -> Iterator[Sample]:
    for name, stats in sorted(snapshot.tasks.items()):
        for disposition, count in sorted(stats.dispositions.items()):
            yield labels(task=name, outcome=disposition), str(count)


def _failures(snapshot: Snapshot) -> Iterator[Sample]:
    return ((labels(task=name), str(stats.failed)) for name, stats in sorted(snapshot.tasks.items()))


def _waits(snapshot: Snapshot) -> Iterator[Sample]:
    for name, stats in sorted(snapshot.tasks.items()):
        yield from histogram(BOUNDS_S, stats.wait, stats.wait_s, task=name)


def _runs(snapshot: Snapshot) -> Iterator[Sample]:
    for name, stats in sorted(snapshot.tasks.items()):
        yield from histogram(BOUNDS_S, stats.run, stats.run_s, task=name)


def _build(_: Snapshot) -> Iterator[Sample]:
    yield labels(version=__version__), "1"


def _processes(snapshot: Snapshot) -> Iterator[Sample]:
    return ((labels(state=state), str(count)) for state, count in snapshot.processes.items())


METRICS: Final[tuple[tuple[Metric, Reader[Snapshot]], ...]] = (
    (Metric("headrace_build_info", "gauge", "Always 1; the labels say what runs."), _build),
    (Metric("headrace_tasks_ended_total", "counter", "Runs by outcome: done, retried, dead, cancelled, expired, deferred."), _ended),
    (Metric("headrace_task_failures_total", "counter", "Attempts that failed, whatever came of it."), _failures),
    (Metric("headrace_task_wait_seconds", "histogram", "From when a task could run to its start."), _waits),
    (Metric("headrace_task_run_seconds", "histogram", "How long runs take."), _runs),
    (Metric("headrace_work_running", "gauge", "Tasks that run now."), plain(lambda s: sum(r.running for r in s.reports.values()))),
    (Metric("headrace_work_in_hand", "gauge", "Messages leased: they run, are about to, or are being committed."), plain(lambda s: sum(r.in_hand for r in s.reports.values()))),
    (Metric("headrace_work_processes", "gauge", "Child processes by state: starting, working, leaving."), _processes),
    (Metric("headrace_work_restarts_total", "counter", "Child processes that ended unasked."), plain(lambda s: s.restarts)),
    (Metric("headrace_work_memory_bytes", "gauge", "Resident memory of the child processes."), plain(lambda s: sum(r.rss_bytes for r in s.reports.values()))),
)  # fmt: skip


def render(snapshot: Snapshot) -> bytes:
    """The snapshot as Prometheus reads it."""
    return exposition.render(METRICS, snapshot)


class Exposition:
    """The listener: /metrics, /health/live, /health/ready, on the loopback address."""

    def __init__(self, snapshot: Callable[[], Snapshot], is_ready: Callable[[], bool]) -> None:
        self._snapshot = snapshot
        self._is_ready = is_ready
        self._listener = Listener(self._handle)

    def open(self, port: int) -> None:
        """Raises AddressUnusable: the port is taken."""
        self._listener.open_tcp(HOST, port)

    async def close(self) -> None:
        await self._listener.close(0.1)

    def _handle(self, request: Request) -> None:
        if request.path == "/metrics":
            request.respond(200, render(self._snapshot()), CONTENT_TYPE)
        elif request.path in ("/health/live", "/healthz"):
            request.respond(200, b"live\n", b"text/plain")
        elif request.path in ("/health/ready", "/readyz"):
            ready = self._is_ready()
            request.respond(200 if ready else 503, b"ready\n" if ready else b"not ready\n", b"text/plain")
        else:
            request.respond(404, b"there are /metrics, /health/live and /health/ready\n", b"text/plain")
