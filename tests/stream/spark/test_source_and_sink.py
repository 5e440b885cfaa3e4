"""The data source as Spark users use it, on a live session."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

import headrace
from headrace.errors import StoreFailed
from headrace.queue.operations import Operation, Transact
from headrace.stream.formats.encoding import arrow_stream
from headrace.stream.spark import stages
from tests.native.served import ServedBroker

SCHEMA = "id bigint NOT NULL, ts timestamp, tags array<string>"


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"id": number, "ts": "2026-01-01T12:00:00+02:00", "tags": ["a", str(number)]}
        for number in range(first, first + count)
    ]


def stream(spark: SparkSession, served: ServedBroker, **options: str) -> DataFrame:
    reader = spark.readStream.format("headrace").schema(SCHEMA)
    return reader.options(broker=served.url, queue="in", reader="r", **options).load()


def write(frame: DataFrame, served: ServedBroker, checkpoint: Path, **options: str) -> None:
    """One run, to what is there now."""
    writer = frame.writeStream.format("headrace").options(broker=served.url, queue="out", name="o", **options)
    query = writer.option("checkpointLocation", str(checkpoint)).trigger(availableNow=True).start()
    query.awaitTermination()


@pytest.fixture(autouse=True)
def queues(client: headrace.Client) -> dict[str, headrace.Queue]:
    return {name: client.queue(name, create=True) for name in ("in", "out", "dead")}


def ids(queue: headrace.Queue) -> Counter[int]:
    return Counter(message.json()["id"] for message in queue.peek(10_000))


def test_runs_go_on_where_the_last_ended_and_leave_nothing_behind(
    spark: SparkSession, served: ServedBroker, queues: dict[str, headrace.Queue], tmp_path: Path
) -> None:
    frame = stream(spark, served, deadLetterQueue="dead", maxMessagesPerTrigger="400", maxMessagesPerPartition="100")
    for run in range(2):
        queues["in"].send_many(rows(run * 500, 500))
        queues["in"].send('{"id": "no number"}')
        write(frame, served, tmp_path / "checkpoint")
        assert queues["in"].counts().in_flight == queues["in"].counts().visible == 0
    assert ids(queues["out"]) == Counter(range(1_000))
    first = queues["out"].peek(1)[0].json()
    assert first["ts"] == "2026-01-01T10:00:00.000000Z"
    assert first["tags"][0] == "a"
    letters = [message.json() for message in queues["dead"].peek()]
    assert [letter["body"] for letter in letters] == ['{"id": "no number"}'] * 2
    assert "id" in letters[0]["reason"]


def test_arrow_goes_in_and_out(
    spark: SparkSession, served: ServedBroker, queues: dict[str, headrace.Queue], tmp_path: Path
) -> None:
    table = pa.table(
        {"id": list(range(1_000)), "ts": pa.array([0] * 1_000, pa.timestamp("us")), "tags": [["x"]] * 1_000}
    )
    queues["in"].send_many([arrow_stream(table.slice(start, 100)) for start in range(0, 1_000, 100)])
    write(stream(spark, served, format="arrow"), served, tmp_path / "checkpoint", format="arrow")
    read = spark.read.format("headrace").schema(SCHEMA).options(broker=served.url, queue="out", format="arrow").load()
    assert sorted(row.id for row in read.collect()) == list(range(1_000))
    assert len(queues["out"].peek(1_000)) <= 10


class Fault:
    """Lets calls fail in the broker, once each: `where` says which, `applied` whether they are done all the same."""

    def __init__(self, served: ServedBroker, where: Callable[[Operation], bool], *, applied: bool, times: int) -> None:
        self.left = times
        self._where = where
        self._applied = applied
        self._submit = served.broker.submit
        served.broker.submit = self.submit  # type: ignore[method-assign] # what a test may do

    def submit(self, operation: Operation, done: Callable[[Any], None]) -> None:
        if not self.left or not self._where(operation):
            self._submit(operation, done)
            return
        self.left -= 1
        failure = StoreFailed("a fault of the test")
        if self._applied:
            self._submit(operation, lambda _: done(failure))
        else:
            done(failure)


def is_commit(operation: Operation) -> bool:
    return isinstance(operation, Transact) and any(key == stages.RECORD for key, _ in operation.state)


def is_stage(operation: Operation) -> bool:
    return isinstance(operation, Transact) and any(key.startswith(stages.STAGE) for key, _ in operation.state)


@pytest.mark.parametrize(
    ("where", "applied"),
    [(is_commit, False), (is_commit, True), (is_stage, True)],
    ids=["commit-not-applied", "commit-applied", "stage"],
)
def test_failures_double_and_lose_nothing(
    spark: SparkSession,
    served: ServedBroker,
    client: headrace.Client,
    queues: dict[str, headrace.Queue],
    tmp_path: Path,
    where: Callable[[Operation], bool],
    applied: bool,
) -> None:
    """The query dies, and is started again."""
    queues["in"].send_many(rows(0, 300))
    frame = stream(spark, served, maxMessagesPerPartition="150")
    fault = Fault(served, where, applied=applied, times=1)
    with pytest.raises(StreamingQueryException, match="a fault of the test"):
        write(frame, served, tmp_path / "checkpoint")
    assert fault.left == 0
    write(frame, served, tmp_path / "checkpoint")
    assert ids(queues["out"]) == Counter(range(300))
    assert queues["in"].counts().in_flight == 0
    assert client.state(stages.state_name("o"), stages.STAGE) == {}


def test_deleted_checkpoint_is_noticed(
    spark: SparkSession, served: ServedBroker, queues: dict[str, headrace.Queue], tmp_path: Path
) -> None:
    queues["in"].send_many(rows(0, 10))
    write(stream(spark, served), served, tmp_path / "first")
    queues["in"].send_many(rows(10, 10))
    with pytest.raises(StreamingQueryException, match="written by another checkpoint, up to its batch 0"):
        write(stream(spark, served), served, tmp_path / "second")
    assert ids(queues["out"]) == Counter(range(10))
    write(stream(spark, served), served, tmp_path / "second", adopt="true")
    assert ids(queues["out"]) == Counter(range(20))


def test_message_that_cannot_be_decoded_stops_a_query_without_a_queue_for_it(
    spark: SparkSession, served: ServedBroker, queues: dict[str, headrace.Queue], tmp_path: Path
) -> None:
    queues["in"].send("no json")
    message = queues["in"].peek()[0]
    with pytest.raises(StreamingQueryException, match=f"message {message.id}: no JSON"):
        write(stream(spark, served), served, tmp_path / "checkpoint")


def test_batch_read_takes_nothing_and_batch_write_adds(
    spark: SparkSession, served: ServedBroker, queues: dict[str, headrace.Queue]
) -> None:
    spark.range(2_500).select("id").write.format("headrace").mode("append").options(
        broker=served.url, queue="in"
    ).save()
    assert ids(queues["in"]) == Counter(range(2_500))
    read = spark.read.format("headrace").schema("id bigint, sequence bigint")
    found = read.options(broker=served.url, queue="in", metadata="sequence").load()
    assert found.agg(F.count("*"), F.sum("id"), F.countDistinct("sequence")).first() == (2_500, 3_123_750, 2_500)
    assert queues["in"].counts().visible == 2_500
    raw = spark.read.format("headrace").options(broker=served.url, queue="in", format="raw").load()
    assert json.loads(raw.orderBy("sequence").collect()[0].body) == {"id": 0}
