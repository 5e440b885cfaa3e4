"""What becomes of an upstream's answer: passed on whole, or not taken for whole."""

from __future__ import annotations

import asyncio

import pytest

from headrace.web.proxy.limits import ANSWER_HEAD_BYTES_MAX, ANSWER_HEADERS_MAX, INTERIM_ANSWERS_MAX
from tests.http.support import on_loop
from tests.web.proxy.upstreams import OK, answered, proxying

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@on_loop
async def test_answer_streams_as_it_comes() -> None:
    async with proxying() as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(HEAD + b"Content-Length: 10\r\n\r\nhello")
        await rig.until(lambda: exchange.body == b"hello")
        assert exchange.log == ["start 200", "send 5"] and exchange.fields.length == 10
        connection.send(b"world")
        assert (await answered(exchange)).text == "helloworld" and exchange.whole
        assert rig.of(rig.server).idle == 1


@on_loop
async def test_chunks_are_joined_and_trailers_dropped() -> None:
    async with proxying() as rig:
        raw = CHUNKED + b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n"
        exchange, _ = await rig.served(raw)
        assert exchange.text == "hello!" and exchange.header("x-trailer") is None
        assert rig.of(rig.server).idle == 1


@on_loop
async def test_any_split_of_the_bytes_gives_the_same_answer() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    async with proxying() as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        for place in range(len(raw)):
            connection.send(raw[place : place + 1])
            await asyncio.sleep(0)
        assert (await answered(exchange)).text == "hello world"
        assert [status for status, _ in exchange.informed] == [103]
        assert rig.of(rig.server).idle == 1


@on_loop
async def test_thousands_of_tiny_chunks_are_an_upstream_s_right() -> None:
    async with proxying() as rig:
        exchange, _ = await rig.served(CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")
        assert exchange.whole and len(exchange.body) == 30_000


@on_loop
async def test_head_has_a_length_and_no_body() -> None:
    async with proxying() as rig:
        exchange, connection = await rig.served(HEAD + b"Content-Length: 1000\r\n\r\n", "HEAD")
        assert exchange.whole and exchange.fields.length == 1000 and not exchange.body
        exchange = rig.ask("HEAD")
        await connection.request()
        connection.send(CHUNKED)
        assert (await answered(exchange)).whole and rig.of(rig.server).idle == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_status_without_a_body(status: bytes) -> None:
    @on_loop
    async def run() -> None:
        async with proxying() as rig:
            exchange, connection = await rig.served(b"HTTP/1.1 " + status + b"\r\nETag: a\r\n\r\n")
            assert exchange.whole and exchange.header("etag") == "a"
            exchange = rig.ask()
            await connection.request()
            connection.send(OK)
            assert (await answered(exchange)).text == "ok"

    run()


@on_loop
async def test_body_until_the_connection_ends() -> None:
    async with proxying() as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await rig.until(lambda: exchange.body == b"hello")
        assert not exchange.whole
        connection.close()
        assert (await answered(exchange)).whole and rig.of(rig.server).idle == 0


@on_loop
async def test_body_until_a_reset_is_not_whole() -> None:
    async with proxying() as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(HEAD + b"\r\nhello")
        await rig.until(lambda: exchange.body == b"hello")
        connection.reset()
        assert (await answered(exchange)).aborted


@pytest.mark.parametrize(
    "head", [b"Content-Length: 10\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
)
def test_half_an_answer_is_never_a_whole_one(head: bytes) -> None:
    @on_loop
    async def run() -> None:
        async with proxying() as rig:
            exchange = rig.ask()
            connection, _ = await rig.server.given()
            connection.send(HEAD + head)
            await rig.until(lambda: exchange.body == b"hello")
            connection.close()
            await answered(exchange)
            assert exchange.aborted and not exchange.whole
            assert rig.of(rig.server).failures == 1 and rig.of(rig.server).in_flight == 0

    run()


@on_loop
async def test_interim_answers_are_skipped_hints_passed_on() -> None:
    async with proxying() as rig:
        raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        exchange, _ = await rig.served(raw + OK)
        assert exchange.text == "ok"
        assert [(status, fields.get(b"link")) for status, fields in exchange.informed] == [(103, b"</a>")]


@on_loop
async def test_hop_by_hop_headers_stay_here_and_so_does_what_connection_names() -> None:
    async with proxying() as rig:
        raw = (
            HEAD
            + b"Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTrailer: a\r\nUpgrade: h2c\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n"
        )
        exchange, _ = await rig.served(raw)
        assert dict(exchange.fields.pairs()) == {b"x-end": b"2", b"content-length": b"0"}
        assert not exchange.fields.close, "the client's connection is another one"
        assert rig.of(rig.server).idle == 0


@on_loop
async def test_repeated_headers_and_redirects_are_passed_on_as_they_are() -> None:
    async with proxying() as rig:
        raw = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX: \xe9 \r\nContent-Length: 0\r\n\r\n"
        exchange, _ = await rig.served(raw)
        assert exchange.status == 302
        assert exchange.fields.pairs()[:4] == [
            (b"location", b"http://elsewhere/"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"x", b"\xe9"),
        ]


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        HEAD + b"Content-Length: 2, 2\r\n\r\nok",
        HEAD + b"Content-Length: +2\r\n\r\nok",
        HEAD + b"Content-Length: 1_0\r\n\r\nok",
        HEAD + b"Content-Length: -1\r\n\r\nok",
        HEAD + b"Content-Length: 9999999999999999999\r\n\r\nok",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5_0\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        HEAD + b"A: b\n\r\n\r\n",
        HEAD + b"A: b\r\n c\r\n\r\n",
        HEAD + b"A : b\r\n\r\n",
        HEAD + b": b\r\n\r\n",
        HEAD + b"A: b\x00c\r\n\r\n",
        HEAD + b"A: b\rc\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_ANSWERS_MAX + 1),
        HEAD + b"A: " + b"x" * ANSWER_HEAD_BYTES_MAX + b"\r\n\r\n",
        HEAD + b"A: b\r\n" * (ANSWER_HEADERS_MAX + 1) + b"\r\n",
    ],
)
def test_what_is_no_clear_answer_is_a_502_and_the_connection_is_closed(raw: bytes) -> None:
    @on_loop
    async def run() -> None:
        async with proxying() as rig:
            exchange, connection = await rig.served(raw)
            assert exchange.status == 502 and exchange.problem["type"] == "bad-gateway"
            await connection.ended()
            assert rig.of(rig.server).idle == 0 and rig.of(rig.server).failures == 1
            assert rig.of(rig.server).in_flight == 0

    run()


