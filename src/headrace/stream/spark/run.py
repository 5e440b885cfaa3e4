"""Runs a plan on Apache Spark as one Structured Streaming query: its session, its queues, the query, its progress.

    sources ─▶ DataFrames with watermarks ─▶ spark.sql, mapInArrow ─▶ foreachBatch ─▶ queues, sinks
    (claims)                                                          (stages, published once)

State is Spark's, in the checkpoint; the broker records what has been published and which messages are acknowledged. A query
that is started again with its checkpoint continues exactly where it stopped.

Spark emits a window when the watermark has passed it, and never because the input has ended. Where every source ends
(files, memory) the run ends with a row of the year 9999 in each of them, behind the watermark and in front of everything
else: it moves the watermark, closes all windows, and is dropped. Queues have no end: their last windows wait for younger
rows, as they do embedded without `idle`.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.listener import StreamingQueryListener
from pyspark.sql.streaming.query import StreamingQuery

from headrace import _version
from headrace.errors import HeadraceError, QueueNotFound
from headrace.native.client import Client
from headrace.stream.engine.operator import END, NEVER
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.plan import Pipeline, QueueSink, QueueSource, TopicSource, sources_of
from headrace.stream.result import Collector, Result
from headrace.stream.schema import Schema
from headrace.stream.sources.queue import inbox_name, subscribe
from headrace.stream.spark import limits
from headrace.stream.spark.batches import Batches, Counts
from headrace.stream.spark.errors import OptionInvalid
from headrace.stream.spark.frames import Frames, finite, make_flush_folders, write_flush
from headrace.stream.spark.options import broker_url, connect_to
from headrace.stream.spark.python_step import DeadRows
from headrace.stream.spark.restrictions import notes, restrictions_of
from headrace.stream.spark.source import HeadraceSource
from headrace.stream.sql import analyse_node

_SOURCES: Final = str(Path(_version.__file__).parent.parent)

CONFIGURATION: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "false",  # a timestamp without zone is UTC, and one type in pipelines
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
}
"""What a session must have that runs pipelines. All of it can be set while the session runs."""


def session(name: str, master: str | None = None) -> SparkSession:
    """A session for a pipeline: that which runs already (spark-submit, a notebook), or a new one at `master`."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(name)
    active = SparkSession.getActiveSession()
    if active is None:
        for key, value in _at_start().items():
            builder = builder.config(key, value)
        if master is not None:
            builder = builder.master(master)
    return prepare(builder.getOrCreate())


def prepare(spark: SparkSession) -> SparkSession:
    """Set what pipelines need, and register the data source. Returns the session."""
    for key, value in CONFIGURATION.items():
        spark.conf.set(key, value)
    spark.dataSource.register(HeadraceSource)
    return spark


def _at_start() -> dict[str, str]:
    """What only a new session takes."""
    path = os.environ.get("PYTHONPATH")
    return {
        "spark.ui.showConsoleProgress": "false",
        "spark.executorEnv.PYSPARK_PYTHON": sys.executable,  # else executors take the first python3 of their PATH
        "spark.executorEnv.PYTHONPATH": os.pathsep.join([_SOURCES, *([path] if path else [])]),
        "spark.executorEnv.TZ": "UTC",
    }


# --- Progress of a query, from Spark's listener ---


FAR_SEEN_US: Final = 253_000_000_000_000_000  # no delay brings a far row's watermark below


