"""A plan's nodes as DataFrames."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.streaming.readwriter import DataStreamReader

from headrace.stream.plan import (
    DedupStep,
    FileSource,
    Function,
    MemorySource,
    Node,
    Pipeline,
    PythonStep,
    QueueSource,
    Source,
    SqlStep,
    TableRef,
    TopicSource,
    sources_of,
    walk,
)
from headrace.stream.schema import Field, Schema, quoted, type_name
from headrace.stream.sources.queue import full_schema
from headrace.stream.sources.tables import load_table
from headrace.stream.spark.claims import reader_of
from headrace.stream.spark.convert import arrow_of, from_spark, struct_of, zoned
from headrace.stream.spark.python_step import DeadRows, python_step
from headrace.stream.spark.source import NAME
from headrace.stream.sql import WINDOW_TIME, analyse_node, to_spark

FAR_US: Final = 253_370_764_800_000_000
"""9999-01-01: the event time of the row that closes the windows of finite sources. Beyond it Spark's dates end."""


@dataclass
class Frames:
    """The DataFrames of a pipeline's nodes, made as they are asked for.

    Attributes:
        folder: where the rows of memory sources, and the flush, are kept as files: in the checkpoint.
        dead: where dead rows go.
        read: options for every queue.
    """

    spark: SparkSession
    pipeline: Pipeline
    folder: Path
    dead: DeadRows
    read: dict[str, str] = field(default_factory=dict)
    made: dict[int, DataFrame] = field(default_factory=dict)

    def output(self) -> DataFrame:
        for node in walk(self.pipeline.output):
            self.made[id(node)] = self._frame(node)
        columns = analyse_node(self.pipeline.output).schema.names
        return self.made[id(self.pipeline.output)].select(*(F.col(quoted(name)) for name in columns))

    def _frame(self, node: Node) -> DataFrame:
        if isinstance(node, SqlStep):
            return self._sql(node)
        if isinstance(node, PythonStep):
            return self._python(node)
        if isinstance(node, DedupStep):
            return self.made[id(node.input)].dropDuplicatesWithinWatermark(list(node.keys))
        return self._timed(node)

    def _timed(self, source: Source) -> DataFrame:
        """A source's rows, watermarked; with the flush row of a finite source, which moves the watermark and is dropped."""
        rows = self._rows(source)
        if source.time is None:
            return rows
        if isinstance(source, FileSource) and finite(source):
            rows = rows.unionByName(self._files("parquet", str(flush_folder(self.folder, source)), source.schema))
        rows = rows.withWatermark(source.time.column, f"{source.time.delay_us} microseconds")
        # Spark would push filters below the watermark: rows that WHERE drops would not move it, as they do embedded, and
        # the flush row might be one of them. It pushes none through a filter that it takes for not deterministic.
        rows = rows.where(F.spark_partition_id() >= 0)
        near = F.col(quoted(source.time.column)) < F.timestamp_micros(F.lit(FAR_US))
        return rows.where(F.coalesce(near, F.lit(True))) if finite(source) else rows

    def _rows(self, source: Source) -> DataFrame:
        if isinstance(source, QueueSource | TopicSource):
            return self._messages(source)
        if isinstance(source, FileSource):
            return self._files(_FILE_FORMATS[source.format], source.path, source.schema)
        return self._files("parquet", str(self._memory(source)), source.schema, one_by_one=True)

    def _messages(self, source: QueueSource | TopicSource) -> DataFrame:
        place = {"queue": source.queue} if isinstance(source, QueueSource) else {"topic": source.topic}
        options = {
            **self.read,
            **place,
            "reader": reader_of(self.pipeline.name),
            "pipeline": self.pipeline.name,
            "format": source.format,
            "metadata": ",".join(source.metadata),
        }
        if self.pipeline.dead_letter_queue is not None:
            options["deadLetterQueue"] = self.pipeline.dead_letter_queue
        return self.spark.readStream.format(NAME).schema(full_schema(source).ddl()).options(**options).load()

    def _files(self, form: str, path: str, schema: Schema, *, one_by_one: bool = False) -> DataFrame:
        reader: DataStreamReader = self.spark.readStream.format(form).schema(schema.ddl())
        reader = reader.options(mode="FAILFAST", header="true", recursiveFileLookup="false")
        return (reader.option("maxFilesPerTrigger", 1) if one_by_one else reader).load(path)

    def _memory(self, source: MemorySource) -> Path:
        """The rows as files, one a batch: Spark takes those in the order of their times, the oldest first."""
        folder = self.folder / "memory" / source.name
        if not folder.exists():
            unfinished = folder.with_name(f".{source.name}")
            unfinished.mkdir(parents=True, exist_ok=True)
            batches = [batch.select(source.schema.names) for batch in source.batches]
            if source.time is not None:
                batches.append(_far_row(source.schema, source.time.column))
            for number, batch in enumerate(batches):
                write_file(unfinished / f"{number:06d}.parquet", batch, age=len(batches) - number)
            unfinished.rename(folder)  # all batches or none: a run that dies here leaves no shorter source
        return folder

    def _sql(self, step: SqlStep) -> DataFrame:
        for name, item in step.inputs:
            frame = self._table(item) if isinstance(item, TableRef) else self.made[id(item)]
            frame.createOrReplaceTempView(name)
        for function in step.functions:
            self.spark.udf.register(function.name, _udf(function))
        query = to_spark(step)
        frame = self.spark.sql(query.text)
        names = iter(query.columns)  # Spark gives other names to columns that the text gives none
        return frame.toDF(*(name if name == WINDOW_TIME else next(names) for name in frame.columns))

    def _table(self, table: TableRef) -> DataFrame:
        rows = load_table(table)
        make: Callable[..., DataFrame] = self.spark.createDataFrame  # its types do not know Arrow tables
        return make(zoned(rows), schema=struct_of(table.schema))

    def _python(self, step: PythonStep) -> DataFrame:
        struct = struct_of(step.schema)
        given = analyse_node(step.input).schema
        rows = self.made[id(step.input)].mapInArrow(python_step(step, given, arrow_of(struct), self.dead), struct)
        time = analyse_node(step).time
        return rows if time is None else rows.withColumn(time, _watermarked(time))


