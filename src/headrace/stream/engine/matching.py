"""Pairs of rows by equal keys, by pyarrow and numpy: a join of DuckDB's costs 1.5 ms before its first row.

What is remembered is mostly not wanted, so rows whose keys the other side does not have go first. Then keys become
numbers, and each left row is paired with the right rows of its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import physical
from headrace.stream.engine.codes import codes_of
from headrace.stream.engine.select import Select, select_of
from headrace.stream.engine.tables import micros, quoted
from headrace.stream.schema import Schema

PAIRS_PER_ROW_MAX: Final = 8
"""Where more pairs than this have equal keys for a row, on average, and bounds of time choose among them, DuckDB does not
have to hold them all."""

Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matching:
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


def matching_of(node: physical.Join, left: Schema, right: Schema) -> Matching | None:
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
    return None if select is None else Matching(tuple(node.schema.names), left_keys, right_keys, bounds, select)


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
