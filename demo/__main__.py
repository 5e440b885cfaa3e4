"""`python -m demo`: run the whole demo; exit code 0 if every promise was kept, 1 if not."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from demo.flights import FLIGHTS, NoData, archive
from demo.nodes import Database
from demo.report import print_report
from demo.run import Run
from demo.view import LiveView, PlainView, View

REPORT_WIDTH: Final = 110


@click.command()
@click.option("--flights", default=FLIGHTS, show_default=True, help="How many flights of the year, at most.")
@click.option("--rate", type=float, help="Requests a second; without it, as many as suit this machine.")
@click.option("--unattended", is_flag=True, help="Do each harm once and end by itself, as without a terminal.")
@click.option("--plain", is_flag=True, help="Lines instead of the live picture, as without a terminal.")
@click.option("--browse", is_flag=True, help="Open the console in a browser.")
@click.option(
    "--store",
    type=click.Choice(["folder", "postgres"]),
    default="folder",
    help="postgres: two brokers on a PostgreSQL server that the demo starts.",
)
@click.option("--data", default="demo/data", show_default=True, help="Folder of the run; emptied at the start.")
def main(flights: int, rate: float | None, unattended: bool, plain: bool, browse: bool, store: str, data: str) -> None:
    """A year of real flights through all of headrace: HTTP, a durable queue, tasks, a pipeline, windows. Kill what you like."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends in order, as Ctrl-C does
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, REPORT_WIDTH)
    live = console.is_terminal and sys.stdin.isatty()
    shown: View = LiveView(console) if live and not plain else PlainView(console)
    try:
        archive()
        with _database(store) as url:
            run = Run(
                Path(data).resolve(), shown,
                limit=flights, rate=rate, unattended=unattended or not live, browse=browse, store=url,
            )  # fmt: skip
            outcome = run.run()
    except (NoData, RuntimeError) as failed:
        console.print(str(failed), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    print_report(console, outcome)
    sys.exit(0 if outcome.holds else 1)


@contextmanager
def _database(store: str) -> Iterator[str | None]:
    """The URL of the store, if it is on a PostgreSQL server: of one that runs meanwhile."""
    if store == "folder":
        yield None
        return
    with Database() as database:
        yield database.url


if __name__ == "__main__":
    main()
