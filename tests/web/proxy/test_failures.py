"""Upstreams that fail in each phase: who is asked next, what the client is told, who gets requests again."""

from __future__ import annotations

import asyncio
import socket

import pytest

from headrace.web.proxy.limits import FAILURES_MAX, IDLE_S, IDLE_UNREPEATABLE_S, OUT_FIRST_S
from tests.http.support import on_loop
from tests.web.proxy.upstreams import OK, Rig, Server, answered, proxying

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"


async def gone() -> Server:
    """Nobody listens there."""
    server = await Server().start()
    await server.stop()
    return server


async def first_given(rig: Rig) -> Server:
    """Which of two upstreams gets the next request; nobody answers it."""
    await rig.until(lambda: any(not server.connections.empty() for server in rig.servers))
    return next(server for server in rig.servers if not server.connections.empty())


# Upstreams pull


@on_loop
async def test_who_has_the_fewest_gets_the_next_and_ties_take_turns() -> None:
    async with proxying(3, concurrency=4) as rig:
        for _ in range(6):
            rig.ask()
        assert [rig.of(server).in_flight for server in rig.servers] == [2, 2, 2]
        connection, _ = await rig.servers[1].given()
        connection.send(OK)
        await rig.until(lambda: rig.of(rig.servers[1]).in_flight == 1)
        rig.ask()
        assert [rig.of(server).requests for server in rig.servers] == [2, 3, 2]


@on_loop
async def test_slow_upstream_takes_less() -> None:
    async with proxying(2, concurrency=2) as rig:
        exchanges = [rig.ask() for _ in range(10)]
        slow, quick = rig.servers
        for _ in range(8):
            connection, _ = await quick.given()
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        await rig.until(lambda: sum(exchange.whole for exchange in exchanges) == 8)
        assert rig.of(slow).requests == 2 and rig.of(quick).requests == 8


@on_loop
async def test_when_all_are_full_requests_wait_and_beyond_are_told_to_come_back() -> None:
    async with proxying(concurrency=1, queue_size=1) as rig:
        first, second, third = rig.ask(), rig.ask(), rig.ask()
        assert third.status == 503 and third.refused == "queue-full" and third.header("retry-after")
        connection, _ = await rig.server.given()
        connection.send(OK)
        await answered(first)
        await connection.request()
        connection.send(OK)
        assert (await answered(second)).text == "ok"


# No connection


@on_loop
async def test_request_of_any_method_goes_to_another_upstream_if_one_cannot_be_reached() -> None:
    async with proxying(servers=[await gone(), await Server().start()]) as rig:
        exchange = rig.ask("POST", body=b"hello")
        connection, got = await rig.servers[1].given()
        assert got.body == b"hello"
        connection.send(OK)
        assert (await answered(exchange)).text == "ok"
        assert rig.of(rig.server).up == 0 and rig.of(rig.server).failures == 1
        rig.ask()
        await connection.request()
        assert rig.of(rig.server).requests == 1, "it is out"


@on_loop
async def test_nobody_can_be_reached() -> None:
    async with proxying(servers=[await gone(), await gone()]) as rig:
        exchange = await answered(rig.ask())
        assert exchange.status == 502 and exchange.header("retry-after") == "1"
        exchange = rig.ask()
        assert exchange.status == 503 and exchange.refused == "no-upstream" and exchange.header("retry-after") == "1"
        rig.advance(OUT_FIRST_S)
        probes = [rig.ask(), rig.ask()]
        assert rig.ask().status == 503, "one request each finds out"
        for probe in probes:
            assert (await answered(probe)).status == 502


