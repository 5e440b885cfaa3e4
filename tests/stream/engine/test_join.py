"""Joins: each pair once, however its rows come; the unmatched once, as soon as it is sure; state that is forgotten."""

from __future__ import annotations

import dataclasses
from typing import Literal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.engine.join import JoinOperator
from headrace.stream.engine.operator import END, NEVER
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import Join
from headrace.stream.schema import Schema
from tests.stream.engine.driving import Driver, Row, S, arrivals, drive, ordered, rows_of, table

LEFT = Schema.of("a bigint, t timestamp, x string")
RIGHT = Schema.of("b int, u timestamp, y string")
BOTH = Schema.of("a bigint, t timestamp, x string, b int, u timestamp, y string")

Kind = Literal["inner", "left", "right", "full"]
KINDS: tuple[Kind, ...] = ("inner", "left", "right", "full")

BASE = Join(0, 1, "inner", ("a",), ("b",), "t", "u", 0, 5 * S, None, BOTH, "t", "joined")


def joining(node: Join, *, kernels: bool = True) -> Driver:
    return Driver(lambda context: JoinOperator(node, "join-1", [LEFT, RIGHT], context, kernels=kernels))


def expected(node: Join, steps: list[tuple[list[Row], ...]]) -> list[Row]:
    """All rows joined at once, by DuckDB."""
    on = [f"{left} = {right}" for left, right in zip(node.left_keys, node.right_keys, strict=True)]
    on += [] if node.lower_us is None else [f"epoch_us(u) - epoch_us(t) >= {node.lower_us}"]
    on += [] if node.upper_us is None else [f"epoch_us(u) - epoch_us(t) <= {node.upper_us}"]
    on += [f"({node.condition})"] if node.condition else []
    with duckdb.connect() as connection:
        connection.register("l", table(LEFT, [row for step in steps for row in step[0]]))
        connection.register("r", table(RIGHT, [row for step in steps for row in step[1]]))
        return rows_of(connection.sql(f"FROM l {node.kind} JOIN r ON {' AND '.join(on)}").to_arrow_table())


BOUNDS = [(0, 0), (0, 5 * S), (-2 * S, S), (2 * S, 4 * S), (-4 * S, -2 * S)]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(
    steps=arrivals(ports=2),
    bounds=st.sampled_from(BOUNDS),
    condition=st.sampled_from([None, "x < 'zz' AND length(y) = 3"]),
    restarts=st.integers(0, 255),
)
def test_any_batching_and_interleaving_gives_what_one_query_gives(
    kind: Kind, steps: list[tuple[list[Row], ...]], bounds: tuple[int, int], condition: str | None, restarts: int
) -> None:
    node = dataclasses.replace(BASE, kind=kind, lower_us=bounds[0], upper_us=bounds[1], condition=condition)
    with joining(node) as driver:
        assert ordered(drive(driver, [LEFT, RIGHT], steps, restarts)) == ordered(expected(node, steps))
        assert driver.late == []
        assert driver.stored == {}  # after the end nothing is remembered


@settings(max_examples=20)
@given(
    steps=arrivals(ports=2),
    bounds=st.sampled_from([(None, None), (0, None), (None, 5 * S)]),
    restarts=st.integers(0, 255),
)
def test_open_bounds_find_every_partner(
    steps: list[tuple[list[Row], ...]], bounds: tuple[int | None, int | None], restarts: int
) -> None:
    node = dataclasses.replace(BASE, lower_us=bounds[0], upper_us=bounds[1])
    with joining(node) as driver:
        assert ordered(drive(driver, [LEFT, RIGHT], steps, restarts)) == ordered(expected(node, steps))


@settings(max_examples=20)
@given(steps=arrivals(ports=2), kind=st.sampled_from(KINDS))
def test_no_row_comes_out_older_than_the_watermark(steps: list[tuple[list[Row], ...]], kind: Kind) -> None:
    node = dataclasses.replace(BASE, kind="left" if kind == "full" else kind, time="u" if kind == "right" else "t")
    place = 4 if kind == "right" else 1
    with joining(node) as driver:
        reached, greatest = NEVER, [NEVER, NEVER]
        for step in steps:
            for port, rows in enumerate(step):
                greatest[port] = max([greatest[port], *(row[1] - 3 * S for row in rows)])
            given_rows = {port: table((LEFT, RIGHT)[port], rows) for port, rows in enumerate(step)}
            found = driver.step(given_rows, min(greatest))
            # A row without a key has no partner, so it comes at once: no older than what the step began with.
            assert all(row[place] >= reached for row in found)
            reached = max(reached, driver.operator.watermark(greatest))


