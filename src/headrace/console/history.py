"""What was, of everything that moves: for each series a ring of seconds, one of tens, one of minutes. Pure, no clock.

A point is the mean of its slot of time, a slot nobody looked at is a gap (NaN). Slots are numbered from 1970, so that what was
kept and what is measured fit together, whoever measured it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from headrace.console import limits

_NAN: Final = math.nan
_RECENT: Final = 60


@dataclass(frozen=True, slots=True)
class Tier:
    """A resolution, and how far it goes back."""

    step_s: int
    slots: int

    @property
    def span_s(self) -> int:
        return self.step_s * self.slots


TIERS: Final = (Tier(1, 600), Tier(10, 720), Tier(60, 1_440))
"""1 s for 10 min, 10 s for 2 h, 1 min for 24 h."""


class Ring:
    """The newest `slots` means of one series at one resolution.

    Invariant: slot s stands at s % slots, for s in last - slots + 1 … last; what was not added is NaN.
    """

    __slots__ = ("_count", "_values", "last", "tier")

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.last = -1
        self._count = 0
        self._values = array("f", [_NAN]) * tier.slots

    def add(self, at_s: float, value: float) -> None:
        """A value at a time. What is older than the newest slot is ignored: time went on."""
        slot = int(at_s // self.tier.step_s)
        if slot > self.last:
            self._open(slot)
        elif slot < self.last:
            return
        place = slot % self.tier.slots
        self._count += 1
        mean = self._values[place]
        self._values[place] = value if self._count == 1 else mean + (value - mean) / self._count

    def put(self, slot: int, value: float) -> None:
        """A mean that was kept, of any slot that is not too old; a measured one stands."""
        if slot > self.last:
            self._open(slot)
        if slot > self.last - self.tier.slots and math.isnan(self._values[slot % self.tier.slots]):
            self._values[slot % self.tier.slots] = value
            self._count = max(self._count, 1) if slot == self.last else self._count

    def at(self, slot: int) -> float:
        """The mean of a slot; NaN: nobody looked, or it is too old."""
        return self._values[slot % self.tier.slots] if self.last - self.tier.slots < slot <= self.last else _NAN

    def _open(self, slot: int) -> None:
        for skipped in range(max(self.last + 1, slot - self.tier.slots + 1), slot + 1):
            self._values[skipped % self.tier.slots] = _NAN
        self.last, self._count = slot, 0


class Points(NamedTuple):
    """A stretch of several series at one resolution: `times` (s since 1970) and, for each name, as many values; None: a gap."""

    times: list[int]
    values: dict[str, list[float | None]]


class History:
    """All series. Bounded: those that were silent longest make room; if all are measured, the newest find none."""

    def __init__(self, *, series_max: int = limits.SERIES_MAX) -> None:
        self._series: dict[str, tuple[Ring, ...]] = {}
        self._series_max = series_max

    def add(self, at_s: float, values: Mapping[str, float]) -> None:
        """What was measured at a time."""
        self._make_room(values)
        self._open(values)
        for name, value in values.items():
            for ring in self._series.get(name, ()):
                ring.add(at_s, value)

    def put(self, step_s: int, slot: int, values: Mapping[str, float]) -> None:
        """Means that were kept. See `cut`. What is measured has its place before them."""
        self._open(values)
        for name, value in values.items():
            for ring in self._series.get(name, ()):
                if ring.tier.step_s == step_s:
                    ring.put(slot, value)

    def cut(self, step_s: int, slot: int) -> dict[str, float]:
        """The means of one slot, by series: what is kept."""
        found = {name: ring.at(slot) for name, ring in self._of(step_s)}
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def points(self, names: list[str], *, span_s: int, until_s: float) -> Points:
        """The last `span_s` before `until_s`, at the finest resolution that goes back so far."""
        tier = next((tier for tier in TIERS if tier.span_s >= span_s), TIERS[-1])
        last = int(until_s // tier.step_s)
        slots = range(last - min(span_s // tier.step_s, tier.slots) + 1, last + 1)
        values = {name: [_plain(value) for value in self._means(name, tier, slots)] for name in names}
        return Points([slot * tier.step_s for slot in slots], values)

    def recent(self, name: str, *, until_s: float) -> list[float | None]:
        """The last ten minutes by tens of seconds: for a sparkline."""
        tier = TIERS[1]
        last = int(until_s // tier.step_s)
        return [_plain(self._at(name, tier, slot)) for slot in range(last - _RECENT + 1, last + 1)]

    def _means(self, name: str, tier: Tier, slots: range) -> list[float]:
        """The means of slots; where a whole coarser slot has none of them, its own: seconds are not kept when a console
        ends. A coarser slot that has some is made of these alone, and tells nothing of the time between them."""
        found = [self._at(name, tier, slot) for slot in slots]
        for coarser in TIERS[TIERS.index(tier) + 1 :]:
            each = coarser.step_s // tier.step_s
            for slot in range(slots.start // each, (slots.stop - 1) // each + 1):
                within = slice(max(0, slot * each - slots.start), (slot + 1) * each - slots.start)
                if all(map(math.isnan, found[within])):
                    found[within] = [self._at(name, coarser, slot)] * len(found[within])
        return found

    def latest(self, name: str, *, until_s: float) -> float | None:
        """The newest second, if it is one of the last three: what a chart appends."""
        rings = self._series.get(name)
        fresh = rings is not None and rings[0].last > until_s - 3
        return _plain(rings[0].at(rings[0].last)) if rings is not None and fresh else None

    def _at(self, name: str, tier: Tier, slot: int) -> float:
        rings = self._series.get(name)
        return _NAN if rings is None else rings[TIERS.index(tier)].at(slot)

    def _of(self, step_s: int) -> Iterator[tuple[str, Ring]]:
        place = next(place for place, tier in enumerate(TIERS) if tier.step_s == step_s)
        for name, rings in self._series.items():
            yield name, rings[place]

    def _make_room(self, measured: Mapping[str, float]) -> None:
        lacking = len(self._series.keys() | measured.keys()) - self._series_max
        if lacking > 0:
            silent = self._series.keys() - measured.keys()
            for name in sorted(silent, key=lambda name: self._series[name][0].last)[:lacking]:
                del self._series[name]

    def _open(self, names: Iterable[str]) -> None:
        """A place for each that has none, as far as there are places."""
        new = (name for name in names if name not in self._series)
        for name in islice(new, max(0, self._series_max - len(self._series))):
            self._series[name] = tuple(Ring(tier) for tier in TIERS)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
