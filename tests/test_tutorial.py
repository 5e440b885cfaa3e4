"""The four steps of the tutorial, one after the other in one folder, as a reader would take them."""

from __future__ import annotations

from pathlib import Path

from tests.walkthrough import DOCS, Walk, walk

STEPS = ("1-queue", "2-web", "3-tasks", "4-streams")


def take(step: str, reader: Walk) -> int:
    return reader.through((DOCS / "tutorial" / f"{step}.md").read_text(encoding="utf-8"))


def test_the_tutorial_builds_an_application(tmp_path: Path) -> None:
    with walk(tmp_path) as reader:
        counts = [take(step, reader) for step in STEPS]
    assert min(counts) >= 5
    assert sorted(path.name for path in tmp_path.glob("*.*") if path.is_file()) == [
        "headrace.toml", "pack_orders.py", "send_orders.py", "tasks.py", "totals.py", "web.py",
    ]  # fmt: skip
