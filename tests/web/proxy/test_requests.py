"""What an upstream gets: framing, headers, bodies, and who the client is."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.web.forwarded import TrustedProxies
from headrace.web.proxy import request_head
from tests.http.support import on_loop
from tests.web.fakes import FakeExchange
from tests.web.proxy.upstreams import OK, Server, answered, proxying


@on_loop
async def test_request_and_answer_pass_through() -> None:
    async with proxying() as rig:
        exchange = rig.ask("GET", "/a%20b?c=d", headers={"X-Is": "here", "Cookie": "a=1; b=2"})
        connection, got = await rig.server.given()
        assert got.line == "GET /a%20b?c=d HTTP/1.1"
        assert got.headers["x-is"] == "here" and got.headers["cookie"] == "a=1; b=2"
        assert got.headers["host"] == "example.org"
        assert "content-length" not in got.headers and "transfer-encoding" not in got.headers
        connection.send(b"HTTP/1.1 201 Made\r\nX-Was: there\r\nServer: it\r\nContent-Length: 5\r\n\r\nhello")
        await answered(exchange)
        assert (exchange.status, exchange.text, exchange.header("x-was")) == (201, "hello", "there")
        assert exchange.header("server") == "it" and exchange.fields.served
        assert exchange.log == ["respond 201"]
        assert rig.of(rig.server).requests == 1 and rig.of(rig.server).in_flight == 0


@on_loop
async def test_connection_serves_the_next_request() -> None:
    async with proxying() as rig:
        exchange, connection = await rig.served(OK)
        for _ in range(3):
            exchange = rig.ask()
            await connection.request()
            connection.send(OK)
            assert (await answered(exchange)).text == "ok"
        assert rig.of(rig.server).connects == 1


@on_loop
async def test_who_the_client_is_is_told_both_ways_and_not_what_it_said_itself() -> None:
    async with proxying() as rig:
        lies = dict.fromkeys(
            ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X_Forwarded_For", "X-Forwarded-Host"), "6.6.6.6"
        )
        exchange = rig.ask(headers={"Host": "shop.example", **lies}, peer="2001:db8::1", secure=True)
        exchange_headers = (await rig.server.given())[1].headers
        assert exchange_headers["x-forwarded-for"] == "2001:db8::1"
        assert exchange_headers["x-forwarded-proto"] == "https"
        assert exchange_headers["x-forwarded-host"] == "shop.example"
        assert exchange_headers["forwarded"] == 'for="[2001:db8::1]";proto=https;host="shop.example"'
        assert not [value for value in exchange_headers.values() if "6.6.6.6" in value]
        assert not exchange.answered


@on_loop
async def test_a_server_of_ours_behind_it_believes_what_it_says() -> None:
    async with proxying() as rig:
        for peer in ("192.0.2.7", "2001:db8::7"):
            rig.ask(headers={"Host": "shop.example:8443"}, peer=peer, secure=True)
            got = (await rig.server.given())[1]
            told = {name.encode(): value.encode() for name, value in got.headers.items()}
            trust = TrustedProxies(("127.0.0.1",))
            client = trust.client(told, "127.0.0.1")
            assert (client.address, client.secure) == (peer, True)
            client = trust.client({b"forwarded": told[b"forwarded"]}, "127.0.0.1")
            assert (client.address, client.secure, client.host) == (peer, True, b"shop.example:8443")


@on_loop
async def test_client_of_a_unix_socket_has_no_address() -> None:
    async with proxying() as rig:
        rig.ask(peer="unix")
        headers = (await rig.server.given())[1].headers
        assert "x-forwarded-for" not in headers and headers["forwarded"].startswith("for=unknown;")


@on_loop
async def test_mount_point_that_was_taken_off_is_told() -> None:
    async with proxying() as rig:
        exchange = FakeExchange("GET", "/x")
        exchange.root_path = "/api"
        rig.proxy(exchange)
        got = (await rig.server.given())[1]
        assert got.line == "GET /x HTTP/1.1" and got.headers["x-forwarded-prefix"] == "/api"


@on_loop
async def test_host_of_the_upstream_if_so_wished() -> None:
    async with proxying(preserve_host=False) as rig:
        rig.ask(headers={"Host": "shop.example"})
        headers = (await rig.server.given())[1].headers
        assert headers["host"] == rig.server.url.removeprefix("http://")
        assert headers["x-forwarded-host"] == "shop.example"


@on_loop
async def test_hop_by_hop_headers_stay_here_and_so_does_what_connection_names() -> None:
    async with proxying() as rig:
        names = ("Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "Expect")
        rig.ask(
            headers=dict.fromkeys(names, "x") | {"Connection": "close, X-Hop , keep-alive", "X-Hop": "1", "X-End": "2"}
        )
        headers = (await rig.server.given())[1].headers
        assert set(headers) == {
            "host",
            "x-end",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "forwarded",
        }


@on_loop
async def test_client_cannot_have_its_identity_taken_out() -> None:
    async with proxying() as rig:
        rig.ask(
            headers={"Connection": "Cookie, Authorization, X-Forwarded-For, Host", "Cookie": "a", "Authorization": "b"}
        )
        headers = (await rig.server.given())[1].headers
        assert headers["cookie"] == "a" and headers["authorization"] == "b"
        assert headers["x-forwarded-for"] == "192.0.2.1" and headers["host"] == "example.org"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-Evil: 1"},
        {"X-A": "b\nX-Evil: 1"},
        {"X-A": "b\rc"},
        {"X-A": "b\0c"},
        {"X-A: b\r\nX": "1"},
        {"X A": "1"},
        {"X:A": "1"},
    ],
)
def test_what_would_break_out_of_its_line_goes_nowhere(headers: dict[str, str]) -> None:
    @on_loop
    async def run() -> None:
        async with proxying() as rig:
            exchange = await answered(rig.ask(headers=headers))
            assert exchange.status == 400
            connection = await rig.server.connection()
            assert await connection.ended() == b""
            assert rig.of(rig.server).in_flight == 0 and rig.of(rig.server).failures == 0

    run()


@pytest.mark.parametrize("target", ["*", "http://other/", "example.org:443", "/a b", "/a\r\nX: 1"])
def test_only_paths_are_passed_on(target: str) -> None:
    @on_loop
    async def run() -> None:
        async with proxying() as rig:
            assert (await answered(rig.ask("GET", target))).status == 400

    run()


@on_loop
async def test_body_with_its_length() -> None:
    async with proxying() as rig:
        rig.ask("POST", body=b"hello")
        got = (await rig.server.given())[1]
        assert got.headers["content-length"] == "5" and got.body == b"hello"


@on_loop
async def test_post_without_a_body_says_so() -> None:
    async with proxying() as rig:
        rig.ask("POST")
        assert (await rig.server.given())[1].headers["content-length"] == "0"


@on_loop
async def test_chunked_body_that_is_all_here_gets_a_length() -> None:
    async with proxying() as rig:
        rig.ask("POST", body=b"hello", length=-1, headers={"Transfer-Encoding": "chunked"})
        got = (await rig.server.given())[1]
        assert got.headers["content-length"] == "5" and got.body == b"hello"


@on_loop
async def test_body_streams_in_chunks_as_it_comes() -> None:
    async with proxying() as rig:
        exchange = rig.ask("POST", body=None, headers={"Transfer-Encoding": "chunked"})
        connection = await rig.server.connection()
        assert (await connection.head()).headers["transfer-encoding"] == "chunked"
        exchange.arrive(b"one")
        assert await connection.read(8) == b"3\r\none\r\n"
        exchange.arrive(b"three")
        assert await connection.read(10) == b"5\r\nthree\r\n"
        exchange.end()
        assert await connection.read(5) == b"0\r\n\r\n"
        connection.send(OK)
        assert (await answered(exchange)).text == "ok"
        assert rig.of(rig.server).idle == 1


@on_loop
async def test_expected_body_is_invited_by_us() -> None:
    async with proxying() as rig:
        exchange = rig.ask("PUT", body=None, length=5, headers={"Expect": "100-continue"})
        connection = await rig.server.connection()
        got = await connection.head()
        assert "expect" not in got.headers and got.headers["content-length"] == "5"
        assert exchange.invited
        exchange.arrive(b"hello")
        exchange.end()
        assert await connection.read(5) == b"hello"


@on_loop
async def test_no_more_is_taken_from_the_client_than_the_upstream_takes() -> None:
    async with proxying() as rig:
        piece, exchange = b"x" * 65_536, rig.ask("POST", body=None, length=2**40)
        connection = await rig.server.connection()
        await connection.head()
        connection.sink.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(1_000):
            exchange.arrive(piece)
        await rig.until(lambda: exchange.taken)
        taken = exchange.taken
        assert taken < 64 * 2**20, "the kernel's buffers and ours"
        exchange.arrive(piece)
        assert exchange.taken == taken
        connection.sink.transport.resume_reading()  # type: ignore[attr-defined]
        await connection.read(taken)
        await rig.until(lambda: exchange.taken > taken)


@on_loop
async def test_client_that_leaves_takes_its_request_along() -> None:
    async with proxying() as rig:
        exchange = rig.ask("POST", body=None, length=100)
        connection = await rig.server.connection()
        await connection.head()
        exchange.arrive(b"half")
        exchange.leave()
        assert await connection.ended() in (b"half", b"")
        assert rig.of(rig.server).in_flight == 0 and rig.of(rig.server).idle == 0
        assert rig.proxy.statistics().client_disconnects == 1 and rig.of(rig.server).failures == 0


@on_loop
async def test_client_that_leaves_while_we_connect() -> None:
    async with proxying() as rig:
        rig.ask().leave()
        await rig.until(lambda: not rig.of(rig.server).in_flight)
        exchange, _ = rig.ask(), await rig.server.connection()
        assert not exchange.gone


@on_loop
async def test_unix_socket(tmp_path: Path) -> None:
    server = await Server().start_unix(str(tmp_path / "up.sock"))
    async with proxying(servers=[server]) as rig:
        exchange, _ = await rig.served(OK)
        assert exchange.text == "ok"


def test_long_header_names_are_passed_on_and_not_remembered() -> None:
    exchange = FakeExchange("GET", "/", {"x-" + "n" * 30_000: "v"})
    before = request_head._label.cache_info().currsize
    assert b"\r\nx-" + b"n" * 30_000 + b": v\r\n" in request_head.render(exchange, host=b"h", length=0)
    assert request_head._label.cache_info().currsize == before
