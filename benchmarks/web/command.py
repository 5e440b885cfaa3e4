"""`python -m benchmarks web`: measure, show tables, write benchmarks/results/web-*.json and charts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks import machine, runs
from benchmarks.runs import DOCUMENT, PICTURES, ROOT
from benchmarks.servers import CannotInstall
from benchmarks.web import environment, files, publish, report, speed, trouble, wrk
from benchmarks.web.plan import PLANS, Plan
from benchmarks.web.results import WebResults
from benchmarks.web.trouble import OverloadRow

PARTS: Final = ("speed", "files", "trouble")
TABLE_WIDTH: Final = 120


@click.command()
@click.option("--mode", type=click.Choice(sorted(PLANS)), default="quick", show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Only these parts.")
@click.option("--peers/--no-peers", default=True, help="headrace alone, without the servers it is compared with.")
@click.option("--publish", "publishes", is_flag=True, help="Write the figures into docs/benchmarks.md, too.")
@click.option(
    "--of", type=click.Path(path_type=Path, exists=True), help="Measure nothing: show (and publish) these results."
)
@click.option(
    "--cache", type=click.Path(path_type=Path), default=ROOT / ".cache/peers", help="Where peers are installed."
)
@click.option("--data", type=click.Path(path_type=Path), default=ROOT / ".cache/benchmarks/web", help="Logs and files.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results", help="Folder of the results."
)
def web(
    mode: str, only: tuple[str, ...], peers: bool, publishes: bool, of: Path | None, cache: Path, data: Path, out: Path
) -> None:
    """Measure the web server, alone and against gunicorn, uvicorn, granian, hypercorn and nginx."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    if of:
        results, path = WebResults.load(of), of
        report.show(console, results)
    else:
        results, path = measure_web(console, mode, only or PARTS, peers=peers, cache=cache, data=data, out=out)
    if publishes:
        publish.publish(results, path, python=cache / "web/bin/python")
        console.print(f"Written to {DOCUMENT} and {PICTURES}", highlight=False)
    sys.exit(1 if any(remark.startswith("headrace") for remark in results.remarks) else 0)


def measure_web(
    console: Console, mode: str, parts: tuple[str, ...], *, peers: bool, cache: Path, data: Path, out: Path
) -> tuple[WebResults, Path]:
    """Measure the parts, show and save them. What could not be measured is among the remarks."""
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    results = WebResults(mode, runs.now(), machine.describe(data))
    say = runs.sayer(console, results.remarks)
    programs = _programs(cache, peers=peers, say=say)
    if programs is not None:
        measure_parts(results, PLANS[mode], parts, programs=programs, data=data.resolve(), peers=peers, say=say)
    report.show(console, results)
    path = results.save(out)
    if programs is not None and peers:
        _draw(path, out, programs, say)
    console.print(f"Written to {path}", highlight=False)
    return results, path


def _programs(cache: Path, *, peers: bool, say: Callable[[str], None]) -> Path | None:
    """The folder of the programs to run, or None if nothing can be measured here."""
    try:
        wrk.find()
        if peers and shutil.which("nginx") is None:
            say("nginx is left out: it is not installed (Debian: apt-get install nginx)")
        if not peers:
            return Path(sys.executable).parent  # without following links: a virtual environment's is one
        say("installing the peers")
        return environment.install(cache)
    except (wrk.NoWrk, CannotInstall) as failed:
        say(f"headrace serve is left out: {failed}")
        return None


def measure_parts(
    results: WebResults,
    plan: Plan,
    parts: tuple[str, ...],
    *,
    programs: Path,
    data: Path,
    peers: bool,
    say: Callable[[str], None],
) -> None:
    """Fill in the results, part by part."""
    if "speed" in parts:
        results.speed += speed.measure(plan, programs=programs, folder=data, peers=peers, say=say)
    if "files" in parts:
        results.files += files.measure(plan, programs=programs, folder=data, peers=peers, say=say)
    if "trouble" in parts:
        for row in trouble.measure(plan, programs=programs, folder=data, peers=peers, say=say):
            if isinstance(row, OverloadRow):
                results.overload.append(row)
            else:
                results.mixed.append(row)


def _draw(path: Path, out: Path, programs: Path, say: Callable[[str], None]) -> None:
    try:
        publish.draw(path, out, python=programs / "python")
    except (OSError, subprocess.CalledProcessError) as failed:
        say(f"the charts are left out: {failed}")
