"""Joins of two streams.

Each side keeps its rows as long as a partner can arrive. A new row meets the rows that the other side keeps and is then
kept itself, so of two rows the later finds the earlier, and each pair is produced once:

    left port:   new left × old right                       then the new left is kept
    right port:  new right × (old left and new left)        then the new right

`reach` is how long after its own time a row may meet a partner: for the left the upper bound, for the right the negated
lower bound. No row that is still to come is older than the watermark, so a row is done at time + reach. Outer joins then
check once more whether the row had a partner: matched rows are not marked, but the other side is kept until no row can need
it. That costs nothing where the bounds are equal, as in joins of windows, and writes only appends.

Pairs with equal keys come from pyarrow and numpy where these suffice: a DuckDB join costs 1.5 ms before its first row. Most
rows of the state do not match, so rows whose keys the other side lacks are filtered out first. Then keys become numbers, and
each left row is paired with the right rows of its number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import physical
from headrace.stream.engine.arrow_tables import complete, conform, micros, minus, nullable, plain, quoted, reject_late
from headrace.stream.engine.grouping import codes_of
from headrace.stream.engine.operator import END, NEVER, Context, Operator
from headrace.stream.engine.project import Select, select_of
from headrace.stream.engine.state_slices import OPEN, KeySlices, TimeSlices, joined, opened
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.schema import Schema

PAIRS_PER_ROW_MAX: Final = 8
"""Where more pairs than this have equal keys for a row, on average, and bounds of time choose among them, DuckDB does not
have to hold them all."""

Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EquiJoin:
    """An inner join. `bounds`: (left time, right time, least and greatest distance, None: no bound), None: keys suffice.
    `select`: the output's columns, of the pairs for which the join's condition is true."""

    names: tuple[str, ...]
    left_keys: tuple[str, ...]
    right_keys: tuple[str, ...]
    bounds: tuple[str, str, int | None, int | None] | None
    select: Select

    def pairs(self, left: pa.Table, right: pa.Table) -> pa.Table | None:
        """The output; None: there are too many pairs for this. No row has a NULL in its keys or times."""
        left, right = self._wanted(left, right)
        found = self._places(left, right)
        if found is None:
            return None
        lefts, rights = self._in_time(left, right, *found)
        left, right = left.take(pa.array(lefts)), right.take(pa.array(rights))
        both = pa.table([*left.columns, *right.columns], [*left.column_names, *right.column_names])
        return self.select.rows(both, self.names)

    def _wanted(self, left: pa.Table, right: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The rows of both sides whose keys, each for itself, the other has. The smaller side chooses first."""
        if left.num_rows < right.num_rows:
            right = _among(right, self.right_keys, left, self.left_keys)
            return _among(left, self.left_keys, right, self.right_keys), right
        left = _among(left, self.left_keys, right, self.right_keys)
        return left, _among(right, self.right_keys, left, self.left_keys)

    def _places(self, left: pa.Table, right: pa.Table) -> tuple[Ints, Ints] | None:
        """Where the left and the right row of each pair with equal keys stand."""
        keys = pa.concat_tables([_keys(left, self.left_keys), _keys(right, self.right_keys)])
        codes = codes_of(keys, keys.column_names)
        left_codes, right_codes = codes[: left.num_rows], codes[left.num_rows :]
        counts = np.bincount(right_codes, minlength=int(codes.max(initial=0)) + 1)
        partners = counts[left_codes]
        total = int(partners.sum())
        if total > PAIRS_PER_ROW_MAX * len(codes):
            return None
        lefts = np.repeat(np.arange(left.num_rows), partners)
        nth = np.arange(total) - np.repeat(np.cumsum(partners) - partners, partners)
        first = np.cumsum(counts) - counts
        return lefts, np.argsort(right_codes, kind="stable")[first[left_codes[lefts]] + nth]

    def _in_time(self, left: pa.Table, right: pa.Table, lefts: Ints, rights: Ints) -> tuple[Ints, Ints]:
        if self.bounds is None or not len(lefts):
            return lefts, rights
        left_time, right_time, least, most = self.bounds
        distance = micros(right, right_time)[rights] - micros(left, left_time)[lefts]
        wanted = np.ones(len(distance), np.bool_)
        if least is not None:
            wanted &= distance >= least
        if most is not None:
            wanted &= distance <= most
        return lefts[wanted], rights[wanted]


def equi_join_of(node: physical.Join, left: Schema, right: Schema) -> EquiJoin | None:
    """How to find the pairs; None: only DuckDB can."""
    left_keys, right_keys = node.left_keys, node.right_keys
    bounds = None
    if node.left_time and node.right_time and (node.lower_us is not None or node.upper_us is not None):
        if node.lower_us == node.upper_us == 0:
            left_keys, right_keys = (*left_keys, node.left_time), (*right_keys, node.right_time)
        else:
            bounds = (node.left_time, node.right_time, node.lower_us, node.upper_us)
    kinds = zip(_types(left, left_keys), _types(right, right_keys), strict=True)
    if not left_keys or not all(_match(*pair) for pair in kinds):
        return None
    columns = ", ".join(quoted(name) for name in node.schema.names)
    where = f" WHERE {node.condition}" if node.condition else ""
    select = select_of(f"SELECT {columns} FROM {physical.INPUT}{where}", Schema((*left.fields, *right.fields)))
    return None if select is None else EquiJoin(tuple(node.schema.names), left_keys, right_keys, bounds, select)


