"""What those who are present say of themselves, put together: tasks over all workers, routes over all web servers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import msgspec

from headrace.console.snapshot import Snapshot
from headrace.presence import (
    BrokerFacts,
    Facts,
    Latency,
    RouteFacts,
    RunningFacts,
    StreamFacts,
    TaskFacts,
    WebFacts,
    WorkerFacts,
    read,
)
from headrace.queue.model import HolderState

F = TypeVar("F", bound=Facts)

PERCENTILES: Final = ("p50", "p95", "p99")  # of waits and runs, as their series are called
SERIES_EACH_MAX: Final = 100
"""Tasks, and routes, whose history is kept: the busiest. A name made of an id must not push the queues out."""


class TaskLine(msgspec.Struct, frozen=True):
    """A task over all workers. Totals are since each worker began; rates and latencies of the last ten seconds."""

    task: str
    workers: int
    running: int
    succeeded: int
    failed: int
    retried: int
    dead: int
    succeeded_s: float
    wait: Latency
    run: Latency


class RouteLine(msgspec.Struct, frozen=True):
    """A route over all web servers; as TaskLine. `statuses`: class (`2xx`) → how many."""

    route: str
    servers: int
    requests: int
    requests_s: float
    statuses: dict[str, int]
    total: Latency
    wait: Latency
    run: Latency


def present(snapshot: Snapshot, kind: str, shape: type[F]) -> list[tuple[HolderState, F]]:
    """Holders of a kind, with what they say. Those whose facts are no such facts are left out."""
    found = [(holder, read(kind, holder.facts)) for holder in snapshot.holders_of(kind)]
    return [(holder, facts) for holder, facts in found if isinstance(facts, shape)]


def nodes(snapshot: Snapshot) -> list[tuple[HolderState, BrokerFacts]]:
    """The brokers of a store that several share."""
    return present(snapshot, "broker", BrokerFacts)


def workers(snapshot: Snapshot) -> list[tuple[HolderState, WorkerFacts]]:
    return present(snapshot, "worker", WorkerFacts)


def webs(snapshot: Snapshot) -> list[tuple[HolderState, WebFacts]]:
    return present(snapshot, "web", WebFacts)


def streams(snapshot: Snapshot, pipeline: str) -> list[tuple[HolderState, StreamFacts]]:
    return [pair for pair in present(snapshot, "stream", StreamFacts) if pair[1].pipeline == pipeline]


def running(snapshot: Snapshot) -> Iterator[tuple[HolderState, RunningFacts]]:
    """The tasks that run now, with who runs them, as far as workers tell."""
    for holder, facts in workers(snapshot):
        for one in facts.running:
            yield holder, one


def together(latencies: Iterable[Latency]) -> Latency:
    """Latencies of several processes as one: percentiles weighted by how many each has measured. Exact for one process;
    for more it is between the least and the greatest."""
    known = [latency for latency in latencies if latency.count]
    count = sum(latency.count for latency in known)
    if not count:
        return Latency()
    p50_s, p95_s, p99_s = (
        sum(getattr(latency, name) * latency.count for latency in known) / count for name in ("p50_s", "p95_s", "p99_s")
    )
    return Latency(count=count, p50_s=p50_s, p95_s=p95_s, p99_s=p99_s)


def task_lines(snapshot: Snapshot) -> list[TaskLine]:
    """All tasks that workers have run, or run; sorted by name."""
    told: dict[str, list[TaskFacts]] = {}
    for _, facts in workers(snapshot):
        for one in facts.tasks:
            told.setdefault(one.task, []).append(one)
    now = Counter(one.task for _, one in running(snapshot))
    return [_task_line(name, told.get(name, []), now[name]) for name in sorted(told.keys() | now.keys())]


def _task_line(name: str, told: list[TaskFacts], now: int) -> TaskLine:
    return TaskLine(
        name,
        workers=len(told),
        running=now,
        succeeded=sum(one.succeeded for one in told),
        failed=sum(one.failed for one in told),
        retried=sum(one.retried for one in told),
        dead=sum(one.dead for one in told),
        succeeded_s=sum(one.succeeded_s for one in told),
        wait=together(one.wait for one in told),
        run=together(one.run for one in told),
    )


def route_lines(snapshot: Snapshot) -> list[RouteLine]:
    """All routes of all web servers; the busiest first."""
    told: dict[str, list[RouteFacts]] = {}
    for _, facts in webs(snapshot):
        for one in facts.routes:
            told.setdefault(one.route, []).append(one)
    return sorted((_route_line(*pair) for pair in told.items()), key=lambda line: (-line.requests, line.route))


def _route_line(name: str, told: list[RouteFacts]) -> RouteLine:
    statuses: Counter[str] = Counter()
    for one in told:
        statuses.update(one.statuses)
    return RouteLine(
        name,
        servers=len(told),
        requests=sum(one.requests for one in told),
        requests_s=sum(one.requests_s for one in told),
        statuses=dict(sorted(statuses.items())),
        total=together(one.total for one in told),
        wait=together(one.wait for one in told),
        run=together(one.run for one in told),
    )


def summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by name, added up; the largest first."""
    found: Counter[str] = Counter()
    for one in counts:
        found.update(one)
    return dict(found.most_common())


