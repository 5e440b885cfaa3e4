"""How people write pipelines, and what is refused where they write it."""

import datetime as dt
import re
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace.stream as hs
from headrace.durations import DurationInvalid, duration_text, duration_us
from headrace.stream import physical, plan

FLIGHTS = "origin string, dep_delay double, ts timestamp"


def flights() -> hs.Stream:
    return hs.queue("flights", schema=FLIGHTS).with_watermark("ts", delay="10 minutes", idle="30 seconds")


def test_the_example_of_the_documentation_becomes_a_plan() -> None:
    flights = hs.queue("flights", schema=FLIGHTS).with_watermark("ts", delay="10 minutes")
    delays = hs.sql("""
        SELECT window_start, origin, count(*) AS n, avg(dep_delay) AS delay
        FROM flights GROUP BY tumble(ts, '1 hour'), origin""")
    pipeline = hs.pipeline("delays", delays, sink=hs.queue("delays"), late_queue=hs.queue("delays-late"))
    assert pipeline.plan.sinks == (plan.QueueSink("delays"),)
    assert pipeline.plan.late_queue == "delays-late"
    assert [type(operator) for operator in pipeline.physical.operators] == [
        physical.Read,
        physical.Aggregate,
        physical.Project,
    ]
    assert str(flights.schema) == "origin string, dep_delay double, ts timestamp"


def test_sql_finds_streams_by_keyword_by_variable_and_by_their_own_name() -> None:
    mine = flights()
    other = hs.memory("origin string", [[{"origin": "here"}]], name="elsewhere")
    assert hs.sql("SELECT origin FROM mine").schema.names == ["origin"]
    assert hs.sql("SELECT dep_delay FROM flights").schema.names == ["dep_delay"]
    assert hs.sql("SELECT origin FROM x", x=other).node.inputs == (("x", other.node),)  # type: ignore[union-attr]
    assert hs.sql("SELECT origin FROM elsewhere").schema.names == ["origin"]
    assert mine.time == "ts"


def test_a_step_reads_its_own_stream_as_input() -> None:
    assert flights().sql("SELECT dep_delay * 2 AS twice FROM input").schema.names == ["twice"]


def test_python_steps_keep_event_time_by_name() -> None:
    found = flights().map(lambda row: row, schema="ts timestamp, x int").filter(lambda row: row["x"] > 1)
    assert found.time == "ts"
    assert found.flat_map(lambda row: [row], schema="x int").time is None
    assert found.map_batches(lambda table: table, schema="x int").node.name == "batches"


def test_functions_are_found_and_typed() -> None:
    @hs.function(returns="int")
    def twice(x: int) -> int:
        return 2 * x

    @hs.function(returns=float, arguments=["double"], name="half")
    def halve(x):  # type: ignore[no-untyped-def]
        return x / 2

    found = flights().sql("SELECT twice(length(origin)) AS t, half(dep_delay) AS h FROM input")
    assert str(found.schema) == "t int, h double"
    assert twice(3) == 6 and halve(3.0) == 1.5
    with pytest.raises(hs.SchemaInvalid, match="argument 'x'"):

        @hs.function(returns="int")
        def untyped(x):  # type: ignore[no-untyped-def]
            return x


def test_a_table_is_joined_by_its_name() -> None:
    rates = hs.table("rates", data=[{"origin": "a", "rate": 2.0}], schema="origin string, rate double")
    found = flights().sql("SELECT f.dep_delay * r.rate AS x FROM input f JOIN rates r ON f.origin = r.origin")
    assert str(found.schema) == "x double"
    assert rates.ref.data is not None and rates.ref.data.num_rows == 1


def test_parquet_files_tell_their_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int64()), "s": ["x"]}), tmp_path / "part-1.parquet")
    assert str(hs.files(tmp_path).schema) == "a bigint, s string"
    assert hs.files(tmp_path / "*.parquet", name="parts").node.name == "parts"
    with pytest.raises(hs.UnsupportedQuery, match="has no column types"):
        hs.files("x.csv")
    with pytest.raises(hs.UnsupportedQuery, match="format="):
        hs.files("x.dat", schema="a int")


class Case(NamedTuple):
    sink: hs.Sink
    record: plan.Sink


