"""The first row of each key, for a while.

A row is a duplicate if an accepted row with its key lies within `within_us` of it, before or after: rows arrive in
any order, so the first to arrive need not be the oldest. This is Spark's dropDuplicatesWithinWatermark, whose promise is
that duplicates at most so far apart are dropped; what it does with those farther apart depends on its batches, here they
are new rows. NULL is a key like others. A key is forgotten when the watermark is beyond time + within_us.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from headrace.stream import physical
from headrace.stream.engine.arrow_tables import micros, minus, nullable, quoted, reject_late, reject_timeless
from headrace.stream.engine.operator import Context, Operator
from headrace.stream.engine.state_slices import TimeSlices, joined
from headrace.stream.schema import Schema

_PLACE: Final = "_place"


class DedupOperator(Operator):
    """State: key and time of the accepted rows. Rows keep their ORIGIN."""

    def __init__(self, node: physical.Dedup, name: str, inputs: Sequence[Schema], context: Context) -> None:
        self.schema = node.schema
        self._node = node
        self._context = context
        self._columns = list(dict.fromkeys([*node.keys, node.time]))
        parts = context.state(name, node.keys, nullable(inputs[0], self._columns))
        self._passed = TimeSlices.keeping(node.within_us, parts, node.time)

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port
        rows = reject_timeless(self._context, rows, self._node.time, self._node.step)
        rows = reject_late(self._context, rows, self._node.time, watermark, self._node.step)
        first = rows.take(self._first(rows)) if rows.num_rows else rows
        if not first.num_rows:
            return None
        self._passed.append(first.select(self._columns))
        return first

    def advance(self, watermark: int) -> pa.Table | None:
        self._passed.drop_before(minus(watermark, self._node.within_us))
        return None

    def _first(self, rows: pa.Table) -> pa.Array:
        """The positions of the accepted rows, ascending."""
        within_us, times = self._node.within_us, micros(rows, self._node.time)
        passed = self._passed.between(int(times.min()) - within_us, int(times.max()) + within_us)
        tables = {"_rows": rows.select(self._columns).append_column(_PLACE, pa.array(np.arange(rows.num_rows)))}
        if passed.num_rows:
            tables["_passed"] = joined(passed)
        fresh = _fresh_sql(self._node, known=passed.num_rows > 0)
        firsts = self._context.query(fresh + _firsts_sql(self._node), **tables)
        far = firsts["far"].to_numpy()
        places = firsts["place"].to_numpy()
        if far.any():  # rare: keys that occur again in one batch, but too far apart to be duplicates
            chains = self._context.query(fresh + _chains_sql(self._node), **tables).to_pylist()
            passing = [place for chain in chains for place in _passing(chain["places"], chain["times"], within_us)]
            places = np.concatenate([places[~far], passing])
        return pa.array(np.sort(places).astype(np.int64))


def _fresh_sql(node: physical.Dedup, *, known: bool) -> str:
    """WITH: the rows that are not duplicates of earlier accepted rows."""
    time = quoted(node.time)
    same = [f"_rows.{quoted(key)} IS NOT DISTINCT FROM _passed.{quoted(key)}" for key in node.keys]
    near = f"epoch_us(_rows.{time}) - epoch_us(_passed.{time}) BETWEEN -{node.within_us} AND {node.within_us}"
    anti = f" ANTI JOIN _passed ON {' AND '.join([*same, near])}" if known else ""
    return f"WITH fresh AS (SELECT {_keys(node)}, epoch_us({time}) AS _time, _place FROM _rows{anti}) "


def _firsts_sql(node: physical.Dedup) -> str:
    """Of each key the first row to come, and whether others are too far from it to be its duplicates."""
    return f"SELECT min(_place) AS place, {_far(node)} AS far FROM fresh GROUP BY {_keys(node)}"


def _chains_sql(node: physical.Dedup) -> str:
    """The rows of such keys, in the order in which they came."""
    lists = "list(_place ORDER BY _place) AS places, list(_time ORDER BY _place) AS times"
    return f"SELECT {lists} FROM fresh GROUP BY {_keys(node)} HAVING {_far(node)}"


def _far(node: physical.Dedup) -> str:
    first = "arg_min(_time, _place)"
    return f"greatest(max(_time) - {first}, {first} - min(_time)) > {node.within_us}"


def _keys(node: physical.Dedup) -> str:
    return ", ".join(quoted(key) for key in node.keys)


def _passing(places: Sequence[int], times: Sequence[int], within_us: int) -> list[int]:
    """The accepted rows of one key: each row, unless an accepted row before it is within the distance."""
    passed: list[int] = []  # times, sorted
    found = []
    for place, time in zip(places, times, strict=True):
        at = bisect_left(passed, time - within_us)
        if at == len(passed) or passed[at] > time + within_us:
            insort(passed, time)
            found.append(place)
    return found
