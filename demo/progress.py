"""How far a run is, from the ids of both sides, while it goes on."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from demo import flights as data
from demo.ledger import Event, accepted_of
from demo.shapes import Filed

RATE_S: Final = 3.0
"""What "now" is for a rate."""


class Progress:
    """Counts what was accepted and processed; and up to where nothing is missing. No I/O but the data."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tries: Counter[str] = Counter()
        """How the tries of requests ended, by kind."""
        self.accepted: dict[str, tuple[int, ...]] = {}
        self.flights = 0
        self.processed = 0
        self.lost = 0
        """As of the last moment when no task waited: accepted, and not in the topic's log."""
        self._pending: dict[str, tuple[int, ...]] = {}
        self._done = bytearray(data.FLIGHTS)
        self._waiting_for = data.read(limit)
        self._oldest = next(self._waiting_for, None)

    def hear(self, events: Iterable[Event]) -> None:
        """What clients wrote down."""
        told = list(events)
        self.tries.update(event.kind for event in told)
        new = {key: rows for key, rows in accepted_of(told).items() if key not in self.accepted}
        self.accepted |= new
        self._pending |= new
        self.flights += sum(map(len, new.values()))

    def see(self, filed: Iterable[Filed]) -> None:
        """What was published."""
        for flight in filed:
            self.processed += 1
            self._done[flight.row] = 1

    def settle(self) -> None:
        """Call it when there was no task after the last `hear`, and before the last `see`: what is missing then is lost."""
        self._pending = {key: rows for key, rows in self._pending.items() if not all(map(self._done.__getitem__, rows))}
        self.lost = len(self._pending)

    def floor(self) -> float:
        """The hour of the oldest flight that is not processed; infinite when there is none."""
        while self._oldest is not None and self._done[self._oldest.row]:
            self._oldest = next(self._waiting_for, None)
        return math.inf if self._oldest is None else data.hour_of(self._oldest.time_hour)


class Rate:
    """Of a total, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def add(self, total: float) -> float:
        """The rate now."""
        now_s = time.monotonic()
        self._seen.append((now_s, total))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - RATE_S:
            self._seen.popleft()
        (_, before), passed_s = self._seen[0], now_s - self._seen[0][0]
        return (total - before) / passed_s if passed_s > 0 else 0.0
