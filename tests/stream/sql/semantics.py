"""What expressions mean: one row, a list of expressions (`semantics.txt`), and what an engine makes of them.

`python -m tests.stream.sql.semantics` asks a local Spark, and writes its answers behind those that have none.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from headrace.stream import physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.schema import Schema, type_name
from headrace.stream.sql import compile as compile_plan

FILE = Path(__file__).with_name("semantics.txt")
ERROR = "ERROR"
SCHEMA = Schema.of(
    "i int, l bigint, d double, dc decimal(10,2), s string, b boolean, dt date, ts timestamp, n int,"
    " a array<string>, ai array<int>, m map<string,int>, js string"
)
ROW: dict[str, Any] = {
    "i": 7,
    "l": 5_000_000_000,
    "d": 2.75,
    "dc": decimal.Decimal("10.25"),
    "s": "Hello World",
    "b": True,
    "dt": dt.date(2024, 3, 3),
    "ts": dt.datetime(2024, 3, 5, 13, 7, 9, 123456),  # noqa: DTZ001 # inside a pipeline timestamps have no zone
    "n": None,
    "a": ["x", "y", "z"],
    "ai": [3, 1, 2],
    "m": [("k", 1)],
    "js": '{"a": 1, "b": {"c": "x"}, "l": [1, 22], "s": "q\\"uote", "t": true, "z": null}',
}


def cases() -> list[tuple[str, str, str]]:
    """(group, expression, Spark's answer) of the list."""
    found, group = [], ""
    for line in FILE.read_text().splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif line and not line.startswith("#"):
            expression, _, answer = line.partition("  => ")
            found.append((group, expression.strip(), answer.strip()))
    return found


def told(kind: str, value: Any) -> str:
    return f"{kind} {json.dumps(_plain(value), ensure_ascii=False)}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value) if not math.isfinite(value) else float(f"{value:.12g}")
    if isinstance(value, decimal.Decimal | dt.date | dt.datetime):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return [[_plain(key), _plain(item)] for key, item in value.items()]
    return value


@functools.cache
def source() -> plan.MemorySource:
    rows = pa.Table.from_pylist([ROW], schema=SCHEMA.arrow())
    return plan.MemorySource("t", SCHEMA, (rows,))


def ours(expressions: list[str]) -> dict[str, str]:
    """What headrace's embedded engine makes of expressions: type and value, or ERROR; many in one query, as `sparks`."""
    columns = ", ".join(f"{expression} AS x{place}" for place, expression in enumerate(expressions))
    step = plan.SqlStep("s", f"SELECT {columns} FROM t", (("t", source()),))
    try:
        project = compile_plan(plan.Pipeline("p", step, ())).output
        assert isinstance(project, physical.Project)
        row = _run(project)
    except (UnsupportedQuery, duckdb.Error):
        if len(expressions) == 1:
            return {expressions[0]: ERROR}
        half = len(expressions) // 2
        return ours(expressions[:half]) | ours(expressions[half:])
    kinds = [type_name(field.type) for field in project.schema.fields]
    return {one: told(kind, value) for one, kind, value in zip(expressions, kinds, row, strict=True)}


def _run(project: physical.Project) -> list[Any]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.register("input", source().batches[0])
        table = connection.sql(project.sql).to_arrow_table().cast(project.schema.arrow())
    return [column[0].as_py() for column in table.columns]


def sparks(session: Any, expressions: Iterable[str]) -> dict[str, str]:
    """What Spark makes of them, many in one query; one by one where that raises."""
    session.conf.set("spark.sql.session.timeZone", "UTC")
    session.conf.set(
        "spark.sql.codegen.wholeStage", "false"
    )  # compiling 400 expressions takes a minute, one row nothing
    session.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    frame = session.createDataFrame([_spark_row()], _spark_ddl())
    return _asked(frame, list(expressions))


def _asked(frame: Any, expressions: list[str]) -> dict[str, str]:
    try:
        found = frame.selectExpr(*(f"{expression} AS x{place}" for place, expression in enumerate(expressions)))
        row = found.collect()[0]
    except Exception:  # noqa: BLE001 # whatever Spark raises is its answer
        if len(expressions) == 1:
            return {expressions[0]: ERROR}
        half = len(expressions) // 2
        return _asked(frame, expressions[:half]) | _asked(frame, expressions[half:])
    kinds = [field.dataType.simpleString() for field in found.schema]
    return {one: told(kind, value) for one, kind, value in zip(expressions, kinds, row, strict=True)}


def _spark_ddl() -> str:
    return SCHEMA.ddl()


def _spark_row() -> tuple[Any, ...]:
    utc = ROW["ts"].replace(tzinfo=dt.UTC)
    return tuple({**ROW, "m": dict(ROW["m"]), "ts": utc}.values())


def main() -> None:
    """Write Spark's answers into the list."""
    import os
    import time

    os.environ["TZ"] = "UTC"
    time.tzset()
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    answers = sparks(session, [expression for _, expression, answer in cases() if not answer])
    lines = []
    for line in FILE.read_text().splitlines():
        expression = line.partition("  => ")[0].strip()
        lines.append(
            f"{expression}  => {answers[expression]}" if expression in answers and line[:1] not in "#[" else line
        )
    FILE.write_text("\n".join(lines) + "\n")
    session.stop()


if __name__ == "__main__":
    main()
