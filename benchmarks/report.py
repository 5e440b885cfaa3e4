"""Results as tables for people, and as JSON for comparing runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.native import NativeFigures
from benchmarks.others import OtherFigures
from benchmarks.runs import Run
from benchmarks.sqs_http import Row
from benchmarks.store import StoreFigures

TITLES: Final = {
    "send": "single sends",
    "send_batch": "send-batch of 10",
    "cycle": "send-batch / receive 10 / delete-batch",
    "drain": "drain of a backlog",
}
GENERATOR_BUSY: Final = 0.95
"""From this share of a core on, the load generator may have been the limit; the table marks the figure."""

HTTP_TARGETS: Final[dict[tuple[str, str, int], float]] = {
    ("fauxqs", "send", 64): 1.4,
    ("fauxqs", "send_batch", 64): 1.2,
    ("fauxqs", "cycle", 64): 1.2,
    ("fauxqs", "send", 16): 1.0,
    ("fauxqs", "send_batch", 16): 1.0,
    ("fauxqs", "cycle", 16): 1.0,
    **{("MiniStack", case, connections): 6.0 for case in ("send", "send_batch", "cycle") for connections in (16, 64)},
}
"""By (server, case, connections): headrace's rate over that server's, at least."""
STORE_TARGET_PER_S: Final = 150_000
NATIVE_TARGET_PER_S: Final = 60_000
OPEN_TARGET_S: Final = 5.0


@dataclass
class Results(Run):
    """All that a run measured."""

    http: list[Row] = field(default_factory=list)
    store: list[StoreFigures] = field(default_factory=list)
    native: list[NativeFigures] = field(default_factory=list)
    others: list[OtherFigures] = field(default_factory=list)


def show(console: Console, results: Results) -> None:
    """All tables, in the order in which they were measured."""
    _show_machine(console, results)
    for case in TITLES:
        rows = [row for row in results.http if row.case == case]
        if rows:
            console.print(_http_table(case, rows))
    if results.store:
        console.print(_store_table(results.store))
    if results.native:
        console.print(_native_table(results.native))
    if results.others:
        console.print(_others_table(results.others))
    for remark in results.remarks:
        console.print(f"- {remark}", markup=False)


def _show_machine(console: Console, results: Results) -> None:
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in results.machine.items())
    console.print(f"[bold]{results.mode} run of {results.started}[/]: {facts}", highlight=False)


def _new_table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _http_table(case: str, rows: Sequence[Row]) -> Table:
    columns = [
        "server",
        "keeps in",
        "conn.",
        "messages/s",
        "spread",
        "p50 ms",
        "p99 ms",
        "CPU µs",
        "headrace is",
        "target",
    ]
    waiting = max(row.backlog for row in rows)
    table = _new_table(f"SQS over HTTP, 256 B: {TITLES[case]}" + (f" of up to {waiting:,}" if waiting else ""), columns)
    for row in sorted(rows, key=lambda row: (row.connections, -row.messages_per_s)):
        limited = "*" if row.generator_cpu_share > GENERATOR_BUSY else ""
        table.add_row(
            row.server + (f" ({row.backlog:,})" if row.backlog else ""),
            row.durable,
            str(row.connections),
            f"{row.messages_per_s:,.0f}{limited}",
            f"{row.spread:.0%}" if row.rounds > 1 else "",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.cpu_us:.1f}",
            f"{row.ratio:.2f}x" if row.ratio is not None and row.server != "headrace" else "",
            _verdict(row.ratio, HTTP_TARGETS.get((row.server, case, row.connections))),
        )
    return table


def _verdict(value: float | None, target: float | None) -> str:
    if value is None or target is None:
        return ""
    return f"[green]≥ {target:g}x[/]" if value >= target else f"[red]< {target:g}x[/]"


def _goal(target: int, *, reached: bool) -> str:
    return f"[green]≥ {target:,}[/]" if reached else f"[red]< {target:,}[/]"


def _store_table(rows: Iterable[StoreFigures]) -> Table:
    columns = [
        "operations", "backlog", "body B", "messages/s", "CPU µs", "open s", "1st ms", "memory MiB",
        "disk B", "target",
    ]  # fmt: skip
    table = _new_table(
        "The store in process, durable, 100 a commit: whole life; opening, and the first receive after it", columns
    )
    for row in rows:
        reached = row.messages_per_s >= STORE_TARGET_PER_S and row.open_s < OPEN_TARGET_S
        table.add_row(
            row.shape,
            f"{row.backlog:,}",
            f"{row.body_bytes:,}",
            f"{row.messages_per_s:,.0f}",
            f"{row.cpu_us:.1f}",
            f"{row.open_s:.2f}",
            f"{row.first_receive_ms:.1f}",
            f"{row.memory_mib:.0f}",
            f"{row.disk_bytes_a_message:.0f}" if row.backlog else "",
            _goal(STORE_TARGET_PER_S, reached=reached),
        )
    return table


def _native_table(rows: Iterable[NativeFigures]) -> Table:
    table = _new_table("The native client, whole life", ["clients", "a call", "messages/s", "broker CPU µs", "target"])
    for row in rows:
        reached = row.messages_per_s >= NATIVE_TARGET_PER_S
        table.add_row(
            str(row.clients),
            str(row.batch),
            f"{row.messages_per_s:,.0f}",
            f"{row.broker_cpu_us:.1f}",
            _goal(NATIVE_TARGET_PER_S, reached=reached),
        )
    return table


def _others_table(rows: Iterable[OtherFigures]) -> Table:
    title = "Other durable queues by their own protocols, one connection, whole life (compare with the native client)"
    table = _new_table(title, ["server", "a batch", "messages/s", "server CPU µs"])
    for row in rows:
        table.add_row(row.server, str(row.batch), f"{row.messages_per_s:,.0f}", f"{row.server_cpu_us:.1f}")
    return table
