from __future__ import annotations

import re

from headrace.http.listener import Statistics as HttpStatistics
from headrace.metrics import METRICS, Snapshot, render
from headrace.queue.model import (
    QueueCounts,
    QueueDescription,
    QueueInfo,
    QueueSettings,
    Subscription,
    SubscriptionState,
    TopicCounts,
    TopicDescription,
    TopicInfo,
    TopicSettings,
    arn_of,
    topic_arn_of,
)
from headrace.queue.store.base import StoreStatistics
from headrace.stream_state import PipelineState, Process, SourceState

NOW_MS = 1_700_000_000_000
STORE = StoreStatistics(
    commits=10,
    commit_operations=55,
    commit_seconds=0.25,
    commit_seconds_recent=0.02,
    commit_buckets=(4, 3, 2, 1),
    commit_bounds=(0.001, 0.01, 0.1),
    size_bytes=4_096,
    damaged=2,
    failed=None,
    full=True,
)


TOPIC = TopicDescription(
    TopicInfo(topic_arn_of("flights"), TopicSettings(), NOW_MS, NOW_MS),
    TopicCounts(published=7, duplicates=1, logged=5, log_bytes=50, oldest_ms=NOW_MS - 2_000),
    [SubscriptionState(Subscription(arn_of("late"), position=3), 2, 9)],
)


PIPELINE = PipelineState(
    "delays",
    (SourceState("flights", "orders", 10, 1_357_000_000_500_000), SourceState("old", "", 3, None)),
    batches=4, rows_out=2, late=1, dead=5, committed_ms=NOW_MS - 3_000, state_bytes=99, paused=True,
    processes=(Process("here/1", 7),),
)  # fmt: skip


def queue(arn: str, counts: QueueCounts) -> QueueDescription:
    return QueueDescription(QueueInfo(arn, QueueSettings(), {}, NOW_MS, NOW_MS), counts)


def rendered(*queues: QueueDescription) -> list[str]:
    http = HttpStatistics(accepted=9, open=3, requests=100, refused=1)
    text = render(
        Snapshot("1.2.3", NOW_MS, queues, STORE, http, polls_waiting=4, topics=[TOPIC], pipelines=[PIPELINE])
    ).decode()
    assert text.endswith("\n")
    return text.splitlines()


def test_queues_are_told_by_state_and_age() -> None:
    counts = QueueCounts(visible=5, in_flight=2, delayed=1, oldest_ms=NOW_MS - 1_500, sent=8, received=3, deleted=1)
    lines = rendered(queue(arn_of("orders"), counts))
    for expected in (
        'headrace_queue_messages{queue="orders",state="visible"} 5',
        'headrace_queue_messages{queue="orders",state="in_flight"} 2',
        'headrace_queue_messages{queue="orders",state="delayed"} 1',
        'headrace_queue_oldest_message_age_seconds{queue="orders"} 1.5',
        'headrace_queue_sent_total{queue="orders"} 8',
        'headrace_queue_received_total{queue="orders"} 3',
        'headrace_queue_deleted_total{queue="orders"} 1',
    ):
        assert expected in lines


def test_topics_are_told_with_their_logs_and_lags() -> None:
    lines = rendered()
    for expected in (
        'headrace_topic_published_total{topic="flights"} 7',
        'headrace_topic_duplicates_total{topic="flights"} 1',
        'headrace_topic_damaged_total{topic="flights"} 0',
        'headrace_topic_log_messages{topic="flights"} 5',
        'headrace_topic_log_bytes{topic="flights"} 50',
        'headrace_topic_log_age_seconds{topic="flights"} 2',
        'headrace_topic_subscription_lag_messages{topic="flights",queue="late"} 2',
    ):
        assert expected in lines


def test_pipelines_are_told_with_their_lag_and_watermark() -> None:
    lines = rendered(queue(arn_of("orders"), QueueCounts(visible=6)))
    assert [line for line in lines if line.startswith("headrace_stream_")] == [
        'headrace_stream_rows_in_total{pipeline="delays",source="flights"} 10',
        'headrace_stream_rows_in_total{pipeline="delays",source="old"} 3',
        'headrace_stream_rows_out_total{pipeline="delays"} 2',
        'headrace_stream_late_total{pipeline="delays"} 1',
        'headrace_stream_dead_total{pipeline="delays"} 5',
        'headrace_stream_batches_total{pipeline="delays"} 4',
        'headrace_stream_lag_messages{pipeline="delays",source="flights"} 6',
        'headrace_stream_watermark_seconds{pipeline="delays",source="flights"} 1357000000.5',
        'headrace_stream_last_commit_age_seconds{pipeline="delays"} 3',
        'headrace_stream_state_bytes{pipeline="delays"} 99',
        'headrace_stream_processes{pipeline="delays"} 1',
        'headrace_stream_paused{pipeline="delays"} 1',
    ]


def test_an_empty_queue_has_age_zero_and_a_step_back_gives_no_negative_one() -> None:
    lines = rendered(queue(arn_of("a"), QueueCounts()), queue(arn_of("b"), QueueCounts(oldest_ms=NOW_MS + 5)))
    assert 'headrace_queue_oldest_message_age_seconds{queue="a"} 0' in lines
    assert 'headrace_queue_oldest_message_age_seconds{queue="b"} 0' in lines


def test_queues_of_the_same_name_elsewhere_are_told_apart() -> None:
    elsewhere = arn_of("orders", region="eu-west-1")
    lines = rendered(queue(arn_of("orders"), QueueCounts(sent=1)), queue(elsewhere, QueueCounts(sent=2)))
    assert 'headrace_queue_sent_total{queue="orders"} 1' in lines
    assert f'headrace_queue_sent_total{{queue="{elsewhere}"}} 2' in lines


def test_commits_are_a_cumulative_histogram() -> None:
    lines = [line for line in rendered() if line.startswith("headrace_store_commit_seconds")]
    assert lines == [
        'headrace_store_commit_seconds_bucket{le="0.001"} 4',
        'headrace_store_commit_seconds_bucket{le="0.01"} 7',
        'headrace_store_commit_seconds_bucket{le="0.1"} 9',
        'headrace_store_commit_seconds_bucket{le="+Inf"} 10',
        "headrace_store_commit_seconds_sum 0.25",
        "headrace_store_commit_seconds_count 10",
    ]


def test_the_node_as_a_whole_is_told() -> None:
    lines = rendered()
    for expected in (
        "headrace_store_commit_operations_total 55",
        "headrace_store_size_bytes 4096",
        "headrace_store_damaged 2",
        "headrace_store_full 1",
        "headrace_store_failed 0",
        "headrace_http_connections 3",
        "headrace_http_connections_total 9",
        "headrace_http_requests_total 100",
        "headrace_http_refused_total 1",
        "headrace_polls_waiting 4",
    ):
        assert expected in lines
    assert any(line.startswith('headrace_build_info{version="1.2.3",python="3.') for line in lines)


def test_every_line_is_of_the_exposition_format() -> None:
    odd = "arn:aws:sqs:us-east-1:000000000000:" + 'a"b\\c\nd'
    lines = rendered(queue(odd, QueueCounts()))
    sample = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? [0-9.e+-]+')
    for line in lines:
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line


def test_each_metric_is_announced_once_and_named_as_its_kind_wants() -> None:
    names = [metric.name for metric, _ in METRICS]
    assert len(set(names)) == len(names)
    for metric, _ in METRICS:
        assert metric.name.startswith(("headrace_", "process_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter")
    lines = rendered(queue(arn_of("orders"), QueueCounts()))
    assert [line.split()[2] for line in lines if line.startswith("# TYPE ")] == names
