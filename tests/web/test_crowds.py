"""Threads that compute are in each other's way: then fewer run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from headrace.web import crowds
from headrace.web.crowds import Crowds
from headrace.web.frames import Hello
from headrace.web.limits import LAG_HIGH_S
from headrace.web.workers import Worker, Workers
from tests.http.support import on_loop

THREADS = 8


class Seat:
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


class Owner:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.workers = Workers()
        self.keepers: dict[int, Any] = {}
        self.filled = 0

    def fill(self) -> None:
        self.filled += 1


class Rig:
    def __init__(self) -> None:
        self.owner = Owner()
        self.crowds = Crowds(self.owner)
        keeper: Any = Seat()
        self.keeper = keeper
        self.owner.keepers[7] = self.keeper
        for _ in range(THREADS):
            self.worker: Worker = self.owner.workers.join(Seat(), pid=7, generation=1)

    def late(self, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            self.crowds.was_late(self.keeper, seconds)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # timers of this loop make it so
        await asyncio.sleep(0)


@on_loop
async def test_busy_interpreter_gets_fewer_requests_but_never_too_few() -> None:
    rig = Rig()
    rig.worker.in_flight = THREADS
    rig.late(LAG_HIGH_S * 2)
    assert rig.worker.crowd is not None and rig.worker.crowd.count == 5
    assert rig.worker.is_full and not rig.worker.has_room
    rig.late(LAG_HIGH_S * 2, times=20)
    assert rig.worker.crowd.count == 3
    rig.worker.in_flight = 2
    rig.owner.workers.resettle(rig.worker)
    assert rig.owner.workers.pick() is not None


@on_loop
async def test_threads_that_wait_get_all_back() -> None:
    rig = Rig()
    rig.late(LAG_HIGH_S * 2, times=20)
    rig.worker.in_flight = THREADS
    rig.late(0.0, times=20)
    assert rig.worker.crowd is not None and rig.worker.crowd.count == THREADS
    assert rig.owner.filled == 40


@on_loop
async def test_threads_that_come_later_may_run_requests_too() -> None:
    rig = Rig()
    late = [rig.worker.links.pop() for _ in range(THREADS - 4)]
    rig.worker.in_flight = 4
    rig.late(0.0)
    for seat in late:
        rig.owner.workers.join(seat, pid=7, generation=1)
    rig.worker.in_flight = 5
    rig.late(0.0)
    assert rig.worker.crowd is not None and rig.worker.crowd.count == THREADS


@on_loop
async def test_keeper_is_asked_only_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "PING_S", 0.0)
    rig = Rig()
    rig.worker.in_flight = 3
    rig.crowds.given(rig.worker)
    assert rig.crowds._timer is None
    rig.worker.in_flight = 4
    rig.crowds.given(rig.worker)
    await until(lambda: bool(rig.keeper.asked))
    rig.worker.in_flight = 0
    await until(lambda: rig.crowds._timer is None)
    del rig.owner.keepers[7]
    rig.worker.in_flight = 4
    rig.crowds.given(rig.worker)
    asked = rig.keeper.asked
    await until(lambda: rig.crowds._timer is None)
    assert rig.keeper.asked == asked
