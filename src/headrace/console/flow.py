"""The flow picture: who produces, into which queues, who consumes. Pure: a snapshot to nodes and links with places.

Drawn as SVG: three columns, a row a queue, the busiest first. How wide a link is says how much flows (by its logarithm: one
message a second is to be seen beside ten thousand); how full a queue's bar is says how much waits, against what flows out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.console import limits
from headrace.console.rendering import part
from headrace.console.snapshot import QueueLine, Snapshot, names_of, pipeline_of

ROW: Final = 64
TOP: Final = 34
CLIENTS: Final = "clients"
"""Whoever does not show itself: SDKs, scripts, the command line."""
_LATE_S: Final = 5.0
_FULL_S: Final = 60.0  # a backlog of so many seconds of work fills the bar


class Node(msgspec.Struct, frozen=True):
    """Who produces or consumes. `y`: its middle."""

    name: str
    kind: str
    detail: str
    href: str
    y: float


class QueueNode(msgspec.Struct, frozen=True):
    """A queue. `full`: 0 to 1, how long its backlog takes against a minute. `state`: as `state_of` says."""

    name: str
    waiting: int
    in_flight: int
    oldest_s: float | None
    sent_rate: float
    received_rate: float
    full: float
    state: str
    y: float


class Link(msgspec.Struct, frozen=True):
    """From y to y. `rate`: messages a second; `width`: of the line; `pace`: 0 stands, 1 to 4 how fast it moves."""

    start: float
    end: float
    rate: float
    width: float
    pace: int


class Fall(msgspec.Struct, frozen=True):
    """From a queue's y to that of its dead-letter queue."""

    start: float
    end: float


class Flow(msgspec.Struct, frozen=True):
    """The picture. `left_out`: how many quieter queues it does not show."""

    height: float
    producers: tuple[Node, ...]
    queues: tuple[QueueNode, ...]
    consumers: tuple[Node, ...]
    sent: tuple[Link, ...]
    received: tuple[Link, ...]
    given_up: tuple[Fall, ...]
    left_out: int


def draw(snapshot: Snapshot) -> Flow:
    """The picture of a snapshot."""
    shown = [line for line in snapshot.queues if line.depth or not line.for_letters]
    lines = busiest(shown, limits.QUEUES_DRAWN_MAX)
    places = {line.name: TOP + ROW * (place + 0.5) for place, line in enumerate(lines)}
    height = TOP + ROW * max(1, len(lines)) + 8
    makers = _in_order(_makers(snapshot, lines), places)
    takers = _in_order(_takers(snapshot, lines), places)
    producers = _column(makers, height, snapshot)
    consumers = _column(takers, height, snapshot)
    return Flow(
        height=height,
        producers=producers,
        queues=tuple(_queue(line, places[line.name]) for line in lines),
        consumers=consumers,
        sent=_links(lines, makers, producers, places, leaving=False),
        received=_links(lines, takers, consumers, places, leaving=True),
        given_up=tuple(
            Fall(places[line.name], places[line.dead_letters]) for line in lines if line.dead_letters in places
        ),
        left_out=len(shown) - len(lines),
    )


def busiest(lines: Iterable[QueueLine], most: int) -> list[QueueLine]:
    """The queues in which most moves, or waits, by name."""
    found = sorted(lines, key=lambda line: (-_weight(line), line.name))[:most]
    return sorted(found, key=lambda line: line.name)


def state_of(line: QueueLine) -> str:
    """In a word what a queue is about: `stuck` has waiting messages that nobody takes; `letters` wait for a person."""
    if line.for_letters:
        return "letters" if line.depth else "empty"
    if line.visible and not line.received_rate and (line.oldest_s or 0) > 10:
        return "stuck"
    late = (line.oldest_s or 0) > _LATE_S  # what is just passing through is no backlog
    if line.visible and late and (line.to_empty_s is None or line.to_empty_s > _FULL_S):
        return "waiting"
    return "moving" if line.sent_rate or line.received_rate or line.in_flight else "idle"


def _weight(line: QueueLine) -> float:
    return line.sent_rate + line.deleted_rate + (1 + math.log10(1 + line.depth) if line.depth else 0)