@on_loop
async def test_broken_chunk_behind_a_good_one_cuts_the_answer() -> None:
    async with proxying() as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(CHUNKED + b"5\r\nhello\r\n")
        await rig.until(lambda: exchange.body == b"hello")
        connection.send(b"zz\r\n")
        assert (await answered(exchange)).aborted


@on_loop
async def test_bytes_behind_an_answer_are_nobody_s() -> None:
    async with proxying() as rig:
        exchange, connection = await rig.served(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        assert exchange.text == "ok"
        await connection.ended()
        assert rig.of(rig.server).idle == 0


@on_loop
async def test_bytes_on_an_idle_connection_end_it() -> None:
    async with proxying() as rig:
        _, connection = await rig.served(OK)
        assert rig.of(rig.server).idle == 1
        connection.send(OK)
        await connection.ended()
        await rig.until(lambda: rig.of(rig.server).idle == 0)
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")
        assert (await answered(exchange)).text == "new"


@on_loop
async def test_nothing_is_read_while_the_client_takes_nothing() -> None:
    async with proxying() as rig:
        exchange = rig.ask()
        connection, _ = await rig.server.given()
        connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % 2**40)
        await rig.until(lambda: exchange.answered)
        exchange.block()
        for _ in range(1_000):
            connection.send(b"x" * 65_536)
        await rig.until(lambda: exchange.body)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(exchange.body) < 2**20
        sent = len(exchange.body)
        exchange.unblock()
        await rig.until(lambda: len(exchange.body) > sent)


@on_loop
async def test_answer_before_the_body_has_come_is_passed_on_and_the_connection_not_kept() -> None:
    async with proxying() as rig:
        exchange = rig.ask("POST", body=None, length=100)
        connection = await rig.server.connection()
        await connection.head()
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        assert (await answered(exchange)).status == 413
        await connection.ended()
        assert rig.of(rig.server).idle == 0
