"""The layout of a pipeline's state. The name is `stream:NAME`; keys sort by what is read together.

definition              JSON: version of this layout, signatures, sources, shards, text of the plan
control                 JSON: {"paused": bool}, written by `headrace stream pause|resume`
owners                  JSON: epoch, members, their shards and slots; every commit expects it unchanged
beat/MEMBER             JSON: when the member was last alive (steady ms), host, pid
progress/SLOT           JSON: batch number, per source watermark, position, rows; every commit expects its last value
outbox/SLOT/SINK/NUMBER rows that a sink has still to deliver
shuffle/SHARD/SLOT/BATCH/NUMBER-PORT   rows that one slot has read for the owner of the shard (shuffle.py)
redo/SLOT/NUMBER        pieces of a commit that is too large for one transaction
schema/OPERATOR         the Arrow schema of an operator's parts, so that state can be read without its pipeline
p/OPERATOR/SHARD/BUCKET/NUMBER   parts of state (engine/state.py)
"""

from __future__ import annotations

from typing import Final

from headrace.stream.engine.state import PARTS, read_part_key

__all__ = [
    "ALL_BUT_DEFINITION",
    "BEAT",
    "CONTROL",
    "DEFINITION",
    "DIRECTORY",
    "OUTBOX",
    "OWNERS",
    "PARTS",
    "PREFIX",
    "PROGRESS",
    "REDO",
    "SCHEMA",
    "SHUFFLE",
    "outbox_key",
    "progress_key",
    "read_number",
    "read_part_key",
    "read_shuffle_port",
    "redo_key",
    "shuffle_key",
    "state_name",
]

PREFIX: Final = "stream:"
DIRECTORY: Final = "streams"
"""The state whose keys are the names of all pipelines, because states cannot be listed."""
DEFINITION: Final = b"definition"
CONTROL: Final = b"control"
OWNERS: Final = b"owners"
BEAT: Final = b"beat/"
PROGRESS: Final = b"progress/"
OUTBOX: Final = b"outbox/"
SHUFFLE: Final = b"shuffle/"
REDO: Final = b"redo/"
SCHEMA: Final = b"schema/"

ALL_BUT_DEFINITION: Final = (CONTROL, BEAT, PROGRESS, OUTBOX, SHUFFLE, REDO, SCHEMA, PARTS)
"""The keys that a reset removes before the definition; the owners stay."""


def state_name(pipeline: str) -> str:
    return PREFIX + pipeline


def progress_key(slot: int) -> bytes:
    return PROGRESS + f"{slot:04x}".encode()


def redo_key(slot: int, number: int | None = None) -> bytes:
    """The key of a piece; without a number, the prefix of all pieces of the slot."""
    return _numbered(REDO + f"{slot:04x}/".encode(), number)


def outbox_key(slot: int, sink: int, number: int | None = None) -> bytes:
    """The key of a delivery; without a number, the prefix of all deliveries of the sink."""
    return _numbered(OUTBOX + f"{slot:04x}/{sink:02x}/".encode(), number)


def shuffle_key(shard: int, *, slot: int = 0, batch: int | None = None, number: int = 0, port: int = 0) -> bytes:
    """The key of rows for a shard; without a batch, the prefix of all rows of the shard."""
    prefix = SHUFFLE + f"{shard:02x}/".encode()
    return prefix if batch is None else prefix + f"{slot:04x}/{batch:016x}/{number:04x}-{port:x}".encode()


def read_shuffle_port(key: bytes) -> int:
    """The operator's input that the rows of a shuffle key are for."""
    return int(key.rsplit(b"-", 1)[1], 16)


def read_number(key: bytes) -> int:
    """The number at the end of a key of `progress_key`, `redo_key` or `outbox_key`."""
    return int(key.rsplit(b"/", 1)[1], 16)


def _numbered(prefix: bytes, number: int | None) -> bytes:
    return prefix if number is None else prefix + f"{number:016x}".encode()
