"""The results as pictures: `python -m benchmarks.web.charts RESULTS.json FOLDER` writes two SVG files.

It runs where `benchmarks/charts.py` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.charts import given, pyplot, save

OURS_COLOUR: Final = "#0b6e99"
PEER_COLOUR: Final = "#b8bfc6"
ANSWERED, REFUSED, LOST = "#2e8b57", "#e0b04c", "#c0504d"
SPEED_APPS: Final = ("Flask", "Django", "FastAPI")


def speed(plot: Any, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """CPU a request, one panel for each framework."""
    figure, panels = plot.subplots(1, len(SPEED_APPS), figsize=(12, 2.9), layout="constrained")
    for panel, app in zip(panels, SPEED_APPS, strict=True):
        found = sorted((row for row in rows if row["app"] == app), key=lambda row: -row["cpu_us"])
        _bars(panel, found, [row["cpu_us"] for row in found], "{:.0f}")
        panel.set_title(f"{app}: CPU µs a request", loc="left", fontsize=10)
    save(plot, figure, path)


def trouble(plot: Any, overload: Sequence[dict[str, Any]], mixed: Sequence[dict[str, Any]], path: Path) -> None:
    """What becomes of clients at twice the capacity, and the p99 of fast requests beside slow ones."""
    figure, (left, right) = plot.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    found = sorted(overload, key=lambda row: row["goodput"])
    names = [f"{row['server']} ({row['app']})" if _is_ours(row) else row["server"] for row in found]
    answered = [row["outcomes"]["answered"] * 100 for row in found]
    refused = [row["outcomes"]["refused"] * 100 for row in found]
    both = [a + b for a, b in zip(answered, refused, strict=True)]
    left.barh(names, answered, color=ANSWERED, label="answered in time")
    left.barh(names, refused, left=answered, color=REFUSED, label="503 in time")
    left.barh(names, [100 - share for share in both], left=both, color=LOST, label="neither")
    left.set_title("Twice the capacity: what becomes of 100 requests", loc="left", fontsize=10)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)
    slowest = sorted(mixed, key=lambda row: -row["outcomes"]["p99_ms"])
    _bars(right, slowest, [row["outcomes"]["p99_ms"] for row in slowest], "{:.0f}")
    right.set_title("One request in 20 burns 50 ms: p99 of the others, ms", loc="left", fontsize=10)
    save(plot, figure, path)


def _is_ours(row: dict[str, Any]) -> bool:
    return str(row["server"]).startswith("headrace")


def _bars(panel: Any, rows: Sequence[dict[str, Any]], values: Sequence[float], form: str) -> None:
    apps = {row["app"] for row in rows}
    names = [f"{row['server']} ({row['app']})" if _is_ours(row) and len(apps) > 1 else row["server"] for row in rows]
    colours = [OURS_COLOUR if _is_ours(row) else PEER_COLOUR for row in rows]
    bars = panel.barh(names, values, color=colours)
    panel.bar_label(bars, labels=[form.format(value) for value in values], padding=3)
    panel.margins(x=0.12)
    panel.xaxis.set_visible(False)
    panel.spines["bottom"].set_visible(False)
    panel.tick_params(axis="y", length=0)


def main() -> None:
    """RESULTS.json FOLDER."""
    results, folder = given()
    plot = pyplot(**{"axes.spines.left": False})
    speed(plot, results["speed"], folder / "web-speed.svg")
    trouble(plot, results["overload"], results["mixed"], folder / "web-trouble.svg")


if __name__ == "__main__":
    main()
