"""UNION ALL: every row, under the names of the first."""

from __future__ import annotations

from headrace.stream.engine.project import UnionOperator
from headrace.stream.physical import Union
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.driving import Driver, table

FIRST = Schema.of("a bigint, x string")
SECOND = Schema.of("b int, y string")


def uniting() -> Driver:
    return Driver(lambda context: UnionOperator(Union((0, 1), FIRST, None), "union-1", [FIRST, SECOND], context))


def test_columns_go_by_place_and_take_the_first_ones_name_and_type() -> None:
    with uniting() as driver:
        found = driver.operator.process(1, table(SECOND, [(2, "b")]), 0)
        assert found is not None
        assert found.schema.equals(FIRST.arrow())
        assert driver.step({0: table(FIRST, [(1, "a")]), 1: table(SECOND, [(1, "a")])}) == [(1, "a"), (1, "a")]


def test_rows_keep_their_origin() -> None:
    with uniting() as driver:
        assert driver.step({1: table(SECOND, [(2, "b")]).append_column(ORIGIN, [[5]])}) == [(2, "b", 5)]


def test_its_watermark_is_the_slower_inputs() -> None:
    with uniting() as driver:
        assert driver.operator.watermark([3, 5]) == 3
