"""What a run shows while it runs: a live line on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.cli.output import age, make_console

if TYPE_CHECKING:
    from headrace.stream.result import Report

_log = logging.getLogger("headrace.stream")

LOG_EVERY_S = 10.0


@contextmanager
def watcher(pipeline: str) -> Iterator[Callable[[Report], None]]:
    """A function to call with each report."""
    if not sys.stderr.isatty():
        yield Logger().report
        return
    from rich.live import Live  # noqa: PLC0415 - loaded when seen
    from rich.text import Text  # noqa: PLC0415

    pace = Pace()
    with Live(Text(f"{pipeline}: starting"), console=make_console(stderr=True), refresh_per_second=4) as live:
        yield lambda report: live.update(
            Text(line(report, pace.left_s(report, time.monotonic())), no_wrap=True, overflow="ellipsis")
        )


class Pace:
    """How long files will take still, by how fast they were read so far."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def left_s(self, report: Report, now_s: float) -> float | None:
        """None: nobody knows yet, or there are no files."""
        files = [source for source in report.sources.values() if source.unit != "messages" and source.lag is not None]
        done = sum(source.done for source in files)
        if self._first is None:
            self._first = (done, now_s)
        first, since_s = self._first
        lag = sum(source.lag or 0 for source in files)
        return lag * (now_s - since_s) / (done - first) if lag and done > first else None


class Logger:
    """A line every LOG_EVERY_S, if anything has changed."""

    def __init__(self) -> None:
        self._told_s = time.monotonic()
        self._told: tuple[object, ...] = ()

    def report(self, report: Report) -> None:
        news = (report.batches, report.standby, report.paused)
        if news == self._told or time.monotonic() - self._told_s < LOG_EVERY_S:
            return
        self._told_s, self._told = time.monotonic(), news
        _log.info(
            "%s", line(report),
            extra={
                "action": "stream.progress", "pipeline": report.pipeline, "batches": report.batches,
                "rows_in": report.rows_in, "rows_out": report.rows_out, "late": report.late, "dead": report.dead,
                "rows_in_s": round(report.rows_in_s), "state_bytes": report.state_bytes,
            },
        )  # fmt: skip


def line(report: Report, left_s: float | None = None) -> str:
    """A report in one line, what matters first: a terminal may cut it."""
    from headrace.stream.result import counted, watermark_text  # noqa: PLC0415 - needs the extra

    if report.standby:
        return f"{report.pipeline}: another process runs it; standing by"
    parts = [
        *sources(report),
        *([f"{age(left_s)} left"] if left_s is not None else []),
        f"{report.rows_in:,} in ({report.rows_in_s:,.0f}/s)",
        f"{report.rows_out:,} out",
        f"watermark {watermark_text(report.watermark)}",
        f"state {size(report.state_bytes)}",
    ]
    if report.late or report.dead:
        parts.append(f"{report.late:,} late, {report.dead:,} dead")
    if report.undelivered:
        parts.append(f"{counted(report.undelivered, 'batch', 'batches')} to deliver")
    paused = "paused: " if report.paused else ""
    return f"{report.pipeline}: {paused}" + " · ".join(parts)


def sources(report: Report) -> list[str]:
    """How far each source is: files by share and time left, others by what waits."""
    found = []
    for name, progress in report.sources.items():
        if progress.lag is None:
            continue
        if progress.unit == "messages":
            found.append(f"{name} {progress.lag:,} behind")
        else:
            total = progress.done + progress.lag
            found.append(f"{name} {bar(progress.done / total if total else 1.0)}")
    return found


def bar(share: float, width: int = 16) -> str:
    """`[####            ] 25%`"""
    filled = round(share * width)
    return f"[{'#' * filled}{' ' * (width - filled)}] {share:.0%}"


def size(size_bytes: int) -> str:
    """`1.5 MiB`"""
    if size_bytes < 1_024:
        return f"{size_bytes} B"
    power = min((size_bytes.bit_length() - 1) // 10, 3)
    return f"{size_bytes / 1_024**power:,.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"
