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
from pathlib import Path
from typing import Final

from headrace.http import exposition
from headrace.http.exposition import Metric, Reader, Sample, histogram, labels, number, plain
from headrace.http.listener import Statistics as HttpStatistics
from headrace.queue.model import (
    QueueCounts,
    QueueDescription,
    TopicCounts,
    TopicDescription,
    short_name,
)
from headrace.queue.store.base import StoreStatistics
from headrace.stream_state import PipelineState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is told, read at about one moment. `now_ms`: steady time."""

    version: str
    now_ms: int
    queues: Sequence[QueueDescription]
    store: StoreStatistics
    http: HttpStatistics
    polls_waiting: int
    topics: Sequence[TopicDescription] = ()
    pipelines: Sequence[PipelineState] = ()


def _of_queues(read: Callable[[QueueCounts], int]) -> Reader[Snapshot]:
    return lambda snapshot: ((labels(queue=short_name(q.info.arn)), str(read(q.counts))) for q in snapshot.queues)


def _build(snapshot: Snapshot) -> Iterable[Sample]:
    python = ".".join(map(str, sys.version_info[:3]))
    return ((labels(version=snapshot.version, python=python), "1"),)


def _states(snapshot: Snapshot) -> Iterable[Sample]:
    for queue in snapshot.queues:
        for state in ("visible", "in_flight", "delayed"):
            yield labels(queue=short_name(queue.info.arn), state=state), str(getattr(queue.counts, state))


def _oldest(snapshot: Snapshot) -> Iterable[Sample]:
    for queue in snapshot.queues:
        since = queue.counts.oldest_ms
        age_ms = 0 if since is None else max(0, snapshot.now_ms - since)
        yield labels(queue=short_name(queue.info.arn)), number(age_ms / 1_000)


def _commits(snapshot: Snapshot) -> Iterable[Sample]:
    store = snapshot.store
    return histogram(store.commit_bounds, store.commit_buckets, store.commit_seconds)


def _of_topics(read: Callable[[TopicCounts], int]) -> Reader[Snapshot]:
    return lambda snapshot: ((labels(topic=short_name(t.info.arn)), str(read(t.counts))) for t in snapshot.topics)


def _topic_age(snapshot: Snapshot) -> Iterable[Sample]:
    for topic in snapshot.topics:
        since = topic.counts.oldest_ms
        age_ms = 0 if since is None else max(0, snapshot.now_ms - since)
        yield labels(topic=short_name(topic.info.arn)), number(age_ms / 1_000)


def _subscription_lag(snapshot: Snapshot) -> Iterable[Sample]:
    for topic in snapshot.topics:
        for one in topic.subscriptions:
            yield labels(topic=short_name(topic.info.arn), queue=short_name(one.subscription.queue)), str(one.lag)


def _of_pipelines(read: Callable[[PipelineState], int]) -> Reader[Snapshot]:
    return lambda snapshot: ((labels(pipeline=p.name), str(read(p))) for p in snapshot.pipelines)


def _stream_rows(snapshot: Snapshot) -> Iterable[Sample]:
    for pipeline in snapshot.pipelines:
        for source in pipeline.sources:
            yield labels(pipeline=pipeline.name, source=source.name), str(source.rows)


def _stream_watermark(snapshot: Snapshot) -> Iterable[Sample]:
    for pipeline in snapshot.pipelines:
        for source in pipeline.sources:
            if source.watermark_us is not None:
                yield labels(pipeline=pipeline.name, source=source.name), number(source.watermark_us / 1_000_000)


def _stream_lag(snapshot: Snapshot) -> Iterable[Sample]:
    waiting = {short_name(queue.info.arn): queue.counts.visible for queue in snapshot.queues}
    for pipeline in snapshot.pipelines:
        for source in pipeline.sources:
            if source.queue in waiting:
                yield labels(pipeline=pipeline.name, source=source.name), str(waiting[source.queue])


def _stream_age(snapshot: Snapshot) -> Iterable[Sample]:
    for pipeline in snapshot.pipelines:
        if pipeline.committed_ms:
            yield labels(pipeline=pipeline.name), number(max(0, snapshot.now_ms - pipeline.committed_ms) / 1_000)


METRICS: Final[tuple[tuple[Metric, Reader[Snapshot]], ...]] = (
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
    (Metric("headrace_topic_published_total", "counter", "Messages published."), _of_topics(lambda c: c.published)),
    (
        Metric("headrace_topic_duplicates_total", "counter", "Messages that deduplication did not publish again."),
        _of_topics(lambda c: c.duplicates),
    ),
    (Metric("headrace_topic_damaged_total", "counter", "Logged messages set aside as damaged."), _of_topics(lambda c: c.damaged)),
    (Metric("headrace_topic_log_messages", "gauge", "Messages in the topic's log."), _of_topics(lambda c: c.logged)),
    (Metric("headrace_topic_log_bytes", "gauge", "Bytes of the messages in the topic's log."), _of_topics(lambda c: c.log_bytes)),
    (Metric("headrace_topic_log_age_seconds", "gauge", "Age of the oldest message in the log; 0 if none."), _topic_age),
    (
        Metric("headrace_topic_subscription_lag_messages", "gauge", "Logged messages that a queue which catches up has yet to be given."),
        _subscription_lag,
    ),
    (Metric("headrace_stream_rows_in_total", "counter", "Rows that a pipeline has read from a source."), _stream_rows),
    (Metric("headrace_stream_rows_out_total", "counter", "Rows that came out."), _of_pipelines(lambda p: p.rows_out)),
    (Metric("headrace_stream_late_total", "counter", "Rows that came too late."), _of_pipelines(lambda p: p.late)),
    (Metric("headrace_stream_dead_total", "counter", "Messages that could not be processed."), _of_pipelines(lambda p: p.dead)),
    (Metric("headrace_stream_batches_total", "counter", "Batches processed."), _of_pipelines(lambda p: p.batches)),
    (Metric("headrace_stream_lag_messages", "gauge", "Messages that wait for a pipeline in a source's queue."), _stream_lag),
    (Metric("headrace_stream_watermark_seconds", "gauge", "Event time that a source has reached, seconds since 1970."), _stream_watermark),
    (Metric("headrace_stream_last_commit_age_seconds", "gauge", "Time since a pipeline's last commit."), _stream_age),
    (Metric("headrace_stream_state_bytes", "gauge", "State of a pipeline's operators."), _of_pipelines(lambda p: p.state_bytes)),
    (Metric("headrace_stream_processes", "gauge", "Processes that run a pipeline, by its record."), _of_pipelines(lambda p: len(p.processes))),
    (Metric("headrace_stream_paused", "gauge", "1 while a pipeline is paused."), _of_pipelines(lambda p: int(p.paused))),
    (Metric("headrace_polls_waiting", "gauge", "Long polls that wait for a message."), plain(lambda s: s.polls_waiting)),
    (Metric("headrace_store_commit_seconds", "histogram", "Time of a commit, the sync included."), _commits),
    (
        Metric("headrace_store_commit_operations_total", "counter", "Operations in commits; by commits: the batch size."),
        plain(lambda s: s.store.commit_operations),
    ),
    (Metric("headrace_store_size_bytes", "gauge", "Bytes of the store's files."), plain(lambda s: s.store.size_bytes)),
    (Metric("headrace_store_damaged", "gauge", "Damaged records found since the start."), plain(lambda s: s.store.damaged)),
    (Metric("headrace_store_full", "gauge", "1 while sends are refused for lack of space."), plain(lambda s: s.store.full)),
    (
        Metric("headrace_store_failed", "gauge", "1 once the store has stopped for good."),
        plain(lambda s: s.store.failed is not None),
    ),
    (Metric("headrace_http_connections", "gauge", "Open connections."), plain(lambda s: s.http.open)),
    (Metric("headrace_http_connections_total", "counter", "Connections accepted."), plain(lambda s: s.http.accepted)),
    (Metric("headrace_http_requests_total", "counter", "Requests taken."), plain(lambda s: s.http.requests)),
    (
        Metric("headrace_http_refused_total", "counter", "Requests that the HTTP engine refused as malformed or too large."),
        plain(lambda s: s.http.refused),
    ),
    (Metric("process_cpu_seconds_total", "counter", "CPU time used."), plain(lambda _: _cpu_seconds())),
    (Metric("process_resident_memory_bytes", "gauge", "Memory in use."), plain(lambda _: _resident_bytes())),
    (Metric("process_open_fds", "gauge", "Open file descriptors."), plain(lambda _: _open_descriptors())),
)  # fmt: skip


def render(snapshot: Snapshot) -> bytes:
    """The snapshot as Prometheus reads it."""
    return exposition.render(METRICS, snapshot)


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
