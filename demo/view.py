"""What the demo shows: a live picture on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.ledger import CUT, FAILED, PUT_OFF, REPEATED
from demo.shapes import RESULTS, TASKS, Window
from demo.watch import QueueLine, Seen

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
HISTORY: Final = 50  # samples in the curves
WINDOWS: Final = 3  # closed windows that are shown
EVENTS: Final = 7  # lines of news that stay visible
WIDTH: Final = 100
PLAIN_INTERVAL_S: Final = 2.0
KEYS: Final = "w web worker · t task worker · p pipeline · b broker: SIGKILL   s spike   f poison   c console   q end"


@dataclass(frozen=True)
class Snapshot:
    """One moment.

    Attributes:
        total: flights of the year.
        requests, flights: accepted so far, as clients wrote down.
        processed: flights in the topic's log.
        windowed: flights in windows that are closed.
        lost: requests that were accepted and are not there, as of the last moment when no task waited.
        tries: how the tries of requests ended, by kind.
        rates: a second: requests, filed (flights), windowed (flights).
        harm: what was done on purpose.
        poison: messages fed that can only become dead letters.
    """

    elapsed_s: float
    total: int
    requests: int
    flights: int
    processed: int
    windowed: int
    lost: int
    tries: Mapping[str, int]
    rates: Mapping[str, float]
    seen: Seen
    harm: Sequence[str] = ()
    poison: int = 0

    def queue(self, name: str) -> QueueLine:
        return self.seen.queues.get(name, QueueLine(name))

    @property
    def pipeline_queue(self) -> QueueLine:
        """The pipeline's subscription to the topic, whatever it is called."""
        found = (
            line for name, line in self.seen.queues.items() if name.startswith("headrace-stream") or "flights" in name
        )
        return next(found, QueueLine("flights"))


class View(Protocol):
    """Shows snapshots and events; a context manager. `address`: the console's."""

    address: str

    def show(self, snapshot: Snapshot) -> None: ...
    def tell(self, text: str, style: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class PlainView:
    """A line every two seconds: for logs and CI."""

    def __init__(self, console: Console) -> None:
        self.address = ""
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
        tasks = snapshot.queue(TASKS)
        self._console.print(
            f"{snapshot.elapsed_s:5.1f} s  accepted {snapshot.requests:>6,} ({snapshot.rates['requests']:>4,.0f}/s)  "
            f"flights {snapshot.processed:>7,} ({snapshot.rates['filed']:>5,.0f}/s)  waiting {tasks.visible:>5,}  "
            f"windows {len(snapshot.seen.windows):>5,}  503 {snapshot.tries.get(PUT_OFF, 0):>5,}  lost {snapshot.lost:,}"
            f"{'' if snapshot.seen.broker_up else '  broker down'}",
            soft_wrap=True,
            highlight=False,
        )

    def tell(self, text: str, style: str) -> None:
        self._console.print(f"         {text}", style=style, soft_wrap=True, highlight=False)


class LiveView:
    """A picture that is redrawn four times a second."""

    def __init__(self, console: Console) -> None:
        self.address = ""
        self._curves = {name: deque[float](maxlen=HISTORY) for name in ("requests", "filed", "windowed")}
        self._events: deque[Text] = deque(maxlen=EVENTS)
        self._started_s = time.monotonic()
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, snapshot: Snapshot) -> None:
        for name, curve_ in self._curves.items():
            curve_.append(snapshot.rates[name])
        self._live.update(self._picture(snapshot), refresh=True)

    def tell(self, text: str, style: str) -> None:
        self._events.append(Text(f"{time.monotonic() - self._started_s:5.1f} s  {text}", style=style))
        if not self.address:  # before there is a picture
            self._live.console.print(self._events[-1])

    def _picture(self, snapshot: Snapshot) -> Panel:
        parts: list[RenderableType] = [
            _progress(snapshot),
            Text(),
            _flow(self._curves, snapshot),
            _stages(snapshot),
            _promises(snapshot),
            Text(),
            _windows(snapshot),
            *self._events,
            *[Text() for _ in range(EVENTS - len(self._events))],
            Text(KEYS, style="dim"),
        ]
        state = "[green]broker up[/]" if snapshot.seen.broker_up else "[bold red]broker down[/]"
        return Panel(
            Group(*parts),
            title=f"headrace demo · console: [bold]{self.address}[/]",
            subtitle=f"{state} · {snapshot.elapsed_s:.0f} s",
            box=box.ROUNDED,
            width=WIDTH,
        )


