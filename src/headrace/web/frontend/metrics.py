"""The Prometheus metrics of a web server: the records of its processes, how they are summed, the table of metrics.

Edges (or workers that hold their connections themselves) send an EdgeStatistics to the supervisor each second; the
supervisor adds them up and knows the rest itself. Labels are few: routes as configured, known methods, classes of
status; what clients invent is no label.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from headrace.http import exposition
from headrace.http.exposition import Metric, Reader, Sample, histogram, labels, number, plain
from headrace.http.listener import Statistics as HttpStatistics
from headrace.web.dispatch.statistics import (
    BOUNDS_S,
    DispatchStatistics,
    Histogram,
    ProxyStatistics,
    UpstreamStatistics,
)

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The others are counted together, as `other`."""
OTHER: Final = "other"
UNROUTED: Final = "none"
"""The route label of requests that no route takes."""

S = TypeVar("S", bound=msgspec.Struct)


class RouteCounts(msgspec.Struct):
    """Requests that are done, of one route."""

    methods: dict[str, list[int]] = msgspec.field(
        default_factory=lambda: {method: [0] * 6 for method in (*METHODS, OTHER)}
    )
    """By the first digit of the status; 0 if there was no answer."""
    seconds: Histogram = msgspec.field(default_factory=Histogram)
    """From the head's arrival to the end of the answer; without WebSockets and other tunnels."""
    sent_bytes: int = 0
    """Bodies of answers."""


class RouterStatistics(msgspec.Struct, frozen=True):
    """Statistics of the request router of one edge, since its start."""

    in_flight: int = 0
    routes: dict[str, RouteCounts] = {}
    rate_limited: dict[str, int] = {}
    """Answered 429, by the limit's name."""
    log_dropped: int = 0
    """Lines of the access log that were lost."""
    proxies: dict[str, ProxyStatistics] = {}
    """By route."""


class ListenerStatistics(msgspec.Struct, frozen=True):
    """As `headrace.http.listener.Statistics`."""

    accepted: int = 0
    open: int = 0
    requests: int = 0
    refused: int = 0


class EdgeStatistics(msgspec.Struct, frozen=True):
    """All that one edge knows."""

    router: RouterStatistics = msgspec.field(default_factory=RouterStatistics)
    listener: ListenerStatistics = msgspec.field(default_factory=ListenerStatistics)
    queues: dict[str, DispatchStatistics] = {}
    """By app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorFacts:
    """Values that only the supervisor has; totals since its start."""

    version: str = ""
    workers: dict[str, int]
    """Now, by state: starting, ready, serving, leaving."""
    generation: int = 1
    restarts: int = 0
    """Processes that ended without being asked to, and were replaced."""
    recycled: int = 0
    """Workers that were replaced for their age or their memory."""
    reloads: int = 0
    reloads_failed: int = 0
    memory_bytes: dict[str, int] = field(default_factory=dict)
    """Resident, by kind of process: edge, worker, supervisor."""


def listener_statistics(found: HttpStatistics) -> ListenerStatistics:
    """Convert a listener's statistics to the record that is sent to the supervisor."""
    return ListenerStatistics(found.accepted, found.open, found.requests, found.refused)


def totals_of_ended(record: EdgeStatistics) -> EdgeStatistics:
    """The totals of a process that has ended, without its current values. Whoever adds up the living
    adds this for the dead, or totals would fall, which reads as a restart of everything and a burst of requests."""
    replace = msgspec.structs.replace
    queues = {app: _totals_of_queue(queue) for app, queue in record.queues.items()}
    proxies = {route: _totals_of_proxy(proxy) for route, proxy in record.router.proxies.items()}
    router = replace(record.router, in_flight=0, proxies=proxies)
    return EdgeStatistics(router, replace(record.listener, open=0), queues)


def _totals_of_queue(queue: DispatchStatistics) -> DispatchStatistics:
    return msgspec.structs.replace(queue, in_flight=0, queue_length=0, oldest_wait_s=0.0, workers=[])


def _totals_of_proxy(proxy: ProxyStatistics) -> ProxyStatistics:
    upstreams = {
        url: msgspec.structs.replace(upstream, up=0, in_flight=0, idle=0) for url, upstream in proxy.upstreams.items()
    }
    return ProxyStatistics(_totals_of_queue(proxy.queue), upstreams)


