"""Parquet files as a source."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.stream.errors import SourceFailed
from headrace.stream.plan import FileSource
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sources.base import Chunk
from headrace.stream.sources.files import FileReader


def read_all(path: Path, schema: str = "n bigint", *, rows_max: int = 10, position: bytes | None = None) -> list[Chunk]:
    reader = FileReader(FileSource("files", str(path), "parquet", Schema.of(schema)))
    reader.open(position)
    chunks = []
    while (chunk := reader.read(rows_max, 0)) is not None:
        chunks.append(chunk)
    assert reader.finished
    reader.close()
    return chunks


def values(chunks: list[Chunk]) -> list[int]:
    return [number for chunk in chunks for number in chunk.rows.column("n").to_pylist()]


@pytest.mark.parametrize("rows_max", [1, 4, 7, 100])
def test_row_groups_are_read_in_order_and_from_every_position(tmp_path: Path, rows_max: int) -> None:
    pq.write_table(pa.table({"n": list(range(10))}), tmp_path / "a.parquet", row_group_size=4)
    pq.write_table(pa.table({"n": [10, 11]}), tmp_path / "b.parquet")
    chunks = read_all(tmp_path, rows_max=rows_max)
    assert values(chunks) == list(range(12))
    assert all(len(chunk.rows) <= rows_max for chunk in chunks)
    for number, chunk in enumerate(chunks):
        assert values(read_all(tmp_path, rows_max=rows_max, position=chunk.position)) == values(chunks[number + 1 :])


def test_files_of_nearly_a_batch_are_not_cut_up_and_small_ones_fill_one(tmp_path: Path) -> None:
    for number in range(4):
        pq.write_table(pa.table({"n": [number] * 9}), tmp_path / f"{number}.parquet")
    assert [len(chunk.rows) for chunk in read_all(tmp_path, rows_max=10)] == [9, 9, 9, 9]
    assert [len(chunk.rows) for chunk in read_all(tmp_path, rows_max=20)] == [18, 18]
    assert [len(chunk.rows) for chunk in read_all(tmp_path, rows_max=16)] == [16, 16, 4]


def test_columns_are_matched_by_name_and_cast(tmp_path: Path) -> None:
    table = pa.table(
        {
            "other": ["x"],
            "n": pa.array([1], pa.int8()),
            "t": pa.array([1_000_000_000], pa.timestamp("ns", "Asia/Tokyo")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (chunk,) = read_all(tmp_path, "t timestamp, missing string, n bigint")
    moment = dt.datetime.fromisoformat("1970-01-01T00:00:01")
    assert chunk.rows.to_pylist() == [{"t": moment, "missing": None, "n": 1, ORIGIN: 0}]


def test_rows_without_a_value_that_must_be_are_dead(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, None, 3]}), tmp_path / "a.parquet")
    (chunk,) = read_all(tmp_path, "n bigint NOT NULL")
    assert values([chunk]) == [1, 3]
    assert [(dead.body, dead.message_id) for dead in chunk.dead] == [(b'{"n":null}', f"{tmp_path}/a.parquet#1")]
    assert chunk.origins.dead(2, "why", "").body == b'{"n":3}'


def test_partitions_are_columns(tmp_path: Path) -> None:
    for folder, number in {"day=2013-01-02": 2, "day=2013-01-01": 1, "day=__HIVE_DEFAULT_PARTITION__": 3}.items():
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"n": [number]}), tmp_path / folder / "a.parquet")
    chunks = read_all(tmp_path, "n bigint, day date")
    days = [day for chunk in chunks for day in chunk.rows.column("day").to_pylist()]
    assert (values(chunks), days) == ([1, 2, 3], [dt.date(2013, 1, 1), dt.date(2013, 1, 2), None])


def test_a_file_of_another_schema_or_none_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceFailed, match="'n' is string"):
        read_all(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceFailed, match="no Parquet file"):
        read_all(tmp_path)


def test_a_file_that_was_written_anew_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": list(range(20))}), tmp_path / "a.parquet")
    chunk = read_all(tmp_path)[0]
    pq.write_table(pa.table({"n": list(range(2_000))}), tmp_path / "a.parquet")
    with pytest.raises(SourceFailed, match="rewritten"):
        read_all(tmp_path, position=chunk.position)
