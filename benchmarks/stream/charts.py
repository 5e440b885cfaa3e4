"""The results as a picture: `python -m benchmarks.stream.charts RESULTS.json FOLDER` writes stream-speed.svg.

It runs where `benchmarks/charts.py` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.charts import given, pyplot, save

COLOURS: Final = {"headrace": "#0b6e99", "Spark streaming": "#e0b04c", "DuckDB batch": "#b8bfc6"}


def speed(plot: Any, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Million events a second, on a logarithmic axis: a group of bars for each query."""
    figure, panel = plot.subplots(figsize=(12, 3.6), layout="constrained")
    queries = list(dict.fromkeys(row["query"] for row in rows))
    width = 0.8 / len(COLOURS)
    for place, (engine, colour) in enumerate(COLOURS.items()):
        found = [row for row in rows if row["engine"] == engine]
        at = [queries.index(row["query"]) + (place - 1) * width for row in found]
        rates = [row["events"] / row["usage"]["seconds"] / 1e6 for row in found]
        bars = panel.bar(at, rates, width, color=colour, label=engine)
        panel.bar_label(bars, labels=[f"{rate:.2g}" for rate in rates], padding=2, fontsize=8)
    panel.set_xticks(range(len(queries)), queries)
    panel.set_yscale("log")
    panel.set_title("Nexmark from files: million events a second", loc="left", fontsize=10)
    panel.legend(frameon=False, ncols=len(COLOURS), loc="upper right", bbox_to_anchor=(1, 1.12))
    save(plot, figure, path)


def main() -> None:
    """RESULTS.json FOLDER."""
    results, folder = given()
    plot = pyplot()
    speed(plot, results["files"], folder / "stream-speed.svg")


if __name__ == "__main__":
    main()
