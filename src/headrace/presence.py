"""What those who are present at a broker (`Hold`) say of themselves: the shapes of their facts, by kind.

Facts are plain JSON on the wire. Whoever shows them decodes with `read`, which bears facts of another version: unknown
fields are dropped, missing ones have their defaults. All totals are since the process began, all times are seconds
unless the name says otherwise, and every rate and latency is of the last few seconds (RECENT_S).
"""

from __future__ import annotations

import os
import platform
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

from headrace._version import __version__

RECENT_S: Final = 10.0
"""What "of late" means: long enough for percentiles of a slow route, short enough to see a change."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took of late. All 0 if nothing happened."""

    count: int = 0
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Of every process. A kind adds its own."""

    host: str = ""
    pid: int = 0
    version: str = ""
    started_ms: int = 0
    """Unix time."""
    rss_bytes: int = 0
    """Resident memory of this process and its children, as far as it knows them."""
    queues: list[str] = []
    """It takes from these; the first has priority where that matters."""
    produces: list[str] = []
    """It sends to these queues and topics."""


class RouteFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One route of a web server."""

    route: str
    requests: int = 0
    requests_s: float = 0.0
    statuses: dict[str, int] = {}
    """`2xx` → how many, since the start; `none`: there was no answer."""
    total: Latency = Latency()
    """From the head of a request to the end of its answer."""
    wait: Latency = Latency()
    """In the queue, of those that a worker took."""
    run: Latency = Latency()
    """With a worker."""


class WebWorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    app: str
    stage: str
    """`starting`, `ready`, `serving`, `leaving`."""
    generation: int = 0
    in_flight: int = 0
    requests: int = 0
    rss_bytes: int = 0


class UpstreamFacts(msgspec.Struct, frozen=True, kw_only=True):
    route: str
    url: str
    up: bool
    in_flight: int = 0
    requests: int = 0
    failures: int = 0


class WebFacts(Facts, frozen=True, kw_only=True):
    """Kind `web`: a web server, told by its supervisor."""

    url: str = ""
    apps: list[str] = []
    durable_queue: str = ""
    ready: bool = False
    connections: int = 0
    requests: int = 0
    """Taken; shed ones included."""
    requests_s: float = 0.0
    in_flight: int = 0
    queue_length: int = 0
    """Now waiting for a worker."""
    oldest_wait_s: float = 0.0
    shed: dict[str, int] = {}
    """Answered without a worker, by reason: `queue-full`, `timeout`, `draining`, …"""
    shed_s: float = 0.0
    limited: dict[str, int] = {}
    """Answered 429, by limit."""
    redelivered: int = 0
    failed: int = 0
    hung: int = 0
    routes: list[RouteFacts] = []
    workers: list[WebWorkerFacts] = []
    upstreams: list[UpstreamFacts] = []
    restarts: int = 0
    generation: int = 0


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    done: int = 0
    lag: int | None = None
    """None where nobody knows."""
    unit: str = "messages"


class StreamFacts(Facts, frozen=True, kw_only=True):
    """Kind `stream`: one process that runs a pipeline."""

    pipeline: str = ""
    engine: str = "embedded"
    batches: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rows_in_s: float = 0.0
    rows_out_s: float = 0.0
    late: int = 0
    dead: int = 0
    watermark_ms: int | None = None
    """Event time; None: none yet, or at the end."""
    state_bytes: int = 0
    sources: list[SourceFacts] = []
    undelivered: int = 0
    standby: bool = False
    paused: bool = False


class RunningFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A task that runs now."""

    id: str
    task: str
    queue: str = ""
    started_ms: int = 0
    attempt: int = 1


class TaskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has done of one task."""

    task: str
    succeeded: int = 0
    failed: int = 0
    """Attempts that failed; `retried` of them come again, `dead` never."""
    retried: int = 0
    dead: int = 0
    succeeded_s: float = 0.0
    """Successful runs a second."""
    wait: Latency = Latency()
    """From when it could have run to its start."""
    run: Latency = Latency()


class WorkerFacts(Facts, frozen=True, kw_only=True):
    """Kind `worker`: one process that runs tasks."""

    app: str = ""
    slots: int = 0
    """Tasks that it runs at once."""
    running: list[RunningFacts] = []
    tasks: list[TaskFacts] = []
    succeeded_s: float = 0.0
    draining: bool = False


class LaneFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One connection of a broker to its database, and what goes through it."""

    lane: str
    batches_s: float = 0.0
    """Transactions a second; each takes all that waits for it."""
    operations_s: float = 0.0
    batch_s: float = 0.0
    """How long one took, on average; 0 if there was none."""
    waiting: int = 0


class BrokerFacts(Facts, frozen=True, kw_only=True):
    """Kind `broker`: a node of a store that several brokers share."""

    url: str = ""
    connections: int = 0
    requests_s: float = 0.0
    lanes: list[LaneFacts] = []


KINDS: Final[dict[str, type[Facts]]] = {
    "broker": BrokerFacts,
    "web": WebFacts,
    "stream": StreamFacts,
    "worker": WorkerFacts,
    "console": Facts,
}
"""Kind of a holder → what its facts are."""

F = TypeVar("F", bound=Facts)
_STARTED_MS: Final = int(time.time() * 1000)


def about_me() -> dict[str, Any]:
    """The fields of Facts that any process can tell; its memory is its own."""
    host, pid = platform.node(), os.getpid()
    return {"host": host, "pid": pid, "version": __version__, "started_ms": _STARTED_MS}


def holder_name(kind: str) -> str:
    """A name for a holder that nobody else has: kind, host, pid and a random part."""
    host = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in platform.node())[:64]
    return f"{kind}-{host}-{os.getpid()}-{os.urandom(4).hex()}"


def write(facts: Facts) -> dict[str, Any]:
    """As plain data, for `Hold`."""
    found: dict[str, Any] = msgspec.to_builtins(facts)
    return found


def read(kind: str, facts: dict[str, Any]) -> Facts:
    """What somebody present says of itself. Facts of an unknown kind, or that do not fit, come as plain `Facts`: whoever
    lists who is present shows it anyway."""
    plain = {name: facts[name] for name in ("host", "pid", "version") if name in facts}
    for said, shape in ((facts, KINDS.get(kind, Facts)), (plain, Facts)):
        with suppress(msgspec.ValidationError):
            return msgspec.convert(said, shape)
    return Facts()


def latency(bounds_s: Sequence[float], counts: Sequence[int]) -> Latency:
    """Percentiles of a histogram.

    Args:
        bounds_s: the upper bounds of its buckets, rising; what is beyond the last counts as the last.
        counts: of each bucket alone; one more than bounds.
    """
    p50_s, p95_s, p99_s = (quantile(bounds_s, counts, share) for share in (0.5, 0.95, 0.99))
    return Latency(count=sum(counts), p50_s=p50_s, p95_s=p95_s, p99_s=p99_s)


def quantile(bounds_s: Sequence[float], counts: Sequence[int], share: float) -> float:
    """Linear within a bucket, as Prometheus' histogram_quantile. 0 of nothing."""
    sums = [sum(counts[: index + 1]) for index in range(len(counts))]
    if not sums or not sums[-1]:
        return 0.0
    rank = share * sums[-1]
    index = bisect_left(sums, rank)
    if index >= len(bounds_s):
        return bounds_s[-1]
    below_s = bounds_s[index - 1] if index else 0.0
    before = sums[index - 1] if index else 0
    return below_s + (bounds_s[index] - below_s) * (rank - before) / counts[index]


class Recent:
    """The growth of totals over the last RECENT_S. A total that falls (its process was replaced) counts anew."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[Any, int]]] = deque()

    def note(self, now_s: float, totals: dict[Any, int]) -> None:
        """At most once a second or so: all that was noted within RECENT_S is kept."""
        while len(self._seen) > 1 and self._seen[1][0] <= now_s - RECENT_S:
            self._seen.popleft()
        self._seen.append((now_s, totals))

    def grown(self, key: Any) -> int:
        """By how much that total has grown of late."""
        if len(self._seen) < 2:
            return 0
        first, last = self._seen[0][1].get(key, 0), self._seen[-1][1].get(key, 0)
        return last - first if last >= first else last

    def rate_s(self, key: Any) -> float:
        """By how much a second."""
        elapsed_s = self._seen[-1][0] - self._seen[0][0] if self._seen else 0.0
        return self.grown(key) / elapsed_s if elapsed_s > 0 else 0.0
