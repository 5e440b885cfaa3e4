"""What stands where in a pipeline's state. The name is `stream:NAME`; keys sort by what is read together.

definition              JSON: version of this layout, signatures, sources, shards, the plan's text, when it was made
control                 JSON: {"paused": bool}, written by `headrace stream pause|resume`
owners                  JSON: epoch, members, who has which shards and slots; every commit expects it unchanged
beat/MEMBER             JSON: when the member was last alive (steady ms), host, pid, its rates
progress/SLOT           JSON: batch number, per source watermark, position, rows; every commit expects its last value
outbox/SINK/BATCH       what a sink still has to deliver
p/OPERATOR/SHARD/BUCKET/NUMBER   parts of state (engine/parts.py)
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "stream:"
DEFINITION: Final = b"definition"
CONTROL: Final = b"control"
OWNERS: Final = b"owners"
BEAT: Final = b"beat/"
PROGRESS: Final = b"progress/"
OUTBOX: Final = b"outbox/"
PARTS: Final = b"p/"

BUCKET_BIAS: Final = 2**63  # makes negative buckets sort before positive ones


def state_name(pipeline: str) -> str:
    return PREFIX + pipeline


def part_key(operator: str, shard: int, bucket: int, number: int) -> bytes:
    return PARTS + f"{operator}/{shard:02x}/{bucket + BUCKET_BIAS:016x}/{number:08x}".encode()


def read_part_key(key: bytes) -> tuple[str, int, int, int]:
    """(operator, shard, bucket, number)."""
    operator, shard, bucket, number = key.removeprefix(PARTS).decode().rsplit("/", 3)
    return operator, int(shard, 16), int(bucket, 16) - BUCKET_BIAS, int(number, 16)
