"""Dedup: the first row of each key, for a while, however rows are cut into batches."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.engine.dedup import DedupOperator
from headrace.stream.physical import Dedup
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.driving import Driver, Row, S, arrivals, drive, table

ROWS = Schema.of("k bigint, t timestamp, id string")
BASE = Dedup(0, ("k",), "t", 5 * S, ROWS, "once")


def deduping(node: Dedup = BASE) -> Driver:
    return Driver(lambda context: DedupOperator(node, "dedup-1", [ROWS], context))


def expected(rows: list[Row], within_us: int) -> list[Row]:
    """One row after the other: let through unless one of its key that was let through is near."""
    passed: list[Row] = []
    for row in rows:
        if not any(row[0] == other[0] and abs(row[1] - other[1]) <= within_us for other in passed):
            passed.append(row)
    return passed


@settings(max_examples=30)
@given(steps=arrivals(), within_us=st.sampled_from([0, S, 3 * S, 5 * S, 60 * S]), restarts=st.integers(0, 255))
def test_any_batching_lets_the_same_rows_through(
    steps: list[tuple[list[Row], ...]], within_us: int, restarts: int
) -> None:
    with deduping(dataclasses.replace(BASE, within_us=within_us)) as driver:
        assert drive(driver, [ROWS], steps, restarts) == expected([row for step in steps for row in step[0]], within_us)
        assert driver.late == []
        assert driver.stored == {}


def test_a_row_exactly_at_the_bound_is_a_duplicate_and_one_beyond_is_not() -> None:
    with deduping() as driver:
        rows = [(1, 10 * S, "first"), (1, 15 * S, "duplicate"), (1, 15 * S + 1, "new"), (1, 5 * S, "older duplicate")]
        assert [row[2] for row in driver.step({0: table(ROWS, rows)})] == ["first", "new"]


def test_the_first_to_come_is_let_through_though_an_older_one_follows() -> None:
    with deduping() as driver:
        assert len(driver.step({0: table(ROWS, [(1, 2 * S, "came first")])})) == 1
        assert driver.step({0: table(ROWS, [(1, S, "is older")])}) == []


def test_null_is_a_key_like_others() -> None:
    with deduping() as driver:
        assert len(driver.step({0: table(ROWS, [(None, S, "a"), (None, S, "b"), (1, S, "c")])})) == 2
        assert driver.step({0: table(ROWS, [(None, S, "d")])}) == []


def test_a_key_is_forgotten_when_no_duplicate_of_it_can_come() -> None:
    with deduping() as driver:
        driver.step({0: table(ROWS, [(1, 999_999, "a")])}, S)
        assert len(driver.stored) == 1
        driver.step({}, 6 * S)
        assert driver.stored == {}


def test_late_rows_and_rows_without_a_time_are_refused_with_the_reason() -> None:
    with deduping() as driver:
        driver.step({}, 10 * S)
        assert driver.step({0: table(ROWS, [(1, S, "late"), (1, None, "timeless")])}) == []
        assert driver.late == [
            ([(1, None, "timeless")], "t is NULL, so the row has no event time"),
            ([(1, S, "late")], "t is older than the watermark, 1970-01-01 00:00:10"),
        ]


def test_rows_keep_their_origin() -> None:
    with deduping() as driver:
        rows = table(ROWS, [(1, S, "a"), (1, S, "b"), (2, S, "c")])
        rows = rows.append_column(ORIGIN, [[7, 8, 9]])
        assert driver.step({0: rows}) == [(1, S, "a", 7), (2, S, "c", 9)]
