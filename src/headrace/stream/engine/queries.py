"""DuckDB queries over Arrow tables, prepared for the next batch, and the folder that DuckDB spills to.

Registering a table and planning a query again costs as much as running it over few rows: 2.3 ms, against 1.1 ms for a
prepared query over a name that stays. So a name stands for a slot, which gives DuckDB the table that it holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import duckdb
import pyarrow as pa

from headrace.stream import limits

KEPT_ROWS_MAX: Final = 10_000
"""Of tables that are joined by a kept query: DuckDB does not see how many rows a slot has, and with many it matters which
side of a join it hashes (12 ms or 4, at 370,000 and 2,000 rows)."""

Key: TypeAlias = tuple[str, tuple[tuple[str, pa.Schema], ...]]


class TableSlot:
    """What DuckDB reads a table from, each time the one that is there. `rows`: None between queries."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows: pa.Table | None = None

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        rows = self.schema.empty_table() if self.rows is None else self.rows
        return rows.__arrow_c_stream__(requested_schema)


@dataclass(slots=True)
class PreparedQuery:
    """A query, and the slots of its tables."""

    relation: duckdb.DuckDBPyRelation
    slots: dict[str, TableSlot]

    def run(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Raises duckdb.Error; the next run is none the worse."""
        for name, slot in self.slots.items():
            slot.rows = tables[name]
        try:
            return self.relation.to_arrow_table()
        finally:
            for slot in self.slots.values():
                slot.rows = None


class Queries:
    """Of one connection, which begins with the first: it takes 10 ms, and kernels may do everything. A query is kept by
    its text and its tables' schemas for as long as the connection lives: texts must be few, so they hold nothing of a batch.
    """

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._connect = connect
        self._prepared: dict[Key, PreparedQuery] = {}
        self._slots = 0

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB itself, for what is there beside the tables of a query."""
        return self._connect()

    def run(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """The result of a SELECT over tables, by their names in it. Raises duckdb.Error."""
        if len(tables) > 1 and max(map(len, tables.values())) > KEPT_ROWS_MAX:
            return self._run_once(sql, tables)
        key = (sql, tuple((name, table.schema) for name, table in tables.items()))
        kept = self._prepared.get(key)
        if kept is None:
            kept = self._prepared[key] = self._prepare(sql, tables)
        return kept.run(tables)

    def _run_once(self, sql: str, tables: Mapping[str, Any]) -> pa.Table:
        for name, table in tables.items():
            self.connection.register(name, table)
        try:
            return self.connection.sql(sql).to_arrow_table()
        finally:
            for name in tables:
                self.connection.unregister(name)

    def _prepare(self, sql: str, tables: Mapping[str, pa.Table]) -> PreparedQuery:
        """Slots have names that no table has; the query knows them by those of its tables."""
        slots = {name: TableSlot(table.schema) for name, table in tables.items()}
        named = []
        for name, slot in slots.items():
            self._slots += 1
            self.connection.register(f"_slot_{self._slots}", slot)
            named.append(f"{name} AS NOT MATERIALIZED (FROM _slot_{self._slots})")
        rest = f", {sql.removeprefix('WITH ')}" if sql.startswith("WITH ") else f" {sql}"
        return PreparedQuery(self.connection.sql(f"WITH {', '.join(named)}{rest}"), slots)


# The folders that DuckDB spills into. What a killed process left is removed by the next engine on the machine: who is killed
# for its memory has spilled most.


_PREFIX: Final = "headrace-stream-"


@contextlib.contextmanager
def spill_folder() -> Iterator[str]:
    """A folder for one engine, removed at the end. It is locked until then, and a lock ends with its process."""
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, _opened(folder) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder


def _remove_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # It is locked, or another user's, or gone: then it is nothing of ours to remove.
        with contextlib.suppress(OSError), _opened(folder) as fd:
            if time.time() - os.fstat(fd).st_mtime > limits.SPILL_LEFT_S:  # a new one is not locked yet
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: str | Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
