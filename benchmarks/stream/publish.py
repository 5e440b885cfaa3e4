"""Put a run's tables and picture into docs/benchmarks.md, between two marks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.stream.report import tables, verdict_table
from benchmarks.stream.results import StreamResults, verdicts
from benchmarks.web.publish import DOCUMENT, PICTURES, ROOT, insert, markdown

BEGIN: Final = "<!-- stream figures: written by `python -m benchmarks stream --publish` -->"
END: Final = "<!-- end of the stream figures -->"


def publish(results: StreamResults, path: Path, *, python: Path) -> None:
    """Write picture and section. `path` is the results' file, `python` an interpreter that has matplotlib.

    Raises:
        subprocess.CalledProcessError: the picture could not be drawn.
    """
    draw(path, PICTURES, python=python)
    DOCUMENT.write_text(insert(DOCUMENT.read_text(), section(results), begin=BEGIN, end=END))


def draw(results: Path, folder: Path, *, python: Path) -> None:
    """Draw the chart of a results file. Raises subprocess.CalledProcessError."""
    command = [str(python), "-m", "benchmarks.stream.charts", str(results.resolve()), str(folder.resolve())]
    subprocess.run(command, cwd=ROOT, check=True)


def section(results: StreamResults) -> str:
    """The figures as Markdown."""
    return "\n".join(_lines(results))


def _lines(results: StreamResults) -> Iterator[str]:
    day = datetime.fromisoformat(results.started).strftime("%d %B %Y").lstrip("0")
    machine = results.machine
    yield (
        f"{machine['cores']} shared cores ({machine['processor']}), {machine['system']}, Python {machine['python']}, "
        f"on {day}, load before the run {machine['load_before']}: `python -m benchmarks stream --mode {results.mode}`."
    )
    yield "\n![Nexmark from files, by query and engine](img/stream-speed.svg)\n"
    for table in tables(results):
        yield f"**{table.title}**\n"
        yield from markdown(table)
        yield ""
    judged = verdicts(results)
    if judged:
        yield f"**Aims**: {sum(verdict.reached for verdict in judged)} of {len(judged)} reached.\n"
        yield from markdown(verdict_table(results))
        yield ""
    for remark in results.remarks:
        yield f"- {remark.splitlines()[0]}"
