"""Requests that need nothing of a loop, while that is a little late, since others have the processor, say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.web.dispatch.limits import CONCURRENCY_MIN, CONCURRENCY_START, LAG_QUIET_S, QUIET_S
from headrace.web.ipc.frames import Kind
from tests.http.support import on_loop
from tests.web.scripted import Clock, Rig, Worker, dispatching


@asynccontextmanager
async def late(folder: Path, *, late_s: float, capacity: int = 1_000) -> AsyncIterator[tuple[Rig, Clock, Worker]]:
    """A worker with a loop that is always so late."""
    clock = Clock()

    def be_late() -> None:
        clock.now_s += late_s

    async with dispatching(folder, now_s=clock) as rig:
        worker = await rig.thread(interface="asgi", capacity=capacity)
        worker.before_pong = be_late
        yield rig, clock, worker


@on_loop
async def test_answers_that_wait_for_events_take_no_credits(tmp_path: Path) -> None:
    async with late(tmp_path, late_s=0.01) as (rig, clock, worker):
        for _ in range(CONCURRENCY_START):
            rig.ask()
            worker.begin(await worker.request())
        rig.ask(target="/next")
        assert rig.dispatcher.statistics().queue_length == 1
        clock.now_s += QUIET_S
        assert (await worker.request()).head.target == "/next"


@on_loop
async def test_bodies_that_do_not_come_take_no_credits(tmp_path: Path) -> None:
    async with late(tmp_path, late_s=0.01) as (rig, _, worker):
        for _ in range(CONCURRENCY_START):
            rig.ask("POST", body=None)
            await worker.request()
        rig.ask(target="/next")
        assert (await worker.request()).head.target == "/next"


@on_loop
async def test_loop_that_is_very_late_has_nothing_quiet(tmp_path: Path) -> None:
    async with late(tmp_path, late_s=LAG_QUIET_S + 0.01) as (rig, clock, worker):
        for _ in range(30):
            rig.ask()
        seen = [(await worker.request()).number for _ in range(CONCURRENCY_START)]
        clock.now_s += QUIET_S
        while (held := rig.dispatcher.statistics().workers[0].capacity) > CONCURRENCY_MIN:
            await worker.next()  # PING
            worker.before_pong()
            worker.send(Kind.PONG, 0)
            await rig.until(lambda: rig.dispatcher.statistics().workers[0].capacity < held)  # at once
        assert len(seen) == rig.dispatcher.statistics().in_flight


@on_loop
async def test_no_more_than_the_worker_allows_are_given_however_quiet(tmp_path: Path) -> None:
    async with late(tmp_path, late_s=0.01, capacity=20) as (rig, clock, worker):
        for _ in range(30):
            rig.ask()
        for _ in range(CONCURRENCY_START):
            await worker.request()
        clock.now_s += QUIET_S
        for _ in range(20 - CONCURRENCY_START):
            await worker.request()
        assert rig.dispatcher.statistics().workers[0].capacity == 20
