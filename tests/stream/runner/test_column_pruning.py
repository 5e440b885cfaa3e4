from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace
import headrace.stream as hs
from headrace.stream.formats.decoding import ARROW_TYPE
from headrace.stream.formats.encoding import arrow_stream
from headrace.stream.runner.column_pruning import pruned_columns
from headrace.stream.sources.files import FileReader

ROWS = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [{"d": 1}, {"d": 2}], "ts": pa.array([1, 2], pa.timestamp("us"))})


@pytest.fixture
def rows(tmp_path: Path) -> hs.Stream:
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    return hs.files(tmp_path / "rows.parquet").with_watermark("ts", delay="0 seconds")


@pytest.mark.parametrize(
    ("sql", "used"),
    [
        ("SELECT a FROM rows", {"a", "ts"}),
        ("SELECT A AS z FROM rows WHERE B <> ''", {"a", "b", "ts"}),
        ("SELECT c.d AS d FROM rows", {"c", "ts"}),
        ("SELECT b, sum(a) AS n FROM rows GROUP BY tumble(ts, '1 second'), b", {"a", "b", "ts"}),
        ("SELECT count(*) FILTER (WHERE a > 1) AS n FROM rows GROUP BY tumble(ts, '1 second')", {"a", "ts"}),
        ("SELECT x.a FROM rows x JOIN rows y ON x.a = y.a AND x.ts = y.ts", {"a", "ts"}),
    ],
)
def test_only_what_is_looked_at_is_used(rows: hs.Stream, sql: str, used: set[str]) -> None:
    pipeline = hs.pipeline("p", hs.sql(sql, rows=rows))
    assert pruned_columns(pipeline.plan, pipeline.physical, "rows") == frozenset(used)


@pytest.mark.parametrize(("late", "dead"), [("late", None), (None, "dead")])
def test_rows_that_may_be_sent_away_are_used_whole(rows: hs.Stream, late: str | None, dead: str | None) -> None:
    pipeline = hs.pipeline("p", hs.sql("SELECT a FROM rows", rows=rows), late_queue=late, dead_letter_queue=dead)
    assert pruned_columns(pipeline.plan, pipeline.physical, "rows") is None


def test_python_steps_may_look_at_everything(rows: hs.Stream) -> None:
    pipeline = hs.pipeline("p", rows.filter(lambda row: row["a"] > 1))
    assert pruned_columns(pipeline.plan, pipeline.physical, "rows") is None
    assert pipeline.run().to_arrow().to_pylist() == ROWS.slice(1).to_pylist()


def test_unpruned_columns_of_a_file_are_not_read(rows: hs.Stream) -> None:
    reader = FileReader(rows.node, frozenset({"a", "ts"}))  # type: ignore[arg-type]  # it is one
    reader.open(None)
    chunk = reader.read(10, 0)
    assert chunk is not None
    assert chunk.rows.column("a").to_pylist() == [1, 2]
    assert chunk.rows.column("b").null_count == 2
    reader.close()


def test_unread_columns_do_not_change_what_comes_out(rows: hs.Stream) -> None:
    sql = "SELECT c.d AS d, count(*) AS n FROM rows WHERE a > 0 GROUP BY tumble(ts, '1 second'), c.d"
    found = hs.pipeline("p", hs.sql(sql, rows=rows)).run().to_arrow().to_pylist()
    assert sorted(row["d"] for row in found) == [1, 2]


@pytest.mark.parametrize("dead", [None, "dead"])
def test_arrow_bodies_give_the_same_rows_whether_all_columns_are_read_or_those_that_are_looked_at(
    client: headrace.Client, dead: str | None
) -> None:
    body = arrow_stream(pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [0.5, 1.5, 2.5]}))
    client.queue("rows", create=True).send(body, attributes={"content-type": ARROW_TYPE})
    rows = hs.queue("rows", schema="a bigint, b string, c double")
    pipeline = hs.pipeline("p", hs.sql("SELECT b FROM rows WHERE a > 1", rows=rows), dead_letter_queue=dead)
    assert pipeline.run(client, until="idle").to_arrow().to_pydict() == {"b": ["y", "z"]}
