"""The results as tables: rows of text that the terminal and docs/benchmarks.md show alike."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import Console

from benchmarks import runs
from benchmarks.runs import TextTable
from benchmarks.stream.results import DUCKDB, HEADRACE, SPARK, StreamResults, rates, verdicts


def tables(results: StreamResults) -> Iterator[TextTable]:
    """All tables that there are figures for."""
    if results.files:
        yield _ratios(results)
        yield _files(results)
    if results.queues:
        yield _queues(results)
    if results.latency:
        yield _latency(results)
    if results.fixed:
        yield _fixed(results)


def show(console: Console, results: StreamResults) -> None:
    """Everything, for the terminal."""
    runs.show(console, results, tables(results), verdicts(results))


def _ratios(results: StreamResults) -> TextTable:
    rows = []
    for query, found in rates(results).items():
        ours, spark, duckdb = (found.get(engine) for engine in (HEADRACE, SPARK, DUCKDB))
        against = f"{ours / spark:.1f}x" if ours and spark else "–"
        share = f"{ours / duckdb:.0%}" if ours and duckdb else "–"
        rows.append((query, *(_millions(rate) for rate in (ours, spark, duckdb)), against, share))
    columns = ("query", HEADRACE, SPARK, DUCKDB, "times Spark", "of DuckDB")
    return TextTable(f"Nexmark from files: million events/s, of {results.files[0].events:,} events", columns, rows)


def _millions(rate: float | None) -> str:
    return "–" if rate is None else f"{rate / 1e6:.2f}"


def _files(results: StreamResults) -> TextTable:
    rows = [
        (
            query if place == 0 else "",
            row.engine,
            f"{row.usage.seconds:.2f}",
            f"{row.usage.cpu_s:.2f}",
            f"{row.usage.first_s:.2f}",
            f"{row.usage.start_s:.1f}",
            f"{row.usage.peak_mib:,.0f}",
            f"{row.usage.rows:,}" if row.usage.rows >= 0 else "–",
        )
        for query, group in groupby(results.files, key=lambda row: row.query)
        for place, row in enumerate(group)
    ]
    columns = ("query", "engine", "s", "CPU s", "first batch s", "start s", "peak RSS MiB", "rows out")
    return TextTable("Nexmark from files: what it took", columns, rows)


def _queues(results: StreamResults) -> TextTable:
    rows = [
        (
            row.case,
            f"{row.per_s:,.0f}",
            f"{row.messages / row.usage.seconds:,.0f}",
            f"{row.usage.seconds:.2f}",
            f"{row.usage.cpu_s:.2f}",
            f"{row.broker_cpu_s:.2f}",
            f"{row.usage.peak_mib:,.0f}",
        )
        for row in results.queues
    ]
    columns = ("case", "events/s", "messages/s", "s", "CPU s", "broker CPU s", "peak RSS MiB")
    return TextTable("From a durable queue into a queue, exactly once", columns, rows)


def _latency(results: StreamResults) -> TextTable:
    rows = [
        (f"{row.per_s}", f"{row.windows:,}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}", f"{row.late_ms:.1f}")
        for row in results.latency
    ]
    columns = ("messages/s", "windows", "p50 ms", "p99 ms", "generator p99 ms late")
    return TextTable("Message in to window out, durable, open loop", columns, rows)


def _fixed(results: StreamResults) -> TextTable:
    rows = [(row.query, row.state, f"{row.cpu_ms:.2f}") for row in results.fixed]
    return TextTable("A batch of one row", ("query", "state", "CPU ms"), rows)
