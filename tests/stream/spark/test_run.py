"""Pipelines with queues on a live session."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import headrace
import headrace.stream as hs
from headrace.stream.errors import TooManyFailures
from headrace.stream.result import Result
from headrace.stream.spark.errors import CheckpointChanged, RowsDead
from headrace.stream.spark.run import run_on_spark
from tests.native.served import ServedBroker

SCHEMA = "id bigint, ts timestamp"
START = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - UTC without zone, as inside a pipeline
COUNT = "SELECT window_start, count(*) AS n, sum(id) AS total FROM input GROUP BY tumble(ts, '10 seconds')"


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"id": number, "ts": (START + dt.timedelta(seconds=number)).isoformat()}
        for number in range(first, first + count)
    ]


def flights() -> hs.Stream:
    return hs.queue("in", schema=SCHEMA).with_watermark("ts", delay="0 seconds")


def refuse_seven(row: dict[str, Any]) -> dict[str, Any]:
    if row["id"] % 100 == 7:
        raise ValueError("seven")
    return row


def bodies(client: headrace.Client, queue: str) -> list[Any]:
    return [message.json() for message in client.queue(queue).peek(1_000)]


class Runs:
    """Runs of one pipeline over one checkpoint."""

    def __init__(self, spark: SparkSession, served: ServedBroker, folder: Path) -> None:
        self._spark = spark
        self._served = served
        self._folder = folder

    def __call__(self, pipeline: hs.Pipeline, checkpoint: str = "first", **given: Any) -> Result:
        """What is there now."""
        return run_on_spark(
            pipeline.plan,
            self._served.url,
            spark=self._spark,
            checkpoint=self._folder / checkpoint,
            until="idle",
            **given,
        )


@pytest.fixture
def runs(spark: SparkSession, served: ServedBroker, tmp_path: Path) -> Runs:
    return Runs(spark, served, tmp_path)


def test_state_and_output_go_on_from_run_to_run(runs: Runs, client: headrace.Client) -> None:
    """Windows over runs, a Python step, dead messages and rows, two sinks, and a checkpoint that is replaced."""
    queue = client.queue("in", create=True)
    seen: dict[int, pa.Table] = {}
    stream = flights().map(refuse_seven, schema=SCHEMA).sql(COUNT)
    pipeline = hs.pipeline(
        "p", stream, sink=[hs.queue("out"), hs.callback(seen.__setitem__)], dead_letter_queue="dead", shards=2
    )
    queue.send_many([*rows(0, 15), b"no json"])
    first = runs(pipeline)
    queue.send_many(rows(15, 10))
    second = runs(pipeline)
    assert (first.rows_in, first.rows_out, first.dead) == (15, 1, 2)
    assert (second.rows_in, second.rows_out, second.dead) == (10, 1, 0)
    out = bodies(client, "out")
    assert [(row["window_start"][:19], row["n"], row["total"]) for row in out] == [
        ("2026-01-01T00:00:00", 9, 38),
        ("2026-01-01T00:00:10", 10, 145),
    ]
    assert [table.to_pylist()[0]["n"] for _, table in sorted(seen.items()) if len(table)] == [9, 10]
    reasons = sorted(letter["reason"] for letter in bodies(client, "dead"))
    assert reasons[0] == "ValueError: seven"
    assert reasons[1].startswith("no JSON")
    assert queue.counts().in_flight == queue.counts().visible == 0

    numbers = set(seen)
    queue.send_many(rows(30, 15))
    with pytest.raises(CheckpointChanged, match="'p' was written by another checkpoint"):
        runs(pipeline, "second")
    runs(pipeline, "second", adopt=True)
    assert len(bodies(client, "out")) == 3
    assert min(set(seen) - numbers) > max(numbers)  # sinks that remember numbers take it for new


def test_dead_row_without_a_queue_for_it_stops_the_run(runs: Runs, client: headrace.Client) -> None:
    client.queue("in", create=True).send_many(rows(7, 1))
    stream = flights().map(refuse_seven, schema=SCHEMA)
    with pytest.raises(Exception, match="ValueError: seven") as caught:
        runs(hs.pipeline("p", stream, sink=hs.queue("out")))
    assert isinstance(caught.value, RowsDead) or RowsDead.__name__ in str(caught.value)
    assert bodies(client, "out") == []


def test_too_many_dead_rows_stop_the_run_before_they_are_committed(runs: Runs, client: headrace.Client) -> None:
    client.queue("in", create=True).send_many([*rows(0, 3), b"x", b"y", b"z"])
    pipeline = hs.pipeline("p", flights(), sink=hs.queue("out"), dead_letter_queue="dead", failures_max=2)
    with pytest.raises(TooManyFailures, match="3 of"):
        runs(pipeline)
    assert bodies(client, "out") == bodies(client, "dead") == []
    assert client.queue("in").counts().in_flight == 6


def test_topic_is_read_from_the_first_start_on(runs: Runs, client: headrace.Client) -> None:
    topic = client.topic("flights", create=True)
    pipeline = hs.pipeline("p", hs.topic("flights", schema=SCHEMA), sink=hs.queue("out"))
    topic.publish_many(rows(0, 5))
    runs(pipeline)
    topic.publish_many(rows(5, 5))
    runs(pipeline)
    assert Counter(row["id"] for row in bodies(client, "out")) == Counter(range(5, 10))


def test_files_that_end_close_their_windows(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(2):
        times = [START + dt.timedelta(seconds=second) for second in range(number * 10, number * 10 + 15)]
        table = pa.table({"id": list(range(15)), "ts": pa.array(times, pa.timestamp("us"))})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    stream = hs.files(tmp_path, schema=SCHEMA, format="parquet").with_watermark("ts").sql(COUNT)
    result = run_on_spark(hs.pipeline("p", stream, shards=2).plan, None)
    assert sorted(row["n"] for row in result.rows.to_pylist()) == [5, 10, 15]
    assert result.rows_in == 30
    assert str(result).endswith("watermark at the end")
    assert spark.range(1).count() == 1  # the session that was there runs on
