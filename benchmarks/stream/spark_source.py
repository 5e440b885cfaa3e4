"""Messages through headrace's data source of Spark, from a queue into a queue: a process of its own.

python -m benchmarks.stream.spark_source URL
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from typing import Final

import headrace
from benchmarks.nexmark.generator import BID
from benchmarks.stream.measuring import Stopwatch
from benchmarks.stream.nexmark_files import SPARK_MEMORY
from benchmarks.stream.plan import SPARK_BATCH_MESSAGES

LOOK_S: Final = 0.05


def copy(url: str, spawned_s: float) -> None:
    """The queue `bid`, decoded, into the queue `copies`, encoded again; availableNow."""
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-memory {SPARK_MEMORY} pyspark-shell"
    from headrace.stream.spark.run import session  # noqa: PLC0415

    with headrace.connect(url) as client:
        client.queue("copies", create=True)  # the sink wants it to be there
    spark = session("benchmark", "local[2]")
    spark.sparkContext.setLogLevel("ERROR")
    rows = spark.readStream.format("headrace").schema(BID)
    rows = rows.options(broker=url, queue="bid", reader="benchmark", format="json")
    rows = rows.option("maxMessagesPerTrigger", SPARK_BATCH_MESSAGES)
    with tempfile.TemporaryDirectory(prefix="headrace-benchmark-") as checkpoint:
        writer = rows.load().writeStream.format("headrace").options(broker=url, queue="copies", name="copies")
        watch = Stopwatch(spawned_s)
        writer = writer.option("checkpointLocation", checkpoint).trigger(availableNow=True)
        query = writer.start()
        while query.isActive:
            time.sleep(LOOK_S)
            if query.lastProgress is not None:
                watch.first()
        query.awaitTermination()  # raises what it failed with
        usage = watch.stop(-1)
        spark.stop()
    usage.print()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--spawned-s", type=float, default=time.monotonic())
    given = parser.parse_args()
    copy(given.url, given.spawned_s)


if __name__ == "__main__":
    main()
