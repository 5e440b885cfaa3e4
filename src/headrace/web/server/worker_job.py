"""What all kinds of workers share: their job, the policy of replacement, and the behaviour without a supervisor."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.web.server import control
from headrace.web.settings import WebSettings

EXIT_FAILED: Final = 3


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What a forked worker needs to start."""

    worker: int
    index: int
    parent: int
    boot: control.Boot
    settings: WebSettings
    apps: dict[str, Any]
    """Spec → app; empty where nothing is preloaded."""


class OrphanedWorker:
    """A worker whose supervisor is gone: it works on until its edges have answered what they have, as in a drain."""

    def __init__(self, job: WorkerJob) -> None:
        # An edge removes the file of its socket when it needs no worker any more.
        self._edges = [Path(path) for paths in job.boot.links for path in paths]
        self._until_s = time.monotonic() + job.settings.drain

    @property
    def left_s(self) -> float:
        return max(0.0, self._until_s - time.monotonic())

    @property
    def done(self) -> bool:
        return self.left_s == 0.0 or not any(edge.exists() for edge in self._edges)


class RecyclePolicy:
    """When a worker asks to be replaced: after a number of requests, or above a size of memory."""

    def __init__(self, settings: WebSettings) -> None:
        # Workers that started together should not all be replaced together.
        self._requests_max = round(settings.max_requests * random.uniform(0.9, 1.1))  # noqa: S311 - no secret
        self._rss_max = settings.max_rss
        self._asked = False

    def exceeded(self, report: control.Report) -> str:
        """Why the worker should be replaced; empty if there is no reason, or if it was returned before."""
        reason = ""
        if self._requests_max and report.requests >= self._requests_max:
            reason = f"it has served {report.requests} requests"
        elif self._rss_max is not None and report.rss_bytes > self._rss_max:
            reason = f"its memory is {report.rss_bytes // 2**20} MiB"
        if self._asked or not reason:
            return ""
        self._asked = True
        return reason


def hello_of(job: WorkerJob, interface: str, *, capacity: int) -> Any:
    """The HELLO of a worker to an edge."""
    from headrace.web.ipc.frames import Hello  # noqa: PLC0415 - direct mode has no links
    from headrace.web.stored.durable_marks import durable_marks  # noqa: PLC0415

    return Hello(os.getpid(), job.boot.generation, interface, capacity, durable_marks())