def curve(values: Sequence[float], top: float) -> str:
    """The values as blocks of eight heights, `top` being the full one."""
    return "".join(BLOCKS[max(0, min(8, round(8 * value / top)))] for value in values)


def _progress(snapshot: Snapshot) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=20)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", width=18)
    for name, count, style in (
        ("flights accepted", snapshot.flights, "cyan"),
        ("processed", snapshot.processed, "green"),
        ("in closed windows", snapshot.windowed, "magenta"),
    ):
        bar = ProgressBar(total=snapshot.total, completed=count, complete_style=style, finished_style=style)
        grid.add_row(name, bar, f"{count:,} of {snapshot.total:,}")
    return grid


def _flow(curves: Mapping[str, Sequence[float]], snapshot: Snapshot) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=20)
    grid.add_column(width=HISTORY)
    grid.add_column(justify="right", ratio=1)
    for name, key, unit, style in (
        ("web: accepted", "requests", "requests/s", "cyan"),
        ("work: processed", "filed", "flights/s", "green"),
        ("stream: in windows", "windowed", "flights/s", "magenta"),
    ):
        values = curves[key]
        text = Text(curve(values, max(1.0, *values) if values else 1.0), style=style)
        grid.add_row(name, text, f"{snapshot.rates[key]:,.0f} {unit}")
    return grid


def _stages(snapshot: Snapshot) -> Table:
    """Of the queues, what the console says. Widths are fixed: a table that breathes with its numbers cannot be read."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("queue", width=30)
    for heading in ("waiting", "oldest", "in flight", "in/s", "out/s"):
        table.add_column(heading, justify="right", width=9)
    for name, line in (
        ("tasks → work", snapshot.queue(TASKS)),
        ("topic flights → stream", snapshot.pipeline_queue),
        ("topic delays → this window", snapshot.queue(RESULTS)),
    ):
        oldest = f"{line.oldest_s:.1f} s" if line.oldest_s is not None else "–"
        rates = (f"{line.sent_rate:,.0f}", f"{line.deleted_rate:,.0f}")
        table.add_row(name, f"{line.visible + line.delayed:,}", oldest, f"{line.in_flight:,}", *rates)
    return table


def _promises(snapshot: Snapshot) -> Text:
    tries, bad = snapshot.tries, snapshot.lost or snapshot.tries.get(FAILED, 0)
    return Text.assemble(
        (f" accepted {snapshot.requests:,} requests   processed {snapshot.processed:,} flights   ", "bold"),
        (f"lost {snapshot.lost:,}   failed {tries.get(FAILED, 0):,}\n", "bold red" if bad else "bold green"),
        f" 503, sent again {tries.get(PUT_OFF, 0):,}   cut, sent again {tries.get(CUT, 0):,}   "
        f"known already {tries.get(REPEATED, 0):,}   poison {snapshot.poison:,}   dead letters {snapshot.seen.letters:,}   "
        f"late {snapshot.seen.late:,}\n",
        f" harm so far: {', '.join(snapshot.harm) or 'none; press a key'}",
    )


def _windows(snapshot: Snapshot) -> Table:
    """The days that were closed last, newest first; and what the schedule last told."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(width=30)
    table.add_column(width=6)
    table.add_column(justify="right", width=14)
    table.add_column(justify="right", width=24)
    windows = snapshot.seen.windows
    latest = [*reversed(windows[-WINDOWS:])]
    for place in range(WINDOWS):
        head = f"{len(windows):,} windows closed" if place == 0 else _worst(snapshot) if place == 1 else ""
        table.add_row(head, *(_day(latest[place]) if place < len(latest) else ("", "", "")))
    return table


def _day(window: Window) -> tuple[str, str, str]:
    delay = f"{window.delay:.1f} min late" if window.delay is not None else "none left"
    return window.origin, f"{window.flights:,} flights", f"{window.window_start:%a %d %b}: {delay}"


def _worst(snapshot: Snapshot) -> str:
    worst = next((report.worst for report in reversed(snapshot.seen.reports) if report.worst), None)
    return f"worst: {worst.window_start:%d %b} {worst.origin} {worst.delay:.0f} min" if worst else ""
