"""The results as tables: rows of text that the terminal and docs/benchmarks.md show alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from benchmarks import runs
from benchmarks.runs import TextTable
from benchmarks.web.files import FileRow
from benchmarks.web.plan import CONNECTIONS, WORKERS
from benchmarks.web.results import WebResults, verdicts
from benchmarks.web.speed import SpeedRow
from benchmarks.web.trouble import MixedRow, OverloadRow


def tables(results: WebResults) -> Iterator[TextTable]:
    """All tables that there are figures for."""
    for app in dict.fromkeys(row.app for row in results.speed):
        yield _speed(app, [row for row in results.speed if row.app == app])
    if results.overload:
        yield _overload(results.overload)
    if results.mixed:
        yield _mixed(results.mixed)
    if results.files:
        yield _files(results.files)


def show(console: Console, results: WebResults) -> None:
    """Everything, for the terminal."""
    runs.show(console, results, tables(results), verdicts(results))


def _speed(app: str, rows: Sequence[SpeedRow]) -> TextTable:
    return TextTable(
        f"{app}: {WORKERS} workers, {CONNECTIONS} connections",
        ("server", "CPU µs", "spread", "requests/s", "p50 ms", "p99 ms", "failed", "start s", "RSS MiB", "PSS MiB"),
        [
            (
                row.server,
                f"{row.cpu_us:.0f}",
                f"{row.cpu_spread:.0%}",
                f"{row.requests_per_s:,.0f}",
                f"{row.p50_ms:.1f}",
                f"{row.p99_ms:.1f}",
                f"{row.failed:,}",
                f"{row.started_in_s:.2f}",
                f"{row.rss_mib:.0f}",
                f"{row.pss_mib:.0f}",
            )
            for row in sorted(rows, key=lambda row: row.cpu_us)
        ],
    )


def _overload(rows: Sequence[OverloadRow]) -> TextTable:
    return TextTable(
        "Twice the capacity: 5 ms of CPU a request, clients leave after 1 s",
        ("server", "app", "capacity/s", "goodput", "p50 ms", "p99 ms", "503 in time", "503 p99 ms", "cut", "hang"),
        [
            (
                row.server,
                row.app,
                f"{row.capacity_per_s:,.0f}",
                f"{row.goodput:.0%}",
                f"{row.outcomes.p50_ms:.0f}",
                f"{row.outcomes.p99_ms:.0f}",
                f"{row.outcomes.refused:.0%}",
                f"{row.outcomes.refused_p99_ms:.0f}",
                f"{row.outcomes.cut:.1%}",
                f"{row.outcomes.hang:.1%}",
            )
            for row in sorted(rows, key=lambda row: (row.app != "WSGI", -row.goodput))
        ],
    )


def _mixed(rows: Sequence[MixedRow]) -> TextTable:
    return TextTable(
        "Mixed: 5 % of the requests burn 50 ms of CPU; latencies of the others",
        ("server", "app", "p50 ms", "p95 ms", "p99 ms", "answered"),
        [
            (
                row.server,
                row.app,
                f"{row.outcomes.p50_ms:.1f}",
                f"{row.outcomes.p95_ms:.1f}",
                f"{row.outcomes.p99_ms:.1f}",
                f"{row.outcomes.answered:.1%}",
            )
            for row in sorted(rows, key=lambda row: (row.app != "WSGI", row.outcomes.p99_ms))
        ],
    )


def _files(rows: Sequence[FileRow]) -> TextTable:
    return TextTable(
        "Static files, one process that serves",
        ("server", "bytes", "requests/s", "MiB/s", "CPU µs", "p99 ms", "failed"),
        [
            (
                row.server,
                f"{row.file_bytes:,}",
                f"{row.requests_per_s:,.0f}",
                f"{row.mib_per_s:,.0f}",
                f"{row.cpu_us:.1f}",
                f"{row.p99_ms:.1f}",
                f"{row.failed:,}",
            )
            for row in rows
        ],
    )
