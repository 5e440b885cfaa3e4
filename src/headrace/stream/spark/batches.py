"""What becomes of a micro-batch: its rows go to all sinks, its dead rows to their queue, once.

One query has one output, and a pipeline may have several sinks; two queries would both want the source's messages. So the
query's output is `foreachBatch`. What goes to queues, dead letters too, is published as `stages.py` says. What goes outside
is delivered before that: a repeated batch delivers the same rows again, with the same number and the same token.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa
from pyspark.sql import DataFrame

from headrace.native.client import Client
from headrace.queue.model import Entry, arn_of
from headrace.stream.engine.operator import NEVER
from headrace.stream.errors import TooManyFailures
from headrace.stream.plan import Pipeline, QueueSource, Sink, TopicSource, sources_of
from headrace.stream.result import Collector
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import Outbox, TransactionalSink
from headrace.stream.sinks.open import open_sink
from headrace.stream.sources.queue import inbox_name
from headrace.stream.spark import stages
from headrace.stream.spark.claims import dead_state, reader_of
from headrace.stream.spark.convert import plain
from headrace.stream.spark.python_step import DEAD_LETTERS, DeadRows
from headrace.stream.spark.sink import QUERY_ID, sends_of, stage_task
from headrace.stream.spark.stages import dead_letters_of


@dataclass
class Counts:
    """What has come and gone in a run.

    Attributes:
        kept: the rows that came out: all, if the pipeline has no sink.
        rows_in: of all batches before the one that is processed.
        late: dropped by Spark.
        dead: messages and rows; those of batches that were repeated are counted again.
    """

    kept: Collector
    batches: int = 0
    rows_in: int = 0
    rows_out: int = 0
    late: int = 0
    dead: int = 0
    watermark_us: int = NEVER


@dataclass
class Batches:
    """The end of a pipeline on Spark, on the driver. Called by one thread, a batch after the other.

    Attributes:
        client: of the broker; None if the pipeline has no queue and nothing is remembered.
        schema: of the pipeline's output.
        adopt: take the pipeline's output over from another checkpoint.
        count: what has come and gone in this run.
    """

    client: Client | None
    pipeline: Pipeline
    schema: Schema
    dead_rows: DeadRows
    adopt: bool
    count: Counts
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _outboxes: list[Outbox] = field(default_factory=list)
    _queues: list[Sink] = field(default_factory=list)

    def __post_init__(self) -> None:
        for index, sink in enumerate(self.pipeline.sinks):
            opened = open_sink(sink, self.schema, self.client, pipeline=self.pipeline.name, index=index)
            if isinstance(opened, TransactionalSink):
                self._queues.append(sink)
            else:
                self._closing.callback(opened.close)
                opened.collect([])
                self._outboxes.append(opened)

    def __call__(self, frame: DataFrame, batch: int) -> None:
        """Process a batch; what Spark calls. Idempotent."""
        checkpoint = str(frame.sparkSession.sparkContext.getLocalProperty(QUERY_ID))
        which = f"{checkpoint}/{batch}"
        if self.client is None:
            self._deliver(frame, batch, which)
            return
        name = self.pipeline.name
        record = stages.read_record(self.client, name)[1]
        number = stages.number_of(name, record, checkpoint, batch, adopt=self.adopt)
        parts = self._by_driver(self.client, frame, number, which) if self._on_driver else self._by_tasks(frame)
        parts += self._dead_parts(self.client, batch)
        stages.publish(self.client, name, checkpoint=checkpoint, batch=batch, parts=parts, adopt=self.adopt)
        stages.delete(self.client, name, DEAD_LETTERS)  # also those of runs that died

    def close(self) -> None:
        self._closing.close()

    @property
    def _on_driver(self) -> bool:
        """Whether rows have to come to the driver: for what is outside the store, or for the result."""
        return bool(self._outboxes) or not self.pipeline.sinks

    def _by_tasks(self, frame: DataFrame) -> list[stages.StagedPart]:
        assert self.dead_rows.broker is not None
        task = stage_task(self.dead_rows.broker, self.pipeline.name, self._queues, self.schema)
        told = frame.mapInArrow(task, "rows bigint, parts binary").collect()
        self.count.rows_out += sum(one.rows for one in told)
        return [part for one in told for part in msgspec.msgpack.decode(one.parts, type=list[stages.StagedPart])]

    def _by_driver(self, client: Client, frame: DataFrame, number: int, which: str) -> list[stages.StagedPart]:
        rows = self._deliver(frame, number, which)
        name = self.pipeline.name
        return stages.stage(client, name, sends_of(client, name, self._queues, self.schema, [rows]))

    def _deliver(self, frame: DataFrame, number: int, which: str) -> pa.Table:
        """Bring the rows to the driver, and to the sinks outside the store. Returns them. `which`: no other batch's."""
        rows = plain(frame.toArrow())
        self.count.rows_out += len(rows)
        self.count.kept.add(rows)
        for index, outbox in enumerate(self._outboxes if len(rows) else ()):
            token = uuid.uuid5(uuid.NAMESPACE_OID, f"{which}/{index}").hex
            outbox.deliver(number, outbox.stage(number, rows, token=token))
        return rows

    def _dead_parts(self, client: Client, batch: int) -> list[stages.StagedPart]:
        """The dead letters of Python steps, as parts of this batch. Raises TooManyFailures."""
        if self.pipeline.dead_letter_queue is None:
            return []
        letters = dead_letters_of(client.state(stages.state_name(self.pipeline.name), self.dead_rows.prefix(batch)))
        failures = [*self._undecoded(client), *letters]
        self.count.dead += len(failures)
        self._check_failures(failures)
        queue = arn_of(self.pipeline.dead_letter_queue)
        return stages.stage(client, self.pipeline.name, ((queue, letter) for letter in letters))

    def _undecoded(self, client: Client) -> Iterator[Entry]:
        """Letters of this batch's messages that could not be decoded: they wait for its acknowledgement."""
        for source in sources_of(self.pipeline.output):
            if isinstance(source, QueueSource | TopicSource):
                queue = (
                    source.queue if isinstance(source, QueueSource) else inbox_name(self.pipeline.name, source.topic)
                )
                name = dead_state(arn_of(queue), reader_of(self.pipeline.name))
                yield from dead_letters_of(client.state(name))

    def _check_failures(self, new: list[Entry]) -> None:
        dead, rows = self.count.dead, self.count.rows_in
        if new and dead > self.pipeline.failures_max and dead > self.pipeline.failures_share * rows:
            raise TooManyFailures(self.pipeline.name, dead, rows, msgspec.json.decode(new[-1].body)["reason"])
