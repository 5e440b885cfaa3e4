"""What processes say of themselves, put together."""

from __future__ import annotations

from typing import Any

from headrace.console import figures
from headrace.console.pages.streams import eta_s, standing
from headrace.console.pages.tasks import task_queues
from headrace.console.snapshot import QueueLine, Snapshot
from headrace.presence import (
    Facts,
    Latency,
    RouteFacts,
    RunningFacts,
    StreamFacts,
    TaskFacts,
    WebFacts,
    WorkerFacts,
    write,
)
from headrace.queue.model import HolderState, arn_of
from headrace.stream_state import PipelineState, Process, SourceState

NOW_MS = 1_800_000_000_000


def holder(name: str, kind: str, facts: Facts | dict[str, Any]) -> HolderState:
    return HolderState(name, kind, NOW_MS, NOW_MS, 0, facts if isinstance(facts, dict) else write(facts))


def line(name: str, *, visible: int = 0, sent_rate: float = 0, deleted_rate: float = 0, dead: str = "") -> QueueLine:
    zeros = dict.fromkeys(("sent", "received", "deleted", "dead_lettered", "expired", "damaged"), 0)
    return QueueLine(
        name=name, arn=arn_of(name), fifo=False, visible=visible, in_flight=0, delayed=0, oldest_s=None, sent_rate=sent_rate,
        received_rate=0, deleted_rate=deleted_rate, to_empty_s=None, dead_letters=dead, letters_of=(), consumers=(), **zeros,
    )  # fmt: skip


def pipeline(*, paused: bool = False, processes: tuple[Process, ...] = (), committed_ms: int = 0) -> PipelineState:
    sources = (SourceState("events", "events", 10, None), SourceState("rows", "", 5, None))
    return PipelineState("totals", sources, 3, 7, 0, 0, committed_ms, 1_000, paused, processes)


def latency(count: int, p50_s: float) -> Latency:
    return Latency(count=count, p50_s=p50_s, p95_s=2 * p50_s, p99_s=3 * p50_s)


def test_percentiles_of_several_processes_are_weighted_by_what_they_measured() -> None:
    both = figures.together([latency(30, 0.1), latency(10, 0.5), Latency()])
    assert (both.count, round(both.p50_s, 6), round(both.p99_s, 6)) == (40, 0.2, 0.6)
    assert figures.together([latency(5, 0.25), Latency()]) == latency(5, 0.25)
    assert figures.together([Latency(), Latency()]) == Latency() == figures.together([])


def test_a_task_is_added_up_over_all_workers() -> None:
    one = WorkerFacts(
        slots=4,
        running=[RunningFacts(id="a", task="pay", started_ms=NOW_MS), RunningFacts(id="b", task="ship")],
        tasks=[TaskFacts(task="pay", succeeded=3, failed=2, retried=1, dead=1, succeeded_s=1.5, run=latency(1, 0.2))],
    )
    other = WorkerFacts(tasks=[TaskFacts(task="pay", succeeded=7, succeeded_s=0.5, run=latency(3, 0.4))])
    snapshot = Snapshot(holders=(holder("1", "worker", one), holder("2", "worker", other)))
    pay, ship = figures.task_lines(snapshot)
    assert (pay.task, pay.workers, pay.running, pay.succeeded, pay.failed, pay.dead) == ("pay", 2, 1, 10, 2, 1)
    assert pay.succeeded_s == 2.0 and round(pay.run.p50_s, 6) == 0.35
    assert (ship.task, ship.running, ship.succeeded) == ("ship", 1, 0)


def test_facts_that_are_none_are_left_out() -> None:
    strange = (
        holder("1", "worker", {"tasks": "many", "slots": -1}),
        holder("2", "web", {"routes": [{"route": 5}]}),
        holder("3", "nobody knows", {"queues": 7}),
    )
    snapshot = Snapshot(holders=strange)
    assert (figures.task_lines(snapshot), figures.route_lines(snapshot), figures.series_of(snapshot)) == ([], [], {})


def test_routes_are_added_up_over_servers_the_busiest_first() -> None:
    one = WebFacts(routes=[RouteFacts(route="/a", requests=2, statuses={"2xx": 2}), RouteFacts(route="/b", requests=9)])
    other = WebFacts(routes=[RouteFacts(route="/a", requests=10, statuses={"2xx": 6, "5xx": 4}, requests_s=1.0)])
    busiest, other_line = figures.route_lines(
        Snapshot(holders=(holder("1", "web", one), holder("2", "web", other))),
    )
    assert (busiest.route, busiest.servers, busiest.requests, busiest.statuses) == ("/a", 2, 12, {"2xx": 8, "5xx": 4})
    assert other_line.route == "/b"


def test_history_has_latencies_only_where_something_was_measured() -> None:
    told = WorkerFacts(tasks=[TaskFacts(task="pay", succeeded_s=2.0, wait=latency(4, 0.01)), TaskFacts(task="ship")])
    found = figures.series_of(Snapshot(holders=(holder("1", "worker", told),)))
    assert found["tasks/succeeded"] == found["task/pay/succeeded"] == 2.0
    assert found["task/pay/wait_p50"] == 10.0 and "task/pay/run_p50" not in found and "task/ship/wait_p50" not in found


def test_history_of_tasks_is_bounded() -> None:
    told = WorkerFacts(tasks=[TaskFacts(task=f"t{number:04}", succeeded=number) for number in range(500)])
    found = figures.series_of(Snapshot(holders=(holder("1", "worker", told),)))
    kept = {name for name in found if name.startswith("task/") and name.endswith("/succeeded")}
    assert len(kept) == figures.SERIES_EACH_MAX and "task/t0499/succeeded" in kept


def test_lag_is_what_waits_in_the_queues_of_a_pipeline() -> None:
    states = (pipeline(),)
    assert figures.lag_of(Snapshot(queues=(line("events", visible=12),), pipelines=states), "totals") == 12
    assert figures.lag_of(Snapshot(pipelines=states), "totals") is None
    assert figures.lag_of(Snapshot(), "totals") is None


def test_a_pipeline_stands_as_its_processes_do() -> None:
    process = Process("host/boot", 1)
    shown = (holder("1", "stream", StreamFacts(pipeline="totals")),)
    for state, holders, expected in (
        (pipeline(), (), "stopped"),
        (pipeline(processes=(process,)), (), "lost"),
        (pipeline(processes=(process,), committed_ms=NOW_MS - 5_000), (), "running"),
        (pipeline(processes=(process,)), shown, "running"),
        (pipeline(processes=(process,), paused=True), shown, "paused"),
    ):
        assert standing(state, Snapshot(at_ms=NOW_MS, holders=holders)) == expected


def test_caught_up_when_the_backlog_shrinks() -> None:
    assert (eta_s(100, 20.0), eta_s(100, 0.0), eta_s(100, -1.0), eta_s(0, 0.0), eta_s(None, 5.0)) == (
        5.0,
        None,
        None,
        0.0,
        None,
    )


def test_task_queues_are_those_of_workers_and_those_made_for_tasks() -> None:
    queues = (
        line("mail", dead="mail-dead"),
        line("mail-dead"),
        line("orders", dead="letters"),
        line("requests", dead="requests-dead"),
        line("taken"),
    )
    holders = (
        holder("1", "worker", WorkerFacts(queues=["taken"])),
        holder("2", "web", WebFacts(queues=["requests"])),
    )
    assert [one.name for one in task_queues(Snapshot(queues=queues, holders=holders))] == ["mail", "taken"]
