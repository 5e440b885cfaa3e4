"""What is drawn over time: a chart is a title, a unit and series of the history. A page names its charts in `facts["charts"]`."""

from __future__ import annotations

from typing import Any

from headrace.console.page import Desk

POINTS: int = 60


def chart(desk: Desk, title: str, unit: str, *series: tuple[str, str]) -> dict[str, Any]:
    """A chart's facts: with the last ten minutes, for pages without JavaScript and for scripts.

    Args:
        series: names in the history, each with its label.
    """
    now_s = desk.now_s()
    return {
        "title": title,
        "unit": unit,
        "series": [
            {"name": name, "label": label, "recent": desk.history.recent(name, until_s=now_s, count=POINTS)}
            for name, label in series
        ],
    }
