"""Messages → rows: bodies decoded, what the message itself knows as columns in front. For queues, on both engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from headrace import tracing
from headrace.native.bodies import trace_of
from headrace.queue.model import Message, uuid_text
from headrace.stream.formats.decoding import BodyDecoder
from headrace.stream.plan import QueueSource, TopicSource
from headrace.stream.schema import ORIGIN, Field, Schema
from headrace.stream.sources.base import Dead, Origins

METADATA: Final[dict[str, tuple[pa.DataType, Callable[[Message], Any]]]] = {
    "message_id": (pa.string(), lambda message: uuid_text(message.id)),
    "sent_at": (pa.timestamp("us"), lambda message: message.sent_ms * 1_000),
    "message_group": (pa.string(), lambda message: message.group),
    "sequence": (pa.int64(), lambda message: message.seq),
}
"""What `metadata` of a source may name: the column's type, and its value."""


def full_schema(source: QueueSource | TopicSource) -> Schema:
    """The source's columns: metadata, then the body's."""
    return Schema(tuple(Field(name, METADATA[name][0]) for name in source.metadata) + source.schema.fields)


def traces_of(messages: Sequence[Message]) -> list[str]:
    """The different `traceparent`s of messages, at most as many as a span links to; none while nobody traces."""
    if tracing.tracer() is None:
        return []
    found: dict[str, None] = {}
    for message in messages:
        if (trace := trace_of(message.attributes)) is not None:
            found[trace] = None
            if len(found) == tracing.LINKS_MAX:
                break
    return list(found)


class MessageOrigins(Origins):
    """The messages of a chunk."""

    def __init__(self, source: str, messages: Sequence[Message]) -> None:
        self._source = source
        self._messages = messages

    def dead(self, origin: int, reason: str, step: str = "") -> Dead:
        message = self._messages[origin]
        return Dead(message.body, reason, uuid_text(message.id), self._source, step)


class MessageDecoder:
    """Messages of one source. Stateless: for any thread, and any process. `used`: see ArrowDecoder."""

    def __init__(self, source: QueueSource | TopicSource, used: frozenset[str] | None = None) -> None:
        self._name = source.name
        self._metadata = source.metadata
        self._bodies = BodyDecoder(source.schema, source.format, used)

    def decode(self, messages: Sequence[Message]) -> tuple[pa.Table, list[Dead]]:
        """(rows with ORIGIN, the index in `messages`; what could not be decoded)."""
        decoded = self._bodies.decode(messages)
        origins = MessageOrigins(self._name, messages)
        return self._with_metadata(decoded.rows, messages), [origins.dead(*bad) for bad in decoded.bad]

    def _with_metadata(self, rows: pa.Table, messages: Sequence[Message]) -> pa.Table:
        for place, name in enumerate(self._metadata):
            kind, value = METADATA[name]
            column = pa.array([value(message) for message in messages], kind)
            rows = rows.add_column(place, name, column.take(rows.column(ORIGIN)))
        return rows
