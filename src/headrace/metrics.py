"""What a broker tells Prometheus: the table of metrics, and their text.

Text exposition format 0.0.4. Names are `headrace_…` in base units; no ids as labels. A queue is named as users name it,
and by its ARN where it is of another region or account than the default, so that no two are the same.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from headrace.http.listener import Statistics as HttpStatistics
from headrace.queue.model import QueueCounts, QueueDescription, arn_of, name_of
from headrace.queue.store.base import StoreStatistics

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: str
    """gauge, counter or histogram."""
    help: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is told, read at about one moment. `now_ms`: steady time."""

    version: str
    now_ms: int
    queues: Sequence[QueueDescription]
    store: StoreStatistics
    http: HttpStatistics
    polls_waiting: int


Sample = tuple[str, str]
"""What follows the metric's name (suffix and labels), and the value."""

Reader = Callable[[Snapshot], Iterable[Sample]]


def _plain(read: Callable[[Snapshot], float | None]) -> Reader:
    def samples(snapshot: Snapshot) -> Iterable[Sample]:
        value = read(snapshot)
        return () if value is None else (("", _number(value)),)

    return samples


def _of_queues(read: Callable[[QueueCounts], int]) -> Reader:
    return lambda snapshot: ((_labels(queue=_name(q)), str(read(q.counts))) for q in snapshot.queues)


def _build(snapshot: Snapshot) -> Iterable[Sample]:
    python = ".".join(map(str, sys.version_info[:3]))
    return ((_labels(version=snapshot.version, python=python), "1"),)


def _states(snapshot: Snapshot) -> Iterable[Sample]:
    for queue in snapshot.queues:
        for state in ("visible", "in_flight", "delayed"):
            yield _labels(queue=_name(queue), state=state), str(getattr(queue.counts, state))


def _oldest(snapshot: Snapshot) -> Iterable[Sample]:
    for queue in snapshot.queues:
        since = queue.counts.oldest_ms
        age_ms = 0 if since is None else max(0, snapshot.now_ms - since)
        yield _labels(queue=_name(queue)), _number(age_ms / 1_000)


def _commits(snapshot: Snapshot) -> Iterable[Sample]:
    store = snapshot.store
    counts = list(accumulate(store.commit_buckets))
    for bound, count in zip(store.commit_bounds, counts, strict=False):
        yield "_bucket" + _labels(le=_number(bound)), str(count)
    yield "_bucket" + _labels(le="+Inf"), str(store.commits)
    yield "_sum", _number(store.commit_seconds)
    yield "_count", str(store.commits)


METRICS: Final[tuple[tuple[Metric, Reader], ...]] = (
    (Metric("headrace_build_info", "gauge", "Always 1; the labels say what runs."), _build),
    (Metric("headrace_queue_messages", "gauge", "Messages by state: visible, in_flight, delayed."), _states),
    (Metric("headrace_queue_oldest_message_age_seconds", "gauge", "Age of the oldest that waits; 0 if none."), _oldest),
    (Metric("headrace_queue_sent_total", "counter", "Messages stored."), _of_queues(lambda c: c.sent)),
    (Metric("headrace_queue_received_total", "counter", "Messages handed out, each time."), _of_queues(lambda c: c.received)),
    (Metric("headrace_queue_deleted_total", "counter", "Messages deleted by consumers."), _of_queues(lambda c: c.deleted)),
    (
        Metric("headrace_queue_empty_receives_total", "counter", "Receives that found nothing."),
        _of_queues(lambda c: c.empty_receives),
    ),
    (
        Metric("headrace_queue_duplicates_total", "counter", "Sends that deduplication did not store again."),
        _of_queues(lambda c: c.duplicates),
    ),
    (
        Metric("headrace_queue_dead_lettered_total", "counter", "Messages moved to the dead-letter queue."),
        _of_queues(lambda c: c.dead_lettered),
    ),
    (Metric("headrace_queue_expired_total", "counter", "Messages dropped by retention."), _of_queues(lambda c: c.expired)),
    (Metric("headrace_queue_damaged_total", "counter", "Messages set aside as damaged."), _of_queues(lambda c: c.damaged)),
    (Metric("headrace_polls_waiting", "gauge", "Long polls that wait for a message."), _plain(lambda s: s.polls_waiting)),
    (Metric("headrace_store_commit_seconds", "histogram", "Time of a commit, the sync included."), _commits),
    (
        Metric("headrace_store_commit_operations_total", "counter", "Operations in commits; by commits: the batch size."),
        _plain(lambda s: s.store.commit_operations),
    ),
    (Metric("headrace_store_size_bytes", "gauge", "Bytes of the store's files."), _plain(lambda s: s.store.size_bytes)),
    (Metric("headrace_store_damaged", "gauge", "Damaged records found since the start."), _plain(lambda s: s.store.damaged)),
    (Metric("headrace_store_full", "gauge", "1 while sends are refused for lack of space."), _plain(lambda s: s.store.full)),
    (
        Metric("headrace_store_failed", "gauge", "1 once the store has stopped for good."),
        _plain(lambda s: s.store.failed is not None),
    ),
    (Metric("headrace_http_connections", "gauge", "Open connections."), _plain(lambda s: s.http.open)),
    (Metric("headrace_http_connections_total", "counter", "Connections accepted."), _plain(lambda s: s.http.accepted)),
    (Metric("headrace_http_requests_total", "counter", "Requests taken."), _plain(lambda s: s.http.requests)),
    (
        Metric("headrace_http_refused_total", "counter", "Requests that the HTTP engine refused as malformed or too large."),
        _plain(lambda s: s.http.refused),
    ),
    (Metric("process_cpu_seconds_total", "counter", "CPU time used."), _plain(lambda _: _cpu_seconds())),
    (Metric("process_resident_memory_bytes", "gauge", "Memory in use."), _plain(lambda _: _resident_bytes())),
    (Metric("process_open_fds", "gauge", "Open file descriptors."), _plain(lambda _: _open_descriptors())),
)  # fmt: skip


def render(snapshot: Snapshot) -> bytes:
    """The snapshot as Prometheus reads it."""
    lines: list[str] = []
    for metric, read in METRICS:
        samples = [f"{metric.name}{suffix} {value}" for suffix, value in read(snapshot)]
        if samples:
            lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *samples)
    return "\n".join([*lines, ""]).encode()


def _name(queue: QueueDescription) -> str:
    name = name_of(queue.info.arn)
    return name if arn_of(name) == queue.info.arn else queue.info.arn


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Shortest text that reads back the same; whole numbers without a point."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _resident_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return None  # not Linux


def _open_descriptors() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are enough)
    except OSError:
        return None
