"""CPU a request, requests a second and p99 of small answers: headrace and peers, in turn, in the same run.

All servers of an app run at once and are loaded one after another (A B C A B C …), so that what the machine does
beside hits all alike; an idle server costs next to nothing. Tables show medians over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.web import wrk
from benchmarks.web.contenders import SPEED_APPS, App, contenders
from benchmarks.web.plan import Plan
from benchmarks.web.running import Running, serving

Say = Callable[[str], None]


@dataclass(frozen=True)
class SpeedRow:
    """The medians of one server with one app; memory is of the idle server, before its first load."""

    app: str
    server: str
    requests_per_s: float
    cpu_us: float
    cpu_spread: float
    p50_ms: float
    p99_ms: float
    failed: int
    started_in_s: float
    rss_mib: float
    pss_mib: float


def measure(plan: Plan, *, programs: Path, folder: Path, peers: bool, say: Say) -> Iterator[SpeedRow]:
    """All apps, each on all servers that run it."""
    for number, app in enumerate(SPEED_APPS):
        say(f"speed: {app.title}")
        with ExitStack() as stack:
            yield from _app(
                app, plan, stack, programs=programs, folder=folder / f"speed-{number}", peers=peers, say=say
            )


def _app(
    app: App, plan: Plan, stack: ExitStack, *, programs: Path, folder: Path, peers: bool, say: Say
) -> Iterator[SpeedRow]:
    servers = list(start_all(app, stack, programs=programs, folder=folder, peers=peers, say=say))
    memory = {server.name: (server.rss_mib(), server.pss_mib()) for server in servers}
    for server in servers if plan.warms_up else ():
        wrk.load(server, app.path, seconds=1)
    loads: dict[str, list[wrk.Load]] = {server.name: [] for server in servers}
    for _ in range(plan.rounds):
        for server in servers:
            loads[server.name].append(wrk.load(server, app.path, seconds=plan.seconds))
    for server in servers:
        yield _row(app, server, loads[server.name], memory[server.name])


def start_all(app: App, stack: ExitStack, *, programs: Path, folder: Path, peers: bool, say: Say) -> Iterable[Running]:
    """Start every server of the app, one after another; one that does not start is left out, and that is said."""
    for number, contender in enumerate(contenders(app.interface, peers=peers)):
        try:
            place = folder / str(number)
            yield stack.enter_context(serving(contender, app, programs=programs, folder=place))
        except RuntimeError as failed:
            say(f"{contender.name} is left out with {app.title}: {failed}")


def _row(app: App, server: Running, loads: Sequence[wrk.Load], memory: tuple[float, float]) -> SpeedRow:
    costs = [load.cpu_us for load in loads]
    return SpeedRow(
        app=app.title,
        server=server.name,
        requests_per_s=statistics.median(load.requests_per_s for load in loads),
        cpu_us=statistics.median(costs),
        cpu_spread=(max(costs) - min(costs)) / statistics.median(costs),
        p50_ms=statistics.median(load.p50_ms for load in loads),
        p99_ms=statistics.median(load.p99_ms for load in loads),
        failed=sum(load.failed for load in loads),
        started_in_s=server.started_in_s,
        rss_mib=memory[0],
        pss_mib=memory[1],
    )
