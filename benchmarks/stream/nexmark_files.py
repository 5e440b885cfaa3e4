"""One query of Nexmark over the same Parquet files, by one engine: a process of its own.

python -m benchmarks.stream.nexmark_files "DuckDB batch" q5 FOLDER
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.nexmark.queries import DELAY
from benchmarks.stream.measuring import Stopwatch, Usage
from benchmarks.stream.plan import ENGINES, PART_EVENTS, SPARK_BATCH_FILES

KINDS: Final = ("person", "auction", "bid")
SPARK_MEMORY: Final = "4g"
SPARK_LOOK_S: Final = 1


def headrace(query: str, folder: Path, spawned_s: float) -> Usage:
    """Embedded, without a broker: state in memory, rows collected. Arrow's memory as `headrace stream run` has it."""
    import headrace.stream as hs  # noqa: PLC0415 - each process loads the engine that it measures
    from benchmarks.nexmark import queries  # noqa: PLC0415
    from headrace.stream import arrow_memory, limits, runner  # noqa: F401, PLC0415 - the runner is loaded before the clock runs
    from headrace.stream.result import Report  # noqa: PLC0415

    arrow_memory.choose_allocator()
    streams = {name: hs.files(folder / name, format="parquet", name=name) for name in KINDS}
    timed = {name: stream.with_watermark("ts", delay=DELAY) for name, stream in streams.items()}
    pipeline = queries.pipeline(query, timed)
    often, limits.TELL_S = limits.TELL_S, 0.0  # type: ignore[misc] # until the first batch, which is timed
    watch = Stopwatch(spawned_s)

    def told(report: Report) -> None:
        if report.batches:
            watch.first()
            limits.TELL_S = often  # type: ignore[misc]

    result = pipeline.run(batch_rows=PART_EVENTS, on_progress=told)
    return watch.stop(result.rows_out)


def duckdb_batch(query: str, folder: Path, spawned_s: float) -> Usage:
    """All rows at once, into an Arrow table."""
    import duckdb  # noqa: PLC0415

    from benchmarks.nexmark.references import REFERENCES  # noqa: PLC0415

    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in KINDS:
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{name}/*.parquet')")
        watch = Stopwatch(spawned_s)
        rows = connection.sql(REFERENCES[query]).to_arrow_table()
        return watch.stop(rows.num_rows)


def spark_streaming(query: str, folder: Path, spawned_s: float) -> Usage:
    """Structured Streaming, availableNow, into the sink that drops everything. Rows are not counted there."""
    frame, checkpoint = _spark_frame(query, folder)
    watch = Stopwatch(spawned_s)
    writer = frame.writeStream.format("noop").option("checkpointLocation", checkpoint.name)
    stream = writer.trigger(availableNow=True).start()
    while not stream.awaitTermination(SPARK_LOOK_S):
        if stream.lastProgress is not None:
            watch.first()
    usage = watch.stop(-1)
    frame.sparkSession.stop()
    return usage


def _spark_frame(query: str, folder: Path) -> tuple[Any, tempfile.TemporaryDirectory[str]]:
    """The query as a streaming DataFrame, and where its checkpoint goes."""
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-memory {SPARK_MEMORY} pyspark-shell"
    import headrace.stream as hs  # noqa: PLC0415
    from benchmarks.nexmark import queries  # noqa: PLC0415
    from headrace.stream.plan import FileSource, Source  # noqa: PLC0415
    from headrace.stream.spark.frames import Frames  # noqa: PLC0415
    from headrace.stream.spark.python_step import DeadRows  # noqa: PLC0415
    from headrace.stream.spark.run import session  # noqa: PLC0415

    class BoundedFrames(Frames):
        """Batches of so many files, and no row behind the end: as a Spark user would write it."""

        def _timed(self, source: Source) -> Any:
            assert isinstance(source, FileSource)
            reader = self.spark.readStream.schema(source.schema.ddl()).option("maxFilesPerTrigger", SPARK_BATCH_FILES)
            return reader.parquet(source.path).withWatermark("ts", DELAY)

    spark = session("benchmark", "local[2]")
    spark.sparkContext.setLogLevel("ERROR")
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    if query == "q5":
        # Spark 4.3 writes Java for its hopping windows that does not compile (a parameter named like an array's element),
        # and then interprets: it took 30 % more CPU.
        spark.conf.set("spark.sql.subexpressionElimination.enabled", "false")
    spark.conf.set(
        "spark.sql.streaming.stateStore.providerClass",
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    )
    streams = {
        name: hs.files(folder / name, format="parquet", name=name).with_watermark("ts", delay=DELAY) for name in KINDS
    }
    plan = queries.pipeline(query, streams).plan
    checkpoint = tempfile.TemporaryDirectory(prefix="headrace-benchmark-")
    frames = BoundedFrames(spark, plan, Path(checkpoint.name), DeadRows(plan.name, "benchmark", None, queue=False))
    return frames.output(), checkpoint


RUN: Final[dict[str, Callable[[str, Path, float], Usage]]] = dict(
    zip(ENGINES, (headrace, spark_streaming, duckdb_batch), strict=True)
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=RUN)
    parser.add_argument("query")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spawned-s", type=float, default=time.monotonic())
    given = parser.parse_args()
    RUN[given.engine](given.query, given.folder.resolve(), given.spawned_s).print()


if __name__ == "__main__":
    main()
