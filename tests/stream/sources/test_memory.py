"""Rows of the program as a source."""

from __future__ import annotations

import pyarrow as pa
import pytest

from headrace.stream.errors import SchemaInvalid
from headrace.stream.plan import MemorySource
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sources.open import open_reader


def source(*batches: list[int]) -> MemorySource:
    return MemorySource(
        "m", Schema.of("n bigint"), tuple(pa.table({"n": pa.array(rows, pa.int32())}) for rows in batches)
    )


def test_batches_come_in_order_and_no_chunk_holds_two() -> None:
    reader = open_reader(source([1, 2, 3], [], [4]), None, pipeline="p", slot=0)
    reader.open(None)
    chunks = []
    while (chunk := reader.read(2, 0)) is not None:
        chunks.append(chunk)
    assert [chunk.rows.column("n").to_pylist() for chunk in chunks] == [[1, 2], [3], [4]]
    assert [chunk.rows.column(ORIGIN).to_pylist() for chunk in chunks] == [[0, 1], [0], [0]]
    assert reader.finished and reader.progress().lag == 0


def test_a_position_goes_on_behind_its_chunk() -> None:
    given = source([1, 2, 3], [4])
    reader = open_reader(given, None, pipeline="p", slot=0)
    reader.open(None)
    rest = []
    for _ in range(3):
        chunk = reader.read(2, 0)
        assert chunk is not None
        again = open_reader(given, None, pipeline="p", slot=0)
        again.open(chunk.position)
        found = again.read(10, 0)
        rest.append(found.rows.column("n").to_pylist() if found else None)
        assert again.progress().done + (again.progress().lag or 0) == 4
    assert rest == [[3], [4], None]


def test_a_dead_row_is_itself_as_json() -> None:
    reader = open_reader(source([1, 2], [3]), None, pipeline="p", slot=0)
    reader.open(None)
    reader.read(10, 0)
    chunk = reader.read(10, 0)
    assert chunk is not None
    dead = chunk.origins.dead(0, "why", "step")
    assert (dead.body, dead.message_id) == (b'{"n":3}', "m#2")


def test_rows_of_another_schema_are_refused() -> None:
    with pytest.raises(SchemaInvalid, match="'n'"):
        open_reader(MemorySource("m", Schema.of("n bigint"), (pa.table({"n": ["x"]}),)), None, pipeline="p", slot=0)