def merge(kind: type[S], records: Iterable[S]) -> S:
    """The records of several processes as one: numbers added, histograms and tables entry by entry, lists of records
    chained; the greatest of a field whose name begins with `oldest`. Shares nothing with its arguments."""
    total = kind()
    for record in records:
        total = _add(total, record)
    return total


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, msgspec.Struct):
        fields = one.__struct_fields__
        return type(one)(**{name: _add_field(name, getattr(one, name), getattr(other, name)) for name in fields})
    if isinstance(one, dict):
        return {key: _add(one[key], other[key]) if key in one and key in other else _copy(one.get(key, other.get(key)))
                for key in {**one, **other}}  # fmt: skip
    if isinstance(one, list):
        if any(isinstance(item, msgspec.Struct) for item in (*one, *other)):
            return [*one, *other]
        return [a + b for a, b in zip(one, other, strict=True)] if one and other else [*one, *other]
    return one + other


def _add_field(name: str, one: Any, other: Any) -> Any:
    return max(one, other) if name.startswith("oldest") else _add(one, other)


def _copy(value: Any) -> Any:
    return _add(value, type(value)()) if isinstance(value, msgspec.Struct | dict | list) else value


# ------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """All values, read at about the same time."""

    edges: EdgeStatistics
    facts: SupervisorFacts


def _queues(snapshot: MetricsSnapshot) -> Iterable[tuple[str, DispatchStatistics]]:
    """Those of the apps, and those in front of upstreams."""
    yield from snapshot.edges.queues.items()
    for route, proxy in snapshot.edges.router.proxies.items():
        yield f"proxy:{route}", proxy.queue


def _of_queues(read: Callable[[DispatchStatistics], float]) -> Reader[MetricsSnapshot]:
    return lambda s: ((labels(app=app), number(read(queue))) for app, queue in _queues(s))


def _of_upstreams(read: Callable[[UpstreamStatistics], int]) -> Reader[MetricsSnapshot]:
    return lambda s: (
        (labels(route=route, upstream=url), str(read(upstream)))
        for route, proxy in s.edges.router.proxies.items()
        for url, upstream in proxy.upstreams.items()
    )


def _by(name: str, read: Callable[[MetricsSnapshot], dict[str, int]]) -> Reader[MetricsSnapshot]:
    return lambda s: ((labels(**{name: key}), str(value)) for key, value in read(s).items())


def _build(snapshot: MetricsSnapshot) -> Iterable[Sample]:
    python = ".".join(map(str, sys.version_info[:3]))
    return ((labels(version=snapshot.facts.version, python=python), "1"),)


def _requests(snapshot: MetricsSnapshot) -> Iterable[Sample]:
    for route, counts in snapshot.edges.router.routes.items():
        for method, statuses in counts.methods.items():
            for digit, count in enumerate(statuses):
                if count:
                    status = f"{digit}xx" if digit else "none"
                    yield labels(route=route, method=method, status=status), str(count)


def _seconds(snapshot: MetricsSnapshot) -> Iterable[Sample]:
    for route, counts in snapshot.edges.router.routes.items():
        yield from histogram(BOUNDS_S, counts.seconds.counts, counts.seconds.sum_s, route=route)


def _waits(snapshot: MetricsSnapshot) -> Iterable[Sample]:
    for app, queue in _queues(snapshot):
        for route, found in queue.routes.items():
            yield from histogram(BOUNDS_S, found.wait.counts, found.wait.sum_s, app=app, route=route)


def _runs(snapshot: MetricsSnapshot) -> Iterable[Sample]:
    for app, queue in _queues(snapshot):
        for route, found in queue.routes.items():
            yield from histogram(BOUNDS_S, found.run.counts, found.run.sum_s, app=app, route=route)


def _shed(snapshot: MetricsSnapshot) -> Iterable[Sample]:
    for app, queue in _queues(snapshot):
        for reason, count in queue.shed.items():
            yield labels(app=app, reason=reason), str(count)


def _sent(snapshot: MetricsSnapshot) -> dict[str, int]:
    return {route: counts.sent_bytes for route, counts in snapshot.edges.router.routes.items()}


def _reloads(snapshot: MetricsSnapshot) -> dict[str, int]:
    return {"ok": snapshot.facts.reloads, "failed": snapshot.facts.reloads_failed}


