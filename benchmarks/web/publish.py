"""Put a run's tables and pictures into docs/benchmarks.md, between two marks."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from benchmarks import runs
from benchmarks.runs import DOCUMENT, PICTURES, ROOT
from benchmarks.web.report import tables
from benchmarks.web.results import WebResults, verdicts

BEGIN: Final = "<!-- web figures: written by `python -m benchmarks web --publish` -->"
END: Final = "<!-- end of the web figures -->"
LINKS: Final = (
    "![CPU a request, by framework and server](img/web-speed.svg)",
    "![What becomes of clients under overload, and of fast requests beside slow ones](img/web-trouble.svg)",
)


def draw(results: Path, folder: Path, *, python: Path) -> None:
    """Draw the charts of a results file with the interpreter that has matplotlib.

    Raises:
        subprocess.CalledProcessError: it could not.
    """
    command = [str(python), "-m", "benchmarks.web.charts", str(results.resolve()), str(folder.resolve())]
    subprocess.run(command, cwd=ROOT, check=True)


def section(results: WebResults) -> str:
    """The figures as Markdown."""
    command = f"python -m benchmarks web --mode {results.mode}"
    return runs.section(results, command, tables(results), verdicts(results), pictures=LINKS)


def publish(results: WebResults, path: Path, *, python: Path) -> None:
    """Write pictures and section. `path` is the results' file."""
    draw(path, PICTURES, python=python)
    DOCUMENT.write_text(runs.insert(DOCUMENT.read_text(), section(results), begin=BEGIN, end=END))
