"""Parquet folders as sinks: what appears is whole, and appears once."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.stream.errors import SinkFailed, UnsupportedQuery
from headrace.stream.plan import FileSource, ParquetSink
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sinks.parquet import ParquetOutbox
from headrace.stream.sources.files import FileReader

SCHEMA = Schema.of("n bigint, t timestamp, g string")
ROWS = pa.table({"n": [1, 2, 3], "t": pa.array([0, 1, 2], pa.timestamp("us")), "g": ["a", None, "a"]})


def outbox(folder: Path, *partition_by: str, owner: str = "p.0.0", schema: Schema = SCHEMA) -> ParquetOutbox:
    return ParquetOutbox(ParquetSink(folder, partition_by), schema, owner=owner)


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith("."))


def read(folder: Path, schema: Schema) -> pa.Table:
    reader = FileReader(FileSource("f", str(folder), "parquet", schema))
    reader.open(None)
    chunks = []
    while (chunk := reader.read(1_000, 0)) is not None:
        chunks.append(chunk.rows.drop_columns([ORIGIN]))
    return pa.concat_tables(chunks)


def test_nothing_is_seen_before_the_delivery_and_a_repeat_changes_nothing(tmp_path: Path) -> None:
    sink = outbox(tmp_path / "out")
    staged = sink.stage(1, ROWS)
    assert visible(tmp_path) == []
    sink.deliver(1, staged)
    (path,) = visible(tmp_path)
    before = path.stat().st_mtime_ns
    sink.deliver(1, staged)
    assert visible(tmp_path) == [path] and path.stat().st_mtime_ns == before
    assert path.name.startswith("p.0.0.00000001.")
    assert read(tmp_path / "out", SCHEMA).equals(ROWS)


def test_timestamps_say_that_they_are_utc(tmp_path: Path) -> None:
    sink = outbox(tmp_path)
    sink.deliver(1, sink.stage(1, ROWS))
    assert pq.read_schema(visible(tmp_path)[0]).field("t").type == pa.timestamp("us", "UTC")


def test_a_reader_may_take_a_file_away(tmp_path: Path) -> None:
    sink = outbox(tmp_path)
    staged = sink.stage(1, ROWS)
    sink.deliver(1, staged)
    visible(tmp_path)[0].unlink()
    sink.deliver(1, staged)
    assert visible(tmp_path) == []


def test_stale_files_are_collected_and_only_one_s_own(tmp_path: Path) -> None:
    sink = outbox(tmp_path, "g")
    kept, _stale = sink.stage(1, ROWS), sink.stage(2, ROWS)
    others = [outbox(tmp_path, owner=owner).stage(1, ROWS) for owner in ("p.0.1", "p.0.0-x", "pp.0.0")]
    outbox(tmp_path, "g").collect([kept])
    assert len(list(tmp_path.rglob("*.tmp"))) == 2 + len(others)
    sink.deliver(1, kept)
    assert read(tmp_path, SCHEMA).num_rows == 3


@pytest.mark.parametrize("value", ["a/b", "..", "", " =%", "é", ".x", "a" * 50, "x\ny"])
def test_a_partition_s_value_is_read_back_whatever_it_is(tmp_path: Path, value: str) -> None:
    sink = outbox(tmp_path, "g")
    sink.deliver(1, sink.stage(1, pa.table({"n": [1, 2], "t": ROWS.column("t").slice(0, 2), "g": [value, None]})))
    assert all(path.parent.parent == tmp_path for path in visible(tmp_path))
    assert sorted(read(tmp_path, SCHEMA).column("g").to_pylist(), key=str) == sorted([value, None], key=str)


def test_partitions_of_every_kind_are_read_back(tmp_path: Path) -> None:
    schema = Schema.of("n bigint, a date, b timestamp, c boolean, d decimal(5,2), e int")
    moment = dt.datetime.fromisoformat("2013-01-01T05:00:00.000001")
    row = {"n": 1, "a": dt.date(2013, 1, 1), "b": moment, "c": True, "d": Decimal("1.50"), "e": -1}
    rows = pa.Table.from_pylist([row, {**row, "n": 2, "c": None}], schema=schema.arrow())
    sink = outbox(tmp_path, "a", "b", "c", "d", "e", schema=schema)
    sink.deliver(1, sink.stage(1, rows))
    found = read(tmp_path, schema)
    assert sorted(found.to_pylist(), key=lambda found: int(found["n"])) == rows.to_pylist()


def test_columns_that_cannot_partition_are_refused(tmp_path: Path) -> None:
    for columns, schema in ((("x",), "n bigint"), (("d",), "n bigint, d double"), (("n",), "n bigint")):
        with pytest.raises(UnsupportedQuery):
            outbox(tmp_path, *columns, schema=Schema.of(schema))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkFailed, match="file"):
        outbox(tmp_path / "file")
    sink = outbox(tmp_path / "out")
    (tmp_path / "out").rmdir()
    (tmp_path / "out").write_text("")
    with pytest.raises(SinkFailed, match="written"):
        sink.stage(1, ROWS)
