from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace.stream import physical, plan
from headrace.stream.engine.operator import RejectedRows
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.engines import Running, rows_of, source, table

INPUT = Schema.of("n bigint, text string")
OUTPUT = Schema.of("n bigint NOT NULL, text string")
ROWS = table(INPUT, [(1, "a"), (2, "b"), (3, None)], origin=True)


def run(kind: Any, call: Callable[[Any], Any], rows: pa.Table = ROWS) -> tuple[list[Any], list[RejectedRows]]:
    read = source(INPUT, None)
    schema = INPUT if kind == "filter" else OUTPUT
    step = plan.PythonStep("mine", kind, call, schema, read.source)
    with Running([read, physical.Python(0, step, schema, None)]) as running:
        found = running.step(rows)
    return rows_of(found.output), found.dead


def origins(dead: list[RejectedRows]) -> list[int]:
    return [origin for refused in dead for origin in refused.rows[ORIGIN].to_pylist()]


def test_map_gives_a_row_and_what_is_left_out_is_null() -> None:
    found, dead = run("map", lambda row: {"n": row["n"] * 2})
    assert found == [(2, None), (4, None), (6, None)]
    assert not dead


def test_a_row_whose_call_raises_is_dead_alone() -> None:
    found, dead = run("map", lambda row: {"n": row["n"], "text": row["text"].upper()})
    assert found == [(1, "A"), (2, "B")]
    assert origins(dead) == [2]
    assert dead[0].reason == "AttributeError: 'NoneType' object has no attribute 'upper'"
    assert dead[0].step == "mine"
    assert dead[0].rows.select(INPUT.names).to_pylist() == [{"n": 3, "text": None}]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"n": "x"}, "column 'n' is not bigint: "),
        ({"n": 1.5}, "column 'n' is not bigint: "),
        ({"n": None}, "column 'n' is NULL, and is declared NOT NULL"),
        ({"text": "x"}, "column 'n' is NULL, and is declared NOT NULL"),
        ({"n": 1, "text": 7}, "column 'text' is not string: "),
        ({"n": 1, "m": 2}, "column 'm' is not in the declared schema (n bigint, text string)"),
        ([1], "the step gave a list, not a dict"),
        (None, "the step gave a NoneType, not a dict"),
    ],
)
def test_a_row_that_does_not_fit_the_schema_is_dead_and_the_column_is_named(given: Any, reason: str) -> None:
    found, dead = run("map", lambda row: given if row["n"] == 2 else row)
    assert found == [(1, "a"), (3, None)]
    assert origins(dead) == [1]
    assert dead[0].reason.startswith(reason)


def test_flat_map_gives_any_number_of_rows_and_all_keep_their_origin() -> None:
    def spread(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"n": number} for number in range(row["n"] - 1)]

    read = source(INPUT, None)
    first = plan.PythonStep("first", "flat_map", spread, OUTPUT, read.source)
    second = plan.PythonStep("second", "map", lambda row: 1 // (row["n"] - 1) and row, OUTPUT, first)
    with Running([read, physical.Python(0, first, OUTPUT, None), physical.Python(1, second, OUTPUT, None)]) as running:
        step = running.step(ROWS)
    assert step.dead[-1].step == "second"
    assert origins(step.dead) == [2]


def test_a_row_of_which_one_result_does_not_fit_is_dead_with_all_of_them() -> None:
    found, dead = run("flat_map", lambda row: [{"n": 1}, {"n": None if row["n"] == 2 else 2}])
    assert [n for n, _ in found] == [1, 2, 1, 2]
    assert origins(dead) == [1]


def test_filter_keeps_what_is_true() -> None:
    found, dead = run("filter", lambda row: row["n"] != 2 and (row["text"] or 1 / 0))
    assert found == [(1, "a")]
    assert origins(dead) == [2]


def test_batches_are_called_once_and_their_columns_may_stand_in_any_order() -> None:
    calls = []

    def double(rows: pa.Table) -> pa.Table:
        calls.append(rows.num_rows)
        return pa.table({"text": rows["text"], "n": pc.multiply(rows["n"], 2).cast(pa.int32())})

    assert run("batches", double) == ([(2, "a"), (4, "b"), (6, None)], [])
    assert calls == [3]


def test_a_batch_that_raises_is_tried_a_row_at_a_time() -> None:
    def picky(rows: pa.Table) -> pa.RecordBatch:
        if 2 in rows["n"].to_pylist():
            raise ValueError("not 2")
        return rows.to_batches()[0]

    found, dead = run("batches", picky)
    assert found == [(1, "a"), (3, None)]
    assert origins(dead) == [1]
    assert dead[0].reason == "ValueError: not 2"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (7, "the step gave a int, not an Arrow table"),
        (pa.table({"n": [1]}), "the step gave columns n; declared are n bigint, text string"),
        (pa.table({"n": ["x"], "text": ["y"]}), "column 'n' is not bigint: "),
        (pa.table({"n": pa.nulls(1, pa.int64()), "text": ["y"]}), "column 'n' is NULL"),
    ],
)
def test_a_batch_that_does_not_fit_the_schema_is_dead(given: Any, reason: str) -> None:
    found, dead = run("batches", lambda _: given)
    assert found == []
    assert origins(dead) == [0, 1, 2]
    assert dead[0].reason.startswith(reason)


def test_no_rows_are_given_when_there_are_none() -> None:
    assert run("map", lambda row: row, ROWS.slice(0, 0)) == ([], [])
