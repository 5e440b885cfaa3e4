"""Requests to workers that pull: choosing, shedding, dying, hanging. Scripted workers on real links."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.http.listener import AddressUnusable
from headrace.web.dispatch.limits import ISOLATION_S
from headrace.web.ipc.frames import Kind
from headrace.web.ipc.link_server import LinkServer
from tests.http.support import on_loop
from tests.web.fakes import FakeExchange
from tests.web.scripted import Clock, Given, Rig, Worker, answered, dispatching


@on_loop
async def test_request_and_answer_pass_through(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask("GET", "/a?b=c", headers={"X-Is": "here"})
        given = await worker.request()
        assert (given.head.method, given.head.target, given.head.ended) == ("GET", "/a?b=c", True)
        assert given.head.headers[b"x-is"] == b"here" and given.body == b""
        worker.answer(given, b"hello", 201, b"X-Was: there\r\n")
        await answered(exchange)
        assert (exchange.status, exchange.text, exchange.header("x-was")) == (201, "hello", "there")
        statistics = rig.dispatcher.statistics()
        assert (statistics.requests, statistics.in_flight) == (1, 0)
        assert statistics.routes[""].run.count == statistics.routes[""].wait.count == 1
        assert statistics.workers[0].requests == 1


@on_loop
async def test_request_waits_for_the_first_worker(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        exchange = rig.ask()
        assert rig.dispatcher.statistics().queue_length == 1
        worker = await rig.thread()
        worker.answer(await worker.request())
        assert (await answered(exchange)).status == 200


@on_loop
async def test_what_waited_for_a_worker_to_come_back_is_no_overload(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock) as rig:
        links = await rig.worker()
        first = rig.ask()
        links[0].answer(await links[0].request())
        await answered(first)
        await kill(rig, links)
        waiting = [rig.ask(target=f"/{place}") for place in range(3)]
        clock.now_s += 3.0
        worker = await rig.thread()
        for exchange in waiting:  # in order
            given = await worker.request()
            rig.dispatcher.advance(clock.now_s)
            assert given.head.target == exchange.target
            worker.answer(given)
            assert (await answered(exchange)).status == 200
            clock.now_s += 0.9


@on_loop
async def test_thread_pulls_the_next_when_it_is_done(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchanges = [rig.ask(target=f"/{place}") for place in range(3)]
        for place in range(3):
            given = await worker.request()
            assert given.head.target == f"/{place}" and rig.dispatcher.statistics().in_flight == 1
            worker.answer(given)
        for exchange in exchanges:
            await answered(exchange)


@on_loop
async def test_requests_spread_over_processes(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        await rig.worker(links=4)
        await rig.worker(links=4)
        for _ in range(6):
            rig.ask()
        assert [worker.in_flight for worker in rig.dispatcher.statistics().workers] == [3, 3]


@on_loop
async def test_new_code_is_preferred(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        await rig.worker(links=2, generation=1)
        await rig.worker(links=2, generation=2)
        for _ in range(3):
            rig.ask()
        assert [(w.generation, w.in_flight) for w in rig.dispatcher.statistics().workers] == [(1, 1), (2, 2)]


@on_loop
async def test_full_queue_is_503_with_retry_after(tmp_path: Path) -> None:
    async with dispatching(tmp_path, queue_size=1, queue_timeout_s=7.0) as rig:
        rig.ask()
        refused = rig.ask(headers={"Accept": "application/json"})
        assert refused.status == 503 and refused.header("retry-after") == "7" and refused.refused == "queue-full"
        assert refused.problem["type"] == "queue-full"
        assert rig.dispatcher.statistics().shed == {"queue-full": 1}


@on_loop
async def test_wait_is_bounded(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, queue_timeout_s=3.0) as rig:
        exchange = rig.ask()
        clock.now_s += 2.9
        assert rig.dispatcher.advance(clock.now_s) == pytest.approx(103.0) and not exchange.answered
        assert rig.dispatcher.statistics().oldest_wait_s == pytest.approx(2.9)
        clock.now_s += 0.2
        rig.dispatcher.advance(clock.now_s)
        assert exchange.status == 503 and exchange.refused == "timeout" and exchange.notify is None


@on_loop
async def test_timer_sheds_by_itself(tmp_path: Path) -> None:
    async with dispatching(tmp_path, queue_timeout_s=0.05) as rig:
        assert (await answered(rig.ask())).status == 503


@on_loop
async def test_draining_refuses_and_waits_for_what_runs(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        rig.dispatcher.drain()
        assert rig.ask().refused == "draining"
        idle = asyncio.ensure_future(rig.dispatcher.wait_idle())
        given = await worker.request()
        assert not idle.done()
        worker.answer(given)
        await idle
        assert exchange.status == 200


@on_loop
async def test_priority_go_first(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        normal, first = FakeExchange(target="/normal"), FakeExchange(target="/first")
        first.priority = 0
        for exchange in (normal, first):
            rig.dispatcher(exchange)
        worker = await rig.thread()
        assert (await worker.request()).head.target == "/first"


# Clients that leave


@on_loop
async def test_client_that_left_is_skipped(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        gone, here = rig.ask(target="/gone"), rig.ask(target="/here")
        gone.leave()
        worker = await rig.thread()
        assert (await worker.request()).head.target == "/here"
        assert rig.dispatcher.statistics().client_disconnects == 1 and here.status == 0


@on_loop
async def test_half_closed_client_is_skipped_while_it_waits_and_answered_when_it_runs(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        runs, waits = rig.ask(), rig.ask()
        for exchange in (runs, waits):
            exchange.half_closed = True
            assert exchange.notify is not None
            exchange.notify()
        assert waits.aborted and waits.status == 499 and rig.dispatcher.statistics().queue_length == 0
        worker.answer(await worker.request())
        assert (await answered(runs)).status == 200


@on_loop
async def test_worker_is_told_that_the_client_left_and_is_free_when_it_says_so(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange, waits = rig.ask(), rig.ask(target="/next")
        given = await worker.request()
        exchange.leave()
        assert await worker.frame() == (Kind.GONE, given.number, b"")
        assert rig.dispatcher.statistics().queue_length == 1, "its thread is busy still"
        worker.send(Kind.GONE, given.number)
        worker.answer(await worker.request())
        assert (await answered(waits)).status == 200 and exchange.log == []


@on_loop
async def test_answer_to_a_client_that_left_is_dropped(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        given = await worker.request()
        exchange.leave()
        worker.begin(given)
        worker.data(given, b"x" * 70_000)
        worker.end(given)
        await rig.until(lambda: not rig.dispatcher.running)
        assert exchange.log == [] and rig.links == 1


# Workers that die


async def kill(rig: Rig, workers: list[Worker]) -> None:
    before = rig.links
    for worker in workers:
        worker.die()
    await rig.until(lambda: rig.links <= before - len(workers))


@on_loop
async def test_request_of_a_dead_worker_goes_to_another(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask("PUT", body=b"content")
        await worker.request()
        await kill(rig, [worker])
        worker = await rig.thread()
        given = await worker.request()
        assert given.body == b"content"
        worker.answer(given)
        assert (await answered(exchange)).status == 200
        assert rig.dispatcher.statistics().redelivered == 1


@on_loop
async def test_post_of_a_dead_worker_is_502(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask("POST", body=b"order")
        await worker.request()
        await kill(rig, [worker])
        assert exchange.status == 502 and exchange.problem["type"] == "worker-lost"
        assert rig.dispatcher.statistics().failed == 1


@on_loop
async def test_post_with_idempotency_key_goes_to_another(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask("POST", body=b"order", headers={"Idempotency-Key": "1"})
        await worker.request()
        await kill(rig, [worker])
        worker = await rig.thread()
        given = await worker.request()
        assert given.body == b"order"
        worker.answer(given)
        assert (await answered(exchange)).status == 200


@on_loop
async def test_begun_answer_of_a_dead_worker_is_cut(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        given = await worker.request()
        worker.begin(given)
        worker.data(given, b"half")
        await rig.until(lambda: exchange.body == b"half")
        await kill(rig, [worker])
        assert exchange.aborted and not exchange.whole


@on_loop
async def test_spooled_body_is_sent_again_whole(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask("PUT", body=None)
        body = bytes(range(256)) * 2_000  # 512,000 bytes: in a file
        exchange.arrive(body)
        exchange.end()
        given = await worker.request()
        assert given.head.length == len(body) and not given.head.ended and not given.head.expects
        await kill(rig, [worker])
        worker = await rig.thread()
        given = await worker.request()
        assert await worker.rest_of_body(given) == body
        worker.answer(given)
        assert (await answered(exchange)).status == 200


@on_loop
async def test_idle_links_of_a_dying_worker_get_nothing(tmp_path: Path) -> None:
    """The kernel may report one socket before the others: a request must not go to the same corpse again."""
    async with dispatching(tmp_path) as rig:
        links = await rig.worker(links=3)
        exchange = rig.ask()
        busy = next(link for link in links if link is links[2])
        await busy.request()
        await kill(rig, [busy])
        for link in links[:2]:
            assert await link.left() == b""
        assert rig.dispatcher.statistics().queue_length == 1
        worker = await rig.thread()
        worker.answer(await worker.request())
        await answered(exchange)


@on_loop
async def test_busy_link_of_a_process_that_lives_on_is_made_anew_when_it_is_done(tmp_path: Path) -> None:
    """Its process has lost another link, so it is given nothing more: kept, the thread would wait for ever."""
    async with dispatching(tmp_path) as rig:
        first, second = await rig.worker(links=2)
        rig.ask()
        rig.ask()
        given = await second.request()
        await kill(rig, [first])
        second.answer(given)
        assert await second.left() == b""


@on_loop
async def test_poison_is_given_up_after_three_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with dispatching(tmp_path) as rig:
        exchange = rig.ask("GET", "/poison")
        for _ in range(3):
            worker = await rig.thread()
            assert (await worker.request()).head.target == "/poison"
            await kill(rig, [worker])
        assert exchange.status == 502 and exchange.problem["type"] == "poison"
        statistics = rig.dispatcher.statistics()
        assert (statistics.poison, statistics.failed, statistics.redelivered) == (1, 1, 2)
        [record] = [record for record in caplog.records if getattr(record, "action", "") == "web.request.poison"]
        assert record.__dict__["path"] == "/poison" and record.__dict__["count"] == 3


@on_loop
async def test_bystanders_of_poison_are_not_condemned(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        poison, *bystanders = [rig.ask(target=target) for target in ("/poison", "/a", "/b")]
        for _ in range(2):
            links = await rig.worker(links=3)
            assert {(await link.request()).head.target for link in links} == {"/poison", "/a", "/b"}
            await kill(rig, links)
        deaths = 0
        while not all(exchange.answered for exchange in (poison, *bystanders)):
            links = await rig.worker(links=3)
            await rig.until(lambda: len(rig.dispatcher.running) > 0)
            assert len(rig.dispatcher.running) == 1, "a suspect is alone"
            deaths += await serve_until_poison(rig, links)
        assert poison.status == 502 and deaths == 1
        assert [exchange.status for exchange in bystanders] == [200, 200]


@on_loop
async def test_process_that_has_lost_a_link_gets_more_when_it_has_shown_that_it_lives(tmp_path: Path) -> None:
    """Else one that is dead has another request, and another, until its last link is read."""
    async with dispatching(tmp_path) as rig:
        links = await rig.worker(links=2, pid=7)
        exchange = rig.ask()
        given, _ = await first_request(links)
        late = [await rig.connect() for _ in range(2)]
        await kill(rig, links)
        for each in late:
            each.hello(pid=7)
        assert [await each.next() for each in late] == [(Kind.PING, 0, b"")] * 2
        assert rig.dispatcher.statistics().queue_length == 1
        late[0].send(Kind.PONG, 0)
        assert (await late[0].request()).head.target == given.head.target
        late[0].die()  # the other's answer was on its way: it says nothing any more
        await rig.until(lambda: rig.dispatcher.statistics().in_flight == 0)
        late[1].send(Kind.PONG, 0)
        assert await late[1].next() == (Kind.PING, 0, b"")
        late[1].send(Kind.PONG, 0)
        late[1].answer(await late[1].request())
        assert (await answered(exchange)).status == 200


@on_loop
async def test_process_that_leaves_before_it_has_shown_that_it_lives_is_let_go(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        await kill(rig, await rig.worker(pid=7))
        link = await rig.connect()
        link.hello(pid=7)
        assert await link.next() == (Kind.PING, 0, b"")
        link.send(Kind.LEAVE, 0)
        assert await link.left() == b""


async def serve_until_poison(rig: Rig, links: list[Worker]) -> int:
    """Answer what is given, one at a time, to whichever link; die of poison. Returns the deaths."""
    while rig.dispatcher.running:
        given, link = await first_request(links)
        if given.head.target == "/poison":
            await kill(rig, links)
            return 1
        count = len(rig.dispatcher.running)
        link.answer(given)
        queued = next(iter(rig.dispatcher.running))
        await rig.until(lambda before=queued: before not in rig.dispatcher.running)  # type: ignore[misc]
        assert count == 1
    return 0


async def first_request(links: list[Worker]) -> tuple[Given, Worker]:
    tasks = {asyncio.ensure_future(link.request()): link for link in links}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    [task] = done
    return task.result(), tasks[task]


@on_loop
async def test_suspect_shares_its_worker_again_after_a_while(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock) as rig:
        rig.ask(target="/suspect")
        for _ in range(2):
            worker = await rig.thread()
            await worker.request()
            await kill(rig, [worker])
        await rig.worker(links=2)
        rig.ask(target="/other")
        assert rig.dispatcher.statistics().queue_length == 1
        clock.now_s += ISOLATION_S
        rig.dispatcher.advance(clock.now_s)
        assert rig.dispatcher.statistics().queue_length == 0 and len(rig.dispatcher.running) == 2


@on_loop
async def test_suspect_does_not_wait_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock) as rig:
        exchange, left = rig.ask(), rig.ask()
        for _ in range(2):
            links = await rig.worker(links=2)
            for link in links:
                await link.request()
            await kill(rig, links)
        left.leave()
        assert rig.dispatcher.statistics().queue_length == 0
        clock.now_s += 10.0  # as whatever waits
        rig.dispatcher.advance(clock.now_s)
        assert exchange.status == 503 and left.status == 499


@on_loop
async def test_malformed_worker_is_one_that_died(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        await worker.request()
        worker.send(99, 0, b"")
        await worker.left()
        worker = await rig.thread()
        worker.answer(await worker.request())
        assert (await answered(exchange)).status == 200


# Workers that leave


@on_loop
async def test_leaving_worker_finishes_and_gets_no_more(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        first, second = rig.ask(), rig.ask()
        given = await worker.request()
        worker.send(Kind.LEAVE, 0)
        assert await worker.frame() == (Kind.LEAVE, 0, b"")
        worker.answer(given)
        await answered(first)
        worker.writer.close()
        successor = await rig.thread()
        successor.answer(await successor.request())
        await answered(second)
        assert rig.dispatcher.statistics().redelivered == 0


@on_loop
async def test_death_of_a_leaving_worker_is_no_request_s_fault(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        exchange = rig.ask()
        for _ in range(2):
            worker = await rig.thread()
            await worker.request()
            worker.send(Kind.LEAVE, 0)
            await worker.frame()
            await kill(rig, [worker])
        [worker] = links = await rig.worker(links=1)
        other = rig.ask()
        links += await rig.worker(links=1)
        for link in links:
            link.answer(await link.request())
        assert (await answered(exchange)).status == (await answered(other)).status == 200
        assert worker is links[0]


@on_loop
async def test_server_that_closes_says_leave(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        closing = asyncio.ensure_future(rig.server.close())
        assert await worker.frame() == (Kind.LEAVE, 0, b"")
        worker.writer.close()
        await closing
        assert not rig.path.exists()


@on_loop
async def test_worker_that_does_not_go_is_cut(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        await rig.thread()
        await rig.server.close(grace_s=0.01)
        assert rig.links == 0


@on_loop
async def test_socket_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        with pytest.raises(AddressUnusable):
            LinkServer(tmp_path / "absent" / "links", rig.dispatcher)


# Workers that hang


@on_loop
async def test_hung_request_is_504_and_its_worker_gets_nothing_more(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        links = await rig.worker(pid=4242, links=2)
        exchange = rig.ask("POST", body=b"x")
        clock.now_s += 5.0
        rig.dispatcher.advance(clock.now_s)
        assert exchange.status == 504 and rig.hung == [4242] and rig.dispatcher.statistics().request_timeouts == 1
        rig.ask()
        assert rig.dispatcher.statistics().queue_length == 1
        given = await links[1].request()
        assert await links[1].frame() == (Kind.GONE, given.number, b"")
        rig.dispatcher.advance(clock.now_s + 10)
        assert rig.hung == [4242], "reported once"


@on_loop
async def test_hung_request_whose_client_left_is_found(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        await rig.worker(pid=4242)
        rig.ask().leave()
        clock.now_s += 5.0
        rig.dispatcher.advance(clock.now_s)
        assert rig.hung == [4242]


@on_loop
async def test_bystanders_of_a_hung_request_are_redelivered_without_suspicion(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        links = await rig.worker(links=2)
        rig.ask(target="/hung")
        clock.now_s += 4.0
        bystander = rig.ask(target="/bystander")
        clock.now_s += 1.0
        rig.dispatcher.advance(clock.now_s)
        await kill(rig, links)
        worker = await rig.thread()
        worker.answer(await worker.request())
        assert (await answered(bystander)).status == 200
        assert rig.dispatcher.statistics().poison == 0


@on_loop
async def test_late_answer_of_a_hung_request_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        late = rig.ask(target="/late")
        given = await worker.request()
        clock.now_s += 4.0
        neighbour = rig.ask("POST", target="/neighbour", body=b"x")
        other = await worker.request()
        clock.now_s += 1.0
        rig.dispatcher.advance(clock.now_s)
        assert late.status == 504
        worker.answer(given)  # it crosses GONE
        worker.answer(other)
        assert (await answered(neighbour)).status == 200


@on_loop
async def test_answer_that_has_begun_may_take_as_long_as_it_likes(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        worker.begin(await worker.request())
        await rig.until(lambda: exchange.answered)
        clock.now_s += 500.0
        rig.dispatcher.advance(clock.now_s)
        assert rig.hung == [] and not exchange.aborted


@on_loop
async def test_worker_that_waits_for_the_client_s_body_does_not_hang(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock, request_timeout_s=5.0) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        exchange = rig.ask("POST", body=None)
        given = await worker.request()
        clock.now_s += 6.0
        rig.dispatcher.advance(clock.now_s)
        assert rig.hung == [], "it is the client that is slow"
        exchange.arrive(b"x")
        exchange.end()
        await worker.rest_of_body(given)
        clock.now_s += 6.0
        rig.dispatcher.advance(clock.now_s)
        assert exchange.status == 504 and len(rig.hung) == 1


# ASGI: many requests a link


@on_loop
async def test_asgi_link_takes_many_and_adapts(tmp_path: Path) -> None:
    async with dispatching(tmp_path, now_s=Clock()) as rig:  # no time passes between PING and PONG
        worker = await rig.thread(interface="asgi", capacity=1_000)
        exchanges = [rig.ask() for _ in range(100)]
        for _ in exchanges:  # the pings on the way are answered: its loop is quick
            worker.answer(await worker.request())
        for exchange in exchanges:
            await answered(exchange)
        assert rig.dispatcher.statistics().workers[0].capacity > 16


@on_loop
async def test_late_asgi_worker_loses_credits(tmp_path: Path) -> None:
    clock = Clock()
    async with dispatching(tmp_path, now_s=clock) as rig:
        worker = await rig.thread(interface="asgi", capacity=1_000)
        for _ in range(40):
            rig.ask()
        clock.now_s += 0.1  # between PING and PONG
        for _ in range(16):
            await worker.request()
        extra = asyncio.ensure_future(worker.frame())
        await rig.until(lambda: rig.dispatcher.statistics().workers[0].capacity == 11)
        assert rig.dispatcher.statistics().queue_length == 24
        extra.cancel()


@on_loop
async def test_body_of_an_asgi_request_streams(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        exchange = rig.ask("POST", body=None)
        given = await worker.request()
        assert not given.head.ended and given.body == b""
        exchange.arrive(b"one")
        assert await worker.frame() == (Kind.BODY, given.number, b"one")
        exchange.arrive(b"two")
        exchange.end()
        assert await worker.frame() == (Kind.BODY, given.number, b"two")
        assert await worker.frame() == (Kind.ENDED, given.number, b"")


@on_loop
async def test_streamed_body_is_replayed_to_another_worker(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        exchange = rig.ask("PUT", body=None)
        exchange.arrive(b"one")
        await worker.request()
        await kill(rig, [worker])
        worker = await rig.thread(interface="asgi", capacity=10)
        given = await worker.request()
        exchange.arrive(b"two")
        exchange.end()
        assert await worker.rest_of_body(given) == b"onetwo"


@on_loop
async def test_streamed_body_that_is_too_long_to_replay_is_502(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        exchange = rig.ask("PUT", body=None)
        given = await worker.request()
        for _ in range(6):
            exchange.arrive(bytes(50_000))
            _, _, piece = await worker.frame()
            worker.consumed(given, len(piece))
        await kill(rig, [worker])
        assert exchange.status == 502
