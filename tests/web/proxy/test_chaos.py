"""Whatever upstreams and clients do: no answer is taken for another's or for whole when it is not, and the books balance."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headrace.web.proxy.response_reader import InvalidResponse, ResponseReader
from tests.http.support import on_loop
from tests.web.fakes import FakeExchange
from tests.web.proxy.upstreams import Connection, Server, proxying

PIECES = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 304 Not Modified\r\n",
    b"HTTP/1.1 103 Early Hints\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"A: b\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"hello",
    b"\0",
    b":",
)


@given(some.lists(some.one_of(some.sampled_from(PIECES), some.binary(max_size=4)), max_size=14), some.booleans())
def test_whatever_comes_is_read_or_refused(pieces: list[bytes], mute: bool) -> None:
    reader, body = ResponseReader(), False
    try:
        for piece in pieces:
            reader.feed(piece)
            before = -1
            while before != len(reader.buffer):
                before = len(reader.buffer)
                if not body:
                    body = (answer := reader.next_head(mute=mute)) is not None and answer.status >= 200
                if body:
                    body = not reader.read_body()[1]
    except InvalidResponse:
        pass


async def misbehave(connection: Connection, dice: random.Random) -> None:
    """Answer requests with their own target, until something goes wrong."""
    while True:
        try:
            got = await connection.request()
        except (EOFError, OSError):
            return
        body = got.line.split(" ")[1].encode() * dice.choice((1, 5_000))
        head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (dice.choice((200, 200, 503)), len(body))
        chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        fate = dice.random()
        if fate < 0.7:
            for piece in _split(dice.choice((head + body, chunks, b"HTTP/1.1 100 Go\r\n\r\n" + head + body)), dice):
                connection.send(piece)
                await asyncio.sleep(0)
            if fate < 0.1:
                connection.close()
                return
        else:
            if fate < 0.9:
                whole = dice.choice((head + body, chunks, b"garbage\r\n\r\n"))
                connection.send(whole[: dice.randrange(len(whole))])
            dice.choice((connection.close, connection.reset))()
            return


def _split(data: bytes, dice: random.Random) -> list[bytes]:
    at = dice.randrange(len(data))
    return [data] if dice.random() < 0.5 else [data[:at], data[at:]]


async def run_upstream(server: Server, dice: random.Random) -> None:
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(misbehave(await server.connections.get(), dice))


async def leave_or_wait(exchange: FakeExchange, dice: random.Random) -> None:
    if dice.random() < 0.15:
        for _ in range(dice.randrange(20)):
            await asyncio.sleep(0)
        exchange.leave()
    await exchange.done.wait()


@pytest.mark.parametrize("seed", range(4))
def test_no_answer_is_another_s_or_half(seed: int) -> None:
    @on_loop
    async def run() -> None:
        dice = random.Random(seed)
        async with proxying(3, concurrency=4, queue_size=1_000) as rig:
            upstreams = [asyncio.create_task(run_upstream(server, dice)) for server in rig.servers]
            exchanges = [rig.ask(dice.choice(("GET", "POST", "PUT")), f"/{number}") for number in range(300)]
            clock = asyncio.create_task(_tick(rig.advance))
            await asyncio.gather(*(leave_or_wait(exchange, dice) for exchange in exchanges))
            clock.cancel()
            for upstream in upstreams:
                upstream.cancel()
            passed = [exchange for exchange in exchanges if exchange.whole and exchange.status == 200]
            assert len(passed) > 10
            for exchange in passed:
                assert bytes(exchange.body) in (exchange.target.encode(), exchange.target.encode() * 5_000)
            assert {exchange.status for exchange in exchanges} <= {0, 200, 499, 502, 503}
            statistics = rig.proxy.statistics()
            assert statistics.in_flight == statistics.queue_length == 0
            assert [rig.of(server).in_flight for server in rig.servers] == [0, 0, 0]

    run()


async def _tick(advance: object) -> None:
    while True:
        await asyncio.sleep(0.002)
        advance(0.2)  # type: ignore[operator]
