"""Python steps: a user's function over rows or batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from headrace.stream import physical
from headrace.stream.engine.fitting import Misfit, Row, fitted, table_of
from headrace.stream.engine.operator import Context, Operator, Refused
from headrace.stream.engine.tables import conform
from headrace.stream.schema import ORIGIN, Schema

Given = list[tuple[int, list[Row]]]
"""The place of each row, and what it became."""


class PythonOperator(Operator):
    """A row whose call raises, or gives what does not fit the declared schema, is dead.

    ORIGIN goes from a row to what it became; what a step over whole batches gives has none.
    """

    def __init__(self, node: physical.Python, name: str, inputs: Sequence[Schema], context: Context) -> None:
        del name
        self.schema = node.schema
        self._input = inputs[0]
        self._step = node.step
        self._context = context

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port, watermark
        if self._step.kind == "batches":
            return self._batch(rows)
        if self._step.kind == "filter":
            return self._filter(rows)
        return self._rows(rows)

    def _filter(self, rows: pa.Table) -> pa.Table:
        kept = [False] * rows.num_rows
        for place, row in enumerate(self._dicts(rows)):
            try:
                kept[place] = bool(self._step.call(row))
            except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
                self._refuse(rows.slice(place, 1), error)
        return conform(rows.filter(pa.array(kept, pa.bool_())), self.schema)

    def _rows(self, rows: pa.Table) -> pa.Table:
        given: Given = []
        for place, row in enumerate(self._dicts(rows)):
            try:
                given.append((place, self._called(row)))
            except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
                self._refuse(rows.slice(place, 1), error)
        try:
            return self._table(rows, given)
        except Misfit:
            return self._table(rows, [item for item in given if self._fits(rows, item)])

    def _called(self, row: Row) -> list[Row]:
        given = self._step.call(row)
        return [given] if self._step.kind == "map" else list(given)

    def _fits(self, rows: pa.Table, item: tuple[int, list[Row]]) -> bool:
        try:
            self._table(rows, [item])
        except Misfit as error:
            self._refuse(rows.slice(item[0], 1), error)
            return False
        return True

    def _table(self, rows: pa.Table, given: Given) -> pa.Table:
        table = table_of([row for _, found in given for row in found], self.schema)
        if ORIGIN in rows.column_names:
            places = [place for place, found in given for _ in found]
            table = table.append_column(ORIGIN, rows[ORIGIN].take(pa.array(places, pa.int64())))
        return table

    def _batch(self, rows: pa.Table) -> pa.Table | None:
        """All at once; if that fails, a row at a time."""
        try:
            return fitted(self._step.call(rows.select(self._input.names)), self.schema)
        except Exception as error:  # noqa: BLE001 (the user's code may raise anything)
            if rows.num_rows == 1:
                self._refuse(rows, error)
                return None
        given = [self._batch(rows.slice(place, 1)) for place in range(rows.num_rows)]
        tables = [table for table in given if table is not None]
        return pa.concat_tables(tables) if tables else None

    def _dicts(self, rows: pa.Table) -> Iterable[Row]:
        dicts: list[Row] = rows.select(self._input.names).to_pylist()
        return dicts

    def _refuse(self, row: pa.Table, error: Exception) -> None:
        reason = str(error) if isinstance(error, Misfit) else f"{type(error).__name__}: {error}"
        self._context.dead.append(Refused(row, reason, self._step.name))