class ProgressListener(StreamingQueryListener):
    """Adds what the query `name` does to counts. Spark calls it from a thread of its own, one event after the other, with
    the news of all queries of a session."""

    def __init__(self, spark: SparkSession, name: str, counts: Counts) -> None:
        self._spark = spark
        self._name = name
        self._counts = counts
        self._ended: dict[str, threading.Event] = {}
        self._run = ""

    def __enter__(self) -> Self:
        self._spark.streams.addListener(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spark.streams.removeListener(self)

    def follow(self, run: str) -> None:
        self._run = run

    def wait_end(self) -> None:
        """Until all news of the query have come."""
        self._ended.setdefault(self._run, threading.Event()).wait(limits.LISTENER_LATE_S)

    def onQueryStarted(self, event: Any) -> None:  # noqa: N802 - Spark's names
        pass

    def onQueryProgress(self, event: Any) -> None:  # noqa: N802
        progress, counts = event.progress, self._counts
        if progress.name != self._name:
            return
        counts.batches += progress.numInputRows > 0
        counts.rows_in += progress.numInputRows
        counts.watermark_us = max(counts.watermark_us, _micros(progress.eventTime.get("watermark")))
        counts.late += sum(operator.numRowsDroppedByWatermark for operator in progress.stateOperators)

    def onQueryIdle(self, event: Any) -> None:  # noqa: N802
        pass

    def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
        self._ended.setdefault(str(event.runId), threading.Event()).set()


def _micros(watermark: str | None) -> int:
    """A watermark as Spark writes it: before any row it is 1970; the flush of finite sources puts it far."""
    if watermark is None:
        return NEVER
    moment = (datetime.fromisoformat(watermark) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return NEVER if moment == 0 else END if moment > FAR_SEEN_US else moment


# --- Queues: those that are read must exist, those that are written are created ---


def prepare_queues(pipeline: Pipeline, client: Client | None) -> None:
    """Check the queues of sources, subscribe to topics; make the queues of sinks and dead rows if they are not there.

    Raises:
        QueueNotFound, TopicNotFound: a source. It is not made: with a slip in its name a pipeline would wait for ever.
        UnsupportedQuery: there are queues, and no broker.
    """
    sources = [source for source in sources_of(pipeline.output) if isinstance(source, QueueSource | TopicSource)]
    sinks = [sink for sink in pipeline.sinks if isinstance(sink, QueueSink)]
    dead = [pipeline.dead_letter_queue] if pipeline.dead_letter_queue is not None else []
    if client is None:
        if sources or sinks or dead:
            raise UnsupportedQuery(
                f"pipeline {pipeline.name!r}", "it has queues, and no broker is named", "run(broker)"
            )
        return
    for source in sources:
        if isinstance(source, QueueSource):
            client.queue(source.queue)
        else:
            subscribe(client, source.topic, inbox_name(pipeline.name, source.topic), start=source.start)
    for queue in [*(sink.queue for sink in sinks if not sink.topic), *dead]:
        _make(client, queue)


def _make(client: Client, queue: str) -> None:
    try:
        client.queue(queue)
    except QueueNotFound:
        client.queue(queue, create=True, fifo=queue.endswith(".fifo"))


# --- The query ---


Until: TypeAlias = Literal["idle", "end"]

_log: Final = logging.getLogger(__name__)


def run_on_spark(
    pipeline: Pipeline,
    broker: str | Path | None,
    *,
    master: str | None = None,
    checkpoint: str | Path | None = None,
    trigger: str | None = None,
    spark: SparkSession | None = None,
    until: Until | None = None,
    adopt: bool = False,
    stop: threading.Event | None = None,
    read: Mapping[str, str] | None = None,
) -> Result:
    """Run a pipeline as a query of Spark, until its end.

    Args:
        broker: URL of a running broker, as every executor reaches it; None for pipelines without queues.
        master: `local[2]`, `spark://HOST:PORT`, …; None: what spark-submit or Spark's configuration says.
        checkpoint: a folder that the driver and all executors share, of this pipeline alone. Not needed if nothing has to be
            gone on with: all sources end.
        trigger: how often a batch is made, such as `1 second`; None: as soon as the last one is done.
        spark: a session of one's own; it gets the settings that pipelines need, and stays open. None: that which runs
            already (it stays open, too), or a new one.
        until: None: until `stop` is set; `idle` and `end`: until what is there now is processed.
        adopt: take the output over from another checkpoint, which is given up.
        stop: ends the query when it is set. The batch in work is done again by the next run.
        read: more options for reading queues, such as `maxMessagesPerTrigger`.

    Raises:
        UnsupportedQuery: only the embedded engine can run it, or it has queues and no broker.
        OptionInvalid: no checkpoint where one is needed, or a broker that Spark cannot reach.
        HeadraceError: as the pipeline's own.
        StreamingQueryException: whatever else stopped the query.
    """
    for refusal in restrictions_of(pipeline):
        raise refusal
    url = broker_url({"broker": str(broker)}) if broker is not None else None
    for note in notes(pipeline):
        _log.warning("%s: %s", pipeline.name, note, extra={"action": "stream.spark.note", "pipeline": pipeline.name})
    with ExitStack() as stack:
        folder, kept = stack.enter_context(_folder(pipeline, checkpoint))
        client = stack.enter_context(connect_to(url)) if url is not None else None
        prepare_queues(pipeline, client)
        own = spark is None and SparkSession.getActiveSession() is None  # a notebook's, say, stays open
        spark = prepare(spark) if spark is not None else session(pipeline.name, master)
        if own:
            stack.callback(spark.stop)
        run = _Run(pipeline, spark, client, url, folder, adopt=adopt or not kept, read=read or {})
        stack.callback(run.close)
        run.until_end(trigger, until, stop or threading.Event())
        return run.result()


class _Run:
    """One run: at most two queries, one after the other, over the same checkpoint."""

    def __init__(
        self,
        pipeline: Pipeline,
        spark: SparkSession,
        client: Client | None,
        broker: str | None,
        folder: Path,
        *,
        adopt: bool,
        read: Mapping[str, str],
    ) -> None:
        self._pipeline = pipeline
        self._spark = spark
        self._folder = folder
        self._schema: Schema = analyse_node(pipeline.output).schema
        self._counts = Counts(Collector(self._schema.arrow(), everything=not pipeline.sinks))
        self._started_s = time.monotonic()
        self._dead = DeadRows(pipeline.name, uuid.uuid4().hex, broker, queue=pipeline.dead_letter_queue is not None)
        self._read = {**read, **({"broker": broker} if broker is not None else {})}
        self._batches = Batches(client, pipeline, self._schema, self._dead, adopt, self._counts)
        self._failure: HeadraceError | None = None
        self._flush_rows = 0
        spark.conf.set("spark.sql.shuffle.partitions", str(pipeline.shards))

    def until_end(self, trigger: str | None, until: Until | None, stop: threading.Event) -> None:
        sources = sources_of(self._pipeline.output)
        ends = all(finite(source) for source in sources)
        self._flush_rows = sum(finite(source) and source.time is not None for source in sources) if ends else 0
        make_flush_folders(self._pipeline, self._folder)
        self._query(trigger, stop, now=ends or until is not None)
        if ends and not stop.is_set() and write_flush(self._pipeline, self._folder):
            self._query(trigger, stop, now=True)

    def result(self) -> Result:
        counts = self._counts
        return Result(
            self._pipeline.name,
            counts.batches,
            max(0, counts.rows_in - self._flush_rows),
            counts.rows_out,
            counts.late,
            counts.dead,
            counts.watermark_us,
            time.monotonic() - self._started_s,
            counts.kept.table(),
            counts.kept.complete,
        )

    def close(self) -> None:
        self._batches.close()

    def _query(self, trigger: str | None, stop: threading.Event, *, now: bool) -> None:
        """One query, to its end or until it is stopped."""
        frames = Frames(self._spark, self._pipeline, self._folder, self._dead, self._read)
        name = f"headrace-{self._pipeline.name}"
        writer = frames.output().writeStream.foreachBatch(self._process).queryName(name)
        writer = writer.outputMode(self._pipeline.mode).option("checkpointLocation", str(self._folder / "spark"))
        writer = writer.trigger(availableNow=True) if now else writer.trigger(processingTime=trigger or "0 seconds")
        with ProgressListener(self._spark, name, self._counts) as listener:
            query = writer.start()
            listener.follow(str(query.runId))
            self._wait(query, stop)
            listener.wait_end()

    def _wait(self, query: StreamingQuery, stop: threading.Event) -> None:
        try:
            while not query.awaitTermination(limits.STOP_LOOK_S):
                if stop.is_set():
                    query.stop()
        except StreamingQueryException:
            if self._failure is not None:  # ours says what is wrong; Spark's wraps it in a page of Java
                raise self._failure from None
            raise
        except BaseException:  # Ctrl-C
            query.stop()
            raise

    def _process(self, frame: DataFrame, batch: int) -> None:
        try:
            self._batches(frame, batch)
        except HeadraceError as error:
            self._failure = error
            raise


@contextmanager
def _folder(pipeline: Pipeline, checkpoint: str | Path | None) -> Iterator[tuple[Path, bool]]:
    """The checkpoint's folder, and whether it outlives the run."""
    if checkpoint is not None:
        yield Path(checkpoint), True
    elif all(finite(source) for source in sources_of(pipeline.output)):
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            yield Path(folder), False
    else:
        reason = "name a folder that driver and executors share: the pipeline's state is in it"
        raise OptionInvalid("checkpoint", "", reason)
