"""Both engines give the same rows for the same plan and the same out-of-order data."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

import headrace.stream as hs
from headrace.stream.spark.run import run_on_spark
from headrace.testing.pipelines import run_in_memory
from tests.stream.spark.plans import PLANS, bid_stream, sources_of


def multiset(rows: pa.Table) -> Counter[str]:
    """Floats to twelve digits: sums of them depend on the order."""
    return Counter(str({name: _plain(value) for name, value in row.items()}) for row in rows.to_pylist())


def _plain(value: Any) -> Any:
    return float(f"{value:.11e}") + 0.0 if isinstance(value, float) else value


@pytest.mark.parametrize("name", PLANS)
def test_rows_are_the_same(spark: SparkSession, name: str) -> None:
    pipeline = hs.pipeline("same", PLANS[name](), shards=2)
    sources = sources_of(name)
    steps = [dict(zip(sources, batches, strict=True)) for batches in zip(*sources.values(), strict=True)]
    embedded = run_in_memory(pipeline, steps)
    on_spark = run_on_spark(pipeline.plan, None, spark=spark)
    assert on_spark.late == 0
    assert on_spark.rows.schema.names == embedded.schema.names
    assert on_spark.rows.schema.types == embedded.schema.types
    assert multiset(on_spark.rows) == multiset(embedded)
    assert len(embedded) > 0


@pytest.mark.parametrize("window", ["", "window_start, "])
def test_results_that_change_end_at_the_same(spark: SparkSession, window: str) -> None:
    """Batches are other ones, and so is what comes in between: the last row of each key is what counts."""
    group = "tumble(ts, '7 seconds'), bidder" if window else "bidder"
    text = f"SELECT {window}bidder, count(*) AS n, sum(price) AS total, max(ts) AS last FROM bids GROUP BY {group}"
    pipeline = hs.pipeline("changing", hs.sql(text, bids=bid_stream()), mode="update", shards=2)
    embedded = run_in_memory(pipeline, [{"bids": batch} for batch in sources_of("")["bids"]])
    assert _last(run_on_spark(pipeline.plan, None, spark=spark).rows) == _last(embedded)


def _last(rows: pa.Table) -> dict[tuple[Any, Any], dict[str, Any]]:
    """By key, the row that counts most."""
    found = sorted(rows.to_pylist(), key=lambda row: row["n"])
    return {(row.get("window_start"), row["bidder"]): row for row in found}


def test_one_row_of_each_key_is_left(spark: SparkSession) -> None:
    """Which of them depends on the order of arrival, which Spark does not keep within a batch."""
    stream = bid_stream().dedup("bidder", "auction", within="3 seconds").sql("SELECT bidder, auction, ts FROM input")
    pipeline = hs.pipeline("dedup", stream, shards=2)
    found = run_on_spark(pipeline.plan, None, spark=spark).rows.to_pylist()
    keys = Counter((row["bidder"], row["auction"]) for row in found)
    all_keys = {(row["bidder"], row["auction"]) for batch in sources_of("")["bids"] for row in batch}
    assert set(keys) == all_keys
    assert max(keys.values()) > 1
