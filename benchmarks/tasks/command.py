"""`python -m benchmarks tasks`: measure, show tables, write benchmarks/results/tasks-*.json."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import click
from rich.console import Console

from benchmarks import machine, runs
from benchmarks.runs import DOCUMENT, ROOT, Run, TextTable, Verdict
from benchmarks.servers import CannotInstall
from benchmarks.tasks.contenders import CONTENDERS, THREADS, Contender
from benchmarks.tasks.running import TaskRow, measure
from benchmarks.web import environment

BEGIN: Final = "<!-- task figures: written by `python -m benchmarks tasks --publish` -->"
END: Final = "<!-- end of the task figures -->"
REQUIREMENTS: Final = Path(__file__).parent / "requirements.txt"
ROUNDS: Final = {"smoke": 1, "quick": 3, "full": 7}
SHARE: Final = {"smoke": 0.05, "quick": 1.0, "full": 3.0}
"""Of the contenders' numbers of tasks."""
TASKS_PER_S: Final = 8_000
TABLE_WIDTH: Final = 120


@dataclass
class TaskResults(Run):
    """One run."""

    prefix: ClassVar[str] = "tasks-"

    rows: list[TaskRow] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written."""
        found = json.loads(path.read_text())
        return cls(**found | {"rows": [TaskRow(**row) for row in found["rows"]]})


@click.command()
@click.option("--mode", type=click.Choice(sorted(ROUNDS)), default="quick", show_default=True)
@click.option("--peers/--no-peers", default=True, help="headrace alone, without those it is compared with.")
@click.option("--publish", "publishes", is_flag=True, help="Write the figures into docs/benchmarks.md, too.")
@click.option(
    "--of", type=click.Path(path_type=Path, exists=True), help="Measure nothing: show (and publish) these results."
)
@click.option(
    "--cache", type=click.Path(path_type=Path), default=ROOT / ".cache/peers", help="Where peers are installed."
)
@click.option(
    "--data", type=click.Path(path_type=Path), default=ROOT / ".cache/benchmarks/tasks", help="Stores; on a disk."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results", help="Folder of the results."
)
def tasks(mode: str, peers: bool, publishes: bool, of: Path | None, cache: Path, data: Path, out: Path) -> None:
    """Measure workers, headrace's and those of Celery, Dramatiq, RQ, Huey and taskiq."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    results = TaskResults.load(of) if of else _measured(console, mode, peers=peers, cache=cache, data=data)
    runs.show(console, results, tables(results), verdicts(results))
    if not of:
        console.print(f"Written to {results.save(out)}", highlight=False)
    if publishes:
        command = f"python -m benchmarks tasks --mode {results.mode}"
        section = runs.section(results, command, tables(results), verdicts(results), pictures=())
        DOCUMENT.write_text(runs.insert(DOCUMENT.read_text(), section, begin=BEGIN, end=END))
    sys.exit(1 if any(remark.startswith("headrace") for remark in results.remarks) else 0)


def _measured(console: Console, mode: str, *, peers: bool, cache: Path, data: Path) -> TaskResults:
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    results = TaskResults(mode, runs.now(), machine.describe(data))
    say = runs.sayer(console, results.remarks)
    programs = Path(sys.executable).parent
    contenders = [each for each in CONTENDERS if each.ours or peers]
    if peers:
        try:
            say("installing the peers")
            programs = environment.install(cache, "tasks", REQUIREMENTS)
        except CannotInstall as failed:
            say(f"the peers are left out: {failed}")
            contenders = [each for each in contenders if each.ours]
    if shutil.which("redis-server") is None and peers:
        say("those on Redis are left out: there is no redis-server (Debian: apt-get install redis-server)")
        contenders = [each for each in contenders if each.store != "redis"]
    results.rows = list(_rounds(contenders, mode, programs=programs, data=data.resolve(), say=say))
    return results


def _rounds(
    contenders: Sequence[Contender], mode: str, *, programs: Path, data: Path, say: Callable[[str], None]
) -> Iterator[TaskRow]:
    """Medians over rounds in turn (A B C A B C …), so that a busy minute hits all."""
    rows: dict[str, list[TaskRow]] = {each.name: [] for each in contenders}
    out: set[str] = set()
    for turn in range(ROUNDS[mode]):
        for contender in contenders:
            if contender.name in out:
                continue
            say(f"{contender.name}, round {turn + 1}")
            folder = data / f"{turn}-{contender.module}-{contender.store}"
            try:
                number = int(contender.tasks * SHARE[mode])
                rows[contender.name].append(measure(contender, number, programs=programs, folder=folder))
            except (RuntimeError, OSError) as failed:
                say(f"{contender.name} is left out: {failed}")
                out.add(contender.name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    for found in rows.values():
        if found:
            yield _median(found)


def _median(rows: Sequence[TaskRow]) -> TaskRow:
    def middle(name: str) -> float:
        found: float = statistics.median(getattr(row, name) for row in rows)
        return found

    first = rows[0]
    return TaskRow(
        first.name,
        first.tasks,
        middle("tasks_per_s"),
        middle("worker_us"),
        middle("store_us"),
        middle("rss_mib"),
        sum(row.lost for row in rows),
        sum(row.twice for row in rows),
        first.keeps,
    )


def tables(results: TaskResults) -> Iterator[TextTable]:
    """The table of tasks that do nothing."""
    columns = ("worker", "tasks/s", "CPU µs", "of its store µs", "RSS MiB", "tasks", "lost", "run twice", "on the disk")
    rows = [
        (
            row.name,
            f"{row.tasks_per_s:,.0f}",
            f"{row.worker_us:.0f}",
            f"{row.store_us:.0f}" if row.store_us else "",
            f"{row.rss_mib:.0f}",
            f"{row.tasks:,}",
            f"{row.lost:,}",
            f"{row.twice:,}",
            row.keeps,
        )
        for row in sorted(results.rows, key=lambda row: -row.tasks_per_s)
    ]
    yield TextTable(
        f"Tasks that only count themselves: one worker process, {THREADS} threads where it has some", columns, rows
    )


def verdicts(results: TaskResults) -> list[Verdict]:
    """Every aim that this run has figures for."""
    found = []
    for row in results.rows:
        if row.name.startswith("headrace"):
            rate = f"{row.tasks_per_s:,.0f}"
            found.append(Verdict("Tasks a second, durable", rate, f"≥ {TASKS_PER_S:,}", row.tasks_per_s >= TASKS_PER_S))
            found.append(Verdict("Tasks lost", str(row.lost), "0", not row.lost))
            found.append(Verdict("Tasks run twice", str(row.twice), "0", not row.twice))
    return found