def test_null_keys_join_nothing() -> None:
    with joining(BASE) as driver:
        rows = {0: table(LEFT, [(None, S, "l")]), 1: table(RIGHT, [(None, S, "r")])}
        assert driver.step(rows) + driver.end() == []


def test_rows_that_are_done_are_forgotten_at_once() -> None:
    with joining(BASE) as driver:
        driver.step({0: table(LEFT, [(1, S, "l")]), 1: table(RIGHT, [(1, S, "r")])}, 0)
        assert len(driver.stored) == 2
        driver.step({}, 2 * S)
        assert len(driver.stored) == 1  # no left can come that an old right could meet; rights to come meet the left
        driver.step({}, 7 * S)
        assert driver.stored == {}


def test_a_late_row_is_refused_with_the_reason() -> None:
    with joining(BASE) as driver:
        driver.step({1: table(RIGHT, [(1, 12 * S, "r")])}, 10 * S)
        assert driver.step({0: table(LEFT, [(1, 10 * S, "in time"), (1, 10 * S - 1, "late")])}) != []
        assert driver.late == [([(1, 10 * S - 1, "late")], "t is older than the watermark, 1970-01-01 00:00:10")]


def test_rows_are_never_late_where_nothing_is_forgotten() -> None:
    with joining(dataclasses.replace(BASE, lower_us=None, upper_us=None)) as driver:
        driver.step({1: table(RIGHT, [(1, S, "r")])}, 10 * S)
        assert len(driver.step({0: table(LEFT, [(1, S, "old")])})) == 1
        assert driver.late == []


def test_an_unmatched_row_comes_when_its_last_partner_could_have_come() -> None:
    with joining(dataclasses.replace(BASE, kind="left")) as driver:
        driver.step({0: table(LEFT, [(1, S, "l")])}, 0)
        assert driver.operator.pending() == 6 * S + 1
        assert driver.step({}, 6 * S) == []
        assert driver.step({}, 6 * S + 1) == [(1, S, "l", None, None, None)]
        assert driver.step({}, END) == []


def test_an_unmatched_row_without_a_key_comes_at_once() -> None:
    with joining(dataclasses.replace(BASE, kind="full")) as driver:
        found = driver.step({0: table(LEFT, [(None, S, "l")]), 1: table(RIGHT, [(2, None, "r")])})
        assert found == [(None, S, "l", None, None, None), (None, None, None, 2, None, "r")]


def test_an_inner_join_holds_nothing_back() -> None:
    with joining(BASE) as driver:
        driver.step({0: table(LEFT, [(1, S, "l")])})
        assert driver.operator.pending() is None


@pytest.mark.parametrize(
    ("time", "lower_us", "upper_us", "reached"),
    [
        ("t", 0, 5 * S, 5 * S),
        ("u", 0, 5 * S, 10 * S),
        ("u", -2 * S, 0, 8 * S),
        ("t", -2 * S, -S, 10 * S),
        ("t", 0, None, NEVER),
        (None, 0, 5 * S, 10 * S),
    ],
)
def test_the_watermark_is_held_back_by_the_bounds(
    time: str | None, lower_us: int | None, upper_us: int | None, reached: int
) -> None:
    with joining(dataclasses.replace(BASE, time=time, lower_us=lower_us, upper_us=upper_us)) as driver:
        assert driver.operator.watermark([10 * S, 20 * S]) == reached
        assert driver.operator.watermark([NEVER, 20 * S]) == NEVER
        assert driver.operator.watermark([END, END]) == END


def test_an_outer_join_without_a_bound_is_refused() -> None:
    with pytest.raises(UnsupportedQuery, match="wait for its partner for ever"):
        joining(dataclasses.replace(BASE, kind="left", upper_us=None))


def test_a_join_without_keys_joins_by_time_alone() -> None:
    node = dataclasses.replace(BASE, left_keys=(), right_keys=(), lower_us=0, upper_us=S)
    with joining(node) as driver:
        rows = {0: table(LEFT, [(1, 0, "l"), (2, S, "m")]), 1: table(RIGHT, [(7, S, "r")])}
        assert [(row[2], row[5]) for row in driver.step(rows)] == [("l", "r"), ("m", "r")]


def test_state_that_is_kept_for_ever_stays_in_few_parts() -> None:
    with joining(dataclasses.replace(BASE, lower_us=None, upper_us=None)) as driver:
        for number in range(200):
            driver.step({0: table(LEFT, [(1, number, str(number))])})
        assert len(driver.stored) < 40
        driver.restart()
        found = driver.step({1: table(RIGHT, [(1, 0, "r")])})
        assert sorted((row[2] for row in found), key=int) == [str(number) for number in range(200)]
