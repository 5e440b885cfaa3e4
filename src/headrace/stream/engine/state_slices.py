"""State in buckets, by event time or by key: a layer between operators and the state backend.

By time, expired rows are dropped a bucket at a time, and a batch reads only the buckets that can match. By key, for
state that is kept for ever, a small batch reads only the buckets of its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import limits
from headrace.stream.engine.arrow_tables import micros, split
from headrace.stream.engine.shards import shard_of
from headrace.stream.engine.state import OperatorState

OPEN: Final = "_open"
"""A column of state in time slices: whether the row still waits for what `TimeSlices.close` ends."""

_WIDTH_MIN_US: Final = 1_000_000  # buckets below a second would be many, and save nothing
_WIDTH_PARTS: Final = 8  # of the time that rows are kept: a batch reads a quarter more than it must
_HASHES: Final = (
    2**31
)  # a power of two, so that a hash says the slice, too; a collision of two keys costs a few rows more
_NARROW: Final = 2**16
_CHUNK_ROWS: Final = 2_048  # DuckDB's vectors have as many


class TimeSlices:
    """Rows in buckets of `width_us` of event time, which every row must have."""

    def __init__(self, parts: OperatorState, time: str, width_us: int) -> None:
        self._state = parts
        self._time = time
        self._width_us = width_us

    @classmethod
    def keeping(cls, keep_us: int, parts: OperatorState, time: str) -> TimeSlices:
        """With buckets that suit rows which are kept for `keep_us`."""
        return cls(parts, time, max(_WIDTH_MIN_US, keep_us // _WIDTH_PARTS))

    def append(self, rows: pa.Table) -> None:
        for bucket, group in grouped(rows, micros(rows, self._time) // self._width_us):
            self._state.append(bucket, group)
            compact(self._state, bucket)

    def between(self, first_us: int | None, last_us: int | None) -> pa.Table:
        """All rows from `first_us` to `last_us` (None: no bound), and perhaps a few more around them."""
        return self._state.read(self._buckets(first_us, last_us))

    def take_before(self, limit_us: int) -> pa.Table:
        """Remove and return the rows older than `limit_us`."""
        taken = [self._state.read([])]
        for bucket in self._buckets(None, limit_us - 1):
            old, rest = self._split(bucket, limit_us)
            taken.append(old)
            self._put(bucket, rest)
        return pa.concat_tables(taken)

    def close(self, limit_us: int, keep_us: int) -> pa.Table:
        """Mark the open rows older than `limit_us` as closed, and return them.

        Args:
            limit_us: see there.
            keep_us: rows older than this will be dropped next (`drop_before`), and are not marked.
        """
        closed = [self._state.read([])]
        for bucket in self._buckets(None, limit_us - 1):
            old, rest = self._split(bucket, limit_us)
            fresh = old.filter(old[OPEN])
            closed.append(fresh)
            if fresh.num_rows and self._end(bucket) > keep_us:
                self._put(bucket, pa.concat_tables([_marked(old, is_open=False), rest]))
        return pa.concat_tables(closed)

    def drop_before(self, limit_us: int) -> None:
        """Drop the buckets that hold only rows older than `limit_us`. Nothing is read."""
        for bucket in self._state.buckets(last=limit_us // self._width_us - 1):
            self._state.drop(bucket)

    def latest(self) -> int | None:
        """The greatest event time there is."""
        buckets = self._state.buckets()
        return int(micros(self._state.read(buckets[-1:]), self._time).max()) if buckets else None

    def _buckets(self, first_us: int | None, last_us: int | None) -> list[int]:
        first = None if first_us is None else first_us // self._width_us
        last = None if last_us is None else last_us // self._width_us
        return self._state.buckets(first, last)

    def _end(self, bucket: int) -> int:
        return (bucket + 1) * self._width_us

    def _split(self, bucket: int, limit_us: int) -> tuple[pa.Table, pa.Table]:
        rows = self._state.read([bucket])
        return split(rows, pa.array(micros(rows, self._time) < limit_us))

    def _put(self, bucket: int, rows: pa.Table) -> None:
        if rows.num_rows:
            self._state.replace(bucket, rows)
        else:
            self._state.drop(bucket)


class KeySlices:
    """Rows that are kept for ever, in slices by the hash of their keys, oldest first.

    Appends to a slice go to its level 0; a level that is full becomes one part of the next. So a row is written again a
    few times in all, however much there is, and a read meets few parts. Bucket = slice - level × COUNT: in the order of
    the buckets a slice's oldest rows come first.
    """

    COUNT: Final = 16
    """A multiple of the usual number of shards: so a slice lies in one shard, and an append is one part of it."""

    _LEVEL_PARTS: Final = 4  # of levels above 0: after a shrink at most that many times the needed rows remain

    def __init__(
        self, parts: OperatorState, keys: Sequence[str], shrink: Callable[[pa.Table], pa.Table] | None = None
    ) -> None:
        """Args:
        parts: where the rows are.
        keys: their columns that are hashed.
        shrink: removes obsolete rows when parts are merged; None: all rows stay.
        """
        self._state = parts
        self._keys = tuple(keys)
        self._shrink = shrink

    def append(self, rows: pa.Table) -> None:
        for number, group in grouped(rows, self._hashes(rows, self._keys) % self.COUNT):
            self._add(number, group, level=0)

    def candidates(self, rows: pa.Table, keys: Sequence[str]) -> pa.Table:
        """All rows that have a key of `rows`, and others. `keys`: the names of its key columns."""
        wanted = set(np.flatnonzero(np.bincount(self._hashes(rows, keys) % self.COUNT)).tolist())
        return self._state.read(bucket for bucket in self._state.buckets() if bucket % self.COUNT in wanted)

    def matching(self, rows: pa.Table) -> pa.Table:
        """All rows that have a key of `rows`, and hardly any others."""
        found = self.candidates(rows, self._keys)
        hashes = pa.array(np.unique(self._hashes(rows, self._keys)))
        return found.filter(pc.is_in(pa.array(self._hashes(found, self._keys)), value_set=hashes))

    def _hashes(self, rows: pa.Table, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Equal for equal keys; the last bits are the slice."""
        if not keys:
            return np.zeros(rows.num_rows, np.int64)
        return np.asarray(shard_of(rows, tuple(keys), _HASHES), np.int64)

    def _add(self, number: int, rows: pa.Table, *, level: int) -> None:
        bucket = number - level * self.COUNT
        self._state.append(bucket, rows)
        if self._state.count(bucket) > (self._LEVEL_PARTS if level else limits.COMPACT_PARTS):
            merged = self._state.read([bucket])
            self._state.drop(bucket)
            self._add(number, self._shrink(merged) if self._shrink else merged, level=level + 1)


