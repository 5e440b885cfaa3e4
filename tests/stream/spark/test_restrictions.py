from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headrace.stream as hs
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.spark.errors import OptionInvalid
from headrace.stream.spark.restrictions import notes, restrictions_of
from headrace.stream.spark.run import run_on_spark

SCHEMA = "id bigint, ts timestamp"


def queue(**time: Any) -> hs.Stream:
    return hs.queue("in", schema=SCHEMA).with_watermark("ts", **{"delay": "10 seconds", **time})


@pytest.mark.parametrize(
    ("stream", "construct"),
    [
        (queue(idle="5 seconds"), "idle"),
        (hs.files("web.log", format="access_log", schema="ts timestamp, path string"), "access_log"),
        (queue().dedup("id", within="1 minute"), "dedup"),
        (queue().sql("SELECT id, ts FROM input QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY ts DESC) <= 1"), "ROW_NUMBER()"),
    ],
    ids=["idle", "access log", "dedup", "top"],
)  # fmt: skip
def test_what_only_the_embedded_engine_can_do_is_refused_with_what_to_do_instead(
    stream: hs.Stream, construct: str
) -> None:
    pipeline = hs.pipeline("p", stream, mode="update" if construct == "ROW_NUMBER()" else "append")
    found = restrictions_of(pipeline.plan)
    assert [refusal.construct for refusal in found] == [construct]
    assert "embedded" in str(found[0])
    with pytest.raises(UnsupportedQuery):  # before Spark is started
        run_on_spark(pipeline.plan, "http://127.0.0.1:1")


def test_what_spark_can_do_is_not_refused() -> None:
    stream = (
        queue().dedup("id", within="10 seconds").sql("SELECT count(*) AS n FROM input GROUP BY tumble(ts, '1 hour')")
    )
    assert restrictions_of(hs.pipeline("p", stream).plan) == []


def test_late_queue_that_gets_nothing_is_told_of() -> None:
    stream = queue().sql("SELECT count(*) AS n FROM input GROUP BY tumble(ts, '1 hour')")
    assert "'p-late' gets none" in notes(hs.pipeline("p", stream, late_queue="p-late").plan)[0]
    assert notes(hs.pipeline("p", stream, sink=hs.queue("out")).plan) == []
    assert "driver" in notes(hs.pipeline("p", stream, sink=hs.parquet("out")).plan)[0]


def test_folder_is_no_broker_for_many_processes(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="run `headrace broker`"):
        run_on_spark(hs.pipeline("p", queue()).plan, tmp_path)


def test_queue_needs_a_checkpoint_to_go_on_from() -> None:
    with pytest.raises(OptionInvalid, match="checkpoint"):
        run_on_spark(hs.pipeline("p", queue()).plan, "http://127.0.0.1:1")
