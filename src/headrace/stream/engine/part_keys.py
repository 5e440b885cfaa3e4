"""The keys of parts in a pipeline's state: OPERATOR/SHARD/BUCKET/NUMBER behind one prefix, sorted as one reads them."""

from __future__ import annotations

from typing import Final, NamedTuple

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
