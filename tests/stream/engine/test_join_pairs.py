"""Pairs by kernels: the same as DuckDB's, for keys, times and conditions of every kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.engine.join import EquiJoin, equi_join_of
from headrace.stream.physical import Join
from headrace.stream.schema import Schema
from tests.stream.engine.engines import Row, ordered, rows_of, table

LEFT = Schema.of("a bigint, t timestamp, x string, f double")
RIGHT = Schema.of("b int, u timestamp, y string, g double")
BOTH = Schema((*LEFT.fields, *RIGHT.fields))
NODE = Join(0, 1, "inner", ("a",), ("b",), "t", "u", None, None, None, BOTH, "t", "joined")

SIDE = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.sampled_from("pqr"), st.sampled_from([0.0, -0.0, 1.0])),
    max_size=15,
)
KEYS = [(("a",), ("b",)), (("x",), ("y",)), (("a", "x"), ("b", "y")), ((), ())]
BOUNDS = [(None, None), (0, 0), (0, 2), (-3, None), (None, 1)]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def matching(**changed: object) -> EquiJoin | None:
    return equi_join_of(dataclasses.replace(NODE, **changed), LEFT, RIGHT)  # type: ignore[arg-type] # of the fields' types


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("condition", [None, '("a" >= 2)', "x <> y"])
@settings(max_examples=6)
@given(left=SIDE, right=SIDE)
def test_pairs_are_those_of_duckdb(
    connection: duckdb.DuckDBPyConnection,
    keys: tuple[tuple[str, ...], tuple[str, ...]],
    bounds: tuple[int | None, int | None],
    condition: str | None,
    left: list[Row],
    right: list[Row],
) -> None:
    found = matching(left_keys=keys[0], right_keys=keys[1], lower_us=bounds[0], upper_us=bounds[1], condition=condition)
    if found is None:
        assert not keys[0]
        assert bounds != (0, 0)
        return
    pairs = found.pairs(table(LEFT, left), table(RIGHT, right))
    terms = [f"{one} = {other}" for one, other in zip(*keys, strict=True)]
    terms += [] if bounds[0] is None else [f"epoch_us(u) - epoch_us(t) >= {bounds[0]}"]
    terms += [] if bounds[1] is None else [f"epoch_us(u) - epoch_us(t) <= {bounds[1]}"]
    terms += [condition] if condition else []
    connection.register("l", table(LEFT, left))
    connection.register("r", table(RIGHT, right))
    expected = connection.sql(f"FROM l JOIN r ON {' AND '.join(terms) or 'true'}").to_arrow_table()
    if pairs is None:
        assert expected.num_rows or condition or bounds != (None, None)
    else:
        assert ordered(rows_of(pairs)) == ordered(rows_of(expected))


def test_keys_whose_equality_is_not_that_of_their_bytes_are_left_to_duckdb() -> None:
    assert matching(left_keys=("f",), right_keys=("g",)) is None
    assert matching(left_keys=("x",), right_keys=("b",)) is None


def test_a_condition_that_kernels_do_not_have_is_left_to_duckdb() -> None:
    assert matching(condition="length(x) = 1") is None


def test_a_product_of_everything_is_left_to_duckdb() -> None:
    rows = [(1, place, "p", 0.0) for place in range(100)]
    found = matching(lower_us=0, upper_us=1)
    assert found is not None
    assert found.pairs(table(LEFT, rows), table(RIGHT, rows)) is None
    assert found.pairs(table(LEFT, rows), table(RIGHT, rows[:1])) is not None


def test_rows_that_come_in_pieces_are_paired_in_their_order() -> None:
    found = matching()
    assert found is not None
    left = pa.concat_tables([table(LEFT, [(1, place, "p", 0.0)]) for place in range(3)])
    pairs = found.pairs(left, table(RIGHT, [(1, 9, "q", 0.0), (2, 9, "q", 0.0)]))
    assert pairs is not None
    assert rows_of(pairs.select(["a", "t", "b"])) == [(1, 0, 1), (1, 1, 1), (1, 2, 1)]
