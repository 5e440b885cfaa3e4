"""All that a run measured, on disk as JSON, and whether it is what was aimed at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

from benchmarks.runs import Run, Verdict
from benchmarks.stream.latency import LatencyRow
from benchmarks.stream.measuring import Usage
from benchmarks.stream.plan import ENGINES

PARTS: Final = ("files", "queues", "latency", "fixed", "spark")
SPARK_CASE: Final = "Spark data source, queue to queue"
HEADRACE, SPARK, DUCKDB = ENGINES
TIMES_SPARK: Final = {"q1": 4, "q2": 4, "q3": 10, "q5": 10, "q7": 10, "q8": 10, "q11": 10}
SHARE_OF_DUCKDB: Final = 0.4
ARROW_PER_S: Final = 1_000_000
JSON_PER_S: Final = 50_000
SPARK_SOURCE_PER_S: Final = 50_000
P50_MS: Final = 10.0
P99_MS: Final = 50.0
BATCH_CPU_MS: Final = 3.0


@dataclass
class FileRow:
    """A query over files, by one engine; of several rounds the one whose time is the median."""

    query: str
    engine: str
    events: int
    usage: Usage

    @property
    def per_s(self) -> float:
        return self.events / self.usage.seconds


@dataclass
class QueueRow:
    """Events through a durable queue.

    Attributes:
        broker_cpu_s: of the broker's process meanwhile.
        first_events: of the first batch, in which Spark starts its Python processes and compiles; 0: not told apart.
    """

    case: str
    events: int
    messages: int
    broker_cpu_s: float
    usage: Usage
    first_events: int = 0

    @property
    def per_s(self) -> float:
        return self.events / self.usage.seconds

    @property
    def settled_per_s(self) -> float:
        """Behind the first batch."""
        return (self.events - self.first_events) / max(self.usage.seconds - self.usage.first_s, 1e-3)


@dataclass
class FixedRow:
    """CPU of a micro-batch of one row."""

    query: str
    state: str
    cpu_ms: float


@dataclass
class StreamResults(Run):
    """One run."""

    prefix: ClassVar[str] = "stream-"

    files: list[FileRow] = field(default_factory=list)
    queues: list[QueueRow] = field(default_factory=list)
    latency: list[LatencyRow] = field(default_factory=list)
    fixed: list[FixedRow] = field(default_factory=list)

    def parts(self) -> list[str]:
        """Those that there are figures for, in the order of PARTS."""
        spark = [row.case == SPARK_CASE for row in self.queues]
        there = (self.files, not all(spark), self.latency, self.fixed, any(spark))
        return [part for part, found in zip(PARTS, there, strict=True) if found]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written."""
        found = json.loads(path.read_text())
        figures = {
            "files": [FileRow(**row | {"usage": Usage(**row["usage"])}) for row in found["files"]],
            "queues": [QueueRow(**row | {"usage": Usage(**row["usage"])}) for row in found["queues"]],
            "latency": [LatencyRow(**row) for row in found["latency"]],
            "fixed": [FixedRow(**row) for row in found["fixed"]],
        }
        return cls(**found | figures)


def rates(results: StreamResults) -> dict[str, dict[str, float]]:
    """Events a second: query → engine → rate."""
    found: dict[str, dict[str, float]] = {}
    for row in results.files:
        found.setdefault(row.query, {})[row.engine] = row.per_s
    return found


def verdicts(results: StreamResults) -> list[Verdict]:
    """Every aim that this run has figures for."""
    return [*_files(results), *_queues(results), *_small(results)]


def _files(results: StreamResults) -> Iterator[Verdict]:
    for query, by_engine in rates(results).items():
        ours = by_engine.get(HEADRACE)
        if ours is None:
            continue
        if SPARK in by_engine and query in TIMES_SPARK:
            times, bound = ours / by_engine[SPARK], TIMES_SPARK[query]
            yield Verdict(f"{query}: times Spark streaming", f"{times:.1f}x", f"≥ {bound}x", times >= bound)
        if DUCKDB in by_engine:
            share = ours / by_engine[DUCKDB]
            yield _at_least(f"{query}: of DuckDB's batch", share, SHARE_OF_DUCKDB, "{:.0%}")


def _queues(results: StreamResults) -> Iterator[Verdict]:
    for row in results.queues:
        bound = ARROW_PER_S if "Arrow" in row.case else SPARK_SOURCE_PER_S if row.case == SPARK_CASE else JSON_PER_S
        yield _at_least(f"{row.case}: events/s", row.per_s, bound, "{:,.0f}")
        if row.first_events:
            yield _at_least(f"{row.case}, behind the first batch: events/s", row.settled_per_s, bound, "{:,.0f}")


def _small(results: StreamResults) -> Iterator[Verdict]:
    for row in results.latency:
        yield _at_most(f"Message in to window out, {row.per_s}/s: p50", row.p50_ms, P50_MS)
        yield _at_most(f"Message in to window out, {row.per_s}/s: p99", row.p99_ms, P99_MS)
    for cost in results.fixed:
        yield _at_most(f"Batch of one row, {cost.query}, {cost.state}: CPU", cost.cpu_ms, BATCH_CPU_MS)


def _at_least(aim: str, value: float, bound: float, form: str) -> Verdict:
    return Verdict(aim, form.format(value), f"≥ {form.format(bound)}", value >= bound)


def _at_most(aim: str, value: float, bound: float) -> Verdict:
    return Verdict(aim, f"{value:.1f} ms", f"≤ {bound:g} ms", value <= bound)
