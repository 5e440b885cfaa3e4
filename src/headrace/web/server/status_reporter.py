"""Reports the status of the web server to its broker, for the console: recent statistics, workers, routes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.native.aio import connect_async
from headrace.native.endpoint import SOCKET_NAME
from headrace.native.presence import be_present
from headrace.presence import (
    Latency,
    Recent,
    RouteFacts,
    UpstreamFacts,
    WebFacts,
    WebWorkerFacts,
    about_me,
    holder_name,
    latency,
    write,
)
from headrace.process import rss_bytes
from headrace.web.dispatch.statistics import BOUNDS_S, DispatchStatistics, Histogram
from headrace.web.frontend.metrics import EdgeStatistics, merge

if TYPE_CHECKING:
    from headrace.web.server.supervisor import Supervisor

ROUTES_MAX: Final = 64
WORKERS_MAX: Final = 128
"""Facts are 64 KiB at most: these many of each have about half of it. Of more, the busiest are shown."""


async def show(supervisor: Supervisor, url: str) -> None:
    """Present at the broker as a `web`, until cancelled.

    The broker is asked over a connection of the supervisor's own: whatever happens to it, no request notices.
    """
    reporter = StatusReporter()

    def facts() -> dict[str, Any]:
        return write(reporter.facts(supervisor, url))

    async with connect_async(_target(supervisor.settings.broker), patience=0) as client:
        await be_present(client, holder=holder_name("web"), kind="web", facts=facts)


def _target(broker: str) -> str:
    """Never the folder itself: while its broker is away, that would open the store here."""
    return broker if "://" in broker else f"unix://{Path(broker).absolute() / SOCKET_NAME}"


class StatusReporter:
    """Turns statistics into the facts that the console shows. Keeps the totals of the last seconds, for rates and percentiles."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._recent = Recent()

    def facts(self, supervisor: Supervisor, url: str) -> WebFacts:
        """Args: url: where requests are served."""
        settings = supervisor.settings
        edges = merge(EdgeStatistics, supervisor.stats.all(supervisor))
        facts_of_edges = self.statistics(edges)
        workers = list(_workers(supervisor))
        memory = rss_bytes() + sum(worker.rss_bytes for worker in workers)
        return WebFacts(
            **about_me(),
            **facts_of_edges,
            url=url,
            apps=supervisor.apps,
            queues=[settings.durable_queue],
            produces=[settings.durable_queue],
            durable_queue=settings.durable_queue,
            ready=supervisor.ready,
            workers=sorted(workers, key=lambda worker: -worker.requests)[:WORKERS_MAX],
            rss_bytes=memory + (supervisor.edges.rss_bytes if supervisor.edges is not None else 0),
            restarts=sum(worker_group.reconciler.restarts for worker_group in supervisor.worker_groups),
            generation=max((worker_group.reconciler.current for worker_group in supervisor.worker_groups), default=0),
        )

    def statistics(self, edges: EdgeStatistics) -> dict[str, Any]:
        """Those fields of WebFacts that come from the edges' records."""
        queues = [*edges.queues.values(), *(proxy.queue for proxy in edges.router.proxies.values())]
        self._recent.note(self._monotonic(), dict(_totals(edges, queues)))
        total = merge(DispatchStatistics, queues)
        routes = sorted((self._route(edges, total, name) for name in edges.router.routes), key=lambda r: -r.requests)
        return {
            "connections": edges.listener.open,
            "requests": edges.listener.requests,
            "requests_s": self._recent.rate_s("requests"),
            "in_flight": edges.router.in_flight,
            "queue_length": total.queue_length,
            "oldest_wait_s": total.oldest_wait_s,
            "shed": total.shed,
            "shed_s": self._recent.rate_s("shed"),
            "limited": edges.router.rate_limited,
            "redelivered": total.redelivered,
            "failed": total.failed,
            "hung": total.request_timeouts,
            "routes": routes[:ROUTES_MAX],
            "upstreams": list(_upstreams(edges)),
        }

    def _route(self, edges: EdgeStatistics, total: DispatchStatistics, name: str) -> RouteFacts:
        counts = edges.router.routes[name]
        by_digit = [sum(statuses[digit] for statuses in counts.methods.values()) for digit in range(6)]
        statuses = {f"{digit}xx" if digit else "none": count for digit, count in enumerate(by_digit) if count}
        return RouteFacts(
            route=name,
            requests=sum(by_digit),
            requests_s=self._recent.rate_s(("route", name)),
            statuses=statuses,
            total=self._latency("total", name, len(counts.seconds.counts)),
            wait=self._latency("wait", name, len(BOUNDS_S) + 1) if name in total.routes else Latency(),
            run=self._latency("run", name, len(BOUNDS_S) + 1) if name in total.routes else Latency(),
        )

    def _latency(self, what: str, route: str, buckets: int) -> Latency:
        return latency(BOUNDS_S, [self._recent.grown((what, route, bucket)) for bucket in range(buckets)])


def _totals(edges: EdgeStatistics, queues: Sequence[DispatchStatistics]) -> Iterator[tuple[Any, int]]:
    """All counters whose rates are reported, by key."""
    yield "requests", edges.listener.requests
    yield "shed", sum(sum(queue.shed.values()) for queue in queues)
    for name, counts in edges.router.routes.items():
        yield ("route", name), sum(map(sum, counts.methods.values()))
        yield from _buckets("total", name, counts.seconds)
    for name, route in merge(DispatchStatistics, queues).routes.items():
        yield from _buckets("wait", name, route.wait)
        yield from _buckets("run", name, route.run)


def _buckets(what: str, route: str, histogram: Histogram) -> Iterator[tuple[Any, int]]:
    for bucket, count in enumerate(histogram.counts):
        yield (what, route, bucket), count


def _workers(supervisor: Supervisor) -> Iterator[WebWorkerFacts]:
    for worker_group in supervisor.worker_groups:
        for worker in worker_group.reconciler.workers.values():
            yield WebWorkerFacts(
                pid=worker.pid,
                app=", ".join(worker_group.config.apps),
                stage=worker.stage.name.lower(),
                generation=worker.generation,
                in_flight=worker.in_flight,
                requests=worker.requests,
                rss_bytes=worker.rss_bytes,
            )


def _upstreams(edges: EdgeStatistics) -> Iterator[UpstreamFacts]:
    for route, proxy in edges.router.proxies.items():
        for url, one in proxy.upstreams.items():
            yield UpstreamFacts(
                route=route,
                url=url,
                up=one.up > 0,
                in_flight=one.in_flight,
                requests=one.requests,
                failures=one.failures,
            )