@on_loop
async def test_upstream_comes_back_with_one_request() -> None:
    server = await gone()
    async with proxying(servers=[server]) as rig:
        await answered(rig.ask())
        await server.start(port=server.port)
        assert rig.ask().status == 503
        rig.advance(OUT_FIRST_S)
        probe = rig.ask()
        connection, _ = await server.given()
        assert rig.ask().status == 503
        connection.send(OK)
        assert (await answered(probe)).text == "ok" and rig.of(server).up == 1
        exchange = rig.ask()
        await connection.request()
        connection.send(OK)
        assert (await answered(exchange)).text == "ok"


@on_loop
async def test_probe_whose_client_leaves_lets_another_one_in() -> None:
    server = await gone()
    async with proxying(servers=[server]) as rig:
        await answered(rig.ask())
        await server.start(port=server.port)
        rig.advance(OUT_FIRST_S)
        rig.ask().leave()
        exchange = rig.ask()
        assert not exchange.answered


@on_loop
async def test_who_waits_is_told_when_the_last_upstream_goes() -> None:
    async with proxying(concurrency=1) as rig:
        first = rig.ask("POST")
        waiting = [rig.ask() for _ in range(3)]
        await rig.server.given()
        await rig.server.stop()
        await answered(first)
        for exchange in waiting:
            assert (await answered(exchange)).status in (502, 503)
        assert rig.proxy.statistics().queue_length == 0


