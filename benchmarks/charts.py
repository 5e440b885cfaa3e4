"""What the charts share. They are drawn in the environment of the web server's peers, which has matplotlib and not headrace:
nothing of headrace or of the benchmarks' other modules is imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Final

STYLE: Final = {
    "svg.hashsalt": "headrace",  # the same figures give the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def given() -> tuple[dict[str, Any], Path]:
    """The arguments RESULTS.json and FOLDER: what was measured, and the folder, which is made."""
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    return json.loads(Path(sys.argv[1]).read_text()), folder


def pyplot(**style: Any) -> Any:
    """matplotlib's, for SVG files."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    plot = importlib.import_module("matplotlib.pyplot")
    plot.rcParams.update(STYLE | style)
    return plot


def save(plot: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plot.close(figure)
