"""Put the tables and the picture of one or several runs into docs/benchmarks.md, between two marks."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import runs
from benchmarks.runs import DOCUMENT, PICTURES, ROOT
from benchmarks.stream.report import tables
from benchmarks.stream.results import PARTS, StreamResults, verdicts

BEGIN: Final = "<!-- stream figures: written by `python -m benchmarks stream --publish` -->"
END: Final = "<!-- end of the stream figures -->"
LINK: Final = "![Nexmark from files, by query and engine](img/stream-speed.svg)"


def publish(found: Mapping[Path, StreamResults], *, python: Path) -> None:
    """Write picture and section of results by their files. `python`: an interpreter that has matplotlib.

    Raises:
        subprocess.CalledProcessError: the picture could not be drawn.
    """
    for path, results in found.items():
        if results.files:
            draw(path, PICTURES, python=python)
    DOCUMENT.write_text(runs.insert(DOCUMENT.read_text(), section(list(found.values())), begin=BEGIN, end=END))


def draw(results: Path, folder: Path, *, python: Path) -> None:
    """Draw the chart of a results file. Raises subprocess.CalledProcessError."""
    command = [str(python), "-m", "benchmarks.stream.charts", str(results.resolve()), str(folder.resolve())]
    subprocess.run(command, cwd=ROOT, check=True)


def section(found: Sequence[StreamResults]) -> str:
    """The figures as Markdown, run by run, and which parts none of them measured."""
    missing = [part for part in PARTS if not any(part in results.parts() for results in found)]
    lines = [f"**Not measured**: {', '.join(missing)}.\n"] if missing else []
    return "\n".join([*map(_one, found), *lines])


def _one(results: StreamResults) -> str:
    parts = results.parts()
    only = "" if len(parts) == len(PARTS) else "".join(f" --only {part}" for part in parts)
    command = f"python -m benchmarks stream --mode {results.mode}{only}"
    pictures = [LINK] if results.files else []
    return runs.section(results, command, tables(results), verdicts(results), pictures=pictures)
