"""What is sent, out of order; and, computed from it without any of the product, what has to come out."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

BASE = datetime(2024, 1, 1, tzinfo=UTC)
DISORDER_S = 20
"""A row is at most so much behind one that was sent before it; the pipelines' delay is more."""


class Event(NamedTuple):
    """One row: its number, key, value, and seconds since BASE."""

    number: int
    key: str
    value: int
    at_s: int

    def body(self) -> bytes:
        return json.dumps({"n": self.number, "k": self.key, "v": self.value, "ts": text(self.at_s)}).encode()


def events(count: int, chance: random.Random, *, keys: int = 10) -> list[Event]:
    """One a second, each up to DISORDER_S late."""
    made = [Event(number, f"k{chance.randrange(keys)}", chance.randrange(1_000), number) for number in range(count)]
    return sorted(made, key=lambda event: event.at_s + chance.random() * DISORDER_S)


def text(at_s: int) -> str:
    """As the sinks write a timestamp."""
    return (BASE + timedelta(seconds=at_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def windows(rows: Iterable[Event], size_s: int) -> Counter[tuple[str, str, int, int]]:
    """(start, key, rows, sum) of each tumbling window."""
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for event in rows:
        groups[event.at_s // size_s * size_s, event.key].append(event.value)
    return Counter((text(start), key, len(values), sum(values)) for (start, key), values in groups.items())


def windows_of_windows(rows: Iterable[Event], size_s: int, outer_s: int) -> Counter[tuple[str, str, int, int, int]]:
    """(start, key, inner windows, rows, sum)."""
    groups: dict[tuple[int, str], list[Event]] = defaultdict(list)
    for event in rows:
        groups[event.at_s // outer_s * outer_s, event.key].append(event)
    return Counter(
        (text(start), key, len({event.at_s // size_s for event in found}), len(found), sum(e.value for e in found))
        for (start, key), found in groups.items()
    )


def slices(rows: list[Event], count: int) -> Iterator[list[Event]]:
    """In so many pieces, about equal."""
    for number in range(count):
        yield rows[number * len(rows) // count : (number + 1) * len(rows) // count]


def columns(bodies: Iterable[bytes], *names: str) -> Counter[tuple[Any, ...]]:
    """The rows of JSON messages."""
    return Counter(tuple(row[name] for name in names) for row in map(json.loads, bodies))
