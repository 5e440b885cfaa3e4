"""Queries that are kept: each run sees the tables it is given, and those alone."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from headrace.stream.engine.queries import KEPT_ROWS_MAX, Queries

DOUBLED = "SELECT n * 2 AS n FROM given"


@pytest.fixture
def queries() -> Iterator[Queries]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield Queries(lambda: connection)


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def test_each_run_reads_the_rows_it_is_given(queries: Queries) -> None:
    for values in ([1], [2, 3], [], [4]):
        found = queries.run(DOUBLED, {"given": numbers(*values)})
        assert found["n"].to_pylist() == [2 * value for value in values]


def test_the_same_query_over_another_schema_is_another_query(queries: Queries) -> None:
    assert queries.run("SELECT * FROM given", {"given": numbers(1)}).to_pylist() == [{"n": 1}]
    assert queries.run("SELECT * FROM given", {"given": pa.table({"t": ["a"]})}).to_pylist() == [{"t": "a"}]
    assert queries.run("SELECT * FROM given", {"given": numbers(2)}).to_pylist() == [{"n": 2}]


def test_queries_over_tables_of_one_name_do_not_see_each_other(queries: Queries) -> None:
    queries.run(DOUBLED, {"given": numbers(1)})
    assert queries.run("SELECT n + 1 AS n FROM given", {"given": numbers(5)}).to_pylist() == [{"n": 6}]
    assert queries.run(DOUBLED, {"given": numbers(7)}).to_pylist() == [{"n": 14}]


def test_after_rows_that_make_it_fail_a_query_goes_on(queries: Queries) -> None:
    sql = "SELECT CAST(t AS INTEGER) AS n FROM given"
    assert queries.run(sql, {"given": pa.table({"t": ["1"]})}).to_pylist() == [{"n": 1}]
    with pytest.raises(duckdb.DataError, match="'x'"):
        queries.run(sql, {"given": pa.table({"t": ["x"]})})
    assert queries.run(sql, {"given": pa.table({"t": ["2"]})}).to_pylist() == [{"n": 2}]


def test_a_query_may_have_tables_of_its_own(queries: Queries) -> None:
    sql = "WITH twice AS (SELECT * FROM given UNION ALL SELECT * FROM given) SELECT sum(n)::BIGINT AS n FROM twice"
    for value in (3, 4):
        assert queries.run(sql, {"given": numbers(value)}).to_pylist() == [{"n": 2 * value}]


@pytest.mark.parametrize("many", [1, KEPT_ROWS_MAX, KEPT_ROWS_MAX + 1])
def test_joins_find_the_same_with_few_rows_and_with_many(queries: Queries, many: int) -> None:
    sql = "SELECT count(*) AS found FROM few JOIN many USING (n)"
    for few in ([0], [0, -1, many - 1, many]):
        found = queries.run(sql, {"few": numbers(*few), "many": numbers(*range(many))})
        assert found.to_pylist() == [{"found": sum(0 <= value < many for value in few)}]


def test_no_rows_are_held_between_two_runs(queries: Queries) -> None:
    before = pa.total_allocated_bytes()
    rows = numbers(*range(100_000))
    assert queries.run("SELECT count(*) AS n FROM given", {"given": rows}).to_pylist() == [{"n": 100_000}]
    assert pa.total_allocated_bytes() - before > 500_000
    del rows
    assert pa.total_allocated_bytes() - before < 100_000


def test_duckdb_begins_with_the_first_query_and_once() -> None:
    begun: list[duckdb.DuckDBPyConnection] = []

    def connect() -> duckdb.DuckDBPyConnection:
        begun.append(duckdb.connect(config={"threads": 1}))
        return begun[-1]

    queries = Queries(connect)
    assert begun == []
    for value in (1, 2):
        queries.run(DOUBLED, {"given": numbers(value)})
    (connection,) = begun
    connection.close()
