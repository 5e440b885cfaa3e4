"""GROUP BY over rows and over partial aggregates: by pyarrow kernels where they suffice, otherwise by one DuckDB query.

Both give the same partial aggregates. Columns have the names of `aggregate_functions.py`, so no name from a user is ever in
the SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import physical
from headrace.stream.engine.aggregate_functions import Argument, Kernels, layout_of
from headrace.stream.engine.arrow_tables import quoted
from headrace.stream.engine.operator import Context
from headrace.stream.schema import Schema

Codes = npt.NDArray[np.int64]


def codes_of(rows: pa.Table, keys: Sequence[str]) -> Codes:
    """A number for each row; those of equal keys are equal. NULL is a value like others. Good within one call."""
    codes = np.zeros(rows.num_rows, np.int64)
    for place, key in enumerate(keys):
        found, count = _codes(rows[key])
        codes = found if place == 0 else _dense(codes) * count + found
    return codes


def _codes(column: pa.ChunkedArray) -> tuple[Codes, int]:
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.add(column, 0.0)  # makes -0.0 be 0.0
    elif pa.types.is_nested(kind):
        column = pa.chunked_array([pa.array([repr(value) for value in column.to_pylist()])])
    encoded = _whole(column).dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def _dense(codes: Codes) -> Codes:
    """The same without gaps, so that they can be multiplied: below the number of rows."""
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def _whole(column: pa.ChunkedArray) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


# --- Groups ---


THREADED_ROWS: Final = 50_000  # below, a second thread costs more than it does
_INT_MAX: Final = 2**63 - 1
_OPTIONS: Final = {
    "count_all": None,
    "count": pc.CountOptions("only_valid"),
    **dict.fromkeys(("sum", "min", "max", "all", "any"), pc.ScalarAggregateOptions(skip_nulls=True, min_count=1)),
}


class Groups:
    """The keys and aggregates of one GROUP BY.

    Args:
        node: the operator of the plan.
        given: the input's schema.
        by: further grouping columns (int64), in front of the keys.
        context: the engine's.
        kernels: whether pyarrow kernels may be used; tests turn them off to compare.
    """

    def __init__(
        self, node: physical.Aggregate, given: Schema, by: tuple[str, ...], context: Context, *, kernels: bool = True
    ) -> None:
        self._context = context
        self._layout = layout_of(node.aggregations)
        self._keys = node.keys
        self._time = node.time
        self.key_names = [f"k{place}" for place in range(len(node.keys))]
        self._names = [f"p{place}" for place in range(len(self._layout.partials))]
        self._by = by
        self._kernels = False
        empty = self.columns(given.arrow().empty_table(), **{name: pa.array([], pa.int64()) for name in by})
        self._kernels = kernels and self._suffice(empty.schema)
        self.schema = self._kernel_schema(empty.schema) if self._kernels else self._queried_schema(empty)

    def columns(self, rows: pa.Table, **by: pa.Array) -> pa.Table:
        """Input rows as the columns that `create` takes, with the grouping columns `by`."""
        columns = dict(by)
        columns.update(zip(self.key_names, (rows[key] for key in self._keys), strict=True))
        for place, argument in enumerate(self._layout.arguments):
            columns[f"a{place}"] = _argument(rows, argument)
        if not self._kernels:
            columns["t"] = self._times(rows)
        return pa.table(columns)

    def create(self, rows: pa.Table) -> pa.Table:
        """A row of partials for each group of the rows that `columns` gave."""
        pairs = [(partial.create, partial.kernels) for partial in self._layout.partials]
        aggregates = [(kernels.argument, kernels.create) for _, kernels in pairs if kernels is not None]
        if self._kernels and self._is_safe(rows, [kernels.argument if kernels else None for _, kernels in pairs]):
            return self._grouped(rows, [*self._by, *self.key_names], aggregates)
        return self._queried(rows, [*self._by, *self.key_names], [create for create, _ in pairs])

    def merge(self, rows: pa.Table, by: Sequence[str]) -> pa.Table:
        """A row for each group by `by` and the keys, from rows of partials that have these columns, oldest first."""
        by = [*by, *self.key_names]
        if rows.num_rows == 1:
            return rows.select([*by, *self._names])  # with nothing to merge it is what it is
        if self._kernels and self._is_safe(rows, self._names):
            kernels = [partial.kernels for partial in self._layout.partials if partial.kernels is not None]
            aggregates = [(name, kernel.merge) for name, kernel in zip(self._names, kernels, strict=True)]
            return self._grouped(rows, by, aggregates)
        merges = [
            partial.merge.format(p=name) for name, partial in zip(self._names, self._layout.partials, strict=True)
        ]
        return self._queried(rows, by, merges)

    def among(self, rows: pa.Table, others: pa.Table, by: Sequence[str]) -> pa.Table:
        """The rows of the groups that `others` has rows of."""
        names = [*by, *self.key_names]
        codes = codes_of(pa.concat_tables([others.select(names), rows.select(names)]), names)
        return rows.filter(pa.array(np.isin(codes[others.num_rows :], codes[: others.num_rows])))

    def results(self, merged: pa.Table) -> list[pa.ChunkedArray | pa.Array]:
        """The columns of the finished aggregates."""
        texts = {f"f{place}": result.sql for place, result in enumerate(self._layout.results) if result.sql}
        queried = self._context.query(_select(texts), **{physical.INPUT: merged}) if texts else None
        return [
            result.compute(merged) if result.compute is not None else _present(queried)[f"f{place}"]
            for place, result in enumerate(self._layout.results)
        ]

    def _suffice(self, given: pa.Schema) -> bool:
        """Kernels hash floats bit by bit (-0.0 is not 0.0), and nested types not at all."""
        floats = any(pa.types.is_floating(given.field(name).type) for name in self.key_names)
        nested = any(pa.types.is_nested(kind) for kind in given.types)
        return all(partial.kernels for partial in self._layout.partials) and not floats and not nested

    def _kernel_schema(self, given: pa.Schema) -> pa.Schema:
        """Of partials: what DuckDB would say, without asking it."""
        kinds = [(name, given.field(name).type) for name in (*self._by, *self.key_names)]
        for name, partial in zip(self._names, self._layout.partials, strict=True):
            assert partial.kernels is not None  # `_suffice`
            kinds.append((name, partial.kernels.type or given.field(partial.kernels.argument).type))
        return pa.schema(kinds)

    def _queried_schema(self, empty: pa.Table) -> pa.Schema:
        """Of partials: what DuckDB says that it is."""
        query = self._create_sql([*self._by, *self.key_names], [partial.create for partial in self._layout.partials])
        return self._context.query(query, **{physical.INPUT: _numbered(empty)}).schema

    def _is_safe(self, rows: pa.Table, arguments: Sequence[str | None]) -> bool:
        """Whether kernels give what SQL would: no sum wraps around, no NaN is passed over by min or max."""
        return all(
            argument is None or partial.kernels is None or _harmless(rows[argument], partial.kernels)
            for argument, partial in zip(arguments, self._layout.partials, strict=True)
        )

    def _grouped(self, rows: pa.Table, by: list[str], aggregates: Sequence[tuple[str | None, str]]) -> pa.Table:
        asked: list[Any] = [(column or [], function, _OPTIONS[function]) for column, function in aggregates]
        found = rows.group_by(by, use_threads=rows.num_rows > THREADED_ROWS).aggregate(asked)
        columns = {name: found[name] for name in by}
        for name, (column, function) in zip(self._names, aggregates, strict=True):
            columns[name] = found[f"{column}_{function}" if column else function]
        return self._typed(columns)

    def _queried(self, rows: pa.Table, by: list[str], aggregates: list[str]) -> pa.Table:
        found = self._context.query(self._create_sql(by, aggregates), **{physical.INPUT: _numbered(rows)})
        return self._typed({name: found[name] for name in found.column_names})

    def _create_sql(self, by: list[str], aggregates: list[str]) -> str:
        groups = ", ".join(quoted(name) for name in by)  # window, start and the like are words of SQL
        columns = [groups, *(f"{sql} AS {name}" for sql, name in zip(aggregates, self._names, strict=True))]
        return f"SELECT {', '.join(columns)} FROM {physical.INPUT} GROUP BY {groups}"

    def _typed(self, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
        """In the types of the state, so that parts are always alike."""
        kinds = {field.name: field.type for field in self.schema}
        return pa.table(
            {name: column.cast(kind) if (kind := kinds.get(name)) and not column.type.equals(kind) else column
             for name, column in columns.items()}
        )  # fmt: skip

    def _times(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        if self._time is None:
            return pa.array(np.zeros(rows.num_rows, np.int64))
        return rows[self._time].cast(pa.int64()).fill_null(0)


def _argument(rows: pa.Table, argument: Argument) -> pa.ChunkedArray | pa.Array:
    if argument.column is None:
        column = pa.array(np.ones(rows.num_rows, bool))
    else:
        column = rows[argument.column]
    if argument.as_double and not pa.types.is_float64(column.type):
        column = column.cast(pa.float64(), safe=False)
    return column if argument.where is None else pc.if_else(rows[argument.where], column, pa.scalar(None, column.type))


def _harmless(column: pa.ChunkedArray, kernels: Kernels) -> bool:
    if kernels.overflows:
        extremes = pc.min_max(column).as_py()
        greatest: int = max(abs(extremes["min"] or 0), abs(extremes["max"] or 0))
        return greatest * len(column) <= _INT_MAX
    if kernels.create in {"min", "max"} and pa.types.is_floating(column.type):
        return not pc.any(pc.is_nan(column)).as_py()
    return True


def _numbered(rows: pa.Table) -> pa.Table:
    """The rows with their order as a column, which DuckDB's threads do not preserve."""
    return rows.append_column("r", pa.array(np.arange(rows.num_rows)))


def _select(texts: dict[str, str]) -> str:
    columns = ", ".join(f"{sql} AS {name}" for name, sql in texts.items())
    return f"SELECT {columns} FROM {physical.INPUT}"


def _present(table: pa.Table | None) -> pa.Table:
    assert table is not None
    return table
