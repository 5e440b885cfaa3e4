"""Put a run's tables and pictures into docs/benchmarks.md, between two marks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.web.report import TextTable, tables
from benchmarks.web.results import WebResults, verdicts

ROOT: Final = Path(__file__).parent.parent.parent
DOCUMENT: Final = ROOT / "docs/benchmarks.md"
PICTURES: Final = ROOT / "docs/img"
BEGIN: Final = "<!-- web figures: written by `python -m benchmarks web --publish` -->"
END: Final = "<!-- end of the web figures -->"


def draw(results: Path, folder: Path, *, python: Path) -> None:
    """Draw the charts of a results file with the interpreter that has matplotlib.

    Raises:
        subprocess.CalledProcessError: it could not.
    """
    command = [str(python), "-m", "benchmarks.web.charts", str(results.resolve()), str(folder.resolve())]
    subprocess.run(command, cwd=ROOT, check=True)


def section(results: WebResults) -> str:
    """The figures as Markdown."""
    return "\n".join(_lines(results))


def _lines(results: WebResults) -> Iterator[str]:
    day = datetime.fromisoformat(results.started).strftime("%d %B %Y").lstrip("0")
    machine = results.machine
    yield (
        f"{machine['cores']} shared cores ({machine['processor']}), {machine['system']}, Python {machine['python']}, "
        f"on {day}, load before the run {machine['load_before']}: `python -m benchmarks web --mode {results.mode}`."
    )
    yield "\n![CPU a request, by framework and server](img/web-speed.svg)\n"
    yield "![What becomes of clients under overload, and of fast requests beside slow ones](img/web-trouble.svg)\n"
    for table in tables(results):
        yield f"**{table.title}**\n"
        yield from markdown(table)
        yield ""
    judged = verdicts(results)
    if judged:
        yield f"**Aims**: {sum(verdict.reached for verdict in judged)} of {len(judged)} reached.\n"
        rows = [(v.aim, v.measured, v.bound, "yes" if v.reached else "**no**") for v in judged]
        yield from markdown(TextTable("", ("aim", "measured", "bound", "reached"), rows))
        yield ""
    for remark in results.remarks:
        yield f"- {remark.splitlines()[0]}"


def markdown(table: TextTable) -> Iterator[str]:
    """The lines of a table."""
    yield f"| {' | '.join(table.columns)} |"
    yield f"| {' | '.join('---' for _ in table.columns)} |"
    for row in table.rows:
        yield f"| {' | '.join(row)} |"


def insert(text: str, figures: str, *, begin: str = BEGIN, end: str = END) -> str:
    """The document with these figures between the marks.

    Raises:
        ValueError: it has no marks.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"no place for figures: {begin} … {end}")
    return f"{before}{begin}\n\n{figures}\n{end}{after}"


def publish(results: WebResults, path: Path, *, python: Path) -> None:
    """Write pictures and section. `path` is the results' file."""
    draw(path, PICTURES, python=python)
    DOCUMENT.write_text(insert(DOCUMENT.read_text(), section(results)))
