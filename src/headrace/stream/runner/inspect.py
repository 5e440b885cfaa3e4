"""Looking at pipelines by the store alone: what there is, where it stands, what it remembers. Needs no definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from headrace.errors import CallerError, QueueNotFound
from headrace.native.client import Client
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.stream.engine.state import operator_prefix
from headrace.stream.runner import definition, keys, members
from headrace.stream.runner.control import Control
from headrace.stream.runner.definition import Definition
from headrace.stream.runner.members import Member
from headrace.stream.runner.progress import Progress, SourceProgress, decode, merged
from headrace.stream.runner.store import scan
from headrace.stream.sources.open import inbox_name


class PipelineUnknown(CallerError):
    """The broker has no state of a pipeline of that name."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(pipeline)
        self.pipeline = pipeline

    def __str__(self) -> str:
        return f"there is no pipeline {self.pipeline!r} here; `headrace stream ls` lists them"


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """A pipeline as its store has it.

    Attributes:
        members: who runs it: those of the owners record; whether they live is not asked.
        state_bytes, state_parts: of the operators' state. None: not asked for.
    """

    pipeline: str
    definition: Definition
    progress: Progress
    members: tuple[Member, ...]
    paused: bool
    state_bytes: int | None = None
    state_parts: int | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a source is behind. `waiting`, `oldest_ms`: messages that wait, and since when; None for files."""

    source: str
    reads: str
    progress: SourceProgress
    waiting: int | None = None
    claimed: int | None = None
    oldest_ms: int | None = None


def pipeline_status(client: Client, pipeline: str, *, measured: bool = False) -> PipelineStatus:
    """One pipeline. Raises PipelineUnknown.

    Args:
        measured: whether its state is, which reads all of it.
    """
    name = keys.state_name(pipeline)
    found = client.state(name, keys.DEFINITION).get(keys.DEFINITION)
    if found is None:
        raise PipelineUnknown(pipeline)
    owners = members.read_owners(client.state(name, keys.OWNERS).get(keys.OWNERS))
    control = client.state(name, keys.CONTROL).get(keys.CONTROL)
    sizes = [len(value) for _, value in scan(client.call, name, keys.PARTS)] if measured else None
    return PipelineStatus(
        pipeline,
        definition.decode(found),
        merged(map(decode, client.state(name, keys.PROGRESS).values())),
        tuple(owners.slots.values()),
        control is not None and msgspec.json.decode(control, type=Control).paused,
        None if sizes is None else sum(sizes),
        None if sizes is None else len(sizes),
    )


def lags(client: Client, pipeline: str) -> list[Lag]:
    """Of each source. Raises PipelineUnknown."""
    found = pipeline_status(client, pipeline)
    return [_lag(client, pipeline, name, reads, found.progress) for name, reads in found.definition.sources.items()]


def state_schemas(client: Client, pipeline: str) -> dict[str, pa.Schema]:
    """The operators that have state, and the columns of it. Raises PipelineUnknown."""
    pipeline_status(client, pipeline)
    found = client.state(keys.state_name(pipeline), keys.SCHEMA)
    return {
        key.removeprefix(keys.SCHEMA).decode(): pa.ipc.read_schema(pa.py_buffer(value)) for key, value in found.items()
    }


def state_rows(client: Client, pipeline: str, operator: str) -> Iterator[pa.Table]:
    """An operator's state, a part at a time: its columns, and in front of them `shard` and `bucket`.

    Raises PipelineUnknown.
    """
    schema = state_schemas(client, pipeline)[operator]
    for key, value in scan(client.call, keys.state_name(pipeline), operator_prefix(operator)):
        name = keys.read_part_key(key)
        batch = pa.ipc.read_record_batch(pa.py_buffer(value), schema)
        rows = pa.Table.from_batches([batch])
        rows = rows.add_column(0, "bucket", pa.repeat(pa.scalar(name.bucket, pa.int64()), rows.num_rows))
        yield rows.add_column(0, "shard", pa.repeat(pa.scalar(name.shard, pa.int16()), rows.num_rows))


def _lag(client: Client, pipeline: str, source: str, reads: str, progress: Progress) -> Lag:
    at = progress.sources.get(source, SourceProgress())
    kind, _, place = reads.partition(" ")
    if kind not in ("queue", "topic"):
        return Lag(source, reads, at)
    queue = place if kind == "queue" else inbox_name(pipeline, place)
    try:
        counts = client.call(ops.GetQueue(arn_of(queue))).counts
    except QueueNotFound:
        return Lag(source, reads, at)
    return Lag(source, reads, at, counts.visible, counts.in_flight, counts.oldest_ms)
