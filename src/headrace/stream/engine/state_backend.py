"""State backends: the state of operators in memory alone, or in memory with each change recorded for the step's commit.

Appended rows stay together until `take_changes` splits them into shards and serialises them. Rows that are dropped in the
step in which they arrived (a window that opens and closes within a batch) never cost that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.stream import limits
from headrace.stream.engine.shards import shard_of
from headrace.stream.engine.state import bucket_prefix, operator_prefix, part_key, read_part_key

_COMMITTED: Final = -(2**62)
"""The generation of what the store has already."""


@dataclass(slots=True, eq=False)
class Part:
    """A part that was taken for a commit, or came from one. `batch` None: it has to be fetched."""

    key: bytes
    rows: int
    size_bytes: int
    batch: pa.RecordBatch | None


class PartCache:
    """Which parts are in memory, those used least lately first, and how much they take.

    Parts of the last two generations (calls of `shrink`) are never given up: their commit may be on its way.
    """

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        self._used: OrderedDict[int, tuple[Part, int]] = OrderedDict()  # by id: part, the generation that it came in
        self._bytes = 0
        self._generation = 0

    def add(self, part: Part, *, committed: bool = False) -> None:
        self._used[id(part)] = (part, _COMMITTED if committed else self._generation)
        self._bytes += part.size_bytes

    def remove(self, part: Part) -> None:
        if self._used.pop(id(part), None) is not None:
            self._bytes -= part.size_bytes

    def use(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self._used.move_to_end(id(part))

    def shrink(self) -> None:
        self._generation += 1
        self.forget()

    def forget(self) -> None:
        """Give up what is too much, of what may be."""
        for part in list(self._too_much()):
            part.batch = None
            self.remove(part)

    def _too_much(self) -> Iterator[Part]:
        too_much = self._bytes - self._bound_bytes
        for part, generation in self._used.values():
            if too_much <= 0:
                return
            if generation < self._generation - 1:
                too_much -= part.size_bytes
                yield part


# State in memory alone, or in memory with each change recorded for the step's commit.
#
# Rows that were appended stay together until `take_changes` cuts them into shards and serialises them. What is dropped in
# the step in which it came (a window that opens and closes within a batch) never costs that.


Ints = npt.NDArray[Any]

Read = Callable[[bytes], Iterable[tuple[bytes, bytes]]]
"""All committed keys that begin with a prefix, with their values, sorted; so that no more than a few are in memory at once
if who reads them forgets them."""


class MemoryStateBackend:
    """Parts of a pipeline whose state is not kept. Nothing is serialised, all rows are in shard 0."""

    def __init__(self) -> None:
        self._parts: dict[str, MemoryOperatorState] = {}

    def open(self, operator: str, keys: Sequence[str], schema: pa.Schema) -> MemoryOperatorState:
        del keys
        return self._parts.setdefault(operator, MemoryOperatorState(schema))

    def take_changes(self) -> Mapping[bytes, bytes | None]:
        return {}

    def size_bytes(self) -> int:
        return sum(parts.size_bytes() for parts in self._parts.values())


class _SortedBuckets:
    """Which buckets there are. PreparedQuery sorted, since a plan may have a hundred thousand windows open, and asks each batch."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    def add(self, number: int) -> None:
        """Idempotent; as `remove`."""
        place = bisect_left(self._numbers, number)
        if self._numbers[place : place + 1] != [number]:
            self._numbers.insert(place, number)

    def remove(self, number: int) -> None:
        place = bisect_left(self._numbers, number)
        if self._numbers[place : place + 1] == [number]:
            del self._numbers[place]

    def between(self, first: int | None, last: int | None) -> list[int]:
        start = 0 if first is None else bisect_left(self._numbers, first)
        end = len(self._numbers) if last is None else bisect_right(self._numbers, last)
        return self._numbers[start:end]


