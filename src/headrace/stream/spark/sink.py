"""The data source `headrace` of Spark, as a sink: `df.writeStream` and `df.write` turn rows into messages of a queue.

Tasks stage messages, the driver publishes them: see `stages.py`. Only tasks know the query's id, which identifies the
checkpoint because Spark keeps it there; they report it with the parts that they have staged.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.datasource import DataSourceArrowWriter, DataSourceStreamArrowWriter, WriterCommitMessage

from headrace.native.client import Client
from headrace.queue.model import Entry
from headrace.stream.plan import Sink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import Outbox, TransactionalSink
from headrace.stream.sinks.open import open_sink
from headrace.stream.spark import stages
from headrace.stream.spark.convert import from_spark
from headrace.stream.spark.errors import OptionInvalid
from headrace.stream.spark.options import WriteOptions, connect_to


def stage_task(
    broker: str, name: str, sinks: list[Sink], schema: Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What mapInArrow calls in each task: rows are staged, and one row reports it."""

    def call(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        count = 0

        def counted() -> Iterator[pa.Table]:
            nonlocal count
            for batch in batches:
                count += batch.num_rows
                yield from_spark(batch)

        with connect_to(broker) as client:
            parts = stages.stage(client, name, sends_of(client, name, sinks, schema, counted()))
        told = [pa.array([count], pa.int64()), pa.array([msgspec.msgpack.encode(parts)], pa.binary())]
        yield pa.RecordBatch.from_arrays(told, ["rows", "parts"])

    return call


def sends_of(
    client: Client, name: str, sinks: Sequence[Sink], schema: Schema, tables: Iterable[pa.Table]
) -> Iterator[tuple[str, Entry]]:
    """The messages (ARN and entry) that rows are in each of the queues."""
    makers: list[TransactionalSink | Outbox] = []
    for rows in tables:  # a task without any asks the broker nothing
        makers = makers or [open_sink(one, schema, client, pipeline=name, index=at) for at, one in enumerate(sinks)]
        for maker in makers:
            assert isinstance(maker, TransactionalSink)
            for entry in maker.entries(rows):
                yield maker.arn, entry


# --- The data source ---


QUERY_ID = "sql.streaming.queryId"
"""The local property in which Spark tells tasks the query's id."""


@dataclass
class Staged(WriterCommitMessage):
    """What a task has staged. `checkpoint`: the query's id, empty for a batch."""

    parts: list[stages.StagedPart]
    checkpoint: str


class _Writer:
    """What both writers have in common."""

    def __init__(self, options: WriteOptions, schema: Schema) -> None:
        self._options = options
        self._schema = schema
        self._name = options.name

    def write(self, iterator: Iterator[pa.RecordBatch]) -> WriterCommitMessage:
        """In a task, perhaps more than once."""
        context = TaskContext.get()
        with connect_to(self._options.broker) as client:
            tables = map(from_spark, iterator)
            sends = sends_of(client, self._name, [self._options.sink()], self._schema, tables)
            parts = stages.stage(client, self._name, sends)
        return Staged(parts, (context.getLocalProperty(QUERY_ID) if context else None) or "")

    def _discard(self, messages: Sequence[WriterCommitMessage | None]) -> None:
        parts = [part for staged in _known(messages) for part in staged.parts]
        if parts:
            with connect_to(self._options.broker) as client:
                stages.discard(client, self._name, parts)


class StreamWriter(_Writer, DataSourceStreamArrowWriter):
    """A batch of a streaming query becomes messages, once."""

    def __init__(self, options: WriteOptions, schema: Schema) -> None:
        if not options.name:
            raise OptionInvalid("name", "", "name the output: its batches are published once under this name")
        super().__init__(options, schema)

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803 - Spark's name
        staged = _known(messages)
        if not staged:  # a batch without a partition: nobody was there to tell the query's id
            return
        parts = [part for one in staged for part in one.parts]
        options = self._options
        with connect_to(options.broker) as client:
            stages.publish(
                client, self._name, checkpoint=staged[0].checkpoint, batch=batchId, parts=parts, adopt=options.adopt
            )

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: ARG002, N803
        self._discard(messages)


class BatchWriter(_Writer, DataSourceArrowWriter):
    """A DataFrame becomes messages. Under a random name: a driver that dies may leave stages, and if it needs more than one
    transaction some of them published."""

    def __init__(self, options: WriteOptions, schema: Schema) -> None:
        super().__init__(options, schema)
        self._name = f"write-{uuid.uuid4().hex}"

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        parts = [part for staged in _known(messages) for part in staged.parts]
        with connect_to(self._options.broker) as client:
            stages.publish(client, self._name, checkpoint="", batch=0, parts=parts)
            stages.forget(client, self._name)

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        self._discard(messages)


def _known(messages: Sequence[WriterCommitMessage | None]) -> list[Staged]:
    """What came from tasks that ended well."""
    return [message for message in messages if isinstance(message, Staged)]
