"""Rows staged by tasks: the executors' half of `batches.py`. Imports little: every Python worker loads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec
import pyarrow as pa

from headrace.native.client import Client
from headrace.queue.model import Entry
from headrace.stream.plan import Sink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import Entries
from headrace.stream.sinks.open import open_sink
from headrace.stream.spark import stages
from headrace.stream.spark.convert import from_spark
from headrace.stream.spark.options import connect_to

Sends: TypeAlias = Iterator[tuple[str, Entry]]


def stage_task(
    broker: str, name: str, sinks: list[Sink], schema: Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What mapInArrow calls in each task: rows are staged, and a row tells of it."""

    def call(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        count = 0

        def sends(client: Client) -> Sends:
            nonlocal count
            for batch in batches:
                count += batch.num_rows
                yield from sends_of(client, name, sinks, schema, from_spark(batch))

        with connect_to(broker) as client:
            parts = stages.stage(client, name, sends(client))
        told = [pa.array([count], pa.int64()), pa.array([msgspec.msgpack.encode(parts)], pa.binary())]
        yield pa.RecordBatch.from_arrays(told, ["rows", "parts"])

    return call


def sends_of(client: Client, name: str, sinks: list[Sink], schema: Schema, rows: pa.Table) -> Sends:
    """The messages that rows are in each of the queues."""
    for index, sink in enumerate(sinks):
        maker = open_sink(sink, schema, client, pipeline=name, index=index)
        assert isinstance(maker, Entries)
        for entry in maker.entries(rows):
            yield maker.arn, entry