def test_every_sink_is_a_record(tmp_path: Path) -> None:
    def fn(number: int, rows: pa.Table) -> None: ...

    cases = [
        Case(hs.topic("t", format="arrow"), plan.QueueSink("t", topic=True, format="arrow")),
        Case(hs.parquet(tmp_path, partition_by=["day"]), plan.ParquetSink(tmp_path, ("day",))),
        Case(hs.sql_table("sqlite:///x", "t", key="id"), plan.TableSink("sqlite:///x", "t", ("id",))),
        Case(
            hs.http("http://a/b", allow=["a"], headers={"x": "y"}), plan.HttpSink("http://a/b", ("a",), (("x", "y"),))
        ),
        Case(hs.console(rows_max=5), plan.ConsoleSink(5)),
        Case(hs.callback(fn), plan.CallbackSink(fn)),
    ]
    for case in cases:
        assert case.sink.sink == case.record


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"name": "a b"}, "1 to 40 characters"),
        ({"mode": "complete"}, "unknown output mode"),
        ({"shards": 0}, "1 to 256 shards"),
        ({"failures_share": 2.0}, "between 0 and 1"),
        ({"sink": hs.queue("q", group="nope")}, "no such column"),
        ({"sink": hs.parquet("x", partition_by=["nope"])}, "origin, dep_delay, ts"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(hs.UnsupportedQuery, match=match):
        hs.pipeline(**{"name": "p", "stream": flights(), **settings})  # type: ignore[arg-type]


def test_one_source_made_twice_is_refused() -> None:
    both = hs.sql("SELECT a.origin FROM a JOIN b ON a.origin = b.origin", a=flights(), b=flights())
    with pytest.raises(hs.UnsupportedQuery, match="two sources have this name"):
        hs.pipeline("p", both)


def test_event_time_is_a_timestamp_of_a_source() -> None:
    with pytest.raises(hs.UnsupportedQuery, match=r"not a timestamp column.*Instead: ts"):
        hs.queue("q", schema=FLIGHTS).with_watermark("origin")
    with pytest.raises(hs.UnsupportedQuery, match="belongs to a source"):
        flights().filter(bool).with_watermark("ts")
    with pytest.raises(hs.UnsupportedQuery, match="negative"):
        hs.queue("q", schema=FLIGHTS).with_watermark("ts", delay=-1)


def test_a_queue_without_schema_is_a_sink_only() -> None:
    with pytest.raises(hs.UnsupportedQuery, match="as a source it needs the columns"):
        hs.queue("q").sql("SELECT a FROM input")


def test_dedup_needs_keys_that_exist_and_an_event_time() -> None:
    assert flights().dedup("origin", within="1 hour").time == "ts"
    with pytest.raises(hs.UnsupportedQuery, match="no such column"):
        flights().dedup("id", within="1 hour")
    with pytest.raises(hs.UnsupportedQuery, match="kept for ever"):
        hs.queue("q", schema=FLIGHTS).dedup("origin", within=60)


@pytest.mark.parametrize(
    ("value", "us"),
    [
        ("10 minutes", 600_000_000),
        ("1h30m", 5_400_000_000),
        ("1 hour 30 minutes", 5_400_000_000),
        ("INTERVAL '2' days", 172_800_000_000),
        ("500 ms", 500_000),
        ("1.5 s", 1_500_000),
        (2, 2_000_000),
        (dt.timedelta(minutes=1), 60_000_000),
    ],
)
def test_durations(value: str | float | dt.timedelta, us: int) -> None:
    assert duration_us(value) == us
    assert duration_us(duration_text(us)) == us


@pytest.mark.parametrize("value", ["", "ten minutes", "10", "3 months", "5 minutes ago"])
def test_what_is_no_duration_is_refused(value: str) -> None:
    with pytest.raises(DurationInvalid, match="'10 minutes'"):
        duration_us(value)


@pytest.mark.parametrize(
    ("schema", "word"), [("origin strin, ts timestamp", "'strin'"), ("a int b", "'b'"), ("a decimal(", "')'")]
)
def test_a_schema_that_cannot_be_read_names_the_word(schema: str, word: str) -> None:
    with pytest.raises(
        hs.SchemaInvalid, match=re.escape(f"{word} is not expected there; a column is a name and a type")
    ):
        hs.Schema.of(schema)
