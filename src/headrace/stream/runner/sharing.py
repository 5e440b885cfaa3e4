"""How several processes share a pipeline: which plans can be shared, and the common watermark. Pure.

Any process may read a row; the row goes to the process that has the state of its keys: the plan is divided before its only
operator with state. Without one nothing has to be put together: everybody reads and writes for himself.

A source's watermark, for all, is the greatest that a slot has come to by the rows that it has read and committed, held
back by the slots that have claims open: their rows came before. Unclaimed messages lie behind all that in the
queue, as it would for one process alone. So no row is late because the work is shared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headrace.stream import physical, plan
from headrace.stream.engine.operator import NEVER
from headrace.stream.runner.progress import Progress

SourceWatermarks: TypeAlias = dict[str, int]
"""Source → watermark."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange of rows by key before a stateful operator: its place in the plan, and its keys for each input."""

    place: int
    keys: tuple[tuple[str, ...], ...]


def exchange_of(plan_: physical.PhysicalPlan) -> Exchange | None:
    """The exchange of the plan; None: it has no state, or cannot be shared."""
    places = [place for place, node in enumerate(plan_.operators) if isinstance(node, physical.STATEFUL)]
    if len(places) != 1:
        return None
    keys = _keys_of(plan_.operators[places[0]])
    return Exchange(places[0], keys) if all(keys) else None


def unsplittable_reason(plan_: physical.PhysicalPlan) -> str | None:
    """Why the plan's state cannot be split by key; None: it can, or has none."""
    stateful = [node for node in plan_.operators if isinstance(node, physical.STATEFUL)]
    if len(stateful) > 1:
        names = ", ".join(type(node).__name__.lower() for node in stateful)
        return f"it has several stateful operators ({names})"
    if stateful and not all(_keys_of(stateful[0])):
        return f"its {type(stateful[0]).__name__.lower()} has no keys"
    return None


def unshareable_reason(pipeline: plan.Pipeline, plan_: physical.PhysicalPlan) -> str | None:
    """Why only one process can run the pipeline; None: several can share it."""
    for source in plan.sources_of(pipeline.output):
        if not isinstance(source, plan.QueueSource | plan.TopicSource):
            return f"source {source.name!r} is not a queue or topic"
    if not all(isinstance(sink, plan.QueueSink) for sink in pipeline.sinks):
        return "a sink is not a queue or topic"
    return unsplittable_reason(plan_)


def watermarks_of_slots(records: Mapping[int, Progress], source: str) -> dict[int, int]:
    """What each slot has come to in a source: by its own rows, and those that were read in its place."""
    found = {slot: record.sources[source].watermark for slot, record in records.items() if source in record.sources}
    for record in records.values():
        for slot, left in record.left.items():
            found[slot] = max(found.get(slot, NEVER), left.get(source, NEVER))
    return found


def watermark(slots: Mapping[int, int], holding: Collection[int]) -> int:
    """Of one source, for all.

    Args:
        slots: what each has come to, by its committed rows.
        holding: the slots with claims open. They were asked for this after `slots` was found.
    """
    return min([max(slots.values(), default=NEVER), *(slots.get(slot, NEVER) for slot in holding)])


def watermarks_of_shard(records: Iterable[Progress], shard: int, sources: Sequence[str]) -> SourceWatermarks:
    """The watermarks by which a shard's state was judged last, by any slot. Slots that had the shard earlier report less."""
    records = list(records)
    return {name: max((record.judged_by(shard, name) for record in records), default=NEVER) for name in sources}


def released_watermarks(
    mine: Progress, others: Sequence[Progress], shards: Collection[int], sources: Sequence[str]
) -> dict[int, SourceWatermarks]:
    """What a slot goes on saying of the shards that it has no more: the watermarks of each (see Progress.gave).

    Only who says strictly more lets it be left out: of two that say the same, each might leave it to the other.
    """
    judged = {shard: watermarks_of_shard([mine], shard, sources) for shard in shards}
    said = {shard: watermarks_of_shard(others, shard, sources) for shard in shards}
    return {
        shard: found
        for shard, found in judged.items()
        if any(NEVER < at >= said[shard][name] for name, at in found.items())
    }


def latest_watermarks(reached: Iterable[SourceWatermarks], sources: Sequence[str]) -> SourceWatermarks:
    found = list(reached)
    return {name: max((one[name] for one in found), default=NEVER) for name in sources}


def _keys_of(node: physical.Operator) -> tuple[tuple[str, ...], ...]:
    match node:
        case physical.Aggregate() | physical.Dedup():
            return (node.keys,)
        case physical.Join():
            return (node.left_keys, node.right_keys)
        case physical.Top():
            return (node.partition,)
    return ()
