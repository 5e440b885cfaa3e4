"""The app that `headrace bench task` sends to, and whose tasks its worker runs."""

from __future__ import annotations

from pathlib import Path

from headrace.work.app import App
from headrace.work.task import Task


def make_app(broker: Path | None = None) -> tuple[App, Task[[], None], Task[[], None]]:
    """The app, the task that nobody waits for, and the one whose end is waited for."""
    made = App(broker)
    return made, made.task(name="bench.nothing")(_nothing), made.task(name="bench.waited", result_ttl="1m")(_nothing)


def _nothing() -> None:
    """Costs what a task costs at least."""


app, _, _ = make_app()
