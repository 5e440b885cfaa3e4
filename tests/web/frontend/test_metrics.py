"""What Prometheus is told of a web server, and how several edges are added up."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from headrace.http.listener import Statistics as HttpStatistics
from headrace.web.dispatch.statistics import (
    DispatchStatistics,
    Histogram,
    ProxyStatistics,
    RouteStatistics,
    UpstreamStatistics,
    WorkerStatistics,
)
from headrace.web.frontend.metrics import (
    METRICS,
    EdgeStatistics,
    RouteCounts,
    RouterStatistics,
    SupervisorFacts,
    listener_statistics,
    merge,
    render,
    totals_of_ended,
)

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
FACTS = SupervisorFacts(
    version="1.2.3",
    workers={"serving": 2, "leaving": 1},
    generation=4,
    restarts=5,
    recycled=6,
    reloads=3,
    reloads_failed=1,
    memory_bytes={"edge": 1_000},
)


def timed(*seconds: float) -> Histogram:
    histogram = Histogram()
    for value in seconds:
        histogram.observe(value)
    return histogram


def edge(pid: int = 7, *, route: str = "/", oldest_s: float = 0.5) -> EdgeStatistics:
    counts = RouteCounts(seconds=timed(0.002, 0.2), sent_bytes=100)
    counts.methods["GET"][2] = 3
    counts.methods["GET"][0] = 1
    queue = DispatchStatistics(
        requests=9,
        in_flight=2,
        queue_length=4,
        oldest_wait_s=oldest_s,
        shed={"queue-full": 2},
        redelivered=1,
        failed=3,
        poison=1,
        client_disconnects=5,
        request_timeouts=6,
        workers=[WorkerStatistics(pid, 1, 1, 8, 10)],
        routes={route: RouteStatistics(wait=timed(0.0), run=timed(0.02))},
    )
    upstream = UpstreamStatistics(up=1, in_flight=2, idle=3, connects=4, requests=5, failures=6)
    proxy = ProxyStatistics(DispatchStatistics(queue_length=1), {"http://a:1": upstream})
    return EdgeStatistics(
        RouterStatistics(2, {route: counts}, {"default": 7}, 8, {"/up": proxy}),
        listener_statistics(HttpStatistics(accepted=9, open=3, requests=100, refused=1)),
        {"m:app": queue},
    )


def rendered(*edges: EdgeStatistics) -> list[str]:
    return render(edges, FACTS).decode().splitlines()


def test_everything_is_told() -> None:
    lines = rendered(edge())
    for expected in (
        "headrace_http_connections 3",
        "headrace_http_connections_total 9",
        "headrace_http_requests_total 100",
        "headrace_http_refused_total 1",
        'headrace_web_requests_total{route="/",method="GET",status="2xx"} 3',
        'headrace_web_requests_total{route="/",method="GET",status="none"} 1',
        "headrace_web_requests_in_flight 2",
        'headrace_web_request_seconds_bucket{route="/",le="0.0025"} 1',
        'headrace_web_request_seconds_bucket{route="/",le="+Inf"} 2',
        'headrace_web_request_seconds_sum{route="/"} 0.202',
        'headrace_web_request_seconds_count{route="/"} 2',
        'headrace_web_sent_bytes_total{route="/"} 100',
        'headrace_web_rate_limited_requests_total{limit="default"} 7',
        "headrace_web_access_log_dropped_total 8",
        'headrace_web_queue_length{app="m:app"} 4',
        'headrace_web_queue_oldest_wait_seconds{app="m:app"} 0.5',
        'headrace_web_queue_wait_seconds_bucket{app="m:app",route="/",le="0.001"} 1',
        'headrace_web_run_seconds_sum{app="m:app",route="/"} 0.02',
        'headrace_web_shed_total{app="m:app",reason="queue-full"} 2',
        'headrace_web_redelivered_total{app="m:app"} 1',
        'headrace_web_failed_total{app="m:app"} 3',
        'headrace_web_poison_total{app="m:app"} 1',
        'headrace_web_request_timeouts_total{app="m:app"} 6',
        'headrace_web_client_disconnects_total{app="m:app"} 5',
        'headrace_web_running{app="m:app"} 2',
        'headrace_web_capacity{app="m:app"} 8',
        'headrace_web_queue_length{app="proxy:/up"} 1',
        'headrace_web_upstream_up{route="/up",upstream="http://a:1"} 1',
        'headrace_web_upstream_running{route="/up",upstream="http://a:1"} 2',
        'headrace_web_upstream_idle_connections{route="/up",upstream="http://a:1"} 3',
        'headrace_web_upstream_connections_total{route="/up",upstream="http://a:1"} 4',
        'headrace_web_upstream_requests_total{route="/up",upstream="http://a:1"} 5',
        'headrace_web_upstream_failures_total{route="/up",upstream="http://a:1"} 6',
        'headrace_web_workers{state="serving"} 2',
        "headrace_web_restarts_total 5",
        "headrace_web_recycled_total 6",
        "headrace_web_generation 4",
        'headrace_web_reloads_total{result="ok"} 3',
        'headrace_web_reloads_total{result="failed"} 1',
        'headrace_web_memory_bytes{process="edge"} 1000',
    ):
        assert expected in lines
    assert lines[2].startswith('headrace_build_info{version="1.2.3",python="3.')


def test_edges_are_added_up() -> None:
    lines = rendered(edge(1), edge(2, oldest_s=0.75), edge(3, route="/other"))
    for expected in (
        "headrace_http_connections 9",
        'headrace_web_upstream_up{route="/up",upstream="http://a:1"} 3',
        'headrace_web_requests_total{route="/",method="GET",status="2xx"} 6',
        'headrace_web_requests_total{route="/other",method="GET",status="2xx"} 3',
        'headrace_web_request_seconds_bucket{route="/",le="0.25"} 4',
        'headrace_web_request_seconds_sum{route="/"} 0.404',
        'headrace_web_queue_oldest_wait_seconds{app="m:app"} 0.75',
        'headrace_web_capacity{app="m:app"} 24',
        'headrace_web_shed_total{app="m:app",reason="queue-full"} 6',
    ):
        assert expected in lines


def test_adding_up_changes_and_shares_nothing() -> None:
    one, other = edge(), edge(2)
    before = msgspec.msgpack.encode((one, other))
    total = merge(EdgeStatistics, (one, other))
    total.router.routes["/"].methods["GET"][2] += 100
    total.queues["m:app"].shed["queue-full"] += 100
    alone = merge(EdgeStatistics, (one,))
    assert alone == one
    alone.router.routes["/"].seconds.counts[0] += 1
    alone.queues["m:app"].workers.clear()
    assert msgspec.msgpack.encode((one, other)) == before
    assert merge(EdgeStatistics, ()) == EdgeStatistics()


def test_totals_do_not_fall_when_a_process_ends() -> None:
    living, dead = edge(1), totals_of_ended(edge(2))
    lines, before = rendered(living, dead), rendered(living, edge(2))
    kinds = {metric.name: metric.kind for metric, _ in METRICS}

    def totals(of: list[str]) -> list[str]:
        names = [re.split(r"[ {]", line)[0] for line in of]
        return [line for line, name in zip(of, names, strict=True) if kinds.get(name, "histogram") != "gauge"]

    assert totals(lines) == totals(before)
    for expected in (
        "headrace_http_connections 3",
        "headrace_web_requests_in_flight 2",
        'headrace_web_running{app="m:app"} 2',
    ):
        assert expected in lines
    assert 'headrace_web_queue_length{app="m:app"} 4' in lines
    assert 'headrace_web_capacity{app="m:app"} 8' in lines


def test_records_travel_as_msgpack() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(edge()), type=EdgeStatistics) == edge()


def test_a_server_that_has_just_started_tells_zeros() -> None:
    lines = rendered()
    assert "headrace_http_connections 0" in lines
    assert "headrace_web_requests_in_flight 0" in lines
    assert not [line for line in lines if line.startswith("headrace_web_requests_total")]


def test_every_line_is_of_the_exposition_format() -> None:
    sample = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? [0-9.e+-]+')
    for line in rendered(edge(route='/a"b\\c\nd')):
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line


def test_each_metric_is_announced_once_named_as_its_kind_wants_and_documented() -> None:
    names = [metric.name for metric, _ in METRICS]
    assert len(set(names)) == len(names)
    assert [line.split()[2] for line in rendered(edge()) if line.startswith("# TYPE ")] == names
    for metric, _ in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert re.search(rf"^\| `{metric.name}(\{{[a-z,]+\}})?` \| {metric.kind} \|", PAGE, re.MULTILINE), metric.name