def grouped(rows: pa.Table, buckets: npt.NDArray[np.int64]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each bucket, in their order; buckets ascending."""
    if not len(buckets):
        return
    first = buckets[0]
    if (buckets == first).all():
        yield int(first), rows
        return
    order = np.argsort(_narrow(buckets), kind="stable")
    buckets = buckets[order]
    rows = rows.take(pa.array(order))
    for start, end in pairwise([0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]):
        yield int(buckets[start]), rows.slice(start, end - start)


def _narrow(numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The same order, in 16 bits if that is possible: numpy sorts these in one go, six times as fast."""
    least = numbers.min()
    return (numbers - least).astype(np.uint16) if numbers.max() - least < _NARROW else numbers


def compact(parts: OperatorState, bucket: int) -> None:
    """Merge the bucket's parts if they are many: each is a key of the store, and a chunk for DuckDB."""
    if parts.count(bucket) > limits.COMPACT_PARTS:
        parts.replace(bucket, parts.read([bucket]))


def joined(rows: pa.Table) -> pa.Table:
    """The same rows in one chunk, if they are in many small ones: each costs DuckDB some 10 µs, a copied row 10 ns."""
    chunks = rows.column(0).num_chunks
    return rows.combine_chunks() if chunks > 1 and rows.num_rows < chunks * _CHUNK_ROWS else rows


def opened(rows: pa.Table) -> pa.Table:
    """The rows with OPEN behind them: true."""
    return rows.append_column(OPEN, pa.array(np.full(rows.num_rows, fill_value=True)))


def _marked(rows: pa.Table, *, is_open: bool) -> pa.Table:
    flags = pa.array(np.full(rows.num_rows, is_open))
    return rows.set_column(rows.column_names.index(OPEN), OPEN, flags)
