"""What is drawn over time: a chart is a title, a unit and series of the history. A page names its charts in `facts["charts"]`."""

from __future__ import annotations

from typing import Any

from headrace.console.figures import PERCENTILES
from headrace.console.page import PageContext


def chart(context: PageContext, title: str, unit: str, *series: tuple[str, str]) -> dict[str, Any]:
    """A chart's facts: with the last ten minutes, for pages without JavaScript and for scripts.

    Args:
        series: names in the history, each with its label.
    """
    now_s = context.now_s()
    return {
        "title": title,
        "unit": unit,
        "series": [
            {"name": name, "label": label, "recent": context.history.recent(name, until_s=now_s)}
            for name, label in series
        ],
    }


def latency_charts(context: PageContext, series: str, *, running: str) -> list[dict[str, Any]]:
    """How long what is measured as `series` (`tasks`, `route/NAME`, …) waits for a worker, and runs with it."""
    return [
        chart(context, title, "ms", *((f"{series}/{what}_{percentile}", percentile) for percentile in PERCENTILES))
        for title, what in (("Waiting for a worker", "wait"), (running, "run"))
    ]