@on_loop
async def test_connection_that_is_never_made() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    try:
        for _ in range(4):  # the backlog is full: further ones get no answer
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        server = Server(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        async with proxying(servers=[server], connect_timeout=0.1) as rig:
            exchange = await answered(rig.ask())
            assert exchange.status == 502 and rig.of(server).up == 0
    finally:
        for each in (*fillers, listener):
            each.close()


# Death before the first byte


@on_loop
async def test_repeatable_request_goes_to_another_upstream() -> None:
    async with proxying(2) as rig:
        exchange = rig.ask("PUT", body=b"hello")
        connection, _ = await rig.servers[0].given()
        connection.close()
        connection, got = await rig.servers[1].given()
        assert got.body == b"hello", "the whole body again"
        connection.send(OK)
        assert (await answered(exchange)).text == "ok"
        assert rig.proxy.statistics().redelivered == 1 and rig.of(rig.server).failures == 1
        assert rig.of(rig.server).up == 1, "once says little"


@on_loop
async def test_but_not_more_than_twice() -> None:
    async with proxying(4) as rig:
        exchange = rig.ask()
        for server in rig.servers[:3]:
            (await server.given())[0].close()
        assert (await answered(exchange)).status == 502
        assert rig.servers[3].accepted == 0


@on_loop
async def test_post_is_not_repeated_unless_it_says_that_it_may() -> None:
    async with proxying(2) as rig:
        exchange = rig.ask("POST", body=b"hello")
        (await (await first_given(rig)).given())[0].close()
        assert (await answered(exchange)).status == 502
        exchange = rig.ask("POST", body=b"hello", headers={"Idempotency-Key": "1"})
        (await (await first_given(rig)).given())[0].reset()
        connection, _ = await (await first_given(rig)).given()
        connection.send(OK)
        assert (await answered(exchange)).text == "ok"


@on_loop
async def test_long_body_that_has_gone_by_is_not_repeated() -> None:
    async with proxying(2) as rig:
        exchange = rig.ask("PUT", body=None, length=2**30)
        server = await first_given(rig)
        connection = await server.connection()
        await connection.head()
        for _ in range(5):
            exchange.arrive(b"x" * 65_536)
            await connection.read(65_536)
        connection.close()
        assert (await answered(exchange)).status == 502


@on_loop
async def test_half_a_head_is_an_answer_begun() -> None:
    async with proxying(2) as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(b"HTTP/1.1 200 OK\r\nConte")
        connection.close()
        assert (await answered(exchange)).status == 502
        assert rig.servers[1].accepted == 0


# Kept connections


@on_loop
async def test_stale_connection_is_nobody_s_fault() -> None:
    async with proxying() as rig:
        _, connection = await rig.served(OK)
        exchange = rig.ask()
        await connection.request()
        connection.close()
        connection, _ = await rig.server.given()
        connection.send(OK)
        assert (await answered(exchange)).text == "ok"
        assert rig.of(rig.server).failures == 0 and rig.proxy.statistics().redelivered == 0
        assert rig.of(rig.server).in_flight == 0


@on_loop
async def test_second_death_in_a_row_is() -> None:
    async with proxying() as rig:
        _, connection = await rig.served(OK)
        exchange = rig.ask()
        await connection.request()
        connection.close()
        for _ in range(3):
            (await rig.server.given())[0].close()
        assert (await answered(exchange)).status == 502 and rig.of(rig.server).failures == 3


@on_loop
async def test_post_on_a_connection_that_dies_is_not_repeated() -> None:
    async with proxying() as rig:
        _, connection = await rig.served(OK)
        exchange = rig.ask("POST", body=b"hello")
        await connection.request()
        connection.close()
        assert (await answered(exchange)).status == 502


@on_loop
async def test_post_gets_no_connection_that_the_upstream_has_closed_or_may_close_soon() -> None:
    async with proxying() as rig:
        _, connection = await rig.served(OK)
        rig.clock.now_s += IDLE_UNREPEATABLE_S
        exchange = rig.ask("POST", body=b"hello")
        connection, _ = await rig.server.given()
        connection.send(OK)
        await answered(exchange)
        connection.end_now()
        exchange = rig.ask("POST", body=b"hello")
        other, _ = await rig.server.given()
        other.send(OK)
        assert (await answered(exchange)).text == "ok"


@on_loop
async def test_idle_connections_are_closed_in_time() -> None:
    async with proxying() as rig:
        _, connection = await rig.served(OK)
        rig.advance(IDLE_S - 0.1)
        assert rig.of(rig.server).idle == 1
        rig.advance(0.1)
        assert rig.of(rig.server).idle == 0
        assert await connection.ended() == b""


# Silence


@on_loop
async def test_upstream_that_is_silent_is_given_up() -> None:
    async with proxying(read_timeout=5.0) as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        rig.advance(4.9)
        assert not exchange.answered
        rig.advance(0.2)
        assert exchange.status == 504 and exchange.problem["type"] == "gateway-timeout"
        await connection.ended()
        assert rig.of(rig.server).failures == 1 and rig.of(rig.server).in_flight == 0


@on_loop
async def test_silence_in_the_middle_of_an_answer_cuts_it() -> None:
    async with proxying(read_timeout=5.0) as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        rig.advance(4.0)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await rig.until(lambda: exchange.body)
        rig.advance(4.0)
        assert not exchange.aborted, "it is from the last piece on"
        rig.advance(1.1)
        assert exchange.aborted


@on_loop
async def test_slow_client_is_not_the_upstream_s_fault() -> None:
    async with proxying(read_timeout=5.0) as rig:
        exchange = rig.ask("POST", body=None, length=10)
        connection = await rig.server.connection()
        await connection.head()
        rig.advance(60.0)
        exchange.arrive(b"helloworld")
        exchange.end()
        await connection.read(10)
        exchange.block()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await rig.until(lambda: exchange.body)
        rig.advance(60.0)
        exchange.unblock()
        connection.send(b"k")
        assert (await answered(exchange)).text == "ok"
        assert rig.of(rig.server).failures == 0


# Health


@on_loop
async def test_upstream_that_answers_503_again_and_again_is_out() -> None:
    async with proxying(2) as rig:
        bad, good = rig.servers
        while rig.of(bad).up:
            exchange = rig.ask()
            server = await first_given(rig)
            connection, _ = await server.given()
            connection.send(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
                if server is good
                else BUSY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
            await answered(exchange)
            assert (exchange.status == 503) == (server is bad), "passed on as it is"
        assert rig.of(bad).failures == FAILURES_MAX


@on_loop
async def test_upstream_that_cuts_its_answers_again_and_again_is_out() -> None:
    async with proxying(2) as rig:
        bad, good = rig.servers
        while rig.of(bad).requests < FAILURES_MAX:
            exchange = rig.ask()
            server = await first_given(rig)
            connection, _ = await server.given()
            size = b"2" if server is good else b"3"
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %b\r\n\r\nok" % size)
            connection.close()
            await answered(exchange)
            assert exchange.aborted == (server is bad)
        assert (rig.of(bad).up, rig.of(good).up) == (0, 1)


@on_loop
async def test_request_that_fails_in_two_ways_counts_once() -> None:
    async with proxying() as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(BUSY[:-1])
        connection.close()
        await answered(exchange)
        assert exchange.status == 503 and exchange.aborted
        assert rig.of(rig.server).failures == 1


@on_loop
async def test_single_upstream_that_answers_503_goes_on_getting_requests() -> None:
    async with proxying() as rig:
        connection = None
        for _ in range(3 * FAILURES_MAX):
            exchange = rig.ask()
            connection = connection or await rig.server.connection()
            await connection.request()
            connection.send(BUSY)
            assert (await answered(exchange)).text == "busy"
        assert rig.of(rig.server).up == 1


@on_loop
async def test_health_is_asked_for() -> None:
    async with proxying(2, health_path="/health", health_interval=5.0) as rig:
        bad, good = rig.servers
        for _ in range(2):
            rig.advance(5.0)
            for server in rig.servers:
                connection, got = await server.given()
                assert got.line == "GET /health HTTP/1.1" and got.headers["host"] == server.url[7:]
                connection.send(b"HTTP/1.1 500 Bad\r\n\r\n" if server is bad else b"HTTP/1.1 204 Good\r\n\r\n")
                await connection.ended()
        await rig.until(lambda: not rig.of(bad).up)
        for _ in range(3):
            rig.ask()
        assert rig.of(bad).requests == 0 and rig.of(good).requests == 3
        rig.advance(5.0)
        (await bad.given())[0].send(b"HTTP/1.1 200 OK\r\n\r\n")
        await rig.until(lambda: rig.of(bad).up)


@on_loop
async def test_nobody_is_well() -> None:
    async with proxying(servers=[await gone()], health_path="/health", health_interval=7.0) as rig:
        for _ in range(2):
            rig.advance(7.0)
            await rig.until(lambda: not rig.proxy._checks)
        exchange = rig.ask()
        assert exchange.status == 503 and exchange.header("retry-after") == "7"


# The end


@on_loop
async def test_close_waits_for_what_runs_and_keeps_nothing() -> None:
    async with proxying(concurrency=1) as rig:
        first, second = rig.ask(), rig.ask()
        connection, _ = await rig.server.given()
        closing = rig.proxy.loop.create_task(rig.proxy.close())
        await asyncio.sleep(0)
        connection.send(OK)
        assert (await answered(first)).text == "ok"
        connection, _ = await rig.server.given()
        assert not closing.done()
        connection.send(OK)
        assert (await answered(second)).text == "ok"
        await closing
        assert rig.of(rig.server).idle == 0


@pytest.mark.parametrize("phase", ["connecting", "waiting", "answering"])
def test_books_balance_whatever_the_client_does(phase: str) -> None:
    @on_loop
    async def run() -> None:
        async with proxying(concurrency=1) as rig:
            exchange, waiting = rig.ask(), rig.ask()
            if phase != "connecting":
                connection, _ = await rig.server.given()
                if phase == "answering":
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
                    await rig.until(lambda: exchange.body)
            exchange.leave()
            connection = await rig.server.connection()
            while connection.source.at_eof():
                connection = await rig.server.connection()
            await connection.request()
            connection.send(OK)
            assert (await answered(waiting)).text == "ok"
            assert rig.of(rig.server).in_flight == 0 and rig.proxy.statistics().in_flight == 0

    run()
