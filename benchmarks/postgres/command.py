"""`python -m benchmarks postgres`: measure, show tables, write benchmarks/results/postgres-*.json."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import click
from rich.console import Console

from benchmarks import machine, runs, scale_sim
from benchmarks.postgres.contenders import CONTENDERS, Contender, Mode
from benchmarks.postgres.running import Row, measure
from benchmarks.runs import DOCUMENT, PICTURES, ROOT, Run, TextTable, Verdict
from benchmarks.servers import CannotInstall
from benchmarks.web import environment

BEGIN: Final = "<!-- postgres figures: written by `python -m benchmarks postgres --publish` -->"
END: Final = "<!-- end of the postgres figures -->"
REQUIREMENTS: Final = Path(__file__).parent / "requirements.txt"
ROUNDS: Final = {"smoke": 1, "quick": 1, "full": 5}
SECONDS: Final = {"smoke": 0.5, "quick": 2.5, "full": 6.0}
MODES: Final[tuple[Mode, ...]] = ("cycle", "send")
TITLES: Final[dict[str, str]] = {
    "cycle": "Whole life of a message of 256 B: sent, received, deleted",
    "send": "Sends alone, of 256 B",
}
AIMS: Final = {"tens": 25_000, "thousands": 25_000, "FIFO, tens": 12_000}
"""Messages a second by shape, as the contenders name it."""
CORES: Final = 2
"""… delivered on so many, everybody's processor included."""
TABLE_WIDTH: Final = 130
PICTURE: Final = ("![What nodes and databases would deliver, computed from these figures](img/scale.svg)",)


@dataclass
class PostgresResults(Run):
    """One run."""

    prefix: ClassVar[str] = "postgres-"

    rows: list[Row] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written."""
        found = json.loads(path.read_text())
        return cls(**found | {"rows": [Row(**row) for row in found["rows"]]})


@click.command()
@click.option("--mode", type=click.Choice(sorted(ROUNDS)), default="quick", show_default=True)
@click.option("--only", multiple=True, help="Only contenders whose name has this in it; several times: any of them.")
@click.option("--peers/--no-peers", default=True, help="headrace alone, without those it is compared with.")
@click.option("--publish", "publishes", is_flag=True, help="Write the figures into docs/benchmarks.md, too.")
@click.option(
    "--of", type=click.Path(path_type=Path, exists=True), help="Measure nothing: show (and publish) these results."
)
@click.option(
    "--cache", type=click.Path(path_type=Path), default=ROOT / ".cache/peers", help="Where peers are installed."
)
@click.option(
    "--data", type=click.Path(path_type=Path), default=ROOT / ".cache/benchmarks/postgres", help="Stores; on a disk."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results", help="Folder of the results."
)
def postgres(
    mode: str, only: tuple[str, ...], peers: bool, publishes: bool, of: Path | None, cache: Path, data: Path, out: Path
) -> None:
    """Measure nodes on one PostgreSQL, and PGMQ's pattern, Procrastinate, RabbitMQ and NATS JetStream."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    chosen = [each for each in CONTENDERS if (each.ours or peers) and _named(each, only)]
    results = PostgresResults.load(of) if of else _measured(console, mode, chosen, cache=cache, data=data)
    runs.show(console, results, tables(results), verdicts(results))
    if not of:
        console.print(f"Written to {results.save(out)}", highlight=False)
    if publishes:
        _publish(results, cache)
    sys.exit(1 if any(remark.startswith("headrace") for remark in results.remarks) else 0)


def _publish(results: PostgresResults, cache: Path) -> None:
    """Tables into docs/benchmarks.md; the chart of what follows from them into docs/img. Raises ValueError before
    anything is written: the figures are not enough for the chart."""
    scale_sim.costs_of([asdict(row) for row in results.rows])
    with tempfile.TemporaryDirectory() as folder:
        path = results.save(Path(folder))
        python = environment.install(cache, "postgres", REQUIREMENTS) / "python"
        subprocess.run([python, "-m", "benchmarks.scale_sim", path, PICTURES], cwd=ROOT, check=True)
    command = f"python -m benchmarks postgres --mode {results.mode}"
    section = runs.section(results, command, tables(results), verdicts(results), pictures=PICTURE)
    DOCUMENT.write_text(runs.insert(DOCUMENT.read_text(), section, begin=BEGIN, end=END))


def _named(contender: Contender, only: Sequence[str]) -> bool:
    return not only or any(part.lower() in contender.name.lower() for part in only)


