"""Administration of pipelines through the store alone, without their definition: status, lag, state, reset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from headrace.errors import CallerError, QueueNotFound, StateChanged, SubscriptionRefused, TopicNotFound
from headrace.native.client import Client
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.stream import limits
from headrace.stream.engine.state import operator_prefix
from headrace.stream.runner import membership, state_keys
from headrace.stream.runner.definition import Definition, decode_definition, encode_definition
from headrace.stream.runner.membership import Member, Owners
from headrace.stream.runner.progress import Progress, SourceProgress, decode_progress, merged
from headrace.stream.runner.store import Control, Store, scan
from headrace.stream.sources.open import inbox_name
from headrace.stream.sources.queue import reader_name


class PipelineUnknown(CallerError):
    """The broker has no state of this pipeline."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(pipeline)
        self.pipeline = pipeline

    def __str__(self) -> str:
        return f"unknown pipeline {self.pipeline!r}; `headrace stream ls` lists the pipelines"


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """The status of a pipeline, as it is stored.

    Attributes:
        members: the processes of the owners record; whether they are alive is not checked.
        state_bytes, state_parts: the size of the operators' state. None: not measured.
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
    """How far a source is behind. `waiting`, `oldest_ms`: the number of waiting messages and the age of the oldest; None for files."""

    source: str
    reads: str
    progress: SourceProgress
    waiting: int | None = None
    claimed: int | None = None
    oldest_ms: int | None = None


def pipeline_status(client: Client, pipeline: str, *, measured: bool = False) -> PipelineStatus:
    """The status of a pipeline. Raises PipelineUnknown.

    Args:
        measured: whether to measure the state, which reads all of it.
    """
    name = state_keys.state_name(pipeline)
    found = client.state(name, state_keys.DEFINITION).get(state_keys.DEFINITION)
    if found is None:
        raise PipelineUnknown(pipeline)
    owners = membership.read_owners(client.state(name, state_keys.OWNERS).get(state_keys.OWNERS))
    control = client.state(name, state_keys.CONTROL).get(state_keys.CONTROL)
    sizes = [len(value) for _, value in scan(client.call, name, state_keys.PARTS)] if measured else None
    return PipelineStatus(
        pipeline,
        decode_definition(found),
        merged(map(decode_progress, client.state(name, state_keys.PROGRESS).values())),
        tuple(owners.slots.values()),
        control is not None and msgspec.json.decode(control, type=Control).paused,
        None if sizes is None else sum(sizes),
        None if sizes is None else len(sizes),
    )


def lags(client: Client, pipeline: str) -> list[Lag]:
    """The lag of each source. Raises PipelineUnknown."""
    found = pipeline_status(client, pipeline)
    return [
        _source_lag(client, pipeline, name, reads, found.progress) for name, reads in found.definition.sources.items()
    ]


def state_schemas(client: Client, pipeline: str) -> dict[str, pa.Schema]:
    """The stateful operators and the columns of their state. Raises PipelineUnknown."""
    pipeline_status(client, pipeline)
    found = client.state(state_keys.state_name(pipeline), state_keys.SCHEMA)
    return {
        key.removeprefix(state_keys.SCHEMA).decode(): pa.ipc.read_schema(pa.py_buffer(value))
        for key, value in found.items()
    }


def state_rows(client: Client, pipeline: str, operator: str) -> Iterator[pa.Table]:
    """The state of an operator, a part at a time: its columns after `shard` and `bucket`.

    Raises PipelineUnknown.
    """
    schema = state_schemas(client, pipeline)[operator]
    for key, value in scan(client.call, state_keys.state_name(pipeline), operator_prefix(operator)):
        name = state_keys.read_part_key(key)
        batch = pa.ipc.read_record_batch(pa.py_buffer(value), schema)
        rows = pa.Table.from_batches([batch])
        rows = rows.add_column(0, "bucket", pa.repeat(pa.scalar(name.bucket, pa.int64()), rows.num_rows))
        yield rows.add_column(0, "shard", pa.repeat(pa.scalar(name.shard, pa.int16()), rows.num_rows))


def _source_lag(client: Client, pipeline: str, source: str, reads: str, progress: Progress) -> Lag:
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


# --- Reset: the state is dropped, claimed messages become visible again ---


def reset(store: Store, client: Client | None, pipeline: str) -> int:
    """Drop the state of a pipeline. Idempotent: the next reset finishes an interrupted one.

    A process that runs the pipeline can no longer commit. Claimed messages become visible again; a topic's queue receives the
    topic's log from the beginning.

    Returns:
        The number of removed keys.
    """
    name = state_keys.state_name(pipeline)
    owners = _fence(store, name)
    found = store.read(state_keys.DEFINITION).get(state_keys.DEFINITION)
    definition = decode_definition(found) if found is not None else Definition({}, {}, 0)
    _mark(store, name, definition)
    if client is not None:
        _release(client, pipeline, definition.sources.values(), range(max(owners.used, 1)))
    removed = _remove(store, name)
    _forget_slots(store, name, owners)
    store.transact(ops.Transact(name=state_keys.DIRECTORY, state=[(pipeline.encode(), None)]))
    return removed


def _fence(store: Store, name: str) -> Owners:
    """Remove all owners. The record stays, so that its epoch continues."""
    while True:
        before = store.read(state_keys.OWNERS).get(state_keys.OWNERS)
        owners = membership.read_owners(before)
        after = Owners(owners.epoch + 1, used=owners.used)
        if _put_owners(store, name, before, after):
            return after


def _forget_slots(store: Store, name: str, owners: Owners) -> None:
    """Remove the slots, whose claims were released. A process that has joined meanwhile keeps them."""
    _put_owners(store, name, membership.encode_record(owners), Owners(owners.epoch + 1))


def _put_owners(store: Store, name: str, before: bytes | None, after: Owners) -> bool:
    state: list[tuple[bytes, bytes | None]] = [(state_keys.OWNERS, membership.encode_record(after))]
    try:
        store.transact(ops.Transact(name=name, state=state, expect=[(state_keys.OWNERS, before)]))
    except StateChanged:
        return False
    return True


def _mark(store: Store, name: str, definition: Definition) -> None:
    """Mark half removed state by a layout that no pipeline continues from."""
    half = Definition({}, definition.sources, definition.shards, layout=0)
    store.transact(ops.Transact(name=name, state=[(state_keys.DEFINITION, encode_definition(half))]))


def _release(client: Client, pipeline: str, sources: Iterable[str], slots: Iterable[int]) -> None:
    for text in sources:
        kind, _, source = text.partition(" ")
        queue = inbox_name(pipeline, source) if kind == "topic" else source
        if kind in ("queue", "topic"):
            for slot in slots:
                _release_slot(client, queue, reader_name(pipeline, slot))
        if kind == "topic":
            _replay(client, source, queue)


def _release_slot(client: Client, queue: str, reader: str) -> None:
    try:
        client.call(ops.ReleaseClaims(arn_of(queue), reader))
    except QueueNotFound:
        return  # it is gone, and its claims with it


def _replay(client: Client, topic: str, inbox: str) -> None:
    """Copy the topic's log into the queue again. A topic without a log leaves it unchanged."""
    try:
        client.topic(topic).replay(inbox, purge=True)
    except (TopicNotFound, QueueNotFound, SubscriptionRefused):
        return


def _remove(store: Store, name: str) -> int:
    removed = 0
    for prefix in (*state_keys.ALL_BUT_DEFINITION, state_keys.DEFINITION):
        while found := store.read(prefix, limits.REMOVED_AT_ONCE):
            store.transact(ops.Transact(name=name, state=[(key, None) for key in found]))
            removed += len(found)
    return removed
