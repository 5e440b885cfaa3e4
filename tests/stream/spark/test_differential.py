"""Random queries over random rows: Spark gives what the embedded engine gives. In batch mode, where all windows close."""

from __future__ import annotations

import random
from typing import Final

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from headrace.stream.plan import SqlStep
from headrace.stream.schema import Schema
from headrace.stream.spark.convert import plain, struct_of, zoned
from headrace.stream.sql import WINDOW_TIME, to_spark
from headrace.testing.pipelines import run_in_memory
from tests.stream import differential

SEEDS: Final = range(1000, 1016)


def on_spark(spark: SparkSession, step: SqlStep, rows: dict[str, pa.Table]) -> pa.Table:
    for name, ddl in (("l", differential.LEFT), ("r", differential.RIGHT)):
        frame = spark.createDataFrame(zoned(rows[name]), schema=struct_of(Schema.of(ddl)))
        frame.createOrReplaceTempView(name)
    found = spark.sql(to_spark(step).text)
    return found.drop(WINDOW_TIME).toArrow()


def kinds(table: pa.Table) -> list[str]:
    return [str(field.type) for field in Schema.of(table.schema).fields]


@pytest.mark.parametrize("seed", SEEDS)
def test_spark_gives_the_same_rows(spark: SparkSession, seed: int) -> None:
    noise = random.Random(seed)
    text = differential.query(noise)
    left = differential.left_rows(noise, 60)
    right = differential.right_rows(noise, 40, min(row["ts"] for row in left))
    rows = differential.tables({"l": left, "r": right}, ["l", "r"])
    pipeline = differential.pipeline(text)
    assert isinstance(pipeline.plan.output, SqlStep)
    sources = [name for name, _ in pipeline.plan.output.inputs if name in rows]
    embedded = run_in_memory(pipeline, [{name: rows[name] for name in sources}])
    spark_rows = on_spark(spark, pipeline.plan.output, rows)
    assert kinds(spark_rows) == kinds(embedded), text
    assert differential.multiset(plain(spark_rows)) == differential.multiset(embedded), text
