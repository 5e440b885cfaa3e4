"""What a node knows without asking the database: a cache, and counts of its own. Nothing that another node would miss."""

from __future__ import annotations

from collections import Counter

import msgspec


class Flight(msgspec.Struct):
    """What is in flight of one queue: counted at `at_ms`, and what this node has leased since."""

    at_ms: int
    total: int


class Known:
    """One node's; by the numbers of queues.

    Attributes:
        totals: (number, field of QueueCounts) -> how many; of this node, since it started.
        flights: how many messages are in flight; only the lane that leases touches it.
    """

    def __init__(self) -> None:
        self.totals: Counter[tuple[int, str]] = Counter()
        self.flights: dict[int, Flight] = {}
