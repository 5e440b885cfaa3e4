"""Opens the sink for a sink of the plan."""

from __future__ import annotations

from typing import cast

from headrace.native.client import Client
from headrace.queue import limits as queue_limits
from headrace.queue import operations as ops
from headrace.queue.model import QueueDescription, TopicDescription, arn_of, topic_arn_of
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.plan import CallbackSink, ConsoleSink, HttpSink, ParquetSink, QueueSink, Sink, TableSink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import Outbox, TransactionalSink
from headrace.stream.sinks.console import CallbackOutbox, ConsoleOutbox
from headrace.stream.sinks.http import HttpOutbox
from headrace.stream.sinks.parquet import ParquetOutbox
from headrace.stream.sinks.queue import TransactionalQueueSink, unique_ids
from headrace.stream.sinks.table import TableOutbox


def open_sink(
    sink: Sink, schema: Schema, client: Client | None, *, pipeline: str, index: int, slot: int = 0
) -> TransactionalSink | Outbox:
    """A sink, ready for rows of `schema`.

    Args:
        client: the client of the broker; None without a broker: then queues are refused.
        pipeline, index, slot: the owner of the sink, by which it identifies its own batches.

    Raises:
        UnsupportedQuery: the schema or the destination is not supported.
        QueueNotFound, TopicNotFound: it does not exist.
        ExtraMissing: a library is not installed.
        SinkFailed: it cannot be opened.
    """
    owner = f"{pipeline}.{index}.{slot}"  # a pipeline's name has no dot: no other owner begins like this
    match sink:
        case QueueSink():
            return _open_queue(sink, schema, client)
        case ParquetSink():
            return ParquetOutbox(sink, schema, owner=owner)
        case TableSink():
            return TableOutbox(sink, schema, owner=owner)
        case HttpSink():
            return HttpOutbox(sink, schema)
        case ConsoleSink():
            return ConsoleOutbox(sink, title=pipeline)
        case CallbackSink():
            return CallbackOutbox(sink)


def _open_queue(sink: QueueSink, schema: Schema, client: Client | None) -> TransactionalSink:
    if client is None:
        raise UnsupportedQuery(f"sink {sink.queue!r}", "no broker is configured", "name one with --broker")
    arn, fifo, message_bytes_max = _topic(client, sink) if sink.topic else _queue(client, sink)
    ids = unique_ids() if fifo else None
    return TransactionalQueueSink(sink, schema, arn=arn, message_bytes_max=message_bytes_max, ids=ids)


def _queue(client: Client, sink: QueueSink) -> tuple[str, bool, int]:
    """(its ARN, whether it is FIFO, how long a message may be)."""
    info = cast("QueueDescription", client.call(ops.GetQueue(arn_of(sink.queue)))).info
    return info.arn, info.settings.fifo, info.settings.max_message_bytes


def _topic(client: Client, sink: QueueSink) -> tuple[str, bool, int]:
    info = cast("TopicDescription", client.call(ops.GetTopic(topic_arn_of(sink.queue)))).info
    return info.arn, info.settings.fifo, queue_limits.MESSAGE_BYTES_MAX
