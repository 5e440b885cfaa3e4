"""Running a pipeline on Apache Spark: the same plan, as one Structured Streaming query.

    sources ─▶ DataFrames with watermarks ─▶ spark.sql, mapInArrow ─▶ foreachBatch ─▶ queues, sinks
    (claims)                                                          (stages, published once)

State is Spark's, in the checkpoint; what has been published, and which messages are acknowledged, is the broker's. A query
that is started again with its checkpoint goes on exactly where it was.

Spark emits a window when the watermark has passed it, and never because the input has ended. Where every source ends
(files, memory) the run is ended by a row of the year 9999 in each of them, behind the watermark and in front of everything
else: it moves the watermark, closes all windows, and is dropped. Queues have no end: their last windows wait for younger
rows, as they do embedded without `idle`.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from headrace.errors import HeadraceError
from headrace.native.client import Client
from headrace.stream.plan import Pipeline, sources_of
from headrace.stream.result import Collector, Result
from headrace.stream.schema import Schema
from headrace.stream.spark import limits
from headrace.stream.spark.batches import Batches, Counts
from headrace.stream.spark.errors import OptionInvalid
from headrace.stream.spark.frames import Frames, finite, make_flush_folders, write_flush
from headrace.stream.spark.listening import Listener
from headrace.stream.spark.options import broker_url, connect_to
from headrace.stream.spark.places import prepare_places
from headrace.stream.spark.python_step import DeadRows
from headrace.stream.spark.refusals import notes, refusals
from headrace.stream.spark.session import prepare, session
from headrace.stream.sql import analyse_node

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
    for refusal in refusals(pipeline):
        raise refusal
    url = broker_url({"broker": str(broker)}) if broker is not None else None
    for note in notes(pipeline):
        _log.warning("%s: %s", pipeline.name, note, extra={"action": "stream.spark.note", "pipeline": pipeline.name})
    with ExitStack() as stack:
        folder, kept = stack.enter_context(_folder(pipeline, checkpoint))
        client = stack.enter_context(connect_to(url)) if url is not None else None
        prepare_places(pipeline, client)
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
        with Listener(self._spark, name, self._counts) as listener:
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
