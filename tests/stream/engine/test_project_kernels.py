"""Queries by kernels: what is taken on gives what DuckDB gives, for any rows; what is not the same is not taken on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.engine.arrow_tables import conform
from headrace.stream.engine.project import parsed, select_of
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.engines import table

GIVEN = Schema.of("n bigint, m bigint, k int, s string, t timestamp, u timestamp, d double, b boolean, a array<int>")

EXPRESSIONS = {
    "n": "bigint",
    '"S"': "string",
    "a": "array<int>",
    "n % 7": "bigint",
    "(n % 9223372036854775807)": "bigint",
    "t - INTERVAL '1 microsecond'": "timestamp",
    "(u + INTERVAL '3 seconds')": "timestamp",
    "CAST((CAST(CAST(0.908 AS DECIMAL(3,3)) AS DECIMAL(38,3)) * k) AS DECIMAL(24,3))": "decimal(24,3)",
    "CAST((n * CAST(CAST(12.5 AS DECIMAL(3,1)) AS DECIMAL(38,1))) AS DECIMAL(38,1))": "decimal(38,1)",
    "(n = 3)": "boolean",
    "(k <> 3)": "boolean",
    "(3 < k)": "boolean",
    "n <= m": "boolean",
    "(s >= 'b')": "boolean",
    "t > u": "boolean",
    "(n IN (1, 2, -3 % 2)) IS NULL": None,
    "(n IN (1, 2, 3))": "boolean",
    "(NOT (s IN ('a', 'b')))": "boolean",
    "(s IS NULL)": "boolean",
    "((n = 3) AND (s = 'a'))": "boolean",
    "((n = 3) OR b)": "boolean",
    "(NOT b)": "boolean",
    "n = 3 AND s = 'a' AND b": "boolean",
    # left to DuckDB
    "n + 1": None,
    "n * m": None,
    "n % 0": None,
    "n % m": None,
    "k % 2": None,
    "n / 2": None,
    "d = 1": None,
    "d > d": None,
    "n = k": None,
    "k = 3000000000": None,
    "n = 1.5": None,
    "n = 'a'": None,
    "t > '2020-01-01'": None,
    "a = a": None,
    "b = b": None,
    "n = ANY (a)": None,
    "s LIKE 'a%'": None,
    "s IN ('a', NULL)": None,
    "lower(s)": None,
    "a[1]": None,
    "CAST(n AS INTEGER)": None,
    "CAST(s AS TIMESTAMP)": None,
    "t - INTERVAL '1 month'": None,
    "t - u": None,
    "count(*)": None,
    "n OVER ()": None,
    "7": None,
    "'a'": None,
    "NULL": None,
    "TRUE": None,
    "unknown": None,
    "other.n": None,
}
"""Of these columns, and the type of those that kernels compute."""

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-5, 5), st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1])),
        st.one_of(st.none(), st.integers(-5, 5)),
        st.one_of(st.none(), st.integers(-5, 5), st.sampled_from([-(2**31), 2**31 - 1])),
        st.one_of(st.none(), st.sampled_from(["", "a", "b", "B", "ä", "z"])),
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, float("nan")])),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.lists(st.integers(0, 3), max_size=2)),
    ),
    max_size=12,
)
TAKEN = [(sql, kind) for sql, kind in EXPRESSIONS.items() if kind is not None]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize(("expression", "kind"), TAKEN)
@settings(max_examples=15)
@given(rows=ROWS, data=st.data())
def test_kernels_give_what_duckdb_gives(
    connection: duckdb.DuckDBPyConnection, expression: str, kind: str, rows: list[Any], data: st.DataObject
) -> None:
    condition = data.draw(st.sampled_from([None, *(sql for sql, kind in TAKEN if kind == "boolean")]))
    wanted = Schema.of(f"x {kind}, y bigint")
    sql = f"SELECT {expression} AS x, n AS y FROM input" + (f" WHERE {condition}" if condition else "")
    found = select_of(sql, GIVEN)
    assert found is not None
    given_rows = table(GIVEN, rows)
    try:
        computed = found.rows(given_rows, wanted.names)
    except pa.ArrowInvalid:
        return  # DuckDB is asked
    connection.register("input", given_rows)
    expected = conform(connection.sql(sql).to_arrow_table(), wanted)
    assert conform(computed, wanted).to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("expression", [sql for sql, kind in EXPRESSIONS.items() if kind is None])
def test_what_is_not_quite_the_same_is_left_to_duckdb(expression: str) -> None:
    assert select_of(f"SELECT {expression} AS x FROM input", GIVEN) is None
    assert select_of(f"SELECT n AS x FROM input WHERE {expression}", GIVEN) is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM input",
        "SELECT DISTINCT n FROM input",
        "SELECT n FROM input LIMIT 1",
        "SELECT n FROM other",
        "SELECT n FROM input, other",
        "SELECT n FROM input i JOIN input j ON true",
        "SELECT n FROM (SELECT n FROM input LIMIT 1)",
        "SELECT n FROM (SELECT n FROM input) AS renamed",
        "WITH input AS (SELECT 1 AS n) SELECT n FROM input",
        "SELECT n FROM input UNION ALL SELECT n FROM input",
        "SELECT n FROM input GROUP BY n",
        "SELECT n FROM input QUALIFY true",
        "SELECT n, N FROM input",
        "SELECT n FROM input WHERE n",
        "SELECT list_filter(a, x -> x > 1) AS n FROM input",
        "SELECT )",
        "",
    ],
)
def test_only_a_plain_select_is_taken_on(sql: str) -> None:
    assert select_of(sql, GIVEN) is None


def test_selects_in_selects_are_one() -> None:
    rows = table(GIVEN, [(n, n, n, "a", n, n, 0.0, True, []) for n in range(6)], origin=True)
    sql = "SELECT p AS n, q AS s FROM (SELECT n AS p, s AS q, m FROM input WHERE n > 1 AND n <> 4) WHERE m < 5"
    found = select_of(sql, GIVEN)
    assert found is not None
    assert found.rows(rows, ["n", "s"]).to_pydict() == {"n": [2, 3], "s": ["a", "a"], ORIGIN: [2, 3]}


def test_only_the_columns_that_are_named_are_looked_at() -> None:
    found = select_of("SELECT n AS x FROM input WHERE K = 1", GIVEN)
    assert found is not None
    assert found.reads == ("n", "k")


def test_a_number_that_does_not_fit_is_an_error_not_another_number() -> None:
    found = select_of(
        "SELECT CAST((CAST(CAST(9.5 AS DECIMAL(2,1)) AS DECIMAL(38,1)) * n) AS DECIMAL(24,1)) AS x FROM input", GIVEN
    )
    assert found is not None
    rows = table(GIVEN, [(2**63 - 1, 0, 0, "", 0, 0, 0.0, True, [])])
    with pytest.raises(pa.ArrowInvalid):
        found.rows(rows, ["x"])


def test_what_only_duckdb_can_read_is_no_tree() -> None:
    assert parsed("SELECT {'a': 1}.a FROM FROM") is None
