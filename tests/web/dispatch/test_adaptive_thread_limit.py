"""Threads that compute are in each other's way: then fewer run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from headrace.web.dispatch import concurrency_limit
from headrace.web.dispatch.concurrency_limit import AdaptiveThreadLimit
from headrace.web.dispatch.limits import LAG_HIGH_S
from headrace.web.dispatch.worker_pool import WorkerPool, WorkerProcess
from headrace.web.ipc.frames import Hello
from tests.http.support import on_loop

THREADS = 8


class WorkerSlot:
    """A thread's link."""

    def __init__(self) -> None:
        self.busy = 0
        self.limit = 1
        self.leaving = self.listed = False
        self.serial = True
        self.hello = Hello(7, 1, "wsgi", 0)
        self.asked = 0

    def close(self) -> None: ...

    def ask_how_late(self) -> None:
        self.asked += 1


class WorkerDispatcher:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.workers = WorkerPool()
        self.control_links: dict[int, Any] = {}
        self.filled = 0

    def fill(self) -> None:
        self.filled += 1


class Rig:
    def __init__(self) -> None:
        self.owner = WorkerDispatcher()
        self.adaptive_thread_limit = AdaptiveThreadLimit(self.owner)
        control_link: Any = WorkerSlot()
        self.control_link = control_link
        self.owner.control_links[7] = self.control_link
        for _ in range(THREADS):
            self.worker: WorkerProcess = self.owner.workers.add_link(WorkerSlot(), pid=7, generation=1)

    def late(self, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            self.adaptive_thread_limit.was_late(self.control_link, seconds)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # timers of this loop make it so
        await asyncio.sleep(0)


@on_loop
async def test_busy_interpreter_gets_fewer_requests_but_never_too_few() -> None:
    rig = Rig()
    rig.worker.in_flight = THREADS
    rig.late(LAG_HIGH_S * 2)
    assert rig.worker.thread_limit is not None and rig.worker.thread_limit.count == 5
    assert rig.worker.is_full and not rig.worker.has_room
    rig.late(LAG_HIGH_S * 2, times=20)
    assert rig.worker.thread_limit.count == 3
    rig.worker.in_flight = 2
    rig.owner.workers.update_worker(rig.worker)
    assert rig.owner.workers.pick() is not None


@on_loop
async def test_threads_that_wait_get_all_back() -> None:
    rig = Rig()
    rig.late(LAG_HIGH_S * 2, times=20)
    rig.worker.in_flight = THREADS
    rig.late(0.0, times=20)
    assert rig.worker.thread_limit is not None and rig.worker.thread_limit.count == THREADS
    assert rig.owner.filled == 40


@on_loop
async def test_threads_that_come_later_may_run_requests_too() -> None:
    rig = Rig()
    late = [rig.worker.links.pop() for _ in range(THREADS - 4)]
    rig.worker.in_flight = 4
    rig.late(0.0)
    for slot in late:
        rig.owner.workers.add_link(slot, pid=7, generation=1)
    rig.worker.in_flight = 5
    rig.late(0.0)
    assert rig.worker.thread_limit is not None and rig.worker.thread_limit.count == THREADS


@on_loop
async def test_control_thread_is_asked_only_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency_limit, "PING_S", 0.0)
    rig = Rig()
    rig.worker.in_flight = 3
    rig.adaptive_thread_limit.given(rig.worker)
    assert rig.adaptive_thread_limit._timer is None
    rig.worker.in_flight = 4
    rig.adaptive_thread_limit.given(rig.worker)
    await until(lambda: bool(rig.control_link.asked))
    rig.worker.in_flight = 0
    await until(lambda: rig.adaptive_thread_limit._timer is None)
    del rig.owner.control_links[7]
    rig.worker.in_flight = 4
    rig.adaptive_thread_limit.given(rig.worker)
    asked = rig.control_link.asked
    await until(lambda: rig.adaptive_thread_limit._timer is None)
    assert rig.control_link.asked == asked
