"""One task over time: enqueued → waited → attempt → backoff → waited → attempt. Pure.

span   kind      what it was
wait   waited    it could have run, and no worker took it
run    attempt   it ran; `tone` tells how that ended
pause  backoff   it was hidden until its next attempt, or its delay was not over
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.work.run_log import Run

SENDING_MS: Final = 20
"""From the making of a task's id until its message is stored; what is longer was a delay."""

TONES: Final = {"succeeded": "good", "retried": "warn", "dead": "bad", "cancelled": "info", "expired": "warn"}


class Span(msgspec.Struct, frozen=True):
    """Attributes:
    kind: wait, run, pause.
    attempt: which it belongs to.
    tone: of a run: good, warn, bad, info.
    ended: how a run ended, as the run log says.
    open: it goes on now.
    """

    kind: str
    start_ms: int
    end_ms: int
    attempt: int
    tone: str = ""
    ended: str = ""
    open: bool = False


class Now(msgspec.Struct, frozen=True):
    """Where the task is now, if it has not ended.

    Attributes:
        state: running, queued, delayed.
        since_ms: when that began; of a delayed one when it was put there.
        until_ms: of a delayed one, when it is due.
    """

    state: str
    since_ms: int
    attempt: int
    until_ms: int | None = None


def spans(runs: Sequence[Run], now: Now | None, *, sent_ms: int | None, now_ms: int) -> list[Span]:
    """All of a task's life, oldest first.

    Args:
        runs: its runs, in any order.
        sent_ms: when it was first sent, if that is known.
    """
    found: list[Span] = []
    end_ms = sent_ms
    for run in sorted(runs, key=lambda run: (run.started_ms, run.attempt)):
        if end_ms is not None and run.enqueued_ms > end_ms + (0 if found else SENDING_MS):
            found.append(Span("pause", end_ms, run.enqueued_ms, run.attempt))
        if run.started_ms > run.enqueued_ms:
            found.append(Span("wait", max(run.enqueued_ms, end_ms or 0), run.started_ms, run.attempt))
        if run.status != "deferred":
            found.append(Span("run", run.started_ms, run.ended_ms, run.attempt, TONES.get(run.status, ""), run.status))
        end_ms = run.ended_ms
    return _forwards([*found, *_open(now, end_ms, now_ms)])


def _forwards(found: list[Span]) -> list[Span]:
    """Without spans that go backwards, as they would where workers' clocks disagree: runs are kept, as a moment."""
    return [
        msgspec.structs.replace(span, end_ms=max(span.start_ms, span.end_ms))
        for span in found
        if span.kind == "run" or span.end_ms > span.start_ms
    ]


def _open(now: Now | None, end_ms: int | None, now_ms: int) -> list[Span]:
    if now is None:
        return []
    if now.state == "running":
        waited = [Span("wait", end_ms, now.since_ms, now.attempt)] if end_ms and end_ms < now.since_ms else []
        return [*waited, Span("run", now.since_ms, max(now_ms, now.since_ms), now.attempt, "info", open=True)]
    begin_ms = end_ms or now.since_ms
    if now.until_ms is not None and now.until_ms > now_ms:
        return [Span("pause", begin_ms, now.until_ms, now.attempt, open=True)]
    due_ms = max(now.until_ms or now.since_ms, begin_ms)
    paused = [Span("pause", begin_ms, due_ms, now.attempt)] if due_ms > begin_ms else []
    return [*paused, Span("wait", due_ms, max(now_ms, due_ms), now.attempt, open=True)]


class Bar(msgspec.Struct, frozen=True):
    """A span as it is drawn. `x`, `width`: of 1,000."""

    span: Span
    x: float
    width: float
    row: int


LEAST: Final = 3.0
"""However short a span is beside the whole, it is to be seen."""


def bars(found: Sequence[Span]) -> list[Bar]:
    """Spans side by side, to scale, a row an attempt."""
    if not found:
        return []
    begin_ms, end_ms = min(span.start_ms for span in found), max(span.end_ms for span in found)
    scale = 1_000 / max(1, end_ms - begin_ms)
    rows = {attempt: row for row, attempt in enumerate(dict.fromkeys(span.attempt for span in found))}
    drawn = []
    for span in found:
        width = max(LEAST, (span.end_ms - span.start_ms) * scale)
        x = min((span.start_ms - begin_ms) * scale, 1_000 - width)
        drawn.append(Bar(span, round(max(0.0, x), 1), round(min(width, 1_000.0), 1), rows[span.attempt]))
    return drawn
