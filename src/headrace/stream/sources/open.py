"""Chooses the reader of a source."""

from __future__ import annotations

from headrace.native.client import Client
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.plan import FileSource, MemorySource, QueueSource, Source, TopicSource
from headrace.stream.sources.base import Reader
from headrace.stream.sources.files import FileReader
from headrace.stream.sources.memory import MemoryReader
from headrace.stream.sources.queue import OrphanedClaimsReader, QueueReader, TopicReader, inbox_name, reader_name


def open_reader(
    source: Source, client: Client | None, *, pipeline: str, slot: int, columns: frozenset[str] | None = None
) -> Reader:
    """A reader that is not opened yet.

    Args:
        source: the source of the plan.
        client: the client of the broker; None without a broker: then queues are refused.
        pipeline, slot: the owner of a queue's claims.
        columns: the columns that the plan reads, None: all. The others may be NULL where that is cheaper.

    Raises:
        UnsupportedQuery: a queue without a broker.
        SchemaInvalid: rows in memory do not match their schema.
    """
    if isinstance(source, MemorySource):
        return MemoryReader(source)
    if isinstance(source, FileSource):
        return FileReader(source, columns)
    if client is None:
        kind = "queue" if isinstance(source, QueueSource) else "topic"
        raise UnsupportedQuery(f"{kind} {source.name!r}", "no broker is configured", "name one with --broker")
    reader = reader_name(pipeline, slot)
    if isinstance(source, QueueSource):
        return QueueReader(source, source.queue, client, reader=reader, columns=columns)
    return TopicReader(source, inbox_name(pipeline, source.topic), client, reader=reader, columns=columns)


def open_orphaned_reader(source: QueueSource | TopicSource, client: Client, *, pipeline: str, slot: int) -> Reader:
    """A reader, not opened yet, of the claims of a slot whose process has ended."""
    queue = source.queue if isinstance(source, QueueSource) else inbox_name(pipeline, source.topic)
    return OrphanedClaimsReader(source, queue, client, reader=reader_name(pipeline, slot))


__all__ = ["inbox_name", "open_orphaned_reader", "open_reader", "reader_name"]
