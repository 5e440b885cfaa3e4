"""How far pipelines are, by their state in the broker: for its metrics, and for `headrace stream ls`.

A pipeline that has died tells nothing; its state does. Not in `headrace.stream`, which needs an extra that brokers do without:
so names and shapes of `stream/runner/state_keys.py`, `progress.py` and `definition.py` are said again here, as far as they are read.
A test compares them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from headrace.queue.operations import GetState, Operation, Transact
from headrace.svg_graph import Box

DIRECTORY: Final = "streams"
PREFIX: Final = "stream:"
_DEFINITION: Final = b"definition"
_CONTROL: Final = b"control"
_OWNERS: Final = b"owners"
_PROGRESS: Final = b"progress/"
_END_US: Final = 1 << 62
"""Watermarks beyond it, and below its negative, are none: END and NEVER of the engine."""


class _Source(msgspec.Struct, frozen=True):
    watermark: int = -_END_US
    rows: int = 0


class _Progress(msgspec.Struct, frozen=True):
    batch: int = 0
    sources: dict[str, _Source] = {}
    rows_out: int = 0
    late: int = 0
    dead: int = 0
    committed_ms: int = 0
    state_bytes: int = 0
    reached: dict[str, int] | None = None

    def reached_of(self, source: str) -> int:
        return self.sources[source].watermark if self.reached is None else self.reached.get(source, -_END_US)


class _Definition(msgspec.Struct, frozen=True):
    sources: dict[str, str] = {}


class Plan(msgspec.Struct, frozen=True):
    """What a pipeline does, as its definition says.

    Attributes:
        text: in words.
        boxes: operators and sinks, each behind its inputs; none if it was last started by an older version.
        sources: name → what is read.
        shards: into how many parts its state is cut.
    """

    text: str = ""
    boxes: tuple[Box, ...] = ()
    sources: dict[str, str] = {}
    shards: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError, in decoding DecodeError: a box has an input that does not stand in front of it."""
        for place, box in enumerate(self.boxes):
            if not all(0 <= below < place for below in box.inputs):
                raise ValueError(f"box {place} has inputs {box.inputs}: each is the place of a box in front of it")


class _Control(msgspec.Struct, frozen=True):
    paused: bool = False


class Process(msgspec.Struct, frozen=True):
    """Who runs a pipeline. `host`: the machine's name, and which of its starts; `started`: see process.started_ticks."""

    host: str
    pid: int
    started: int = 0


class _Owners(msgspec.Struct, frozen=True):
    slots: dict[int, Process] = {}


class SourceState(msgspec.Struct, frozen=True):
    """A source.

    Attributes:
        queue: the name of the queue that it reads; empty for files.
        rows: how many came.
        watermark_us: None: there is none yet, or it has ended.
    """

    name: str
    queue: str
    rows: int
    watermark_us: int | None


class PipelineState(msgspec.Struct, frozen=True):
    """A pipeline, all of its processes together, since its beginning.

    Attributes:
        processes: who runs it, by its record; whether they live is not asked.
        committed_ms: steady time of the last commit; 0: there was none.
    """

    name: str
    sources: tuple[SourceState, ...]
    batches: int
    rows_out: int
    late: int
    dead: int
    committed_ms: int
    state_bytes: int
    paused: bool
    processes: tuple[Process, ...]

    @property
    def rows_in(self) -> int:
        return sum(source.rows for source in self.sources)

    @property
    def watermark_us(self) -> int | None:
        """The least of the sources that have one; None: none has, or all have ended."""
        found = [source.watermark_us for source in self.sources]
        return min((one for one in found if one is not None), default=None)


PREFIXES: Final = (_DEFINITION, _CONTROL, _OWNERS, _PROGRESS)
"""The keys of a pipeline's state that `decode` wants."""