_FILE_FORMATS: Final = {"parquet": "parquet", "csv": "csv", "jsonl": "json"}


def _watermarked(column: str) -> Column:
    """The column, marked as Spark marks those for which a watermark holds. Python's output has lost the mark; a watermark
    of its own would see only the rows that Python lets through."""
    return F.col(quoted(column)).alias(column, metadata={"spark.watermarkDelayMs": 0})


def finite(source: Source) -> bool:
    """Whether it ends."""
    return isinstance(source, MemorySource) or (isinstance(source, FileSource) and not source.follow)


def flush_folder(folder: Path, source: Source) -> Path:
    return folder / "flush" / source.name


def make_flush_folders(pipeline: Pipeline, folder: Path) -> None:
    """Where `write_flush` will write. Spark wants them to be there."""
    for source in _flushed(pipeline):
        flush_folder(folder, source).mkdir(parents=True, exist_ok=True)


def write_flush(pipeline: Pipeline, folder: Path) -> bool:
    """Give each source of files that end the row after which all its windows close. Idempotent. False: there is none."""
    sources = _flushed(pipeline)
    for source in sources:
        assert source.time is not None
        write_file(flush_folder(folder, source) / "end.parquet", _far_row(source.schema, source.time.column))
    return bool(sources)


def _flushed(pipeline: Pipeline) -> list[FileSource]:
    """The sources that need a row after their end. Memory sources bring theirs as their last batch."""
    sources = sources_of(pipeline.output)
    ends = all(finite(source) for source in sources)  # while one goes on, its watermark holds back all windows anyway
    return [source for source in sources if ends and isinstance(source, FileSource) and source.time is not None]


def write_file(path: Path, rows: pa.Table, *, age: int = 0) -> None:
    """Rows as Parquet, `age` seconds old; whole or not at all."""
    hidden = path.with_name(f".{path.name}")
    pq.write_table(zoned(rows), hidden)
    if age:
        stat = hidden.stat()
        os.utime(hidden, (stat.st_atime, stat.st_mtime - age))
    hidden.rename(path)


def _far_row(schema: Schema, column: str) -> pa.Table:
    arrow = pa.schema([pa.field(field.name, field.type) for field in schema.fields])
    nulls = {field.name: pa.nulls(1, field.type) for field in arrow}
    return pa.table({**nulls, column: pa.array([FAR_US], pa.timestamp("us"))}, schema=arrow)


def _udf(function: Function) -> Any:
    """A function of values as one of Arrow arrays: so timestamps mean the same as embedded, whatever the worker's zone."""
    returned = arrow_of(struct_of(Schema((Field("value", function.returns),)))).field(0).type

    def call(*columns: pa.Array) -> pa.Array:
        names = [f"a{place}" for place in range(len(columns))]
        given = from_spark(pa.RecordBatch.from_arrays(list(columns), names))
        rows = zip(*(column.to_pylist() for column in given.columns), strict=True)
        return pa.array([function.call(*row) for row in rows], function.returns).cast(returned)

    wrap: Callable[..., Any] = arrow_udf
    return wrap(call, type_name(function.returns))
