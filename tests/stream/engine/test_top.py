"""Top-N: per window once, when it has closed; for ever, each change as it comes."""

from __future__ import annotations

import dataclasses
import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.engine.operator import END
from headrace.stream.engine.top import TopOperator
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import Top
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.driving import Driver, Row, S, arrivals, drive, ordered, table

ROWS = Schema.of("k bigint, t timestamp, id string")
RANKED = Schema.of("k bigint, t timestamp, id string, place int")

WINDOWS = Top(0, ("t", "k"), (("id", True, False),), 2, "place", per_window=True, schema=RANKED, time="t", step="best")
FOREVER = Top(0, ("k",), (("id", True, False),), 2, "place", per_window=False, schema=RANKED, time=None, step="best")


def ranking(node: Top) -> Driver:
    return Driver(lambda context: TopOperator(node, "top-1", [ROWS], context))


def best(rows: list[Row], partition: tuple[int, ...], limit: int, by: int = 2) -> list[Row]:
    """The greatest of each partition by a column, NULLs not there; among equals the first."""
    found: dict[Row, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row[by], reverse=True):
        found.setdefault(tuple(row[place] for place in partition), []).append(row)
    return [(*row, rank) for group in found.values() for rank, row in enumerate(group[:limit], 1)]


@settings(max_examples=20)
@given(steps=arrivals(), restarts=st.integers(0, 255))
def test_any_batching_gives_the_same_windows(steps: list[tuple[list[Row], ...]], restarts: int) -> None:
    with ranking(WINDOWS) as driver:
        found = drive(driver, [ROWS], steps, restarts)
        assert ordered(found) == ordered(best([row for step in steps for row in step[0]], (1, 0), 2))
        assert driver.stored == {}


@settings(max_examples=25)
@given(steps=arrivals(size=60), limit=st.integers(1, 3), restarts=st.integers(0, 255))
def test_the_last_word_on_each_partition_is_its_best(
    steps: list[tuple[list[Row], ...]], limit: int, restarts: int
) -> None:
    # By time, so that there are equals: the first of them wins, also after a restart.
    node = dataclasses.replace(FOREVER, limit=limit, order=(("t", True, False),))
    with ranking(node) as driver:
        seen: list[Row] = []
        shown: dict[object, list[Row]] = {}
        for number, (rows,) in enumerate(steps):
            if restarts >> number & 1:
                driver.restart()
            before = best(seen, (0,), limit, by=1)
            seen += rows
            after = best(seen, (0,), limit, by=1)
            found = driver.step({0: table(ROWS, rows)} if rows else {})
            changed = {row[0] for row in after if row not in before}
            assert {row[0] for row in found} == changed  # no partition that stayed as it was
            for key in changed:
                shown[key] = [row for row in found if row[0] == key]
        assert ordered(row for rows in shown.values() for row in rows) == ordered(best(seen, (0,), limit, by=1))


def test_a_window_comes_out_when_the_watermark_has_passed_its_time() -> None:
    with ranking(WINDOWS) as driver:
        driver.step({0: table(ROWS, [(1, S, "a"), (1, S, "b"), (1, S, "c"), (1, 2 * S, "d")])})
        assert driver.operator.pending() == 2 * S + 1
        assert driver.step({}, S) == []
        assert driver.step({}, S + 1) == [(1, S, "c", 1), (1, S, "b", 2)]
        assert driver.step({}, END) == [(1, 2 * S, "d", 1)]
        assert driver.operator.pending() is None


def test_rows_of_a_window_that_came_out_are_late() -> None:
    with ranking(WINDOWS) as driver:
        driver.step({}, 10 * S)
        assert driver.step({0: table(ROWS, [(1, 10 * S - 1, "late"), (1, None, "timeless")])}) == []
        assert [reason for _, reason in driver.late] == [
            "t is NULL, so the row has no event time",
            "t is older than the watermark, 1970-01-01 00:00:10",
        ]


def test_nulls_stand_where_the_order_says() -> None:
    first = dataclasses.replace(FOREVER, order=(("id", False, True),), limit=1)
    last = dataclasses.replace(FOREVER, order=(("id", False, False),), limit=1)
    rows = {0: table(ROWS, [(1, S, "a"), (1, S, None)])}
    with ranking(first) as driver:
        assert driver.step(rows) == [(1, S, None, 1)]
    with ranking(last) as driver:
        assert driver.step(rows) == [(1, S, "a", 1)]


def test_nan_is_greater_than_any_number_and_less_than_nothing() -> None:
    numbers = Schema.of("k bigint, x double")
    rows = table(numbers, [(1, 5.0), (1, float("nan")), (1, None), (1, -1.0)])
    for descending, expected in ((True, ["nan", "5.0", "-1.0", "None"]), (False, ["-1.0", "5.0", "nan", "None"])):
        node = Top(0, ("k",), (("x", descending, False),), 4, None, per_window=False, schema=numbers, time=None)
        with Driver(functools.partial(TopOperator, node, "top-1", [numbers])) as driver:
            assert [str(row[1]) for row in driver.step({0: rows})] == expected


def test_an_order_by_what_is_no_single_value_is_refused() -> None:
    lists = Schema.of("k bigint, xs array<int>")
    node = Top(0, ("k",), (("xs", False, True),), 1, None, per_window=False, schema=lists, time=None)
    with pytest.raises(UnsupportedQuery, match="not a single value"):
        Driver(functools.partial(TopOperator, node, "top-1", [lists]))


def test_without_a_rank_the_rows_come_as_they_are() -> None:
    with ranking(dataclasses.replace(FOREVER, rank=None, schema=ROWS, limit=1)) as driver:
        rows = table(ROWS, [(1, S, "a"), (1, S, "b")]).append_column(ORIGIN, [[0, 1]])
        assert driver.step({0: rows}) == [(1, S, "b")]


def test_without_a_partition_all_rows_are_one() -> None:
    with ranking(dataclasses.replace(FOREVER, partition=(), limit=1)) as driver:
        assert driver.step({0: table(ROWS, [(1, S, "a"), (2, S, "b")])}) == [(2, S, "b", 1)]
        assert driver.step({0: table(ROWS, [(3, S, "a")])}) == []


def test_state_is_bounded_by_the_limit_and_few_parts() -> None:
    with ranking(FOREVER) as driver:
        for number in range(150):
            driver.step({0: table(ROWS, [(1, S, f"{number:04}")])})
        assert len(driver.stored) < 40
        assert driver.store.open("top-1", ("k",), ROWS.arrow()).rows() < 50  # 2, and those since the last merge
        assert driver.step({0: table(ROWS, [(1, S, "0000")])}) == []
