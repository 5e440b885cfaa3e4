"""The data source `headrace` of Spark, as a source: `spark.readStream` takes a queue's messages, `spark.read` looks at them.

See `claims.py` for how a queue becomes readable again, `sink.py` for the way out. Spark pickles readers to its executors,
and makes new ones there: they hold options, and connect where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

import pyarrow as pa
from pyspark.sql.datasource import (
    DataSource,
    DataSourceArrowWriter,
    DataSourceReader,
    DataSourceStreamArrowWriter,
    DataSourceStreamReader,
    InputPartition,
)
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadLimit, ReadMaxRows, SupportsTriggerAvailableNow
from pyspark.sql.types import StructType

from headrace.native.client import Client
from headrace.queue.model import Message
from headrace.queue.operations import Claim, GetQueue, Peek
from headrace.stream.dead_letters import dead_letter
from headrace.stream.plan import Format, QueueSource
from headrace.stream.schema import Schema
from headrace.stream.sources.base import Dead
from headrace.stream.sources.queue import METADATA, MessageDecoder, inbox_name, subscribe, wait_until_live
from headrace.stream.spark import limits
from headrace.stream.spark.claims import Claims, stage_dead
from headrace.stream.spark.convert import arrow_of, schema_of, to_spark
from headrace.stream.spark.errors import OptionInvalid, RowsDead
from headrace.stream.spark.options import ReadOptions, WriteOptions, connect_to
from headrace.stream.spark.sink import BatchWriter, StreamWriter

NAME: Final = "headrace"
RAW_SCHEMA: Final = "message_id string, sent_at timestamp, message_group string, sequence bigint, body binary"


class HeadraceSource(DataSource):
    """What Spark's registry holds."""

    @classmethod
    def name(cls) -> str:
        return NAME

    def schema(self) -> str:
        """Only raw messages have one of their own."""
        if ReadOptions.of(self.options).form == "raw":
            return RAW_SCHEMA
        raise OptionInvalid("schema", "", "give the columns of the bodies with .schema(…), or option format raw")

    def reader(self, schema: StructType) -> DataSourceReader:
        return SnapshotReader(ReadOptions.of(self.options), schema)

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        return ClaimReader(ReadOptions.of(self.options), schema)

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceArrowWriter:
        if overwrite:
            raise OptionInvalid("mode", "overwrite", 'messages are only added to a queue: .mode("append")')
        return BatchWriter(WriteOptions.of(self.options), schema_of(schema))

    def streamWriter(self, schema: StructType, overwrite: bool) -> DataSourceStreamArrowWriter:  # noqa: N802
        if overwrite:
            raise OptionInvalid("outputMode", "complete", "messages are only added to a queue: append or update")
        return StreamWriter(WriteOptions.of(self.options), schema_of(schema))


class Decoding:
    """Messages → Arrow batches for Spark, in a task."""

    def __init__(self, options: ReadOptions, struct: StructType) -> None:
        self._options = options
        self._struct = struct

    @cached_property
    def _decoder(self) -> MessageDecoder:
        schema = schema_of(self._struct)
        body = Schema(tuple(field for field in schema.fields if field.name not in self._options.metadata))
        name = self._options.queue.rpartition(":")[2]
        form = cast("Format", self._options.form)
        return MessageDecoder(QueueSource(name, self._options.queue, body, None, form, self._options.metadata))

    def decode(self, messages: Sequence[Message]) -> tuple[Iterator[pa.RecordBatch], list[Dead]]:
        if self._options.form == "raw":
            return to_spark(_raw(messages), arrow_of(self._struct)), []
        rows, dead = self._decoder.decode(messages)
        return to_spark(rows, arrow_of(self._struct)), dead

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options, "_struct": self._struct}


@dataclass
class ClaimPartition(InputPartition):
    """One claim."""

    number: int


class ClaimReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """A stream of a queue's messages. Its methods but `read` run on the driver, in one process of their own."""

    def __init__(self, options: ReadOptions, schema: StructType) -> None:
        if not options.reader:
            raise OptionInvalid("reader", "", "name the query: its claims are kept under this name")
        self._options = options
        self._decoding = Decoding(options, schema)

    @cached_property
    def _client(self) -> Client:
        return connect_to(self._options.broker)

    @cached_property
    def _claims(self) -> Claims:
        options = self._options
        if options.topic is not None:
            subscribe(self._client, options.topic, inbox_name(options.pipeline, options.topic))
        claims = Claims(
            self._client,
            options.queue,
            options.reader,
            dead=options.dead,
            batch_messages=options.batch_messages,
            claim_messages=options.claim_messages,
        )
        claims.forget_stale()
        return claims

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's names here and below
        return {"claim": self._claims.state().acknowledged}

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802
        return ReadMaxRows(self._options.batch_messages)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802
        claims, options = self._claims, self._options
        if options.topic is not None:
            wait_until_live(self._client, options.topic, inbox_name(options.pipeline, options.topic))
        claims.bound_to_now()

    def latestOffset(self, start: dict[str, int], limit: ReadLimit) -> dict[str, int]:  # noqa: N802
        assert isinstance(limit, ReadMaxRows | ReadAllAvailable), limit
        return {"claim": self._claims.next(start["claim"])}

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> list[InputPartition]:
        return [ClaimPartition(number) for number in range(start["claim"] + 1, end["claim"] + 1)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """In a task, perhaps more than once, perhaps twice at a time."""
        assert isinstance(partition, ClaimPartition)
        options = self._options
        with connect_to(options.broker) as client:
            claim = Claim(options.queue, options.reader, partition.number, options.claim_messages)
            batches, dead = self._decoding.decode(client.call(claim))
            if dead and options.dead is None:
                raise RowsDead(len(dead), f"message {dead[0].message_id}: {dead[0].reason}")
            if dead:
                letters = (dead_letter(one, pipeline=options.pipeline) for one in dead)
                stage_dead(client, options.queue, options.reader, partition.number, letters)
        yield from batches

    def commit(self, end: dict[str, int]) -> None:
        """The batch before the one being made is in the commit log."""
        self._claims.acknowledge(end["claim"])

    def stop(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options, "_decoding": self._decoding}


@dataclass
class SnapshotPartition(InputPartition):
    """The first messages, up to a number."""

    messages: int


class SnapshotReader(DataSourceReader):
    """The messages that are in a queue now, in every state. Nothing is taken: a batch read has no way to say that it is
    done, so what it took could be lost."""

    def __init__(self, options: ReadOptions, schema: StructType) -> None:
        if options.topic is not None:
            raise OptionInvalid("topic", options.topic, "a topic is read as a stream; spark.read looks at a queue")
        self._options = options
        self._decoding = Decoding(options, schema)

    def partitions(self) -> list[InputPartition]:
        """One: pages follow each other. How many messages there are bounds it, so that it ends though more come."""
        with connect_to(self._options.broker) as client:
            counts = client.call(GetQueue(self._options.queue)).counts
        return [SnapshotPartition(counts.visible + counts.in_flight + counts.delayed)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, SnapshotPartition)
        left, after = partition.messages, 0
        with connect_to(self._options.broker) as client:
            while left > 0:
                peeked = client.call(Peek(self._options.queue, min(left, limits.PEEKED_AT_ONCE), after))
                if not peeked:
                    return
                left -= len(peeked)
                after = peeked[-1].message.seq
                yield from self._decoded([one.message for one in peeked])

    def _decoded(self, messages: list[Message]) -> Iterator[pa.RecordBatch]:
        batches, dead = self._decoding.decode(messages)
        if dead:
            raise RowsDead(len(dead), f"message {dead[0].message_id}: {dead[0].reason}")
        return batches


def _raw(messages: Sequence[Message]) -> pa.Table:
    columns = {name: pa.array([value(one) for one in messages], kind) for name, (kind, value) in METADATA.items()}
    return pa.table({**columns, "body": pa.array([one.body for one in messages], pa.binary())})
