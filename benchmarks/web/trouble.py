"""What becomes of clients when the server is given more than it can do, and when a few requests are slow.

Overload: requests of 5 ms of CPU, twice as many as the server answers with 16 connections that wait for each other, from
clients that leave after a second. Goodput is what is answered 200 in time, as a share of that capacity.

Mixed: 300 requests a second, of which 5 % burn 50 ms of CPU; latency is of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.web import wrk
from benchmarks.web.contenders import TROUBLE_APPS, App, contenders
from benchmarks.web.open_loop import Outcomes, open_loop
from benchmarks.web.plan import DEADLINE_S, Plan
from benchmarks.web.running import Running, serving
from benchmarks.web.speed import Say

OVERLOAD: Final = 2.0
OVERLOAD_PATH: Final = "/5"
SLOW_PATH: Final = "/50"
SLOW_SHARE: Final = 0.05
CAPACITY_CONNECTIONS: Final = 16
"""As many as two workers of eight threads run at once: none of them waits."""


@dataclass(frozen=True)
class OverloadRow:
    """One server under twice its capacity."""

    app: str
    server: str
    capacity_per_s: float
    goodput: float
    outcomes: Outcomes


@dataclass(frozen=True)
class MixedRow:
    """One server with fast and slow requests."""

    app: str
    server: str
    outcomes: Outcomes


def measure(plan: Plan, *, programs: Path, folder: Path, peers: bool, say: Say) -> Iterator[OverloadRow | MixedRow]:
    """Both loads, on each server alone: some work off an overload long after its clients have left."""
    for app in TROUBLE_APPS:
        for number, contender in enumerate(contenders(app.interface, peers=peers)):
            say(f"mixed load and overload: {app.title}, {contender.name}")
            place = folder / f"trouble-{app.interface}-{number}"
            try:
                with serving(contender, app, programs=programs, folder=place) as server:
                    yield mixed(app, server, plan)
                    yield overload(app, server, plan)
            except RuntimeError as failed:
                say(f"{contender.name} is left out with {app.title} under trouble: {failed}")


def overload(app: App, server: Running, plan: Plan) -> OverloadRow:
    capacity = wrk.load(server, OVERLOAD_PATH, seconds=plan.capacity_s, connections=CAPACITY_CONNECTIONS)
    outcomes = open_loop(
        server.port,
        rate=capacity.requests_per_s * OVERLOAD,
        seconds=plan.overload_s,
        warmup_s=DEADLINE_S if plan.warms_up else 0.0,
        path=OVERLOAD_PATH,
    )
    goodput = outcomes.answered_per_s / capacity.requests_per_s
    return OverloadRow(app.title, server.name, capacity.requests_per_s, goodput, outcomes)


def mixed(app: App, server: Running, plan: Plan) -> MixedRow:
    outcomes = open_loop(
        server.port,
        rate=plan.mixed_per_s,
        seconds=plan.mixed_s,
        warmup_s=0.5,
        path=app.path,
        slow_path=SLOW_PATH,
        slow_share=SLOW_SHARE,
    )
    return MixedRow(app.title, server.name, outcomes)