class MemoryOperatorState:
    """One operator's rows, by bucket."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._tables: dict[int, list[pa.Table]] = {}
        self._sorted = _SortedBuckets()
        self._rows = 0

    def append(self, bucket: int, rows: pa.Table) -> None:
        if rows.num_rows:
            self._sorted.add(bucket)
            self._tables.setdefault(bucket, []).append(rows.select(self._schema.names))
            self._rows += rows.num_rows

    def read(self, buckets: Iterable[int] | None = None) -> pa.Table:
        wanted = self.buckets() if buckets is None else buckets
        return _concatenated([table for bucket in wanted for table in self._tables.get(bucket, [])], self._schema)

    def replace(self, bucket: int, rows: pa.Table) -> None:
        self.drop(bucket)
        self.append(bucket, rows)

    def drop(self, bucket: int) -> None:
        self._sorted.remove(bucket)
        self._rows -= sum(table.num_rows for table in self._tables.pop(bucket, []))

    def buckets(self, first: int | None = None, last: int | None = None) -> list[int]:
        return self._sorted.between(first, last)

    def count(self, bucket: int) -> int:
        return len(self._tables.get(bucket, []))

    def rows(self) -> int:
        return self._rows

    def size_bytes(self) -> int:
        return sum(table.nbytes for tables in self._tables.values() for table in tables)


@dataclass(slots=True, eq=False)
class _Bucket:
    """The parts of each shard in the order of their numbers, and behind them rows that no commit has seen yet."""

    parts: dict[int, list[Part]] = field(default_factory=dict)
    fresh: list[pa.Table] = field(default_factory=list)

    def all_parts(self) -> Iterator[Part]:
        for shard in sorted(self.parts):
            yield from self.parts[shard]


class DurableStateBackend:
    """Parts of a pipeline whose state is in a store: `take_changes` says what a commit has to write.

    A part may be dropped from memory, and fetched again, from the `take_changes` after the one that gave it: so the commit
    of a step has to be done before the next step's changes are taken, and may run beside the next step.

    Args:
        read: reads committed keys, when an operator is opened and again.
        shards: into how many shards rows are cut, 1 to 256; the same for the pipeline's life.
        owned: the shards that this process has; None: all. Rows of others are not taken in, and are never given.
        memory_bytes: how much of the parts stays in memory.
    """

    def __init__(
        self,
        read: Read,
        *,
        shards: int,
        owned: Collection[int] | None = None,
        memory_bytes: int = limits.STATE_MEMORY_BYTES_DEFAULT,
    ) -> None:
        self.shards = shards
        self._read = read
        self._owned = owned
        self._memory = PartCache(memory_bytes)
        self._parts: dict[str, DurableOperatorState] = {}

    def open(self, operator: str, keys: Sequence[str], schema: pa.Schema) -> DurableOperatorState:
        if operator not in self._parts:
            parts = DurableOperatorState(operator, tuple(keys), schema, self.shards, self._read, self._memory)
            parts.load(None if self._owned is None else sorted(self._owned))
            self._parts[operator] = parts
        return self._parts[operator]

    def take_changes(self) -> Mapping[bytes, bytes | None]:
        changes: dict[bytes, bytes | None] = {}
        for parts in self._parts.values():
            changes.update(parts.take_changes())
        self._memory.shrink()
        return changes

    def schemas(self) -> dict[str, pa.Schema]:
        """The columns of each operator's parts, by the operator's name: for who reads state without the pipeline."""
        return {operator: parts.schema for operator, parts in self._parts.items()}

    def size_bytes(self) -> int:
        return sum(parts.size_bytes() for parts in self._parts.values())


class DurableOperatorState:
    """One operator's parts. Invariant: what `_buckets` has, less its fresh rows, is what the store has with `_changes`."""

    def __init__(
        self, operator: str, keys: tuple[str, ...], schema: pa.Schema, shards: int, read: Read, memory: PartCache
    ) -> None:
        self._operator = operator
        self._keys = keys
        self.schema = schema
        self._shards = shards
        self._read = read
        self._memory = memory
        self._buckets: dict[int, _Bucket] = {}
        self._sorted = _SortedBuckets()
        self._rows = 0
        self._changes: dict[bytes, bytes | None] = {}
        self._touched: set[int] = set()

    def load(self, owned: Iterable[int] | None) -> None:
        """Take in what the store has of these shards (None: of all). Once, at the start."""
        for shard in [None] if owned is None else owned:
            self._load(operator_prefix(self._operator, shard))

    def _load(self, prefix: bytes) -> None:
        for key, value in self._read(prefix):
            name = read_part_key(key)
            batch = pa.ipc.read_record_batch(pa.py_buffer(value), self.schema)
            part = Part(key, batch.num_rows, len(value), batch)
            self._bucket(name.bucket).parts.setdefault(name.shard, []).append(part)
            self._rows += part.rows
            self._memory.add(part, committed=True)
            self._memory.forget()

    def append(self, bucket: int, rows: pa.Table) -> None:
        if rows.num_rows:
            self._bucket(bucket).fresh.append(rows.select(self.schema.names))
            self._rows += rows.num_rows
            self._touched.add(bucket)

    def read(self, buckets: Iterable[int] | None = None) -> pa.Table:
        wanted = self.buckets() if buckets is None else buckets
        return _concatenated([table for bucket in wanted for table in self._tables(bucket)], self.schema)

    def replace(self, bucket: int, rows: pa.Table) -> None:
        self.drop(bucket)
        self.append(bucket, rows)

    def drop(self, bucket: int) -> None:
        gone = self._buckets.pop(bucket, None)
        if gone is not None:
            self._sorted.remove(bucket)
            self._rows -= sum(table.num_rows for table in gone.fresh)
            for part in gone.all_parts():
                self._rows -= part.rows
                self._changes[part.key] = None
                self._memory.remove(part)

    def buckets(self, first: int | None = None, last: int | None = None) -> list[int]:
        return self._sorted.between(first, last)

    def count(self, bucket: int) -> int:
        found = self._buckets.get(bucket, _Bucket())
        return max((len(parts) for parts in found.parts.values()), default=0) + bool(found.fresh)

    def rows(self) -> int:
        return self._rows

    def size_bytes(self) -> int:
        return sum(
            sum(part.size_bytes for part in bucket.all_parts()) + sum(table.nbytes for table in bucket.fresh)
            for bucket in self._buckets.values()
        )

    def take_changes(self) -> dict[bytes, bytes | None]:
        """Cut and serialise what came; see StateBackend."""
        touched = [(number, self._buckets[number]) for number in sorted(self._touched) if number in self._buckets]
        self._touched.clear()
        fresh = [(number, table) for number, bucket in touched for table in bucket.fresh]
        for _, bucket in touched:
            bucket.fresh.clear()
        if fresh:
            self._serialise(fresh)
        changes, self._changes = self._changes, {}
        return changes

    def _bucket(self, number: int) -> _Bucket:
        if number not in self._buckets:
            self._sorted.add(number)
            self._buckets[number] = _Bucket()
        return self._buckets[number]

    def _serialise(self, fresh: Sequence[tuple[int, pa.Table]]) -> None:
        """All buckets at once: small windows are many, and most of the cost of a cut is that there is one."""
        rows = pa.concat_tables([table for _, table in fresh]).combine_chunks()
        numbers = np.repeat([number for number, _ in fresh], [table.num_rows for _, table in fresh])
        shards = shard_of(rows, self._keys, self._shards).to_numpy()
        for number, shard, group in _groups(rows, numbers, shards):
            parts = self._buckets[number].parts.setdefault(shard, [])
            for batch in group.to_batches():  # several only where texts are longer than one array takes
                for piece in pieces(batch):
                    self._write(number, parts, shard, piece)

    def _write(self, bucket: int, parts: list[Part], shard: int, piece: pa.RecordBatch) -> None:
        after = read_part_key(parts[-1].key).number + 1 if parts else 0
        value = piece.serialize().to_pybytes()
        # Read from what was written: a slice would keep all of the table in memory that it is cut from.
        batch = pa.ipc.read_record_batch(pa.py_buffer(value), self.schema)
        part = Part(part_key(self._operator, shard, bucket, after), batch.num_rows, len(value), batch)
        parts.append(part)
        self._changes[part.key] = value
        self._memory.add(part)

    def _tables(self, number: int) -> list[pa.Table]:
        bucket = self._buckets.get(number)
        if bucket is None:
            return []
        parts = list(bucket.all_parts())
        if any(part.batch is None for part in parts):
            self._fetch_again(number, bucket)
        self._memory.use(parts)
        return [*(pa.Table.from_batches([part.batch]) for part in parts), *bucket.fresh]

    def _fetch_again(self, number: int, bucket: _Bucket) -> None:
        for shard, parts in bucket.parts.items():
            if any(part.batch is None for part in parts):
                values = dict(self._read(bucket_prefix(self._operator, shard, number)))
                for part in parts:
                    if part.batch is None:
                        part.batch = pa.ipc.read_record_batch(pa.py_buffer(values[part.key]), self.schema)
                        self._memory.add(part, committed=True)


def _concatenated(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _groups(rows: pa.Table, numbers: Ints, shards: Ints) -> Iterator[tuple[int, int, pa.Table]]:
    """(bucket, shard, its rows in their order), for rows sorted by bucket."""
    changes = np.flatnonzero((np.diff(numbers) != 0) | (np.diff(shards) != 0)) + 1
    if len(changes):
        order = np.lexsort((shards, numbers))
        if (np.diff(order) != 1).any():
            rows, shards = rows.take(pa.array(order)).combine_chunks(), shards[order]
            changes = np.flatnonzero((np.diff(numbers) != 0) | (np.diff(shards) != 0)) + 1
    for start, end in pairwise([0, *changes.tolist(), len(numbers)]):
        yield int(numbers[start]), int(shards[start]), rows.slice(start, end - start)


def pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of at most STATE_PART_BYTES_MAX each; a single row is never cut."""
    if batch.nbytes <= limits.STATE_PART_BYTES_MAX or batch.num_rows == 1:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from pieces(batch.slice(0, middle))
    yield from pieces(batch.slice(middle))