METRICS: Final[tuple[tuple[Metric, Reader[MetricsSnapshot]], ...]] = (
    (Metric("headrace_build_info", "gauge", "Always 1; the labels say what runs."), _build),
    (Metric("headrace_http_connections", "gauge", "Open connections."), plain(lambda s: s.edges.listener.open)),
    (Metric("headrace_http_connections_total", "counter", "Connections accepted."), plain(lambda s: s.edges.listener.accepted)),
    (Metric("headrace_http_requests_total", "counter", "Requests taken."), plain(lambda s: s.edges.listener.requests)),
    (
        Metric("headrace_http_refused_total", "counter", "Requests that the HTTP engine refused as malformed or too large."),
        plain(lambda s: s.edges.listener.refused),
    ),
    (Metric("headrace_web_requests_total", "counter", "Requests that are done, by class of status."), _requests),
    (Metric("headrace_web_requests_in_flight", "gauge", "Requests that are not done."), plain(lambda s: s.edges.router.in_flight)),
    (Metric("headrace_web_request_seconds", "histogram", "From the head of a request to the end of its answer."), _seconds),
    (Metric("headrace_web_sent_bytes_total", "counter", "Bytes of answers' bodies."), _by("route", _sent)),
    (
        Metric("headrace_web_rate_limited_requests_total", "counter", "Requests answered 429, by limit."),
        _by("limit", lambda s: s.edges.router.rate_limited),
    ),
    (
        Metric("headrace_web_access_log_dropped_total", "counter", "Lines of the access log that were lost."),
        plain(lambda s: s.edges.router.log_dropped),
    ),
    (Metric("headrace_web_queue_length", "gauge", "Requests that wait for a worker."), _of_queues(lambda q: q.queue_length)),
    (Metric("headrace_web_queue_oldest_wait_seconds", "gauge", "Wait of the one that has waited longest."), _of_queues(lambda q: q.oldest_wait_s)),
    (Metric("headrace_web_queue_wait_seconds", "histogram", "Wait of the requests that a worker took."), _waits),
    (Metric("headrace_web_run_seconds", "histogram", "From a worker's taking a request to the end of its answer."), _runs),
    (Metric("headrace_web_shed_total", "counter", "Requests answered 503 without a worker, by reason."), _shed),
    (
        Metric("headrace_web_redelivered_total", "counter", "Requests given to another worker, since theirs was lost."),
        _of_queues(lambda q: q.redelivered),
    ),
    (
        Metric(
            "headrace_web_requests_recalled_total",
            "counter",
            "Requests given to another thread, since they would have waited behind a long one.",
        ),
        _of_queues(lambda q: q.recalled),
    ),
    (Metric("headrace_web_failed_total", "counter", "Requests that failed since their worker was lost."), _of_queues(lambda q: q.failed)),
    (Metric("headrace_web_poison_total", "counter", "Of those: requests that had killed several workers."), _of_queues(lambda q: q.poison)),
    (Metric("headrace_web_request_timeouts_total", "counter", "Requests answered 504 after request_timeout."), _of_queues(lambda q: q.request_timeouts)),
    (Metric("headrace_web_client_disconnects_total", "counter", "Requests whose client left before the answer."), _of_queues(lambda q: q.client_disconnects)),
    (Metric("headrace_web_running", "gauge", "Requests that workers have."), _of_queues(lambda q: q.in_flight)),
    (
        Metric("headrace_web_capacity", "gauge", "Requests that workers take at once."),
        _of_queues(lambda q: sum(worker.capacity for worker in q.workers)),
    ),
    (Metric("headrace_web_upstream_up", "gauge", "Processes that give requests to an upstream; 0: it is down."), _of_upstreams(lambda u: u.up)),
    (Metric("headrace_web_upstream_running", "gauge", "Requests that an upstream has."), _of_upstreams(lambda u: u.in_flight)),
    (Metric("headrace_web_upstream_idle_connections", "gauge", "Connections to an upstream that are kept."), _of_upstreams(lambda u: u.idle)),
    (Metric("headrace_web_upstream_connections_total", "counter", "Connections that were made to an upstream."), _of_upstreams(lambda u: u.connects)),
    (Metric("headrace_web_upstream_requests_total", "counter", "Requests given to an upstream."), _of_upstreams(lambda u: u.requests)),
    (
        Metric("headrace_web_upstream_failures_total", "counter", "Requests that an upstream failed: no answer, a broken one, or 502, 503, 504."),
        _of_upstreams(lambda u: u.failures),
    ),
    (Metric("headrace_web_workers", "gauge", "Workers by state."), _by("state", lambda s: s.facts.workers)),
    (Metric("headrace_web_restarts_total", "counter", "Processes that ended unasked and were replaced."), plain(lambda s: s.facts.restarts)),
    (Metric("headrace_web_recycled_total", "counter", "Workers replaced for age or memory."), plain(lambda s: s.facts.recycled)),
    (Metric("headrace_web_generation", "gauge", "Of the code; counted up by every reload."), plain(lambda s: s.facts.generation)),
    (Metric("headrace_web_reloads_total", "counter", "Reloads, by result: ok, failed."), _by("result", _reloads)),
    (Metric("headrace_web_memory_bytes", "gauge", "Resident memory by kind of process."), _by("process", lambda s: s.facts.memory_bytes)),
)  # fmt: skip


def render(edges: Sequence[EdgeStatistics], facts: SupervisorFacts) -> bytes:
    """All metrics of a server as Prometheus reads them (`exposition.CONTENT_TYPE`)."""
    return exposition.render(METRICS, MetricsSnapshot(merge(EdgeStatistics, edges), facts))
