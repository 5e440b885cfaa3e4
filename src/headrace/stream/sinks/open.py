"""The sink of a plan's sink."""

from __future__ import annotations

from headrace.native.client import Client
from headrace.queue import operations as ops
from headrace.queue.model import QueueDescription, arn_of
from headrace.stream.errors import PlanRefused
from headrace.stream.plan import QueueSink, Sink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import Entries, Outbox
from headrace.stream.sinks.queue import QueueEntries, unique_ids


def open_sink(sink: Sink, schema: Schema, client: Client | None, *, pipeline: str, index: int) -> Entries | Outbox:
    """A sink, ready for rows of `schema`.

    Args:
        client: of the broker; None if the pipeline has none: then queues are refused.
        pipeline, index: whose sink it is, and which: by these a sink that remembers batches knows its own.

    Raises:
        PlanRefused: the schema or the place does not fit.
        QueueNotFound: the queue is not there.
        ExtraMissing: a library is needed that is not installed.
    """
    if isinstance(sink, QueueSink):
        return _open_queue(sink, schema, client)
    raise PlanRefused(type(sink).__name__, "no such sink")


def _open_queue(sink: QueueSink, schema: Schema, client: Client | None) -> Entries:
    if client is None:
        raise PlanRefused(f"sink {sink.queue!r}", "there is no broker to send to", "name one with --broker")
    description: QueueDescription = client.call(ops.GetQueue(arn_of(sink.queue)))
    settings = description.info.settings
    return QueueEntries(
        sink,
        schema,
        arn=description.info.arn,
        message_bytes_max=settings.max_message_bytes,
        ids=unique_ids() if settings.fifo else None,
    )
