"""State as parts: what an operator remembers, in Arrow record batches that are written once.

A part belongs to an operator, a shard and a *bucket* (an integer that the operator chooses: the start of a pane, a slice
of event time, 0). Operators append, replace and drop; what changed in a step is written in the step's commit, as
key-value pairs of the pipeline's state:

    p/OPERATOR/SHARD/BUCKET/NUMBER  →  a serialised record batch, without its schema

A part holds rows of one shard only: a row's shard follows from the values of its key columns. So another process can
take a shard over by reading its parts, and nothing has to be moved when processes come and go.

Parts are kept in memory up to a bound; beyond it those used least lately are read from the store again when they are
needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import pyarrow as pa


class OperatorState(Protocol):
    """One operator's parts, over all shards that this process has."""

    def append(self, bucket: int, rows: pa.Table) -> None:
        """Add rows. O(rows): nothing that is there is read."""

    def read(self, buckets: Iterable[int] | None = None) -> pa.Table:
        """All rows of these buckets (None: of all), in the order in which they were added within a shard."""

    def replace(self, bucket: int, rows: pa.Table) -> None:
        """The bucket's rows are these now, and no others."""

    def drop(self, bucket: int) -> None:
        """The bucket is gone. Nothing happens if it is not there."""

    def buckets(self, first: int | None = None, last: int | None = None) -> list[int]:
        """The buckets that have rows, from `first` to `last` (None: no bound), sorted. O(those)."""

    def count(self, bucket: int) -> int:
        """How many parts the bucket has in its fullest shard: what `limits.COMPACT_PARTS` bounds."""

    def rows(self) -> int:
        """How many rows there are. O(1)."""


class StateBackend(Protocol):
    """The parts of all operators of a pipeline."""

    def open(self, operator: str, keys: Sequence[str], schema: pa.Schema) -> OperatorState:
        """The operator's parts, as they were left; rows have the columns of `schema`. With no keys all rows are in shard
        0."""

    def take_changes(self) -> Mapping[bytes, bytes | None]:
        """What has changed since the last call: key → value, None: removed. For the step's commit."""

    def size_bytes(self) -> int:
        """How much state there is, in memory or not."""


# --- The keys of parts in a pipeline's state: OPERATOR/SHARD/BUCKET/NUMBER behind one prefix, sorted as one reads them ---


PARTS: Final = b"p/"

BUCKET_BIAS: Final = 2**63  # makes negative buckets sort before positive ones


class PartName(NamedTuple):
    """Which part a key names."""

    operator: str
    shard: int
    bucket: int
    number: int


def part_key(operator: str, shard: int, bucket: int, number: int) -> bytes:
    """The key of one part."""
    return bucket_prefix(operator, shard, bucket) + f"{number:08x}".encode()


def bucket_prefix(operator: str, shard: int, bucket: int) -> bytes:
    """What the keys of all parts of a shard's bucket begin with."""
    return PARTS + f"{operator}/{shard:02x}/{bucket + BUCKET_BIAS:016x}/".encode()


def operator_prefix(operator: str, shard: int | None = None) -> bytes:
    """What the keys of all parts of an operator (and shard) begin with."""
    return PARTS + (f"{operator}/" if shard is None else f"{operator}/{shard:02x}/").encode()


def read_part_key(key: bytes) -> PartName:
    """The part that a key made by `part_key` names."""
    operator, shard, bucket, number = key.removeprefix(PARTS).decode().rsplit("/", 3)
    return PartName(operator, int(shard, 16), int(bucket, 16) - BUCKET_BIAS, int(number, 16))