def lag_of(snapshot: Snapshot, pipeline: str) -> int | None:
    """Messages that wait for a pipeline; None: it reads no queue that is there."""
    state = next((state for state in snapshot.pipelines if state.name == pipeline), None)
    lines = [snapshot.queue(source.queue) for source in state.sources] if state is not None else []
    known = [line.visible for line in lines if line is not None]
    return sum(known) if known else None


# --- what of it goes into the history ---


def series_of(snapshot: Snapshot) -> dict[str, float]:
    """`task/NAME/…`, `web/…`, `route/NAME/…`, `stream/NAME/…`. Latencies only where something was measured."""
    return {**_task_series(snapshot), **_web_series(snapshot), **_stream_series(snapshot)}


def _task_series(snapshot: Snapshot) -> dict[str, float]:
    lines = task_lines(snapshot)
    if not lines:
        return {}
    found = {
        "tasks/succeeded": sum(line.succeeded_s for line in lines),
        "tasks/running": float(sum(line.running for line in lines)),
        **_latencies("tasks", together(line.wait for line in lines), together(line.run for line in lines)),
    }
    for line in sorted(lines, key=lambda line: -line.succeeded)[:SERIES_EACH_MAX]:
        found |= {f"task/{line.task}/succeeded": line.succeeded_s, f"task/{line.task}/running": float(line.running)}
        found |= _latencies(f"task/{line.task}", line.wait, line.run)
    return found


def _web_series(snapshot: Snapshot) -> dict[str, float]:
    servers = [facts for _, facts in webs(snapshot)]
    if not servers:
        return {}
    lines = route_lines(snapshot)
    found = {
        "web/requests": sum(facts.requests_s for facts in servers),
        "web/shed": sum(facts.shed_s for facts in servers),
        "web/waiting": float(sum(facts.queue_length for facts in servers)),
        "web/in_flight": float(sum(facts.in_flight for facts in servers)),
        **_latencies("web", together(line.wait for line in lines), together(line.run for line in lines)),
    }
    for line in lines[:SERIES_EACH_MAX]:
        found |= {f"route/{line.route}/requests": line.requests_s}
        found |= _latencies(f"route/{line.route}", line.wait, line.run)
    return found


def _stream_series(snapshot: Snapshot) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, (rows_in_s, rows_out_s) in snapshot.pipeline_rates.items():
        found |= {f"stream/{name}/in": rows_in_s, f"stream/{name}/out": rows_out_s}
        lag = lag_of(snapshot, name)
        if lag is not None:
            found[f"stream/{name}/lag"] = float(lag)
    return found


def _latencies(name: str, wait: Latency, run: Latency) -> dict[str, float]:
    """In milliseconds."""
    return {
        f"{name}/{what}_{percentile}": getattr(latency, f"{percentile}_s") * 1_000
        for what, latency in (("wait", wait), ("run", run))
        if latency.count
        for percentile in PERCENTILES
    }
