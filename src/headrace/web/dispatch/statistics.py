"""Statistics of a queue and its workers: of one edge, for one application. Durations in seconds."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of every histogram; the last bucket is beyond them all."""


class Histogram(msgspec.Struct):
    """How long something took. `counts` are of each bucket alone, not summed up; one more than BOUNDS_S."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)


class RouteStatistics(msgspec.Struct, frozen=True):
    """Statistics of one route label."""

    wait: Histogram = msgspec.field(default_factory=Histogram)
    """In the queue, of those that a worker took."""
    run: Histogram = msgspec.field(default_factory=Histogram)
    """From a worker's taking one to the end of the answer; WebSockets and other tunnels are not counted."""


class WorkerStatistics(msgspec.Struct, frozen=True):
    """One worker process, as one edge sees it."""

    pid: int
    generation: int
    in_flight: int
    capacity: int
    """Requests that it takes at once by now: threads, or the concurrency limit."""
    requests: int
    """Given to it since it came."""


class DispatchStatistics(msgspec.Struct, frozen=True):
    """Totals since the start, unless noted otherwise; a snapshot."""

    requests: int = 0
    """Requests received, including those that were shed."""
    in_flight: int = 0
    """Now with a worker."""
    queue_length: int = 0
    """Now waiting."""
    oldest_wait_s: float = 0.0
    """How long the one that has waited longest has."""
    shed: dict[str, int] = {}
    """Answered 503 (or 507, 413) without a worker, by reason: `queue-full`, `timeout`, `draining`, `spool-full`, …"""
    redelivered: int = 0
    """Requests given to another worker since theirs was lost."""
    recalled: int = 0
    """Requests given to another thread since they would have waited behind a long one."""
    failed: int = 0
    """Answered 502, or cut, since their worker was lost."""
    poison: int = 0
    """Of those: requests given up since several workers died while they had them."""
    client_disconnects: int = 0
    """Requests whose client disconnected before the response was complete."""
    request_timeouts: int = 0
    """Answered 504: no answer within `request_timeout`."""
    workers: list[WorkerStatistics] = []
    routes: dict[str, RouteStatistics] = {}


class UpstreamStatistics(msgspec.Struct, frozen=True):
    """Statistics of one upstream, as one process sees it."""

    up: int = 0
    """1 if it gets requests; of several processes: how many give it some."""
    in_flight: int = 0
    """Requests that it has now; without WebSockets and other tunnels."""
    idle: int = 0
    """Connections that are kept now."""
    connects: int = 0
    """Connections that were made."""
    requests: int = 0
    """Given to it."""
    failures: int = 0
    """Requests that it has failed: no connection, no answer, a broken one, or 502, 503, 504."""


class ProxyStatistics(msgspec.Struct, frozen=True):
    """Statistics of one route to upstreams."""

    queue: DispatchStatistics = msgspec.field(default_factory=DispatchStatistics)
    """In front of them; they are its workers."""
    upstreams: dict[str, UpstreamStatistics] = {}
    """By URL."""
