"""How much each mode of the web server's benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WORKERS: Final = 2
CONNECTIONS: Final = 64
DEADLINE_S: Final = 1.0
"""When a client of the open loop gives up."""


@dataclass(frozen=True)
class Plan:
    """One mode's amounts.

    Attributes:
        rounds: how often each server is measured in turn (A B C A B C …); the tables show medians.
        seconds: the window of one measurement with wrk; whole seconds, as wrk wants them.
        capacity_s: how long a server's capacity is measured before it is overloaded.
        overload_s: how long it is overloaded, after a time that is not counted.
        warms_up: whether speed and overload begin with a second that is not counted; as long as a client waits, so that a
            queue without a bound is as long as it gets.
        mixed_s: how long it is given the mixed load.
        mixed_per_s: requests a second of the mixed load.
    """

    rounds: int
    seconds: int
    capacity_s: int
    overload_s: float
    mixed_s: float
    mixed_per_s: float = 300.0
    warms_up: bool = True


PLANS: Final = {
    "smoke": Plan(rounds=1, seconds=1, capacity_s=1, overload_s=0.5, mixed_s=0.5, mixed_per_s=50.0, warms_up=False),
    "quick": Plan(rounds=3, seconds=1, capacity_s=2, overload_s=3.0, mixed_s=4.0),
    "full": Plan(rounds=7, seconds=3, capacity_s=4, overload_s=8.0, mixed_s=15.0),
}
