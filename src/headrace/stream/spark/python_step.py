"""Python steps in Spark's tasks: the same operator as embedded, inside mapInArrow.

A streaming query has one output, so dead rows leave it sideways: a task stages their dead letters in the broker under run,
batch, step and partition (a repeated task writes the same again), and the driver sends them with the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import pyarrow as pa
from pyspark import TaskContext

from headrace.queue.model import Entry
from headrace.stream import physical
from headrace.stream.dead_letters import dead_letter
from headrace.stream.engine.operator import Context, RejectedRows
from headrace.stream.engine.python_functions import PythonOperator
from headrace.stream.formats.encoding import JsonEncoder
from headrace.stream.plan import PythonStep
from headrace.stream.schema import Schema
from headrace.stream.sources.base import Dead
from headrace.stream.spark import stages
from headrace.stream.spark.convert import from_spark, to_spark
from headrace.stream.spark.errors import RowsDead
from headrace.stream.spark.options import connect_to
from headrace.stream.spark.stages import keep_dead_letters

BATCH_ID: Final = "streaming.sql.batchId"
"""The local property in which Spark tells tasks the batch."""
DEAD_LETTERS: Final = b"dead-letters/"


@dataclass(frozen=True, slots=True)
class DeadRows:
    """Where a run's dead rows go.

    Attributes:
        pipeline: its name.
        run: random: dead letters of a run that died are not taken for this one's.
        broker: URL.
        queue: whether there is a queue for them; without one the first stops the query.
    """

    pipeline: str
    run: str
    broker: str | None
    queue: bool

    def prefix(self, batch: int) -> str:
        """Of the keys of the dead letters of a batch."""
        return f"{DEAD_LETTERS.decode()}{self.run}/{batch:016x}/"

    def stage(self, step: str, refused: list[RejectedRows]) -> None:
        """In a task."""
        context = TaskContext.get()
        assert context is not None
        assert self.broker is not None
        batch = int(context.getLocalProperty(BATCH_ID) or 0)
        prefix = f"{self.prefix(batch)}{step}/{context.partitionId():06d}/"
        with connect_to(self.broker) as client:
            keep_dead_letters(client, stages.state_name(self.pipeline), prefix, self._letters(refused))

    def _letters(self, refused: Iterable[RejectedRows]) -> Iterator[Entry]:
        for one in refused:
            for body in JsonEncoder(one.rows.schema).rows(one.rows):
                yield dead_letter(Dead(body, one.reason, "", "", one.step), pipeline=self.pipeline)


def python_step(
    step: PythonStep, given: Schema, schema: pa.Schema, dead: DeadRows
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What mapInArrow calls in each task.

    Args:
        given: the columns of the step's input.
        schema: of its output, as Spark expects it.
    """

    def call(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = Context(cast("Any", None), cast("Any", None))  # this operator has no state and asks no SQL
        operator = PythonOperator(physical.Python(0, step, step.schema, None), step.name, [given], context)
        for batch in batches:
            rows = operator.process(0, from_spark(batch), 0)
            if context.dead and not dead.queue:
                raise RowsDead(len(context.dead), f"step {step.name!r}: {context.dead[0].reason}")
            if rows is not None:
                yield from to_spark(rows, schema)
        if context.dead:
            dead.stage(step.name, context.dead)

    return call