def _types(schema: Schema, names: Sequence[str]) -> list[pa.DataType]:
    return [field.type for name in names if (field := schema.find(name)) is not None]


def _match(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether values are equal if their bytes are, as whole numbers of 64 bits if they are numbers: not so -0.0 and 0.0."""
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return True
    return bool(one == other and (pa.types.is_string(one) or pa.types.is_timestamp(one) or pa.types.is_date32(one)))


def _keys(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    return pa.table({f"k{place}": _key(rows, name) for place, name in enumerate(names)})


def _key(rows: pa.Table, name: str) -> pa.ChunkedArray:
    column = rows[name]
    return column.cast(pa.int64()) if pa.types.is_integer(column.type) else column


def _among(rows: pa.Table, keys: Sequence[str], others: pa.Table, other_keys: Sequence[str]) -> pa.Table:
    for key, other in zip(keys, other_keys, strict=True):
        rows = rows.filter(pc.is_in(_key(rows, key), value_set=_key(others, other).combine_chunks()))
    return rows


# --- The operator ---


_LEFT: Final = "_left"
_RIGHT: Final = "_right"


class JoinOperator(Operator):
    """State: the rows of both sides, in time slices where they are forgotten one day, else in key slices."""

    def __init__(
        self, node: physical.Join, name: str, inputs: Sequence[Schema], context: Context, *, kernels: bool = True
    ) -> None:
        """Args: kernels: whether pyarrow's may be used; tests say no, to compare."""
        self.schema = node.schema
        self._node = node
        self._context = context
        self._left, self._right = _sides(node, name, inputs, context)
        self._on = _on(node)
        columns = ", ".join(quoted(name) for name in node.schema.names)
        self._matching = equi_join_of(node, *inputs) if kernels else None
        self._pairs_sql = f"SELECT {columns} FROM {_LEFT} JOIN {_RIGHT} ON {self._on}"

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        side, other = (self._left, self._right) if port == 0 else (self._right, self._left)
        if other.keep_us is not None:
            rows = reject_late(self._context, rows, side.time, watermark, self._node.step)
        able, unable = complete(plain(rows, side.schema), side.needed)
        found = self._pairs(side, able, other)
        side.remember(able)
        return _some([found, *([self._alone(unable)] if side.outer else [])])

    def advance(self, watermark: int) -> pa.Table | None:
        pairs = ((self._left, self._right), (self._right, self._left))
        found = [self._alone(self._without_partner(side, other, watermark)) for side, other in pairs if side.outer]
        for side, _ in pairs:
            side.forget(watermark)
        return _some(found)

    def watermark(self, inputs: Sequence[int]) -> int:
        low = min(inputs)
        if self._node.time is None or low in (NEVER, END):
            return low
        side = self._left if self._node.time in self._left.schema.names else self._right
        return NEVER if side.reach_us is None else low - max(0, side.reach_us)

    def pending(self) -> int | None:
        return max((time for side in (self._left, self._right) if (time := side.pending()) is not None), default=None)

    def _pairs(self, side: _Side, rows: pa.Table, other: _Side) -> pa.Table:
        others = other.partners_of(rows, side) if rows.num_rows else rows
        if not rows.num_rows or not others.num_rows:
            return self.schema.arrow().empty_table()
        found = None
        if self._matching is not None:
            with contextlib.suppress(pa.ArrowInvalid):  # then DuckDB says what is wrong
                found = self._matching.pairs(*((rows, others) if side is self._left else (others, rows)))
        if found is None:
            found = self._context.query(self._pairs_sql, **{side.table: rows, other.table: joined(others)})
        return conform(found, self.schema)

    def _without_partner(self, side: _Side, other: _Side, watermark: int) -> pa.Table:
        """The rows of an outer side that are done, and had none."""
        rows = side.done(watermark)
        others = other.partners_of(rows, side) if rows.num_rows else rows
        if not rows.num_rows or not others.num_rows:
            return rows
        sql = f"SELECT * FROM {side.table} ANTI JOIN {other.table} ON {self._on}"
        return self._context.query(sql, **{side.table: rows, other.table: joined(others)})

    def _alone(self, rows: pa.Table) -> pa.Table:
        """Rows of one side, with NULLs for the other."""
        given = set(rows.column_names)
        columns = [
            rows[field.name] if field.name in given else pa.nulls(rows.num_rows, field.type)
            for field in self.schema.fields
        ]
        return conform(pa.table(columns, names=self.schema.names), self.schema)


@dataclass(slots=True)
class _Side:
    """One input, and what is remembered of it.

    Attributes:
        table: its name in SQL.
        time: its event time; empty if there is none, or no bound that needs it.
        reach_us: how long after its own time a row may meet a partner; None: for ever.
        keep_us: how long after it a row is remembered, at least `reach_us`; None: for ever.
        outer: whether a row without a partner comes out.
    """

    table: str
    schema: Schema
    keys: tuple[str, ...]
    time: str
    reach_us: int | None
    keep_us: int | None
    outer: bool
    state: TimeSlices | KeySlices

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns without which a row has no partner."""
        return (*self.keys, self.time) if self.time else self.keys

    def remember(self, rows: pa.Table) -> None:
        if rows.num_rows:
            self.state.append(opened(rows) if self.outer else rows)

    def partners_of(self, rows: pa.Table, other: _Side) -> pa.Table:
        """What is remembered and can meet these rows of the other side, and perhaps more. At least one row is given."""
        if isinstance(self.state, KeySlices):
            return plain(self.state.candidates(rows, other.keys), self.schema)
        times = micros(rows, other.time)
        first = None if self.reach_us is None else int(times.min()) - self.reach_us
        last = None if other.reach_us is None else int(times.max()) + other.reach_us
        return plain(self.state.between(first, last), self.schema)

    def done(self, watermark: int) -> pa.Table:
        """The rows that wait for a partner and will not find one any more; each once."""
        if isinstance(self.state, KeySlices) or self.reach_us is None or self.keep_us is None:
            return self.schema.arrow().empty_table()
        closed = self.state.close(minus(watermark, self.reach_us), minus(watermark, self.keep_us))
        return plain(closed, self.schema)

    def forget(self, watermark: int) -> None:
        if isinstance(self.state, TimeSlices) and self.keep_us is not None:
            self.state.drop_before(minus(watermark, self.keep_us))

    def pending(self) -> int | None:
        if not self.outer or isinstance(self.state, KeySlices) or self.reach_us is None:
            return None
        latest = self.state.latest()
        return None if latest is None else latest + self.reach_us + 1


def _sides(node: physical.Join, name: str, inputs: Sequence[Schema], context: Context) -> tuple[_Side, _Side]:
    upper, lower = node.upper_us, None if node.lower_us is None else -node.lower_us
    left_outer, right_outer = node.kind in ("left", "full"), node.kind in ("right", "full")
    if (left_outer and upper is None) or (right_outer and lower is None):
        raise UnsupportedQuery(
            f"{node.kind.upper()} JOIN", "a row would wait for its partner for ever", "bound the times", step=node.step
        )
    timed = upper is not None or lower is not None
    left_time, right_time = (node.left_time or "", node.right_time or "") if timed else ("", "")
    left_keep, right_keep = _prepare(upper, lower, asked=right_outer), _prepare(lower, upper, asked=left_outer)
    left_state = _state(f"{name}/left", inputs[0], node.left_keys, left_time, left_keep, context, outer=left_outer)
    right_state = _state(
        f"{name}/right", inputs[1], node.right_keys, right_time, right_keep, context, outer=right_outer
    )
    return (
        _Side(_LEFT, inputs[0], node.left_keys, left_time, upper, left_keep, left_outer, left_state),
        _Side(_RIGHT, inputs[1], node.right_keys, right_time, lower, right_keep, right_outer, right_state),
    )


def _state(
    name: str, schema: Schema, keys: tuple[str, ...], time: str, keep_us: int | None, context: Context, *, outer: bool
) -> TimeSlices | KeySlices:
    rows = nullable(schema)
    parts = context.state(name, keys, rows.append(pa.field(OPEN, pa.bool_())) if outer else rows)
    if keep_us is None:
        return KeySlices(parts, keys)
    return TimeSlices.keeping(keep_us, parts, time)


def _prepare(reach_us: int | None, other_reach_us: int | None, *, asked: bool) -> int | None:
    """How long a row is remembered: while it may meet a partner; and where the other side is outer (`asked`), until the
    partners that it may have had are done."""
    if reach_us is None or not asked:
        return reach_us
    return None if other_reach_us is None else max(reach_us, reach_us + other_reach_us)


def _on(node: physical.Join) -> str:
    """The condition of the join, in SQL over the two tables."""
    terms = [
        f"{_LEFT}.{quoted(left)} = {_RIGHT}.{quoted(right)}"
        for left, right in zip(node.left_keys, node.right_keys, strict=True)
    ]
    if node.left_time and node.right_time:
        terms += _bounds(f"{_LEFT}.{quoted(node.left_time)}", f"{_RIGHT}.{quoted(node.right_time)}", node)
    if node.condition:
        terms.append(f"({node.condition})")
    return " AND ".join(terms) or "true"


def _bounds(left: str, right: str, node: physical.Join) -> list[str]:
    if node.lower_us == node.upper_us == 0:
        return [f"{left} = {right}"]  # a hash join on it, where a range is a filter
    lower = [] if node.lower_us is None else [f"{right} >= {left} + to_microseconds({node.lower_us})"]
    upper = [] if node.upper_us is None else [f"{right} <= {left} + to_microseconds({node.upper_us})"]
    return lower + upper


def _some(tables: Sequence[pa.Table]) -> pa.Table | None:
    filled = [table for table in tables if table.num_rows]
    return pa.concat_tables(filled) if filled else None
