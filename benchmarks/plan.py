"""How much each mode measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Plan:
    """One mode's amounts.

    Attributes:
        rounds: how often each server is measured, in turn (A B A B …); the tables show medians.
        slow_rounds: the same for servers below a tenth of the fastest one's rate.
        seconds: the window of one measurement over HTTP.
        connections: numbers of connections, each a case of its own.
        backlog: messages that the drain case starts with (less for a server that takes over a minute to take them).
        store_messages: messages through the whole life in one store measurement.
        store_backlogs: backlogs that the store is measured with.
        native_messages: messages through the native client in one measurement.
    """

    rounds: int
    slow_rounds: int
    seconds: float
    connections: tuple[int, ...]
    backlog: int
    store_messages: int
    store_backlogs: tuple[int, ...]
    native_messages: int


PLANS: Final = {
    "smoke": Plan(
        rounds=1, slow_rounds=1, seconds=0.2, connections=(4,), backlog=500,
        store_messages=2_000, store_backlogs=(0, 2_000), native_messages=2_000,
    ),
    "quick": Plan(
        rounds=3, slow_rounds=1, seconds=3.0, connections=(16, 64), backlog=100_000,
        store_messages=300_000, store_backlogs=(0, 1_000_000), native_messages=200_000,
    ),
    "full": Plan(
        rounds=7, slow_rounds=3, seconds=5.0, connections=(16, 64), backlog=1_000_000,
        store_messages=1_000_000, store_backlogs=(0, 1_000_000, 5_000_000), native_messages=500_000,
    ),
}  # fmt: skip
