"""`python -m benchmarks stream`: measure, show tables, write benchmarks/results/stream-*.json."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks import machine, runs
from benchmarks.runs import DOCUMENT, PICTURES, ROOT
from benchmarks.servers import CannotInstall
from benchmarks.stream import publish, report
from benchmarks.stream.cases import measure
from benchmarks.stream.plan import PLANS
from benchmarks.stream.results import PARTS, StreamResults
from benchmarks.web import environment

TABLE_WIDTH: Final = 120


@click.command()
@click.option("--mode", type=click.Choice(sorted(PLANS)), default="quick", show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Only these parts.")
@click.option("--peers/--no-peers", default=True, help="headrace alone, without Spark and DuckDB.")
@click.option("--publish", "publishes", is_flag=True, help="Write the figures into docs/benchmarks.md, too.")
@click.option(
    "--of",
    "given",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Measure nothing: show (and publish) these results; several may have a part each.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path), default=ROOT / ".cache/peers", help="Where matplotlib is installed."
)
@click.option(
    "--data", type=click.Path(path_type=Path), default=ROOT / ".cache/benchmarks/stream", help="Events; on a disk."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results", help="Folder of the results."
)
def stream(
    mode: str, only: tuple[str, ...], peers: bool, publishes: bool, given: tuple[Path, ...], cache: Path, data: Path,
    out: Path,
) -> None:  # fmt: skip
    """Measure streams, alone and against Spark and DuckDB."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    if given:
        found = {path: StreamResults.load(path) for path in given}
        for results in found.values():
            report.show(console, results)
    else:
        results, path = measure_stream(console, mode, only or PARTS, peers=peers, data=data, out=out)
        found = {path: results}
    if publishes:
        _publish(console, found, cache)
    sys.exit(1 if any(map(failed, found.values())) else 0)


def measure_stream(
    console: Console, mode: str, parts: tuple[str, ...], *, peers: bool, data: Path, out: Path
) -> tuple[StreamResults, Path]:
    """Measure the parts, show and save them. What could not be measured is among the remarks."""
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    results = StreamResults(mode, runs.now(), machine.describe(data))
    say = runs.sayer(console, results.remarks)
    try:
        measure(results, PLANS[mode], parts, peers=peers, data=data.resolve(), say=say)
    finally:
        path = results.save(out)
        for large in ("nexmark", "tmp"):  # the logs stay
            shutil.rmtree(data / large, ignore_errors=True)
    report.show(console, results)
    console.print(f"Written to {path}", highlight=False)
    return results, path


def failed(results: StreamResults) -> bool:
    """Whether a figure of headrace's own is missing."""
    return any("left out" in remark and not remark.startswith(("Spark", "DuckDB")) for remark in results.remarks)


def _publish(console: Console, found: Mapping[Path, StreamResults], cache: Path) -> None:
    try:
        publish.publish(found, python=environment.install(cache) / "python")
    except (CannotInstall, subprocess.CalledProcessError) as error:
        raise click.ClickException(f"the figures are not published: {error}") from error
    console.print(f"Written to {DOCUMENT} and {PICTURES}", highlight=False)
