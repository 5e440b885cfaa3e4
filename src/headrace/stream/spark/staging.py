"""Rows staged by tasks: the executors' half of `batches.py` and `sink.py`. Imports little: every Python worker loads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import pyarrow as pa

from headrace.native.client import Client
from headrace.queue.model import Entry
from headrace.stream.plan import Sink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import Entries, Outbox
from headrace.stream.sinks.open import open_sink
from headrace.stream.spark import stages
from headrace.stream.spark.convert import from_spark
from headrace.stream.spark.options import connect_to


def stage_task(
    broker: str, name: str, sinks: list[Sink], schema: Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What mapInArrow calls in each task: rows are staged, and a row tells of it."""

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
    makers: list[Entries | Outbox] = []
    for rows in tables:  # a task without any asks the broker nothing
        makers = makers or [open_sink(one, schema, client, pipeline=name, index=at) for at, one in enumerate(sinks)]
        for maker in makers:
            assert isinstance(maker, Entries)
            for entry in maker.entries(rows):
                yield maker.arn, entry
