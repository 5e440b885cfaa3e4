"""The definition that made a pipeline's state, and whether another definition can continue from it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace.durations import duration_text
from headrace.stream import plan
from headrace.stream.explain import boxes_of
from headrace.stream.runner import sharing
from headrace.stream.runner.job import Job
from headrace.svg_graph import Box

LAYOUT = 1
"""The layout of a pipeline's state. A change of what `keys.py` says makes it 2, with a step that reads 1."""


class Definition(msgspec.Struct, frozen=True):
    """What state depends on.

    Attributes:
        layout: LAYOUT, when it was made.
        signatures: of operators with state (`PhysicalPlan.signatures`).
        sources: name → what is read, in words.
        shards: into how many parts state is cut.
        text: the plan, for people.
        boxes: the operators and sinks, for a picture.
        alone: why one process has to run it; empty: several can share it.
    """

    signatures: dict[str, str]
    sources: dict[str, str]
    shards: int
    text: str = ""
    layout: int = LAYOUT
    alone: str = ""
    boxes: tuple[Box, ...] = ()


def encode_definition(definition: Definition) -> bytes:
    return msgspec.json.encode(definition)


def decode_definition(data: bytes) -> Definition:
    return msgspec.json.decode(data, type=Definition)


def define(job: Job, *, text: str) -> Definition:
    sources = {source.name: source_text(source) for source in job.sources}
    alone = sharing.unshareable_reason(job.pipeline, job.physical) or ""
    boxes = tuple(boxes_of(job.pipeline, job.physical))
    return Definition(job.physical.signatures(), sources, job.shards, text, alone=alone, boxes=boxes)


def source_text(source: plan.Source) -> str:
    """What a source reads."""
    match source:
        case plan.QueueSource():
            return f"queue {source.queue}"
        case plan.TopicSource():
            return f"topic {source.topic}"
        case plan.FileSource():
            return f"files {source.path}"
        case plan.MemorySource():
            return "memory"


def changes(stored: Definition, given: Definition) -> list[str]:
    """Why `given` cannot go on from the state of `stored`: a line each, none if it can.

    What stands before the first and behind the last operator with state may change; so may columns that no such operator
    reads.
    """
    if stored.layout == 0:
        return ["a reset of it was not finished"]
    found = []
    if stored.layout != given.layout:
        found.append(f"its state has layout {stored.layout}, this version reads {given.layout}")
    if stored.shards != given.shards:
        found.append(f"shards {stored.shards} → {given.shards}")
    found += _differences("source", stored.sources, given.sources)
    found += _differences("operator", stored.signatures, given.signatures)
    return found


def _differences(what: str, stored: dict[str, str], given: dict[str, str]) -> list[str]:
    gone = [f"{what} {name} is gone" for name in stored if name not in given]
    new = [f"{what} {name} is new" for name in given if name not in stored]
    changed = [
        f"{what} {name}: {_changed(stored[name], given[name])}"
        for name in given
        if name in stored and stored[name] != given[name]
    ]
    return gone + new + changed


def _changed(stored: str, given: str) -> str:
    """What differs; of signatures, which are JSON, only the parts that do."""
    try:
        parts = list(_parts_changed(msgspec.json.decode(stored), msgspec.json.decode(given)))
    except msgspec.DecodeError:
        parts = []
    return ", ".join(parts) or f"{_short(stored)} → {_short(given)}"


def _parts_changed(stored: object, given: object, name: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*given, *(key for key in stored if key not in given)]:
            if stored.get(key) != given.get(key):
                yield from _parts_changed(stored.get(key), given.get(key), str(key))
    elif name:
        yield f"{name} {_short(_said(stored))} → {_short(_said(given))}"


def _said(value: object) -> str:
    """A part of a signature; a window, which is its kind with lengths in microseconds, as people say it."""
    match value:
        case [("Tumble" | "Hop" | "Session") as kind, *lengths]:
            return f"{kind.lower()} {', '.join(duration_text(us) for us in lengths if isinstance(us, int))}"
    return msgspec.json.encode(value).decode()


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"
