"""The runs of tasks of the last day, as workers have noted them, for pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from headrace.console import limits
from headrace.native.aio import AsyncClient
from headrace.work import keys
from headrace.work.run_log import Run, unpack


class Runs:
    """Reads them for whoever asks, one reader at a time, and no more often than costs a small part of the time: 20,000
    runs are 3 MB.

    Invariant: `_runs` is sorted, the newest first.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._runs: list[Run] = []
        self._due_s = 0.0

    async def read(self, client: AsyncClient) -> list[Run]:
        """The newest first. Raises HeadraceError."""
        async with self._lock:
            began_s = self._monotonic()
            if began_s >= self._due_s:
                rows = await client.state(keys.NAME, keys.RUNS)
                runs = [run for value in rows.values() for run in _runs_of(value)]
                self._runs = sorted(runs, key=lambda run: run.ended_ms, reverse=True)
                now_s = self._monotonic()
                self._due_s = now_s + limits.RUNS_PAUSE * (now_s - began_s)
            return self._runs


def _runs_of(value: bytes) -> list[Run]:
    """Of one row; none of a row that no worker of this version has written."""
    try:
        return unpack(value)
    except msgspec.DecodeError:
        return []


def having(runs: list[Run], *, task: str = "", status: str = "", text: str = "", errors: bool = True) -> list[Run]:
    """Those of a task, that ended so, that have the text in their task, id, worker or, with `errors`, error. Empty: all."""
    wanted = text.lower()
    return [
        run
        for run in runs
        if task in ("", run.task)
        and status in ("", run.status)
        and (not wanted or wanted in f"{run.task}\n{run.id}\n{run.worker}\n{run.error if errors else ''}".lower())
    ]
