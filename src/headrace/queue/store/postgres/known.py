"""What a node knows without asking the database: a cache, and counts of its own. Nothing that another node would miss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from headrace.queue import limits

FIELDS: Final = (
    "sent", "received", "deleted", "empty_receives", "duplicates", "dead_lettered", "expired", "damaged"
)  # fmt: skip
"""The totals of QueueCounts."""

TELL_EACH_MS: Final = limits.SECOND_MS
LIVES_EACH_MS: Final = 10 * limits.MINUTE_MS  # told at least so often, that the node lives
TOLD_AT_ONCE: Final = 1_000  # queues whose sums one transaction writes

Sums: TypeAlias = tuple[int, ...]
"""A node's totals of one queue, in the order of FIELDS."""


class Flight(msgspec.Struct):
    """What is in flight of one queue: counted at `at_ms`, and what this node has leased since."""

    at_ms: int
    total: int


class Counted(msgspec.Struct, frozen=True):
    """A queue of many messages as it was counted: good until `until_ms`, and while its floor is the same.

    `stays`: what all had sent, less what had gone, by the totals of that time.
    """

    until_ms: int
    floor: int
    stays: int
    fresh: int
    visible: int
    in_flight: int
    delayed: int

    @property
    def all(self) -> int:
        return self.fresh + self.visible + self.in_flight + self.delayed


class Known:
    """One node's; by the numbers of queues.

    `note`, `to_tell` and `told` are called on the owner's thread; lanes read.

    Attributes:
        node: its name.
        totals: (number, field of QueueCounts) -> how many; of this node, since it started.
        flights: how many messages are in flight; only the lane that leases touches it.
        counted: queues of many messages.
        folded: others took this node for gone, and what it had told is theirs now: it begins anew.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.totals: Counter[tuple[int, str]] = Counter()
        self.flights: dict[int, Flight] = {}
        self.counted: dict[int, Counted] = {}
        self.has_told = False
        self.folded = False
        self._untold: set[int] = set()
        self._told_ms = 0

    def note(self, totals: Mapping[tuple[int, str], int]) -> None:
        """A transaction that is committed has counted these."""
        if totals:
            self.totals.update(totals)
            self._untold.update([number for number, _ in totals])

    def to_tell(self, now: int, *, last: bool = False) -> list[tuple[int, Sums]] | None:
        """Sums of queues that others do not know yet; None: it is not time. `last`: all of them, whatever the time."""
        waited = now - self._told_ms
        if not last and (waited < TELL_EACH_MS or not (self._untold or waited >= LIVES_EACH_MS)):
            return None
        self._told_ms = now
        chosen = sorted(self._untold)[: None if last else TOLD_AT_ONCE]
        self._untold.difference_update(chosen)
        return [(number, tuple([self.totals[number, field] for field in FIELDS])) for number in chosen]

    def told(self, sums: list[tuple[int, Sums]], *, committed: bool) -> None:
        """What came of telling."""
        if not committed:
            self._untold.update([number for number, _ in sums])
        elif self.folded:
            self.folded = self.has_told = False
            self.totals.clear()
        else:
            self.has_told = True

    def forget(self, number: int) -> None:
        """A queue is gone."""
        for field in FIELDS:
            self.totals.pop((number, field), None)
        self.flights.pop(number, None)
        self.counted.pop(number, None)
