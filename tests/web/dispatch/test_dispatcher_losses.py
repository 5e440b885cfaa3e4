"""Links that are lost while their process lives, or one after the other: what is known of the process then."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headrace.web.ipc.frames import Kind
from tests.http.support import on_loop
from tests.web.dispatch.test_dispatcher import first_request, kill
from tests.web.fakes import FakeExchange
from tests.web.scripted import Clock, Rig, Worker, answered, dispatching


async def come_back(rig: Rig, pid: int) -> Worker:
    """A new link of a process that has lost one, and lives."""
    before = rig.links_of(pid)
    link = await rig.connect()
    link.hello(pid=pid)
    assert await link.next() == (Kind.PING, 0, b"")
    link.send(Kind.PONG, 0)
    await rig.until(lambda: rig.links_of(pid) == before + 1)
    return link


async def suspects(rig: Rig, count: int = 1) -> list[FakeExchange]:
    """Requests that were with two workers when they died."""
    exchanges = [rig.ask(target="/suspect") for _ in range(count)]
    for _ in range(2):
        links = await rig.worker(links=count)
        for link in links:
            await link.request()
        await kill(rig, links)
    return exchanges


@on_loop
async def test_process_that_has_come_back_is_the_same_worker_and_its_death_is_one(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        first, second = await rig.worker(links=2, pid=7)
        rig.ask()
        await second.request()
        await kill(rig, [first])
        await come_back(rig, 7)
        [worker] = rig.dispatcher.statistics().workers
        assert (worker.in_flight, worker.capacity) == (1, 2)
        second.die()  # the other link's end is not read yet
        await rig.until(lambda: not rig.dispatcher.running)
        assert rig.dispatcher.statistics().queue_length == 1


@on_loop
async def test_busy_link_of_a_process_that_has_come_back_goes_on(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        first, second = await rig.worker(links=2, pid=7)
        rig.ask()
        given = await second.request()
        await kill(rig, [first])
        await come_back(rig, 7)
        rig.ask()
        rig.ask(target="/last")
        second.answer(given)
        assert (await second.request()).head.target == "/last"


@on_loop
async def test_hung_process_that_connects_again_gets_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        first, second = await rig.worker(links=2, pid=7)
        rig.ask()
        await second.request()
        clock.now_s += 5.0
        rig.dispatcher.advance(clock.now_s)
        await kill(rig, [first])
        await come_back(rig, 7)
        rig.ask()
        assert rig.dispatcher.statistics().queue_length == 1


@on_loop
async def test_hung_process_that_connects_again_does_not_end_the_time_without_workers(tmp_path: Path) -> None:
    """Else what waited for the next one would be taken for overload."""
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        link = await rig.thread(pid=7)
        first = rig.ask()
        link.answer(await link.request())
        await answered(first)
        rig.ask()
        await link.request()
        clock.now_s += 5.0
        rig.dispatcher.advance(clock.now_s)
        waiting = [rig.ask() for _ in range(3)]
        await rig.worker(pid=7)
        clock.now_s += 4.0
        worker = await rig.thread()
        for exchange in waiting:
            given = await worker.request()
            rig.dispatcher.advance(clock.now_s)
            worker.answer(given)
            assert (await answered(exchange)).status == 200


@on_loop
async def test_suspect_is_alone_also_beside_what_its_process_had_before_it_came_back(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        first, second = await rig.worker(links=2, pid=7)
        rig.ask(target="/long")
        await second.request()
        await kill(rig, [first])
        await suspects(rig)
        await come_back(rig, 7)
        assert len(rig.dispatcher.running) == 1


@on_loop
async def test_suspect_that_comes_back_from_its_worker_is_given_alone_to_the_next(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        await suspects(rig)
        worker = await rig.thread()
        given = await worker.request()
        worker.send(Kind.LEAVE, 0)
        worker.send(Kind.RETURN, given.number)
        await rig.until(lambda: not rig.dispatcher.running)
        await rig.worker(links=2)
        rig.ask(target="/other")
        assert [queued.exchange.target for queued in rig.dispatcher.running] == ["/suspect"]
        assert rig.dispatcher.statistics().queue_length == 1


@on_loop
async def test_suspect_that_waits_gets_the_worker_whose_last_request_comes_back(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        exchanges = await suspects(rig, 2)
        worker = await rig.thread()
        worker.send(Kind.RETURN, (await worker.request()).number)
        for _ in exchanges:
            worker.answer(await worker.request())
        await rig.until(lambda: all(exchange.whole for exchange in exchanges))


@on_loop
async def test_thread_that_had_a_suspect_is_made_anew_after_its_process_has_lost_another_link(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        await suspects(rig)
        links = await rig.worker(links=2)
        given, link = await first_request(links)
        await kill(rig, [other for other in links if other is not link])
        link.answer(given)
        assert await link.left() == b""


@on_loop
async def test_thread_whose_request_comes_back_is_made_anew_after_its_process_has_lost_another_link(
    tmp_path: Path,
) -> None:
    async with dispatching(tmp_path) as rig:
        first, second = await rig.worker(links=2)
        rig.ask()
        given = await second.request()
        await kill(rig, [first])
        second.send(Kind.RETURN, given.number)
        assert await second.left() == b""


@on_loop
async def test_who_waits_for_the_end_waits_for_what_is_redelivered(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        exchange = rig.ask()
        worker = await rig.thread()
        await worker.request()
        idle = asyncio.ensure_future(rig.dispatcher.wait_idle())
        await kill(rig, [worker])
        worker = await rig.thread()
        given = await worker.request()
        assert not idle.done()
        worker.answer(given)
        await idle
        assert exchange.whole
