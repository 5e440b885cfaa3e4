"""Tables that stand still."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.stream.errors import SchemaInvalid, SourceFailed, UnsupportedQuery
from headrace.stream.plan import TableRef
from headrace.stream.schema import Schema
from headrace.stream.sources.tables import load_table

SCHEMA = Schema.of("code string, n bigint")
ROWS = [{"code": "a", "n": 1}, {"code": None, "n": 2}]


def test_the_program_s_rows_are_checked() -> None:
    table = load_table(TableRef("t", SCHEMA, data=pa.table({"n": pa.array([1, 2], pa.int8()), "code": ["a", None]})))
    assert table.to_pylist() == ROWS
    with pytest.raises(SchemaInvalid, match="'t'"):
        load_table(TableRef("t", SCHEMA, data=pa.table({"n": ["x"]})))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_files_are_read_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "t.parquet":
        pq.write_table(pa.table({"code": ["a", None], "n": [1, 2]}), path)
    else:
        path.write_text("n,code\n1,a\n2,\n" if name == "t.csv" else '{"n":1,"code":"a"}\n{"n":2}\n')
    assert load_table(TableRef("t", SCHEMA, str(path))).to_pylist() == ROWS


def test_sqlite_values_become_the_schema_s_types(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE "a b" (code TEXT, n INTEGER, t TEXT, k INTEGER, m TEXT, d REAL, l TEXT, y TEXT)')
    connection.execute(
        "INSERT INTO \"a b\" VALUES ('a', 1, '2013-01-01 05:00:00', 1, '1.50', 2, '[1,2]', '2013-01-01')"
    )
    connection.commit()
    connection.close()
    schema = Schema.of("l array<int>, t timestamp, n bigint, k boolean, m decimal(10,2), d double, y date, code string")
    (row,) = load_table(TableRef("t", schema, f"sqlite:///{path}?table=a%20b")).to_pylist()
    assert row == {
        "l": [1, 2], "t": dt.datetime.fromisoformat("2013-01-01T05:00:00"), "n": 1, "k": True, "m": Decimal("1.50"),
        "d": 2.0, "y": dt.date(2013, 1, 1), "code": "a",
    }  # fmt: skip


@pytest.mark.parametrize("columns", ["code string, absent string", "code array<int>"])
def test_an_sql_table_that_is_not_of_the_schema_is_an_error(tmp_path: Path, columns: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE t (code TEXT)")
        connection.execute("INSERT INTO t VALUES ('[1,')")
        connection.commit()
    with pytest.raises(SourceFailed, match="'t'"):
        load_table(TableRef("t", Schema.of(columns), f"sqlite:///{tmp_path}/x.db?table=t"))


def test_what_cannot_be_read_is_an_error_that_names_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("code,n\na,x\n")
    for url in (f"{tmp_path}/t.csv", f"{tmp_path}/none.csv", f"sqlite:///{tmp_path}/x.db?table=none"):
        with pytest.raises(SourceFailed, match=r"none|'t'"):
            load_table(TableRef("t", SCHEMA, url))
    for url in ("t.xlsx", "sqlite:///x.db", "mysql://x?table=t"):
        with pytest.raises(UnsupportedQuery):
            load_table(TableRef("t", SCHEMA, url))