async def read_pipelines(call: Callable[[Operation], Awaitable[Any]]) -> list[PipelineState]:
    """All pipelines that have state, sorted by name.

    Args:
        call: the broker's.
    """
    names = [key.decode(errors="replace") for key, _ in await call(GetState(DIRECTORY))]
    found = [await _read(call, name) for name in names]
    return [state for state in found if state is not None]


async def read_plan(call: Callable[[Operation], Awaitable[Any]], name: str) -> Plan | None:
    """What a pipeline does; None: there is none of that name."""
    values = dict(await call(GetState(PREFIX + name, _DEFINITION)))
    try:
        return msgspec.json.decode(values[_DEFINITION], type=Plan) if _DEFINITION in values else None
    except msgspec.DecodeError:
        return None


async def read_paused(call: Callable[[Operation], Awaitable[Any]], name: str) -> bool:
    """Whether the pipeline has been told to begin no more batches, now."""
    rows = dict(await call(GetState(PREFIX + name, _CONTROL)))
    return msgspec.json.decode(rows.get(_CONTROL, b"{}"), type=_Control).paused


def pausing(name: str, *, paused: bool) -> Transact:
    """The commit that lets a pipeline begin no more batches, or go on. Whoever runs it follows within seconds."""
    return Transact(name=PREFIX + name, state=[(_CONTROL, msgspec.json.encode(_Control(paused)))])


async def _read(call: Callable[[Operation], Awaitable[Any]], name: str) -> PipelineState | None:
    values: dict[bytes, bytes] = {}
    for prefix in PREFIXES:
        values |= dict(await call(GetState(PREFIX + name, prefix)))
    return decode(name, values)


def decode(name: str, values: dict[bytes, bytes]) -> PipelineState | None:
    """What the values of a pipeline's state say; None: it was reset, or is no pipeline's state."""
    try:
        return _decode(name, values) if _DEFINITION in values else None
    except (msgspec.DecodeError, ValueError):  # a value, or a key, that no pipeline has written
        return None


def _decode(name: str, values: dict[bytes, bytes]) -> PipelineState:
    definition = msgspec.json.decode(values[_DEFINITION], type=_Definition)
    control = msgspec.json.decode(values.get(_CONTROL, b"{}"), type=_Control)
    owners = msgspec.json.decode(values.get(_OWNERS, b"{}"), type=_Owners)
    by_slot = {
        int(key.removeprefix(_PROGRESS), 16): msgspec.json.decode(value, type=_Progress)
        for key, value in values.items()
        if key.startswith(_PROGRESS)
    }
    slots = list(by_slot.values())
    held = [by_slot[slot] for slot in owners.slots if slot in by_slot] or slots  # others have what the rest had
    return PipelineState(
        name,
        tuple(_source(name, source, reads, slots) for source, reads in definition.sources.items()),
        batches=sum(slot.batch for slot in slots),
        rows_out=sum(slot.rows_out for slot in slots),
        late=sum(slot.late for slot in slots),
        dead=sum(slot.dead for slot in slots),
        committed_ms=max((slot.committed_ms for slot in slots), default=0),
        state_bytes=sum(slot.state_bytes for slot in held),
        paused=control.paused,
        processes=tuple(owners.slots.values()),
    )


def _source(pipeline: str, name: str, reads: str, slots: Iterable[_Progress]) -> SourceState:
    having = [slot for slot in slots if name in slot.sources]
    found = [slot.sources[name] for slot in having]
    # Who is behind may be gone, and his work others'.
    watermark = max((slot.reached_of(name) for slot in having), default=-_END_US)
    return SourceState(
        name,
        queue_of(pipeline, reads),
        sum(source.rows for source in found),
        watermark if abs(watermark) < _END_US else None,
    )


def queue_of(pipeline: str, reads: str) -> str:
    """The name of the queue that a source reads, by what its definition says; a topic is read by a queue of the pipeline's."""
    kind, _, place = reads.partition(" ")
    if kind == "topic":
        return f"{pipeline}--{place.rsplit(':', 1)[-1]}"
    return place.rsplit(":", 1)[-1] if kind == "queue" else ""
