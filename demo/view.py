"""What the demo shows: a live picture on a terminal, plain lines anywhere else, and the ledger at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.broker import Gauge
from demo.ledger import Audit
from demo.pipeline import Window, WindowAudit

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
HISTORY: Final = 60  # samples in the curves
WINDOWS: Final = 3  # closed windows that are shown
EVENTS: Final = 6  # lines of news that stay visible
PLAIN_INTERVAL_S: Final = 2.0


@dataclass(frozen=True)
class WorkerState:
    name: str
    client: str
    count: int
    per_s: float


@dataclass(frozen=True)
class Snapshot:
    """One moment. `gauge` is None while the broker is down. `windows`: those that the pipeline has closed; `windowed`: the
    flights in them."""

    elapsed_s: float
    total: int
    producers: Sequence[WorkerState]
    consumers: Sequence[WorkerState]
    gauge: Gauge | None
    windows: Sequence[Window] = ()
    windowed: int = 0

    @property
    def accepted(self) -> int:
        return sum(worker.count for worker in self.producers)

    @property
    def processed(self) -> int:
        return sum(worker.count for worker in self.consumers)

    @property
    def in_per_s(self) -> float:
        return sum(worker.per_s for worker in self.producers)

    @property
    def out_per_s(self) -> float:
        return sum(worker.per_s for worker in self.consumers)


class View(Protocol):
    """Shows snapshots and events; a context manager."""

    def show(self, snapshot: Snapshot) -> None: ...
    def tell(self, text: str, *, style: str = "") -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class PlainView:
    """A line every two seconds: for logs and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.elapsed_s < self._next_s:
            return
        self._next_s = snapshot.elapsed_s + PLAIN_INTERVAL_S
        self._console.print(
            f"{snapshot.elapsed_s:5.1f} s  accepted {snapshot.accepted:>7,}  processed {snapshot.processed:>7,}  "
            f"in {snapshot.in_per_s:>7,.0f}/s  out {snapshot.out_per_s:>7,.0f}/s  windows {len(snapshot.windows):>5,}  {_gauge_text(snapshot.gauge)}",
            soft_wrap=True,
            highlight=False,
        )

    def tell(self, text: str, *, style: str = "") -> None:
        self._console.print(f"         {text}", style=style, soft_wrap=True, highlight=False)


class LiveView:
    """A picture that is redrawn four times a second."""

    def __init__(self, console: Console) -> None:
        self._in: deque[float] = deque(maxlen=HISTORY)
        self._out: deque[float] = deque(maxlen=HISTORY)
        self._events: deque[Text] = deque(maxlen=EVENTS)
        self._started_s = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, snapshot: Snapshot) -> None:
        self._in.append(snapshot.in_per_s)
        self._out.append(snapshot.out_per_s)
        self._live.update(self._picture(snapshot), refresh=True)

    def tell(self, text: str, *, style: str = "") -> None:
        self._events.append(Text(f"{time.monotonic() - self._started_s:5.1f} s  {text}", style=style))

    def _picture(self, snapshot: Snapshot) -> Panel:
        top = max(1.0, *self._in, *self._out)
        parts: list[RenderableType] = [
            _progress(snapshot),
            Text(),
            _curves([("in", self._in, "cyan"), ("out", self._out, "green")], top),
            _numbers(snapshot),
            _workers(snapshot),
            _windows(snapshot),
            *self._events,
            *[Text() for _ in range(EVENTS - len(self._events))],
        ]
        state = "[green]broker up[/]" if snapshot.gauge else "[bold red]broker down[/]"
        return Panel(
            Group(*parts),
            title="headrace demo: flights from New York City, 2013",
            subtitle=f"{state} · {snapshot.elapsed_s:.0f} s",
            box=box.ROUNDED,
            width=100,
        )


def curve(values: Sequence[float], top: float) -> str:
    """The values as blocks of eight heights, `top` being the full one."""
    return "".join(BLOCKS[max(0, min(8, round(8 * value / top)))] for value in values)


def _progress(snapshot: Snapshot) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=10)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", width=20)
    for name, count, style in (
        ("accepted", snapshot.accepted, "cyan"),
        ("processed", snapshot.processed, "green"),
        ("in windows", snapshot.windowed, "magenta"),
    ):
        bar = ProgressBar(total=snapshot.total, completed=count, complete_style=style, finished_style=style)
        grid.add_row(name, bar, f"{count:,} of {snapshot.total:,}")
    return grid


def _curves(lines: Sequence[tuple[str, Sequence[float], str]], top: float) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=10)
    grid.add_column(width=HISTORY)
    grid.add_column(justify="right", ratio=1)
    for name, values, style in lines:
        latest = values[-1] if values else 0.0
        grid.add_row(name, Text(curve(values, top), style=style), f"{latest:,.0f}/s")
    return grid


