from __future__ import annotations

import decimal

import duckdb
import pyarrow as pa
import pytest

from headrace.stream import limits, physical, plan
from headrace.stream.schema import ORIGIN, Schema
from tests.stream.engine.engines import Running, rows_of, source, table

INPUT = Schema.of("ts timestamp, text string")
OUTPUT = Schema.of("ts timestamp, n int")
CAST = "SELECT ts, CAST(text AS INTEGER) AS n /*origin*/ FROM input"


def project(sql: str, schema: Schema = OUTPUT, **more: object) -> physical.Project:
    return physical.Project(0, sql, schema, "ts", step="numbers", **more)  # type: ignore[arg-type] # of the fields' types


def test_rows_that_raise_are_dead_and_the_others_go_on_in_order() -> None:
    rows = table(INPUT, [(place, "x" if place in {3, 4, 17} else str(place)) for place in range(40)], origin=True)
    with Running([source(INPUT), project(CAST)]) as running:
        step = running.step(rows)
    assert rows_of(step.output) == [(place, place) for place in range(40) if place not in {3, 4, 17}]
    assert step.output.column_names == ["ts", "n"]
    assert [row for refused in step.dead for row in refused.rows[ORIGIN].to_pylist()] == [3, 4, 17]
    assert {(refused.reason, refused.step) for refused in step.dead} == {
        ("Could not convert string 'x' to INT32 when casting from source column text", "numbers")
    }


def test_a_batch_that_fails_altogether_is_dead_without_trying_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEAD_ROWS_SOUGHT", 3)
    with Running([source(INPUT), project(CAST)]) as running:
        step = running.step(table(INPUT, [(place, "x") for place in range(64)]))
        assert sum(refused.rows.num_rows for refused in step.dead) == 64
        assert len(step.dead) < 12
        assert "were not tried singly" in step.dead[-1].reason
        assert not running.step(table(INPUT, [(1, "1")])).dead


def test_sql_that_can_never_run_fails_before_the_first_row() -> None:
    with pytest.raises(duckdb.BinderException):
        Running([source(INPUT), project("SELECT ts, nothing AS n /*origin*/ FROM input")])


def test_static_tables_are_joined_and_reloaded() -> None:
    names = plan.TableRef("names", Schema.of("text string, n int"), data=pa.table({"text": ["a"], "n": [1]}))
    sql = "SELECT input.ts, names.n /*origin*/ FROM input JOIN names ON names.text = input.text"
    rows = table(INPUT, [(1, "a"), (2, "b")])
    with Running([source(INPUT), project(sql, tables=(names,))]) as running:
        assert rows_of(running.step(rows).output) == [(1, 1)]
        running.engine.set_table("names", pa.table({"text": ["b"], "n": pa.array([2], pa.int32())}))
        assert rows_of(running.step(rows).output) == [(2, 2)]


def test_python_functions_see_nulls_and_what_they_raise_is_the_rows_end() -> None:
    def length(text: str | None, factor: int) -> int:
        return -1 if text is None else factor * len(text) // (text != "bad")

    function = plan.Function("length", length, (pa.string(), pa.int32()), pa.int32())
    sql = "SELECT ts, length(text, 2) AS n /*origin*/ FROM input"
    with Running([source(INPUT), project(sql, functions=(function,))]) as running:
        step = running.step(table(INPUT, [(1, "abc"), (2, None), (3, "bad")]))
    assert rows_of(step.output) == [(1, 6), (2, -1)]
    assert [refused.reason for refused in step.dead] == [
        "function length: ZeroDivisionError: integer division or modulo by zero"
    ]


def test_neither_files_nor_variables_can_be_read() -> None:
    secret = table(INPUT, [(1, "1")])
    with pytest.raises(duckdb.CatalogException):
        Running([source(INPUT), project("SELECT ts, 1 AS n /*origin*/ FROM secret")])
    with pytest.raises(duckdb.Error, match=r"disabled|does not exist"):
        Running([source(INPUT), project("SELECT TIMESTAMP '2020-01-01' AS ts, 1 AS n /*origin*/ FROM '/etc/passwd'")])
    assert secret.num_rows


def test_kernels_leave_rows_that_do_not_fit_to_duckdb_which_finds_them() -> None:
    given = Schema.of("ts timestamp, n bigint")
    wanted = Schema.of("ts timestamp, n decimal(24,3)")
    sql = "SELECT ts, CAST((CAST(CAST(0.908 AS DECIMAL(3,3)) AS DECIMAL(38,3)) * n) AS DECIMAL(24,3)) AS n /*origin*/ FROM input"
    greatest = 2**63 - 1
    with Running([source(given), project(sql, wanted)]) as running:
        step = running.step(table(given, [(1, 1_000), (2, greatest)], origin=True))
    assert rows_of(step.output) == [(1, decimal.Decimal("908.000")), (2, greatest * decimal.Decimal("0.908"))]


def test_a_choice_of_columns_gives_what_its_query_gives() -> None:
    rows = table(INPUT, [(1, "a"), (2, None)], origin=True)
    schema = Schema.of("t string, ts timestamp")
    outputs = []
    for sql in ("SELECT TEXT AS t, ts /*origin*/ FROM input", "SELECT text AS t, ts /*origin*/ FROM input WHERE true"):
        with Running([source(INPUT), project(sql, schema)]) as running:
            outputs.append(running.step(rows).output)
    assert outputs[0].equals(outputs[1])
