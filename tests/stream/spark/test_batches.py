from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame

import headrace
import headrace.stream as hs
from headrace.queue.model import arn_of
from headrace.stream.dead_letters import dead_letter
from headrace.stream.errors import TooManyFailures
from headrace.stream.result import Collector
from headrace.stream.schema import Schema
from headrace.stream.sources.base import Dead
from headrace.stream.spark.batches import Batches, Counts
from headrace.stream.spark.claims import reader_of, stage_dead
from headrace.stream.spark.python_step import DeadRows
from headrace.stream.spark.run import prepare_queues
from headrace.stream.spark.sink import QUERY_ID

SCHEMA = "id bigint"


@pytest.mark.parametrize(
    ("source", "queue"), [(hs.queue("in", schema=SCHEMA), "in"), (hs.topic("t", schema=SCHEMA), "p--t")]
)
def test_messages_that_cannot_be_decoded_are_failures(client: headrace.Client, source: hs.Stream, queue: str) -> None:
    client.queue("in", create=True)
    client.topic("t", create=True)
    pipeline = hs.pipeline("p", source, sink=hs.queue("out"), dead_letter_queue="dead", failures_max=1).plan
    prepare_queues(pipeline, client)
    schema = Schema.of(SCHEMA)
    counts = Counts(Collector(schema.arrow(), everything=False))
    batches = Batches(client, pipeline, schema, DeadRows("p", "run", None, queue=True), False, counts)
    letters = [dead_letter(Dead(b"x", "no JSON", "", "", ""), pipeline="p")] * 2
    stage_dead(client, arn_of(queue), reader_of("p"), 1, letters)
    with pytest.raises(TooManyFailures, match=r"2 of .*; the last: no JSON"):
        batches._dead_parts(client, 0)


class Frame:
    """What is needed of a DataFrame: a batch's rows, and the query's id."""

    def __init__(self, rows: pa.Table, query: str) -> None:
        self._rows = rows
        self.sparkSession = self.sparkContext = self
        self.getLocalProperty = {QUERY_ID: query}.get

    def toArrow(self) -> pa.Table:  # noqa: N802 - Spark's name
        return self._rows


def test_batch_that_is_run_again_is_in_sinks_outside_once(tmp_path: Path) -> None:
    """Its driver died, or did not know whether a commit had been done, before Spark had noted the batch."""
    url = f"sqlite:///{tmp_path}/out.db"
    sinks = [hs.sql_table(url, "first"), hs.sql_table(url, "second"), hs.parquet(tmp_path / "files")]
    pipeline = hs.pipeline("p", hs.files(tmp_path / "*.jsonl", schema=SCHEMA), sink=sinks).plan
    schema = Schema.of(SCHEMA)
    rows = pa.table({"id": [1, 2, 3]}, schema=schema.arrow())

    def run(query: str, batch: int) -> None:
        counts = Counts(Collector(schema.arrow(), everything=False))
        batches = Batches(None, pipeline, schema, DeadRows("p", "run", None, queue=False), False, counts)
        batches(cast("DataFrame", Frame(rows, query)), batch)
        batches.close()

    for query, batch in (("a", 0), ("a", 0), ("a", 1), ("b", 0)):  # another checkpoint's batches are others
        run(query, batch)
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        for table in ("first", "second"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (9,)
    assert pq.read_table(tmp_path / "files").num_rows == 9
