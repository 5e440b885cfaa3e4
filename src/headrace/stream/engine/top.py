"""The first rows of each partition, by an order.

All rows of a partition that belongs to a window are known once the watermark has passed the window: they are output then,
once. Other partitions never end: each batch outputs the partitions that it has changed. Among equal rows the first to
arrive ranks first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import physical
from headrace.stream.engine.arrow_tables import conform, nullable, plain, reject_late, reject_timeless
from headrace.stream.engine.grouping import codes_of
from headrace.stream.engine.operator import Context, Operator
from headrace.stream.engine.state_slices import KeySlices, TimeSlices
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.schema import Schema


class TopOperator(Operator):
    """Chooses one of two implementations by the node. See `_Windows` and `_Unwindowed` for the state."""

    def __init__(self, node: physical.Top, name: str, inputs: Sequence[Schema], context: Context) -> None:
        self.schema = node.schema
        ranking = _Ranking(node, inputs[0], context)
        parts = context.state(name, node.partition, nullable(inputs[0]))
        if node.per_window:
            assert node.time is not None  # the compiler's word: a window's rows have one
            self._top: _Windows | _Unwindowed = _Windows(ranking, TimeSlices.keeping(0, parts, node.time))
        else:
            self._top = _Unwindowed(ranking, KeySlices(parts, node.partition, ranking.shrink))

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port
        return self._top.process(rows, watermark) if rows.num_rows else None

    def advance(self, watermark: int) -> pa.Table | None:
        return self._top.advance(watermark)

    def pending(self) -> int | None:
        return self._top.pending()


class _Ranking:
    """Ranks rows by the order. It sorts in pyarrow, because DuckDB's window functions cost 10 ms before the first row."""

    def __init__(self, node: physical.Top, given: Schema, context: Context) -> None:
        self.node = node
        self.given = given
        self.context = context
        for name, _, _ in node.order:
            found = given.find(name)
            if found is not None and pa.types.is_nested(found.type):
                raise UnsupportedQuery(
                    f"ORDER BY {name}", "it is not a single value", "order by its parts", step=node.step
                )

    def best(self, rows: pa.Table) -> pa.Table:
        """The output for these rows: the best of each partition, by rank."""
        found = self._ranked(rows)
        return self._output(rows, found, found.ranks <= self.node.limit)

    def shrink(self, rows: pa.Table) -> pa.Table:
        """The rows that are not outranked by others of these."""
        found = self._ranked(rows)
        return rows.take(pa.array(np.sort(found.places[found.ranks <= self.node.limit])))

    def changed(self, old: pa.Table, new: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(the output for the partitions that `new` changes, the rows of `new` that are in it)."""
        rows = pa.concat_tables([old, new])
        found = self._ranked(rows)
        best = found.ranks <= self.node.limit
        fresh = best & (found.places >= old.num_rows)
        touched = np.isin(found.partitions, found.partitions[fresh])
        entered = new.take(pa.array(np.sort(found.places[fresh]) - old.num_rows))
        return self._output(rows, found, best & touched), entered

    def _ranked(self, rows: pa.Table) -> _Ranked:
        codes = codes_of(rows, self.node.partition)
        columns: dict[str, Any] = {"partition": codes}
        keys = [("partition", "ascending")]
        for place, (name, descending, nulls_first) in enumerate(self.node.order):
            for kind, (column, direction) in _sort_keys(
                rows[name], descending=descending, nulls_first=nulls_first
            ).items():
                columns[f"{kind}{place}"] = column
                keys.append((f"{kind}{place}", direction))
        places = pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy().astype(np.int64)  # stable
        return _Ranked(places, _numbered(codes[places]), codes[places])

    def _output(self, rows: pa.Table, found: _Ranked, wanted: npt.NDArray[np.bool_]) -> pa.Table:
        taken = rows.take(pa.array(found.places[wanted]))
        columns = [
            pa.array(found.ranks[wanted]) if name == self.node.rank else taken[name] for name in self.node.schema.names
        ]
        return conform(pa.table(columns, names=self.node.schema.names), self.node.schema)


class _Ranked(NamedTuple):
    """Rows in the order of their partitions, and in these by rank: where each stands among those given, its rank from 1,
    and a number for its partition."""

    places: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]
    partitions: npt.NDArray[np.int64]


def _sort_keys(column: pa.ChunkedArray, *, descending: bool, nulls_first: bool) -> dict[str, tuple[Any, str]]:
    """What to sort by for one column. Arrow puts NULL and NaN last whatever the direction, so they have keys of their own;
    NaN is greater than any number."""
    direction = "descending" if descending else "ascending"
    keys = {}
    if column.null_count:
        keys["null"] = (column.is_null().cast(pa.int8()), "descending" if nulls_first else "ascending")
    if pa.types.is_floating(column.type):
        keys["nan"] = (pc.fill_null(pc.is_nan(column), fill_value=False).cast(pa.int8()), direction)
    return {**keys, "value": (column, direction)}


def _numbered(partitions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers from 1 within each run of equal partitions."""
    count = len(partitions)
    begins = np.concatenate([[True], partitions[1:] != partitions[:-1]]) if count else np.zeros(0, np.bool_)
    starts = np.flatnonzero(begins)
    ranks: npt.NDArray[np.int64] = np.arange(count) - np.repeat(starts, np.diff([*starts, count])) + 1
    return ranks


class _Windows:
    """State: the rows of open windows, in slices of time."""

    def __init__(self, ranking: _Ranking, state: TimeSlices) -> None:
        self._ranking = ranking
        self._state = state

    def process(self, rows: pa.Table, watermark: int) -> None:
        node, context = self._ranking.node, self._ranking.context
        assert node.time is not None
        rows = reject_timeless(context, rows, node.time, node.step)
        rows = reject_late(context, rows, node.time, watermark, node.step)
        self._state.append(plain(rows, self._ranking.given))

    def advance(self, watermark: int) -> pa.Table | None:
        rows = self._state.take_before(watermark)
        return self._ranking.best(rows) if rows.num_rows else None

    def pending(self) -> int | None:
        latest = self._state.latest()
        return None if latest is None else latest + 1


class _Unwindowed:
    """State: the best rows of each partition, in slices of its key; and outranked rows, until parts are merged."""

    def __init__(self, ranking: _Ranking, state: KeySlices) -> None:
        self._ranking = ranking
        self._state = state

    def process(self, rows: pa.Table, watermark: int) -> pa.Table | None:
        del watermark
        rows = plain(rows, self._ranking.given)
        output, fresh = self._ranking.changed(self._state.matching(rows), rows)
        self._state.append(fresh)
        return output if output.num_rows else None

    def advance(self, watermark: int) -> None:
        del watermark

    def pending(self) -> None:
        return None
