"""Requests given ahead, as the edge does it: scripted threads with a control thread, on real links."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.web.dispatch.limits import PREFETCH_MAX, RETURNS_MAX
from headrace.web.ipc.frames import COUNT, LONG, Hello, Kind
from tests.http.support import on_loop
from tests.web.scripted import Given, Rig, Worker, answered, dispatching, head


@asynccontextmanager
async def prefetch_policy(
    folder: Path, *, threads: int = 2, **settings: Any
) -> AsyncIterator[tuple[Rig, list[Worker], Worker]]:
    """One process: its threads, and its control thread."""
    async with dispatching(folder, **settings) as rig:
        rig.dispatcher.prefetch_manager.watch = lambda: None  # type: ignore[method-assign]  # looks come when the test says so
        yield rig, *await process(rig, threads=threads)


async def process(rig: Rig, *, threads: int = 2) -> tuple[list[Worker], Worker]:
    pid = next(rig.pids)
    control_link = await rig.connect()
    control_link.send(Kind.HELLO, 0, msgspec.msgpack.encode(Hello(pid, 1, "wsgi", 0)))
    await rig.until(lambda: pid in rig.dispatcher.control_links)
    links = []
    for number in range(threads):
        link = await rig.connect()
        link.send(Kind.HELLO, 0, msgspec.msgpack.encode(Hello(pid, 1, "wsgi", 1, [], number)))
        await rig.until(lambda: rig.links_of(pid) == number + 2)  # noqa: B023  # it is called at once
        links.append(link)
    return links, control_link


def look(rig: Rig) -> None:
    """Twice: what has not moved in between is stuck."""
    rig.dispatcher.prefetch_manager._look()
    rig.dispatcher.prefetch_manager._look()


async def prefetch_link(rig: Rig, links: list[Worker]) -> tuple[Worker, Given]:
    """The link that gets the first request, and that."""
    [worker] = rig.dispatcher.workers
    number = worker.prefetch_link.hello.number  # type: ignore[union-attr]
    return links[number], await links[number].request()


@on_loop
async def test_short_requests_go_to_one_thread_up_to_a_bound(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path) as (rig, links, _):
        exchanges = [rig.ask(target=f"/{place}") for place in range(PREFETCH_MAX + 3)]
        statistics = rig.dispatcher.statistics()
        assert (statistics.in_flight, statistics.queue_length) == (PREFETCH_MAX, 3)
        link, given = await prefetch_link(rig, links)
        for place, exchange in enumerate(exchanges):  # in order, and each end makes room for one more
            assert given.head.target == f"/{place}"
            link.answer(given)
            await answered(exchange)
            if place + 1 < len(exchanges):
                given = await link.request()
        assert rig.dispatcher.statistics().in_flight == 0


@on_loop
async def test_worker_without_a_control_thread_gets_one_request_a_thread(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        await rig.worker(links=2)
        for _ in range(4):
            rig.ask()
        assert rig.dispatcher.statistics().in_flight == 2


@on_loop
async def test_long_requests_get_a_thread_each(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path) as (rig, links, control_link):
        exchanges = [rig.ask() for _ in range(PREFETCH_MAX + 8)]
        link, given = await prefetch_link(rig, links)
        ended = 0
        while rig.dispatcher.prefetch_manager.policy.fast:
            link.send(Kind.ANSWER, given.number, head(flags=LONG) + b"ok")
            await answered(exchanges[ended])
            ended += 1
            given = await link.request()
        assert ended < 10
        kind, _, payload = await control_link.frame()
        assert kind is Kind.RECALL and COUNT.unpack(payload) == (links.index(link),)
        # The other thread has got the next at once; what waits behind the first comes back.
        assert rig.dispatcher.statistics().in_flight == PREFETCH_MAX
        for number in range(given.number + 1, given.number + PREFETCH_MAX - 1):
            link.send(Kind.RETURN, number)
        await rig.until(lambda: rig.dispatcher.statistics().recalled == PREFETCH_MAX - 2)
        assert rig.dispatcher.statistics().in_flight == 2


@on_loop
async def test_link_that_becomes_hot_by_pulling_is_filled(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, _):
        policy = rig.dispatcher.prefetch_manager.policy
        policy.fast = False
        exchanges = [rig.ask() for _ in range(PREFETCH_MAX + 4)]
        assert rig.dispatcher.statistics().in_flight == 1
        given = await links[0].request()
        links[0].answer(given)  # the pause is long over: a trial begins
        await answered(exchanges[0])
        assert policy.fast
        assert rig.dispatcher.statistics().in_flight == PREFETCH_MAX


@on_loop
async def test_trial_is_not_judged_by_requests_that_ran_side_by_side(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=10) as (rig, links, _):
        policy = rig.dispatcher.prefetch_manager.policy
        policy.fast = False
        exchanges = [rig.ask() for _ in links]
        for link in links:  # the first that ends begins the trial
            link.send(Kind.ANSWER, (await link.request()).number, head(flags=LONG))
        for exchange in exchanges:
            await answered(exchange)
        assert policy.fast


@pytest.mark.parametrize("long", [b"", b"\x01"])
@on_loop
async def test_streams_are_judged_as_whole_answers_are(tmp_path: Path, long: bytes) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, _):
        for _ in range(8):
            exchange = rig.ask()
            given = await links[0].request()
            links[0].begin(given)
            links[0].send(Kind.ENDED, given.number, long)
            await answered(exchange)
        assert rig.dispatcher.prefetch_manager.policy.fast is not bool(long)


@on_loop
async def test_what_waits_behind_a_stuck_request_goes_elsewhere(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path) as (rig, links, control_link):
        stuck, behind, last = rig.ask(target="/stuck"), rig.ask("POST", "/behind"), rig.ask(target="/last")
        link, given = await prefetch_link(rig, links)
        waiting = [await link.request(), await link.request()]
        look(rig)
        assert (await control_link.frame())[0] is Kind.RECALL
        for each in waiting:
            link.send(Kind.RETURN, each.number)
        other = links[1 - links.index(link)]
        for exchange in (behind, last):  # in order, a POST too: nobody has begun with it
            again = await other.request()
            assert again.head.target == exchange.target
            other.answer(again)
            await answered(exchange)
        link.answer(given)
        await answered(stuck)
        assert rig.dispatcher.statistics().recalled == 2
        assert rig.dispatcher.statistics().redelivered == 0


@on_loop
async def test_stuck_link_gets_nothing_more_and_its_worker_less(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path) as (rig, links, _):
        others, _ = await process(rig)
        rig.ask(target="/stuck")
        busy = [worker for worker in rig.dispatcher.workers if worker.in_flight]
        look(rig)
        assert busy[0].prefetch_link is None
        for _ in range(4):
            rig.ask()
        assert sorted(worker.in_flight for worker in rig.dispatcher.workers) == [1, 4]
        assert len(links) == len(others)


@on_loop
async def test_what_was_taken_back_often_is_put_behind_nobody(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=3) as (rig, links, _):
        rig.ask(target="/first")
        ticketed = rig.ask(target="/often")
        [queued] = [queued for queued in rig.dispatcher.running if queued.exchange is ticketed]
        queued.returns = RETURNS_MAX
        link, _ = await prefetch_link(rig, links)
        link.send(Kind.RETURN, (await link.request()).number)
        await rig.until(lambda: queued.returns == RETURNS_MAX + 1)
        assert queued.link.busy == 1  # type: ignore[union-attr]


@on_loop
async def test_killed_worker_s_posts_are_repeated_only_if_not_begun(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, _):
        begun, waiting = rig.ask("POST", "/begun", body=b"abc"), rig.ask("POST", "/waiting", body=b"def")
        await links[0].request()
        await links[0].request()
        links[0].writer.close()
        assert (await answered(begun)).status == 502
        again = await rig.thread()
        given = await again.request()
        assert (given.head.target, given.body) == ("/waiting", b"def")
        again.answer(given)
        assert (await answered(waiting)).status == 200


@on_loop
async def test_nothing_is_repeated_where_the_end_was_not_read(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, _):
        exchanges = [rig.ask("POST", "/a"), rig.ask("POST", "/b")]
        await links[0].request()
        links[0].send(99, 1)  # nonsense: the link is cut, whatever else is on its way
        assert [(await answered(exchange)).status for exchange in exchanges] == [502, 502]


@on_loop
async def test_only_the_first_hangs(tmp_path: Path) -> None:
    now_s = [100.0]
    async with prefetch_policy(tmp_path, threads=1, now_s=lambda: now_s[0], request_timeout_s=10.0) as (rig, links, _):
        hanging, innocent = rig.ask(target="/hangs"), rig.ask(target="/waits")
        now_s[0] += 10.5
        rig.dispatcher.advance(now_s[0])
        assert hanging.status == 504 and not innocent.answered and len(rig.hung) == 1
        links[0].die()
        again = await rig.thread()
        given = await again.request()
        assert given.head.target == "/waits"
        again.answer(given)
        await answered(innocent)


@on_loop
async def test_client_that_left_is_told_and_its_place_is_free(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, _):
        rig.ask()
        left = rig.ask()
        await links[0].request()
        given = await links[0].request()
        left.leave()
        assert (await links[0].frame())[:2] == (Kind.GONE, given.number)
        links[0].send(Kind.GONE, given.number)
        await rig.until(lambda: rig.dispatcher.statistics().in_flight == 1)


@on_loop
async def test_what_comes_back_for_a_client_that_left_is_dropped(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, _):
        rig.ask()
        left = rig.ask()
        await links[0].request()
        given = await links[0].request()
        left.leave()
        links[0].send(Kind.RETURN, given.number)
        await rig.until(lambda: rig.dispatcher.statistics().in_flight == 1)
        assert rig.dispatcher.statistics().queue_length == 0


@pytest.mark.parametrize("begun", [True, False])
@on_loop
async def test_return_of_what_is_not_there_or_has_begun_costs_the_link(tmp_path: Path, begun: bool) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, _):
        rig.ask()
        given = await links[0].request()
        if begun:
            links[0].begin(given)
        links[0].send(Kind.RETURN, given.number if begun else 77)
        await links[0].left()


@on_loop
async def test_control_thread_that_is_lost_ends_it(tmp_path: Path) -> None:
    async with prefetch_policy(tmp_path, threads=1) as (rig, links, control_link):
        rig.ask()
        [worker] = rig.dispatcher.workers
        assert worker.prefetch_link is not None
        control_link.die()
        await rig.until(lambda: worker.prefetch_link is None)
        rig.ask()
        assert rig.dispatcher.statistics().queue_length == 1
        assert len(links) == 1


@on_loop
async def test_looks_come_by_themselves(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        links, control_link = await process(rig)
        rig.ask(), rig.ask()
        assert (await control_link.frame())[0] is Kind.RECALL
        assert (await control_link.frame())[0] is Kind.RECALL, "asked again, since nothing came back"
        [worker] = rig.dispatcher.workers
        assert worker.load > 0
        for link in links:
            link.die()
        await rig.until(lambda: len(rig.dispatcher.workers) == 0)
        await rig.until(lambda: rig.dispatcher.prefetch_manager._timer is None)  # nothing is left to look after
