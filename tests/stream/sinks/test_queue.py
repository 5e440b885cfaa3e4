"""Queues and topics as sinks."""

from __future__ import annotations

import itertools
from collections import Counter

import pyarrow as pa
import pytest

import headrace
from headrace.errors import QueueNotFound
from headrace.queue import operations as ops
from headrace.stream.errors import SinkFailed, UnsupportedQuery
from headrace.stream.formats.decoding import ARROW_TYPE
from headrace.stream.plan import QueueSink, QueueSource
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sinks.base import TransactionalSink
from headrace.stream.sinks.open import open_sink
from headrace.stream.sources.open import open_reader

SCHEMA = Schema.of("g string, n bigint")
ROWS = pa.table({"g": ["a", "b", "a", None, "é "], "n": [1, 2, 3, 4, 5]})


def opened(client: headrace.Client, sink: QueueSink, schema: Schema = SCHEMA) -> TransactionalSink:
    entries = open_sink(sink, schema, client, pipeline="p", index=0)
    assert isinstance(entries, TransactionalSink)
    return entries


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_what_a_sink_sends_a_source_reads(client: headrace.Client, form: str) -> None:
    client.queue("out", create=True)
    sink = opened(client, QueueSink("out", format="json" if form == "json" else "arrow"))
    client.call(ops.Send(sink.arn, sink.entries(ROWS)))
    reader = open_reader(QueueSource("out", "out", SCHEMA), client, pipeline="p", slot=0)
    reader.open(None)
    chunk = reader.read(100, 0)
    assert chunk is not None and chunk.rows.drop_columns([ORIGIN]).equals(ROWS)
    assert chunk.size_bytes == sum(len(entry.body) for entry in sink.entries(ROWS))


def test_no_rows_are_no_messages(client: headrace.Client) -> None:
    client.queue("out", create=True)
    assert opened(client, QueueSink("out")).entries(ROWS.slice(0, 0)) == []


def test_arrow_messages_say_what_they_are_and_keep_their_bounds(client: headrace.Client) -> None:
    queue = client.queue("out", create=True, max_message_bytes=2_000)
    sink = opened(client, QueueSink("out", format="arrow", rows_max=300))
    rows = pa.table({"g": ["x"] * 1_000, "n": list(range(1_000))})
    client.call(ops.Send(sink.arn, sink.entries(rows)))
    messages = queue.peek(1_000)
    assert {message.attributes["content-type"] for message in messages} == {ARROW_TYPE}
    assert sum(len(pa.ipc.open_stream(message.body).read_all()) for message in messages) == 1_000


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_a_fifo_queue_has_groups_by_a_column_and_drops_no_equal_rows(client: headrace.Client, form: str) -> None:
    queue = client.queue("out.fifo", create=True, fifo=True, content_dedup=True)
    sink = opened(client, QueueSink("out.fifo", group="g", format="json" if form == "json" else "arrow"))
    for _ in range(2):
        client.call(ops.Send(sink.arn, sink.entries(ROWS)))
    groups = Counter(message.group for message in queue.peek(100))
    odd = next(group for group in groups if group is not None and len(group) == 64)
    per_group = {"a": 4, "b": 2, "NULL": 2, odd: 2} if form == "json" else {"a": 2, "b": 2, "NULL": 2, odd: 2}
    assert groups == per_group


def test_ids_may_be_given(client: headrace.Client) -> None:
    from headrace.stream.sinks.queue import TransactionalQueueSink

    ids = (f"batch-{number}" for number in itertools.count())
    sink = TransactionalQueueSink(QueueSink("q", group="g"), SCHEMA, arn="arn", message_bytes_max=1_000, ids=ids)
    assert [entry.dedup_id for entry in sink.entries(ROWS)] == [f"batch-{number}" for number in range(5)]


def test_what_does_not_fit_is_refused(client: headrace.Client) -> None:
    client.queue("out.fifo", create=True, fifo=True)
    client.queue("small", create=True, max_message_bytes=1_024)
    with pytest.raises(UnsupportedQuery, match="group"):
        opened(client, QueueSink("out.fifo"))
    with pytest.raises(UnsupportedQuery, match="'x'"):
        opened(client, QueueSink("out.fifo", group="x"))
    with pytest.raises(QueueNotFound):
        opened(client, QueueSink("none"))
    with pytest.raises(UnsupportedQuery, match="broker"):
        open_sink(QueueSink("small"), SCHEMA, None, pipeline="p", index=0)
    long = pa.table({"g": ["x" * 2_000], "n": [1]})
    for sink in (QueueSink("small"), QueueSink("small", format="arrow")):
        with pytest.raises(SinkFailed, match="row has"):
            opened(client, sink).entries(long)


def test_a_topic_gets_every_row(client: headrace.Client) -> None:
    topic = client.topic("out", create=True)
    queue = client.queue("in", create=True)
    topic.subscribe("in")
    sink = opened(client, QueueSink("out", topic=True))
    client.call(ops.Send(sink.arn, sink.entries(ROWS)))
    assert [message.json()["n"] for message in queue.peek(10)] == [1, 2, 3, 4, 5]
