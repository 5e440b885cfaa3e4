from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.stream import physical
from headrace.stream.engine.engine import Engine
from headrace.stream.engine.state_backend import MemoryStateBackend
from headrace.stream.errors import SourceFailed
from headrace.stream.plan import MemorySource, TableRef
from headrace.stream.runner.session import StaticTables
from headrace.stream.schema import Schema

ROWS = Schema.of("v bigint")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.jsonl"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    with closing(Engine(made(path), MemoryStateBackend(), threads=1)) as engine:
        yield engine


def made(path: Path) -> physical.PhysicalPlan:
    """Gives the table's rows for each row that comes."""
    names = TableRef("names", ROWS, str(path), reload_us=1_000_000)
    project = physical.Project(0, "SELECT names.v FROM input, names", ROWS, None, tables=(names,))
    return physical.PhysicalPlan((physical.Read(MemorySource("rows", ROWS, ()), ROWS, None), project))


def values(engine: Engine) -> list[int]:
    found: list[int] = engine.step({"rows": pa.table({"v": [0]})}, {}).output["v"].to_pylist()
    return found


def test_table_that_cannot_be_read_again_stays_as_it_is_until_it_can(
    engine: Engine, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text('{"v": 1}\n')
    tables = StaticTables(made(path), engine)
    tables.load(5)
    path.unlink()
    tables.load(1_005)
    assert values(engine) == [1]
    assert [record.__dict__["action"] for record in caplog.records] == ["stream.table_kept"]
    path.write_text('{"v": 2}\n')
    tables.load(1_100)
    assert values(engine) == [1], "it is not due yet"
    tables.load(2_005)
    assert values(engine) == [2]


def test_table_that_is_not_there_at_the_start_is_an_error(engine: Engine, path: Path) -> None:
    with pytest.raises(SourceFailed, match="no such file"):
        StaticTables(made(path), engine).load(5)