def _numbers(snapshot: Snapshot) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("waiting", "in flight", "commit latency", "operations a commit"):
        table.add_column(heading, justify="right", width=20)
    gauge = snapshot.gauge
    if gauge is None:
        table.add_row(*["[red]—[/]"] * 4)
    else:
        table.add_row(
            f"{gauge.waiting:,}",
            f"{gauge.in_flight:,}",
            f"{gauge.commit_ms:.2f} ms",
            f"{gauge.operations_a_commit:.1f}",
        )
    return table


def _workers(snapshot: Snapshot) -> Table:
    """Widths are fixed: a table that breathes with its numbers cannot be read."""
    table = Table(box=box.SIMPLE_HEAD)
    for role, done in (("producer", "accepted"), ("consumer", "processed")):
        table.add_column(role, width=11)
        table.add_column("client", width=7)
        table.add_column(done, justify="right", width=10)
        table.add_column("/s", justify="right", width=8)
    for place in range(max(len(snapshot.producers), len(snapshot.consumers))):
        table.add_row(*_cells(snapshot.producers, place), *_cells(snapshot.consumers, place))
    return table


def _cells(workers: Sequence[WorkerState], place: int) -> list[str]:
    if place >= len(workers):
        return [""] * 4
    worker = workers[place]
    return [worker.name, worker.client, f"{worker.count:,}", f"{worker.per_s:,.0f}"]


def _windows(snapshot: Snapshot) -> Table:
    """The days that were closed last, newest first."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(f"{len(snapshot.windows):,} windows closed", width=24)
    for heading in ("airport", "flights", "mean delay"):
        table.add_column(heading, justify="right", width=18)
    latest = [*reversed(snapshot.windows[-WINDOWS:])]
    for window in latest:
        delay = f"{window.delay:.1f} min" if window.delay is not None else ""
        table.add_row(f"{window.window_start:%a %d %b %Y}", window.origin, f"{window.flights:,}", delay)
    for _ in range(WINDOWS - len(latest)):
        table.add_row("", "", "", "")
    return table


def _gauge_text(gauge: Gauge | None) -> str:
    if gauge is None:
        return "broker down"
    return f"waiting {gauge.waiting:,}  in flight {gauge.in_flight:,}  commit {gauge.commit_ms:.2f} ms"


def print_ledger(console: Console, audit: Audit, windows: WindowAudit, *, kills: int, seconds: float) -> None:
    """The end: what the message ids on both sides prove, and the windows."""
    table = Table(title="Ledger, from the message ids on both sides", box=box.ROUNDED, title_justify="left")
    table.add_column("", justify="left")
    table.add_column("", justify="right")
    table.add_column("", justify="left", style="dim")
    table.add_row("accepted", f"{audit.accepted:,}", "sends that the broker answered")
    table.add_row("processed", f"{audit.processed:,}", "deletes that the broker answered")
    table.add_row("redelivered", f"{audit.redelivered:,}", "handed out again: the kill cut the answer, or the consumer")
    table.add_row(
        "unknown", f"{audit.cut:,}", f"sends whose answer the kill cut; sent again; {audit.cut_stored:,} came twice"
    )
    table.add_row("deleted, yet delivered", _must_be_zero(audit.revived), "must be 0")
    table.add_row("unexplained", _must_be_zero(audit.strange), "must be 0")
    table.add_row("flights missing", _must_be_zero(audit.flights_missing), f"of {audit.flights:,}; must be 0")
    table.add_row("lost", _must_be_zero(audit.lost), "accepted, never processed; must be 0")
    table.add_section()
    table.add_row("windows", f"{windows.closed:,}", "closed by the pipeline, killed in between")
    table.add_row("windows that differ", _must_be_zero(_differing(windows)), "from a one-shot computation; must be 0")
    table.add_row("windows sent twice", _must_be_zero(windows.twice), "must be 0")
    table.add_row("rows too late", _must_be_zero(windows.late), "must be 0")
    console.print(table)
    holds = audit.holds and windows.holds
    verdict = "Nothing was lost, every window is right." if holds else "A promise was broken: see the rows in red."
    console.print(
        f"{verdict} {audit.flights:,} flights, {kills} SIGKILL, {seconds:.0f} seconds.",
        style="bold green" if holds else "bold red",
    )


def _differing(windows: WindowAudit) -> int:
    """Windows that are wrong, missing, or should not be."""
    return max(windows.expected, windows.closed - windows.twice) - windows.equal


def _must_be_zero(count: int) -> str:
    return f"[bold {'red' if count else 'green'}]{count:,}[/]"