def _queue(line: QueueLine, y: float) -> QueueNode:
    seconds = line.visible / line.deleted_rate if line.deleted_rate else (line.oldest_s or 0.0)
    full = min(1.0, math.log1p(seconds) / math.log1p(_FULL_S))
    return QueueNode(
        line.name,
        line.visible,
        line.in_flight,
        line.oldest_s,
        line.sent_rate,
        line.received_rate,
        round(full, 3),
        state_of(line),
        y,
    )


def _in_order(members: dict[str, list[str]], places: dict[str, float]) -> dict[str, list[str]]:
    """From top to bottom as their queues are, on the average: fewer links cross."""
    return dict(sorted(members.items(), key=lambda item: sum(places[name] for name in item[1]) / max(1, len(item[1]))))


def _makers(snapshot: Snapshot, lines: list[QueueLine]) -> dict[str, list[str]]:
    """Producer → queues, by what holders say; what else came, came by clients."""
    names = {line.name for line in lines}
    found: dict[str, list[str]] = {}
    for holder in snapshot.holders:
        queues = found.setdefault(pipeline_of(holder) or holder.kind, [])
        queues += [name for name in names_of(holder.facts.get("produces")) if name in names and name not in queues]
    known = {name for queues in found.values() for name in queues}
    rest = [line.name for line in lines if line.sent_rate and line.name not in known and not line.for_letters]
    return ({CLIENTS: rest} if rest else {}) | {name: queues for name, queues in found.items() if queues}


def _takers(snapshot: Snapshot, lines: list[QueueLine]) -> dict[str, list[str]]:
    """Consumer → queues; a queue that somebody unknown empties has clients."""
    kinds = {holder.holder: holder.kind for holder in snapshot.holders}
    pipelines = {pipeline.name for pipeline in snapshot.pipelines}
    found: dict[str, list[str]] = {}
    for line in lines:
        names = {name if name in pipelines else kinds.get(name, name) for name in line.consumers}
        if not names and (line.received_rate or line.in_flight):
            names = {CLIENTS}
        for name in sorted(names):
            found.setdefault(name, []).append(line.name)
    return found


def _column(members: dict[str, list[str]], height: float, snapshot: Snapshot) -> tuple[Node, ...]:
    free = height - TOP
    step = free / max(1, len(members))
    pipelines = {pipeline.name for pipeline in snapshot.pipelines}
    return tuple(
        Node(
            name,
            "stream" if name in pipelines else name,
            _detail(name, snapshot),
            _href(name, pipelines),
            round(TOP + step * (place + 0.5) - 4, 1),
        )
        for place, name in enumerate(members)
    )


def _detail(name: str, snapshot: Snapshot) -> str:
    count = len(snapshot.holders_of(name))
    if count:
        return f"{count} {'process' if count == 1 else 'processes'}"
    return "SDKs, scripts, CLI" if name == CLIENTS else "pipeline"


def _href(name: str, pipelines: set[str]) -> str:
    places = {"web": "/web", "worker": "/workers", "scheduler": "/schedules"}
    return f"/streams/{part(name)}" if name in pipelines else places.get(name, "/queues")


def _links(
    lines: list[QueueLine],
    members: dict[str, list[str]],
    nodes: tuple[Node, ...],
    places: dict[str, float],
    *,
    leaving: bool,
) -> tuple[Link, ...]:
    found = []
    heights = {node.name: node.y for node in nodes}
    for line in lines:
        ends = [name for name, queues in members.items() if line.name in queues]
        total = line.received_rate if leaving else line.sent_rate
        for name in ends:
            rate = total / len(ends)
            start, end = heights[name], places[line.name]
            found.append(Link(*((end, start) if leaving else (start, end)), round(rate, 2), _width(rate), _pace(rate)))
    return tuple(found)


def _width(rate: float) -> float:
    return round(1.5 + 2.2 * math.log10(1 + rate), 2)


def _pace(rate: float) -> int:
    return 0 if rate <= 0 else min(4, 1 + int(math.log10(1 + rate)))
