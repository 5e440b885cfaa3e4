"""The first rows of each partition, by an order.

Of a partition that belongs to a window all rows are known once the watermark has passed the window: they come out then,
once. Other partitions never end: each batch gives those that it changed, as they are now. Among equals the first to come
is first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import physical
from headrace.stream.engine.late import refuse_late, refuse_timeless
from headrace.stream.engine.operator import Context, Operator
from headrace.stream.engine.slices import KeySlices, TimeSlices
from headrace.stream.engine.tables import conform, nullable, plain, quoted
from headrace.stream.schema import Schema


class TopOperator(Operator):
    """Decides by the node which of the two it is. See `_Windows` and `_Forever` for the state."""

    def __init__(self, node: physical.Top, name: str, inputs: Sequence[Schema], context: Context) -> None:
        self.schema = node.schema
        ranking = _Ranking(node, inputs[0], context)
        parts = context.parts(name, node.partition, nullable(inputs[0]))
        if node.per_window:
            assert node.time is not None  # the compiler's word: a window's rows have one
            self._top: _Windows | _Forever = _Windows(ranking, TimeSlices.keeping(0, parts, node.time))
        else:
            self._top = _Forever(ranking, KeySlices(parts, node.partition, ranking.shrink))

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port
        return self._top.process(rows, watermark) if rows.num_rows else None

    def advance(self, watermark: int) -> pa.Table | None:
        return self._top.advance(watermark)

    def pending(self) -> int | None:
        return self._top.pending()


class _Ranking:
    """What the order makes of rows: pure, but for the query."""

    def __init__(self, node: physical.Top, given: Schema, context: Context) -> None:
        self.node = node
        self.given = given
        self.context = context
        partition = f"PARTITION BY {_list(node.partition)}" if node.partition else ""
        order = ", ".join(
            f"{quoted(name)} {'DESC' if descending else 'ASC'} NULLS {'FIRST' if nulls_first else 'LAST'}"
            for name, descending, nulls_first in node.order
        )
        rank = f"row_number() OVER ({partition} ORDER BY {order}{', ' if order else ''}_place)"
        self._ranked = f"SELECT *, {rank} AS _rank FROM _rows QUALIFY _rank <= {node.limit}"
        self._last = f"max(_place) OVER ({partition})"

    def best(self, rows: pa.Table) -> pa.Table:
        """The output for these rows: the best of each partition, by rank."""
        return self._output(self._query(self._ranked, rows))

    def shrink(self, rows: pa.Table) -> pa.Table:
        """Without the rows that others of these rank out."""
        kept = self._query(f"SELECT _place FROM ({self._ranked}) ORDER BY _place", rows)
        return rows.take(kept["_place"])

    def changed(self, old: pa.Table, new: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(the output for the partitions that `new` changes, the rows of `new` that are in it)."""
        sql = f"SELECT *, {self._last} AS _last FROM ({self._ranked}) QUALIFY _last >= {old.num_rows}"
        ranked = self._query(sql, pa.concat_tables([old, new]))
        fresh = ranked.filter(pc.greater_equal(ranked["_place"], old.num_rows)).sort_by("_place")
        return self._output(ranked), plain(fresh, self.given)

    def _query(self, sql: str, rows: pa.Table) -> pa.Table:
        placed = rows.append_column("_place", pa.array(np.arange(rows.num_rows)))
        return self.context.query(sql, _rows=placed)

    def _output(self, ranked: pa.Table) -> pa.Table:
        names = ["_rank" if name == self.node.rank else name for name in self.node.schema.names]
        return conform(ranked.select(names), self.node.schema)


class _Windows:
    """State: the rows of windows that are open, in slices of time."""

    def __init__(self, ranking: _Ranking, state: TimeSlices) -> None:
        self._ranking = ranking
        self._state = state

    def process(self, rows: pa.Table, watermark: int) -> None:
        node, context = self._ranking.node, self._ranking.context
        assert node.time is not None
        rows = refuse_timeless(context, rows, node.time, node.step)
        rows = refuse_late(context, rows, node.time, watermark, node.step)
        self._state.append(plain(rows, self._ranking.given))

    def advance(self, watermark: int) -> pa.Table | None:
        rows = self._state.take_before(watermark)
        return self._ranking.best(rows) if rows.num_rows else None

    def pending(self) -> int | None:
        latest = self._state.latest()
        return None if latest is None else latest + 1


class _Forever:
    """State: the best rows of each partition, in slices of its key; and some that were, until parts are merged."""

    def __init__(self, ranking: _Ranking, state: KeySlices) -> None:
        self._ranking = ranking
        self._state = state

    def process(self, rows: pa.Table, watermark: int) -> pa.Table | None:
        del watermark
        rows = plain(rows, self._ranking.given)
        output, fresh = self._ranking.changed(self._known(rows), rows)
        self._state.append(fresh)
        return output if output.num_rows else None

    def advance(self, watermark: int) -> None:
        del watermark

    def pending(self) -> None:
        return None

    def _known(self, rows: pa.Table) -> pa.Table:
        """What is remembered of the partitions of these rows, oldest first."""
        partition = self._ranking.node.partition
        known = self._state.near(rows, partition)
        if not known.num_rows or not partition:
            return known
        same = " AND ".join(f"_known.{quoted(name)} IS NOT DISTINCT FROM _rows.{quoted(name)}" for name in partition)
        placed = known.append_column("_place", pa.array(np.arange(known.num_rows)))
        sql = f"SELECT _place FROM _known SEMI JOIN _rows ON {same} ORDER BY _place"
        return known.take(self._ranking.context.query(sql, _known=placed, _rows=rows)["_place"])


def _list(names: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in names)
