"""Progress of long work, on stderr and only on a terminal: output that is piped stays clean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from headrace.cli.output import make_console


@contextmanager
def byte_progress(title: str, source: IO[bytes]) -> Iterator[Callable[[int, int], None]]:
    """A bar for reading `source`. It gives a function to call with the bytes read since the last call, and the messages
    sent in all.
    """
    if not sys.stderr.isatty():
        yield _ignore
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - loaded when seen

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[messages]:,} messages"))
    with Progress(*columns, TimeRemainingColumn(), console=make_console(stderr=True)) as progress:
        task = progress.add_task(title, total=_size(source), messages=0)
        yield lambda read, messages: progress.update(task, advance=read, messages=messages)


@contextmanager
def count_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for counted work. It gives a function to call with how many are done, of how many."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 - as above

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=make_console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work in stages. It gives a function to call with the stage's name, how much is done, of how much."""
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 - as above

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=make_console(stderr=True)) as progress:
        tasks = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield show


def _ignore(_: int, __: int) -> None:
    """Nobody watches."""


def _size(source: IO[bytes]) -> int | None:
    try:
        return os.fstat(source.fileno()).st_size or None
    except (OSError, ValueError):
        return None
