"""Stateless SQL: one DuckDB query a batch, or none where pyarrow's kernels do the same."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa

from headrace.stream import limits, physical
from headrace.stream.engine.operator import Context, Operator, Refused
from headrace.stream.engine.select import select_of
from headrace.stream.engine.tables import conform
from headrace.stream.schema import ORIGIN, Schema

ORIGIN_MARK: Final = "/*origin*/"
"""Where the compiler's SQL says that ORIGIN is to come."""

ROW_ERRORS: Final = (duckdb.DataError, duckdb.InvalidInputException)
"""What a value can be to blame for. Anything else (names, types, memory) would fail with any rows."""


class ProjectOperator(Operator):
    """Rows that make the query fail are found by halving, and are dead."""

    def __init__(
        self, node: physical.Project, name: str, inputs: Sequence[Schema], context: Context, *, kernels: bool = True
    ) -> None:
        """Args: kernels: whether pyarrow's may be used; tests say no, to compare."""
        del name
        self.schema = node.schema
        self._node = node
        self._context = context
        self._plain = node.sql.replace(ORIGIN_MARK, "")
        self._with_origin = node.sql.replace(ORIGIN_MARK, f", {ORIGIN}")
        self._dead_rows = 0
        self._select = select_of(self._plain, inputs[0]) if kernels else None
        if self._select is None:
            # Fails now, not with the first row, if the SQL is wrong; and makes DuckDB load what it needs.
            self._query(inputs[0].arrow().empty_table())

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port, watermark
        if self._select is not None:
            with contextlib.suppress(pa.ArrowInvalid):  # then DuckDB finds the rows that are to blame
                return conform(self._select.rows(rows, self.schema.names), self.schema)
        self._dead_rows = 0
        return self._tried(rows)

    def _tried(self, rows: pa.Table) -> pa.Table | None:
        try:
            return self._query(rows)
        except ROW_ERRORS as error:
            if rows.num_rows > 1 and self._dead_rows < limits.DEAD_ROWS_SOUGHT:
                return self._halved(rows)
            self._refuse(rows, plain_error(error))
            return None

    def _halved(self, rows: pa.Table) -> pa.Table | None:
        middle = rows.num_rows // 2
        halves = [self._tried(rows.slice(0, middle)), self._tried(rows.slice(middle))]
        given = [half for half in halves if half is not None]
        return pa.concat_tables(given) if given else None

    def _refuse(self, rows: pa.Table, reason: str) -> None:
        self._dead_rows += rows.num_rows
        if rows.num_rows > 1:
            reason += f" (or the like: {limits.DEAD_ROWS_SOUGHT} rows of the batch had failed, so these were not tried singly)"
        self._context.dead.append(Refused(rows, reason, self._node.step))

    def _query(self, rows: pa.Table) -> pa.Table:
        sql = self._with_origin if ORIGIN in rows.column_names else self._plain
        return conform(self._context.query(sql, **{physical.INPUT: rows}), self.schema)


def plain_error(error: BaseException) -> str:
    """DuckDB's text without its kind, its position in SQL that nobody wrote, and its advice."""
    text = str(error).split("\n", 1)[0]
    kind, colon, rest = text.partition(": ")
    text = rest if colon and kind.endswith("Error") else text
    return text.removeprefix("Python exception occurred while executing the UDF: ").removeprefix("ValueError: ")
