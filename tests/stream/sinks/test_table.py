"""SQL tables as sinks: a batch is one transaction, and counts once."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.stream import limits
from headrace.stream.databases import open_database
from headrace.stream.errors import ExtraMissing, SinkFailed, UnsupportedQuery
from headrace.stream.formats.decoding import JsonDecoder
from headrace.stream.plan import TableRef, TableSink
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sinks.table import BATCHES, TableOutbox
from headrace.stream.sources.tables import load_table
from headrace.testing.postgres import find_programs, server

SCHEMA = Schema.of('`k"1` string, `n%s` bigint')
TYPES = Schema.of(
    "a boolean, b tinyint, c bigint, d float, e double, f string, g binary, h date, i timestamp, j decimal(20,4),"
    " k array<int>, l map<string,string>, m struct<x:int>"
)
BODY = (
    b'{"a":true,"b":1,"c":9007199254740993,"d":0.5,"e":"NaN","f":"\xc3\xa9\'","g":"AP8=","h":"2013-01-01",'
    b'"i":"2013-01-01T05:00:00.000001Z","j":1234567890123456.7891,"k":[1,null],"l":{"x":"y"},"m":{"x":1}}'
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database, in a file or of a PostgreSQL that this test process has started."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/x.db"
        return
    if find_programs() is None:
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    database = open_database(server().url())
    name = f"test_{uuid.uuid4().hex}"
    database.run(f"CREATE DATABASE {name}")
    yield server().url(name)
    database.run(f"DROP DATABASE {name} WITH (FORCE)")
    database.close()


def outbox(url: str, *key: str, schema: Schema = SCHEMA, owner: str = "p.0.0") -> TableOutbox:
    return TableOutbox(TableSink(url, 'the "table', key), schema, owner=owner)


def rows_of(*rows: tuple[str, int]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA.arrow())


def found(url: str, schema: Schema = SCHEMA) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = load_table(TableRef("t", schema, f"{url}?table=the%20%22table")).to_pylist()
    return table


def pairs(url: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row.values()) for row in found(url))


def test_a_batch_that_comes_again_counts_once(url: str) -> None:
    sink = outbox(url)
    first, second = sink.stage(1, rows_of(("a", 1), ("a", 1))), sink.stage(2, rows_of(("b", 2)))
    for batch, staged in ((1, first), (2, second), (1, first), (2, second)):
        sink.deliver(batch, staged)
    sink.close()
    again = outbox(url)
    again.deliver(2, second)
    again.close()
    assert pairs(url) == [("a", 1), ("a", 1), ("b", 2)]


def test_with_a_key_the_last_row_stays(url: str) -> None:
    sink = outbox(url, 'k"1')
    sink.deliver(1, sink.stage(1, rows_of(("a", 1), ("b", 1), ("a", 2))))
    sink.deliver(2, sink.stage(2, rows_of(("b", 3))))
    sink.close()
    assert pairs(url) == [("a", 2), ("b", 3)]


def test_a_table_of_keys_alone_keeps_each_once(url: str) -> None:
    sink = outbox(url, *SCHEMA.names)
    sink.deliver(1, sink.stage(1, rows_of(("a", 1), ("a", 1))))
    sink.close()
    assert pairs(url) == [("a", 1)]


def test_after_a_reset_numbers_begin_anew_and_nothing_is_dropped(url: str) -> None:
    sink = outbox(url)
    for batch in (7, 8):
        sink.deliver(batch, sink.stage(batch, rows_of(("old", batch))))
    sink.deliver(1, sink.stage(1, rows_of(("new", 1))))
    sink.close()
    assert pairs(url) == [("new", 1), ("old", 7), ("old", 8)]


def test_only_so_many_batches_are_remembered(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BATCHES_REMEMBERED", 3)
    sink, other = outbox(url), outbox(url, owner="p.0.1")
    other.deliver(1, other.stage(1, rows_of(("other", 1))))
    for batch in range(1, 11):
        sink.deliver(batch, sink.stage(batch, rows_of(("a", batch))))
    sink.close()
    other.close()
    database = open_database(url)
    kept = database.run(f"SELECT owner, batch FROM {BATCHES} ORDER BY owner, batch")
    database.close()
    assert kept == [*(("p.0.0", batch) for batch in (7, 8, 9, 10)), ("p.0.1", 1)]


def test_a_batch_that_fails_changes_nothing_and_can_come_again(url: str) -> None:
    sink = outbox(url, 'k"1')
    bad = pa.table([pa.array(["a", None]), pa.array([1, 2])], schema=SCHEMA.arrow())
    with pytest.raises(SinkFailed, match=r"(?i)null"):
        sink.deliver(1, sink.stage(1, bad))
    assert pairs(url) == []
    sink.deliver(1, sink.stage(1, rows_of(("a", 1))))
    sink.close()
    assert pairs(url) == [("a", 1)]


def test_every_type_is_read_back(url: str) -> None:
    rows = JsonDecoder(TYPES).decode([BODY, b"{}"]).rows.drop_columns([ORIGIN])
    sink = outbox(url, schema=TYPES)
    sink.deliver(1, sink.stage(1, rows))
    sink.close()
    assert sorted(map(str, found(url, TYPES))) == sorted(map(str, rows.to_pylist()))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedQuery, match="'x'"):
        outbox(f"sqlite:///{tmp_path}/x.db", "x")
    with pytest.raises(UnsupportedQuery, match="sqlite"):
        outbox("mysql://x")
    with pytest.raises(SinkFailed):
        outbox(f"sqlite:///{tmp_path}/none/x.db")
    (tmp_path / "x.db").write_bytes(b"no database" * 100)
    with pytest.raises(SinkFailed):
        outbox(f"sqlite:///{tmp_path}/x.db")


def test_a_table_that_has_other_columns_is_an_error(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute('CREATE TABLE "the ""table" (z)')
    connection.close()
    sink = outbox(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(SinkFailed, match="column"):
        sink.deliver(1, sink.stage(1, rows_of(("a", 1))))
    sink.close()


def test_postgresql_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ExtraMissing, match=r"headrace\[postgres\]"):
        outbox("postgresql://localhost/x")
