"""Queues and topics as sources: claims of a reader of its own, decoded to rows.

A claim binds messages durably to a number. Asked for again, it gives the same messages, and the commit of their results
acknowledges it, so no position is kept here. Claims that were open when the previous process ended come first, then new
ones. A topic is read through a queue of the pipeline's own that is subscribed to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import pyarrow as pa

from headrace import tracing
from headrace.errors import HeadraceError, QueueNotFound
from headrace.native.bodies import trace_of
from headrace.native.client import Client
from headrace.queue import limits as queue_limits
from headrace.queue import operations as ops
from headrace.queue.model import (
    ClaimState,
    Message,
    QueueDescription,
    TopicDescription,
    arn_of,
    topic_arn_of,
    uuid_text,
)
from headrace.stream import limits
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.formats.decoding import BodyDecoder
from headrace.stream.plan import QueueSource, TopicSource
from headrace.stream.schema import ORIGIN, Field, Schema
from headrace.stream.sources.base import Chunk, Dead, Origins, Progress, Reader

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
    """The different `traceparent`s of messages, at most as many as a span links to; none without a tracer."""
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


# --- Readers of queues ---


_WAIT_S: Final = 0.5  # of one claim: how late a close is noticed


def reader_name(pipeline: str, slot: int) -> str:
    """The name of the reader that claims: each slot of a pipeline has its own, whichever process holds it."""
    return f"{pipeline}/{slot}"


class QueueReader(Reader):
    """See Reader. `name` is the queue's; every chunk is whole claims, so that its commit can acknowledge them.

    `_claims_new`: whether it claims new messages when no claim is open.
    """

    _claims_new = True

    def __init__(
        self,
        source: QueueSource | TopicSource,
        queue: str,
        client: Client,
        *,
        reader: str,
        columns: frozenset[str] | None = None,
    ) -> None:
        """Args: columns: the columns to read; None: all. Arrow bodies give NULLs for the others."""
        self._name = source.name
        self._arn = arn_of(queue)
        self._client = client
        self._reader = reader
        self._decoder = MessageDecoder(source, columns)
        self._rows_a_message = 0.0  # not known yet
        self._number = 0
        self._last = 0
        self._done = 0
        self._failed = False
        self._closed = threading.Event()

    def open(self, position: bytes | None) -> None:
        del position  # the store has it
        state = self._state()
        self._number, self._last = state.acknowledged + 1, state.last

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        before = self._number
        messages = self._claims_surely(rows_max, wait_s)
        if self._number == before:
            return None
        rows, dead = self._decoder.decode(messages)
        if messages:
            self._rows_a_message = max(len(rows) / len(messages), 1.0)
        self._done += len(messages)
        return Chunk(
            rows,
            MessageOrigins(self._name, messages),
            dead,
            claims=[(self._arn, self._reader, self._number - 1)],  # it acknowledges those before it, too
            size_bytes=sum(len(message.body) for message in messages),
            traces=traces_of(messages),
        )

    def progress(self) -> Progress:
        description: QueueDescription = self._client.call(ops.GetQueue(self._arn))
        return Progress(self._done, description.counts.visible, "messages")

    def close(self) -> None:
        self._closed.set()

    def _claims_surely(self, rows_max: int, wait_s: float) -> list[Message]:
        """As `_claims`. After a call that has failed it is asked what is open: a claim whose answer was lost is, also if it
        has no messages any more."""
        if self._failed:
            self._last = self._state().last
            self._failed = False
        try:
            return self._claims(rows_max, wait_s)
        except HeadraceError:
            self._failed = True
            raise

    def _state(self) -> ClaimState:
        state: ClaimState = self._client.call(ops.GetClaims(self._arn, self._reader))
        return state

    def _claims(self, rows_max: int, wait_s: float) -> list[Message]:
        """The messages of the next claims, up to about `rows_max` rows.

        An open claim may have none any more (the queue was purged): it is acknowledged with the others.
        """
        messages: list[Message] = []
        number = self._number  # noted at the end: a claim that fails must not leave those before it behind
        limit = self._limit(rows_max)
        size_bytes = 0
        while len(messages) < limit and size_bytes < limits.BATCH_BYTES_MAX:
            ask = min(limit - len(messages), queue_limits.NATIVE_BATCH_MAX)
            again = number <= self._last
            if not (again or self._claims_new):
                break
            found = self._claim(number, ask, 0 if messages or again else wait_s)
            if not found and (self._closed.is_set() or not again):
                break
            number += 1
            messages += found
            size_bytes += sum(len(message.body) for message in found)
            if not again and len(found) < ask:  # no more are ready now
                break
        self._number = number
        return messages

    def _limit(self, rows_max: int) -> int:
        """The number of messages for about `rows_max` rows, estimated from the last ones."""
        if not self._rows_a_message:
            return min(rows_max, limits.FIRST_MESSAGES)
        return max(1, int(rows_max / self._rows_a_message))

    def _claim(self, number: int, limit: int, wait_s: float) -> list[Message]:
        deadline_s = time.monotonic() + wait_s
        while not self._closed.is_set():
            left_s = max(0.0, deadline_s - time.monotonic())
            claim = ops.Claim(self._arn, self._reader, number, limit)
            messages: list[Message] = self._client.call(claim, wait=min(left_s, _WAIT_S))
            if messages or left_s <= _WAIT_S:
                return messages
        return []


class OrphanedClaimsReader(QueueReader):
    """Reads the open claims of a slot whose process has ended, and claims nothing. More claims may appear while a process
    that was considered dead is still running."""

    _claims_new = False

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        if self._number > self._last:
            self._closed.wait(min(wait_s, _WAIT_S))
            self._last = self._state().last
        return super().read(rows_max, 0)


# --- Topics: a queue of the pipeline's own, subscribed to the topic ---


_RETENTION_S: Final = (
    queue_limits.RETENTION_MAX_MS / 1_000
)  # how long a pipeline may be stopped without losing messages


class TopicReader(QueueReader):
    """See Reader. At the pipeline's first start its queue is subscribed, from the `start` of the source.

    `behind` while the broker copies the topic's log into the queue; once live, it stays live.
    """

    def __init__(
        self, source: TopicSource, inbox: str, client: Client, *, reader: str, columns: frozenset[str] | None = None
    ) -> None:
        super().__init__(source, inbox, client, reader=reader, columns=columns)
        self._topic = source.topic
        self._start = source.start
        self._inbox = inbox
        self._behind = True  # not known yet

    def open(self, position: bytes | None) -> None:
        subscribe(self._client, self._topic, self._inbox, start=self._start)
        super().open(position)

    @property
    def behind(self) -> bool:
        self._behind = self._behind and is_catching_up(self._client, self._topic, self._inbox)
        return self._behind


def inbox_name(pipeline: str, topic: str) -> str:
    """The queue through which a pipeline reads a topic; FIFO if the topic is. Raises UnsupportedQuery: the names are too long."""
    name = f"{pipeline}--{topic.rsplit(':', 1)[-1]}"
    if len(name) > queue_limits.NAME_CHARACTERS_MAX:
        raise UnsupportedQuery(
            f"topic {topic!r}",
            f"the pipeline's queue for it would be {name!r}, longer than {queue_limits.NAME_CHARACTERS_MAX} characters",
            "a shorter name for the pipeline",
        )
    return name


def subscribe(client: Client, topic: str, inbox: str, *, start: Literal["now", "beginning"] = "now") -> None:
    """Create the queue and subscribe it from `start` on; an existing subscription is not changed. Idempotent.

    Raises TopicNotFound.
    """
    description: TopicDescription = client.call(ops.GetTopic(topic_arn_of(topic)))
    try:
        client.queue(inbox)
    except QueueNotFound:
        client.queue(inbox, create=True, fifo=description.info.settings.fifo, retention=_RETENTION_S)
    client.topic(topic).subscribe(inbox, start=start, if_absent=True)


def is_catching_up(client: Client, topic: str, inbox: str) -> bool:
    """Whether the broker is still copying the topic's log into the queue. Raises TopicNotFound."""
    description: TopicDescription = client.call(ops.GetTopic(topic_arn_of(topic)))
    subscriptions = [state.subscription for state in description.subscriptions]
    return any(one.position is not None for one in subscriptions if one.queue == arn_of(inbox))


def wait_until_live(client: Client, topic: str, inbox: str) -> None:
    """Return when the topic's log has been copied into the queue. Raises TopicNotFound."""
    while is_catching_up(client, topic, inbox):
        time.sleep(limits.QUIET_S)
