"""Which shard a row belongs to: a function of the values of its key columns, the same for ever and everywhere.

Equal keys must give equal shards, whatever the columns' types: an int and a bigint that are joined, 0.0 and -0.0. So all
numbers are hashed as doubles (large integers that become equal by that merely share a shard), times as their microseconds,
texts and bytes by their UTF-8. DuckDB's own `hash()` changes between versions, so it cannot be used for what is stored.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

_NULL: Final = np.uint64(0x9E3779B97F4A7C15)
_PRIME: Final = np.uint64(0x100000001B3)  # FNV's
_FEW: Final = 8  # texts that are looked up singly: numpy takes 0.2 ms for any number of them
_REMEMBERED: Final = 10_000


def shard_of(table: pa.Table, keys: Sequence[str], shards: int) -> pa.Array:
    """The shard of each row, 0 to `shards` - 1 (int32). Without keys, or with one shard, it is 0."""
    if shards == 1 or not keys:
        return pa.array(np.zeros(table.num_rows, np.int32))
    hashes = np.zeros(table.num_rows, np.uint64)
    for key in keys:
        hashes = _mixed(hashes * _PRIME + _hashes(table[key].combine_chunks()))
    return pa.array((hashes % np.uint64(shards)).astype(np.int32))


def _hashes(column: pa.Array) -> Hashes:
    if isinstance(column, pa.ChunkedArray):  # what combine_chunks gives depends on pyarrow's version
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
    hashed = _of_values(column)
    return np.where(np.asarray(column.is_null()), _NULL, hashed) if column.null_count else hashed


def _of_values(column: pa.Array) -> Hashes:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), _NULL)
    if pa.types.is_temporal(kind):
        column = column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    elif not (pa.types.is_boolean(kind) or pa.types.is_decimal(kind) or _is_number(kind)):
        return _of_texts(column)
    numbers = np.asarray(column.cast(pa.float64(), safe=False).fill_null(0.0)) + 0.0  # makes -0.0 be 0.0
    numbers[np.isnan(numbers)] = np.nan  # there are many; one is enough
    return _mixed(numbers.view(np.uint64))


def _of_texts(column: pa.Array) -> Hashes:
    if len(column) <= _FEW and _is_text(column.type):
        return np.array([_NULL if value is None else _of_text(value) for value in column.to_pylist()], np.uint64)
    encoded = column.dictionary_encode() if _is_text(column.type) else _printed(column)
    values = encoded.dictionary.cast(pa.large_binary())
    if not len(values):
        return np.full(len(column), _NULL)
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    content = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else np.zeros(0, np.uint8)
    hashes = _polynomials(content, ends - ends[0])
    found: Hashes = hashes[np.asarray(encoded.indices.fill_null(0))]
    return found


@functools.lru_cache(_REMEMBERED)
def _of_text(value: str | bytes) -> np.uint64:
    content = value.encode() if isinstance(value, str) else value
    found: np.uint64 = _polynomials(np.frombuffer(content, np.uint8), np.array([0, len(content)]))[0]
    return found


def _polynomials(content: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> Hashes:
    """For each text (the n-th from ends[n] to ends[n + 1]) the sum of (byte + 1) × 31^place, all at once; mod 2^64."""
    lengths = np.diff(ends)
    powers = np.full(max(int(lengths.max(initial=0)), 1), 31, np.uint64)
    powers[0] = 1
    powers = np.cumprod(powers, dtype=np.uint64)
    places = np.arange(len(content)) - np.repeat(ends[:-1], lengths)
    terms = (content.astype(np.uint64) + np.uint64(1)) * powers[places]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return _mixed(sums[ends[1:]] - sums[ends[:-1]])


def _printed(column: pa.Array) -> Any:
    """Lists, structs and maps as texts: rare as keys, so simple rather than fast."""
    return pa.array([None if value is None else repr(value) for value in column.to_pylist()]).dictionary_encode()


def _mixed(hashes: Hashes) -> Hashes:
    """splitmix64's finish: every bit of the input changes half of the output's."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind))
