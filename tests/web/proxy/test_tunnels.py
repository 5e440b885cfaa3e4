"""WebSockets through the proxy: bytes both ways, whoever closes."""

from __future__ import annotations

import asyncio

from tests.http.support import on_loop
from tests.web.fakes import FakeExchange
from tests.web.proxy.upstreams import Connection, Rig, answered, proxying

KEY = {
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
}
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)


async def opened(rig: Rig, behind: bytes = b"", **settings: str) -> tuple[FakeExchange, Connection]:
    headers = KEY if settings.get("version") != "2" else {"Sec-WebSocket-Version": "13"}
    exchange = rig.ask("GET", "/ws", headers=headers, upgrade=b"websocket", **settings)
    if exchange.version == "2":
        exchange.length = -1
    connection = await rig.server.connection()
    got = await connection.head()
    assert "transfer-encoding" not in got.headers
    assert got.headers["upgrade"] == "websocket" and got.headers["connection"] == "Upgrade"
    assert got.headers["sec-websocket-key"] and got.headers["sec-websocket-version"] == "13"
    exchange._ended = False  # what comes now is a stream
    connection.send(SWITCH + behind)
    await rig.until(lambda: exchange.log)
    assert exchange.log[0] == "tunnel"
    return exchange, connection


@on_loop
async def test_bytes_go_both_ways() -> None:
    async with proxying() as rig:
        exchange, connection = await opened(rig, b"first")
        assert exchange.header("sec-websocket-protocol") == "chat"
        assert exchange.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert exchange.header("upgrade") is None
        await rig.until(lambda: exchange.body == b"first")
        exchange.arrive(b"ping")
        assert await connection.read(4) == b"ping"
        connection.send(b"pong")
        await rig.until(lambda: exchange.body == b"firstpong")


@on_loop
async def test_tunnel_takes_no_place() -> None:
    async with proxying(concurrency=1) as rig:
        exchange, _ = await opened(rig)
        assert rig.of(rig.server).in_flight == 0
        rig.ask()
        await rig.server.given()
        exchange.leave()
        assert rig.of(rig.server).in_flight == 1


@on_loop
async def test_key_of_our_own_for_http2() -> None:
    async with proxying() as rig:
        exchange, _ = await opened(rig, version="2")
        assert exchange.header("sec-websocket-accept") is None
        assert exchange.header("sec-websocket-protocol") == "chat"


@on_loop
async def test_upstream_closes() -> None:
    async with proxying() as rig:
        exchange, connection = await opened(rig)
        connection.send(b"bye")
        connection.close()
        assert (await answered(exchange)).whole and exchange.body == b"bye"
        assert rig.proxy.statistics().in_flight == 0 and rig.of(rig.server).failures == 0


@on_loop
async def test_upstream_is_reset() -> None:
    async with proxying() as rig:
        exchange, connection = await opened(rig)
        connection.reset()
        assert (await answered(exchange)).aborted
        assert rig.proxy.statistics().in_flight == 0


@on_loop
async def test_client_leaves_and_its_last_bytes_arrive() -> None:
    async with proxying() as rig:
        exchange, connection = await opened(rig)
        exchange._arrived += b"close"  # came together with the end
        exchange.leave()
        assert await connection.ended() == b"close"
        assert rig.proxy.statistics().in_flight == 0


@on_loop
async def test_client_closes_its_half_only() -> None:
    async with proxying() as rig:
        exchange, connection = await opened(rig)
        exchange.arrive(b"close")
        exchange.end()
        assert await connection.ended() == b"close"
        connection.send(b"rest")
        connection.close()
        assert (await answered(exchange)).whole and exchange.body == b"rest"


@on_loop
async def test_both_ways_push_back() -> None:
    async with proxying() as rig:
        exchange, connection = await opened(rig)
        connection.sink.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(1_000):
            exchange.arrive(b"x" * 65_536)
        taken = exchange.taken
        exchange.arrive(b"x")
        assert exchange.taken == taken < 64 * 2**20
        exchange.block()
        for _ in range(1_000):
            connection.send(b"y" * 65_536)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(exchange.body) < 4 * 2**20
        exchange.unblock()
        connection.sink.transport.resume_reading()  # type: ignore[attr-defined]
        await connection.read(taken + 1)


@on_loop
async def test_silence_is_not_held_against_a_tunnel() -> None:
    async with proxying(read_timeout=1.0) as rig:
        exchange, connection = await opened(rig)
        rig.advance(3_600.0)
        connection.send(b"still here")
        await rig.until(lambda: exchange.body == b"still here")


@on_loop
async def test_refusal_is_an_answer() -> None:
    async with proxying() as rig:
        exchange = rig.ask("GET", "/ws", headers=KEY, upgrade=b"websocket")
        connection, _ = await rig.server.given()
        connection.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        assert (await answered(exchange)).status == 403 and exchange.text == "no"


@on_loop
async def test_other_protocol_than_asked_for_is_a_502() -> None:
    async with proxying() as rig:
        exchange = rig.ask("GET", "/ws", headers=KEY, upgrade=b"websocket")
        connection, _ = await rig.server.given()
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
        assert (await answered(exchange)).status == 502


@on_loop
async def test_close_ends_tunnels_with_their_clients_only() -> None:
    async with proxying() as rig:
        exchange, connection = await opened(rig)
        closing = rig.proxy.loop.create_task(rig.proxy.close())
        connection.send(b"on")
        await rig.until(lambda: exchange.body == b"on")
        assert not closing.done()
        exchange.leave()
        await closing
