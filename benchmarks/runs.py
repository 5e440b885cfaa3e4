"""What the benchmarks share: a run on disk, its aims, its tables for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

from rich import box
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).parent.parent
DOCUMENT: Final = ROOT / "docs/benchmarks.md"
PICTURES: Final = ROOT / "docs/img"


@dataclass
class Run:
    """One run: when, how much, on what machine, and what a reader must know. Each benchmark adds its figures."""

    prefix: ClassVar[str] = ""

    mode: str
    started: str
    machine: dict[str, Any]
    remarks: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> Path:
        """Write the results to a file named by mode and time; also as `latest.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=2) + "\n"
        path = folder / f"{self.prefix}{self.mode}-{self.started.replace(':', '')}.json"
        path.write_text(text)
        (folder / f"{self.prefix}latest.json").write_text(text)
        return path


@dataclass(frozen=True)
class Verdict:
    """One aim: what was measured, the bound, and whether it is kept."""

    aim: str
    measured: str
    bound: str
    reached: bool


@dataclass(frozen=True)
class TextTable:
    """A table: its first column is text, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def now() -> str:
    """For `Run.started`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sayer(console: Console, remarks: list[str]) -> Callable[[str], None]:
    """Progress goes to the terminal; what a reader of the results must know also into them."""

    def say(text: str) -> None:
        console.print(f"  {text}", style="dim", markup=False, highlight=False)
        if "left out" in text:
            remarks.append(text)

    return say


def show(console: Console, run: Run, tables: Iterable[TextTable], judged: Sequence[Verdict]) -> None:
    """Everything, for the terminal."""
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.machine.items())
    console.print(f"[bold]{run.prefix}{run.mode} run of {run.started}[/]: {facts}", highlight=False)
    for each in tables:
        console.print(_rich(each))
    if judged:
        console.print(_rich(_aims(judged), [verdict.reached for verdict in judged]))
    for remark in run.remarks:
        console.print(f"- {remark}", markup=False, highlight=False)


def section(
    run: Run, command: str, tables: Iterable[TextTable], judged: Sequence[Verdict], *, pictures: Sequence[str]
) -> str:
    """The run as Markdown. `pictures`: Markdown's links to them."""
    return "\n".join(_lines(run, command, tables, judged, pictures))


def insert(text: str, figures: str, *, begin: str, end: str) -> str:
    """The document with these figures between the marks.

    Raises:
        ValueError: it has no marks.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"no place for figures: {begin} … {end}")
    return f"{before}{begin}\n\n{figures}\n{end}{after}"


def _lines(
    run: Run, command: str, tables: Iterable[TextTable], judged: Sequence[Verdict], pictures: Sequence[str]
) -> Iterator[str]:
    day = datetime.fromisoformat(run.started).strftime("%d %B %Y").lstrip("0")
    machine = run.machine
    yield (
        f"{machine['cores']} shared cores ({machine['processor']}), {machine['system']}, Python {machine['python']}, "
        f"on {day}, load before the run {machine['load_before']}: `{command}`.\n"
    )
    for picture in pictures:
        yield f"{picture}\n"
    for table in tables:
        yield f"**{table.title}**\n"
        yield from _markdown(table)
        yield ""
    if judged:
        yield f"**Aims**: {sum(verdict.reached for verdict in judged)} of {len(judged)} reached.\n"
        yield from _markdown(_aims(judged))
        yield ""
    for remark in run.remarks:
        yield f"- {remark.splitlines()[0]}"


def _aims(judged: Sequence[Verdict]) -> TextTable:
    rows = [(each.aim, each.measured, each.bound, "yes" if each.reached else "**no**") for each in judged]
    return TextTable("Aims", ("aim", "measured", "bound", "reached"), rows)


def _rich(text: TextTable, reached: Sequence[bool] = ()) -> Table:
    """For the terminal. `reached`: of each row, if it is an aim: green or red."""
    table = Table(title=text.title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, column in enumerate(text.columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=place > 0)
    for place, row in enumerate(text.rows):
        ours = row[0].startswith("headrace")
        style = ("green" if reached[place] else "red") if reached else "bold" if ours else None
        table.add_row(*row, style=style)
    return table


def _markdown(table: TextTable) -> Iterator[str]:
    yield f"| {' | '.join(table.columns)} |"
    yield f"| {' | '.join('---' for _ in table.columns)} |"
    for row in table.rows:
        yield f"| {' | '.join(row)} |"