def _measured(
    console: Console, mode: str, contenders: Sequence[Contender], *, cache: Path, data: Path
) -> PostgresResults:
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    results = PostgresResults(mode, runs.now(), machine.describe(data))
    say = runs.sayer(console, results.remarks)
    programs = Path(sys.executable).parent
    if not all(each.ours for each in contenders):
        try:
            say("installing the peers")
            programs = environment.install(cache, "postgres", REQUIREMENTS)
        except CannotInstall as failed:
            say(f"the peers are left out: {failed}")
            contenders = [each for each in contenders if each.ours]
    results.rows = list(_rounds(contenders, mode, python=programs / "python", data=data.resolve(), say=say))
    return results


def _rounds(
    contenders: Sequence[Contender], mode: str, *, python: Path, data: Path, say: Callable[[str], None]
) -> Iterator[Row]:
    """Medians over rounds in turn (A B C A B C …), so that a busy minute hits all."""
    rows: dict[tuple[str, str], list[Row]] = {(each.name, one): [] for each in contenders for one in MODES}
    out: set[str] = set()
    for turn in range(ROUNDS[mode]):
        for contender in contenders:
            if contender.name in out:
                continue
            say(f"{contender.name}, round {turn + 1}")
            folder = data / f"{turn}-{CONTENDERS.index(contender)}"
            try:
                for row in measure(contender, MODES, seconds=SECONDS[mode], python=python, folder=folder):
                    rows[row.name, row.mode].append(row)
            except (RuntimeError, OSError, CannotInstall) as failed:
                say(f"{contender.name} is left out: {failed}")
                out.add(contender.name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    for found in rows.values():
        if found:
            yield median(found)


def median(rows: Sequence[Row]) -> Row:
    """Of each figure."""

    def middle(name: str) -> float | None:
        found = [value for row in rows if (value := getattr(row, name)) is not None]
        return statistics.median(found) if found else None

    first = rows[0]
    return Row(
        first.name, first.mode, middle("messages_per_s") or 0.0, middle("node_us"), middle("database_us"),
        middle("client_us") or 0.0, first.keeps,
    )  # fmt: skip


def tables(results: PostgresResults) -> Iterator[TextTable]:
    """One a mode."""
    columns = ("queue", "messages/s", "CPU µs, all", "node", "database", "client", "on the disk")
    for mode, title in TITLES.items():
        rows = [
            (
                row.name, f"{row.messages_per_s:,.0f}", f"{row.all_us:.0f}", _us(row.node_us), _us(row.database_us),
                f"{row.client_us:.0f}", row.keeps,
            )
            for row in results.rows
            if row.mode == mode
        ]  # fmt: skip
        if rows:
            yield TextTable(title, columns, rows)


def _us(value: float | None) -> str:
    return f"{value:.0f}" if value is not None else ""


def verdicts(results: PostgresResults) -> list[Verdict]:
    """Every aim that this run has figures for: of each shape what any number of nodes does best."""
    cycle = [row for row in results.rows if row.mode == "cycle"]
    ours = [row for row in cycle if row.name.startswith("headrace")]
    found = [verdict for shape, aim in AIMS.items() for verdict in _of_shape(ours, shape, aim)]
    pattern = next((row for row in cycle if row.name.startswith("SKIP LOCKED")), None)
    tens = _rows_of(ours, "tens")
    if pattern is not None and tens:
        ratio = pattern.all_us / min(row.all_us for row in tens)
        found.append(Verdict("CPU of SKIP LOCKED by each client, of ours in tens", f"{ratio:.1f}x", "≥ 1x", ratio >= 1))
    return found


def _of_shape(ours: Sequence[Row], shape: str, aim: int) -> Iterator[Verdict]:
    rows = _rows_of(ours, shape)
    if not rows:
        return
    best, cheapest = max(row.messages_per_s for row in rows), min(row.all_us for row in rows)
    all_us = CORES * 1e6 / aim
    yield Verdict(f"{shape}: messages a second, delivered", f"{best:,.0f}", f"≥ {aim:,}", best >= aim)
    yield Verdict(f"{shape}: CPU a message, of all", f"{cheapest:.0f} µs", f"≤ {all_us:.0f} µs", cheapest <= all_us)


def _rows_of(ours: Sequence[Row], shape: str) -> list[Row]:
    return [row for row in ours if row.name.split(", ", 2)[2] == shape]
