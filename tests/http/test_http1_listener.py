"""Streamed connections on real sockets: adopted ones, TLS with ALPN, large bodies, cut answers, slow clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from pathlib import Path

import pytest
import trustme

from headrace.errors import InvalidParameter
from headrace.http.engine import Connection
from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.limits import Limits
from headrace.http.listener import AddressUnusable, Listener
from headrace.http.parse import Refusal
from headrace.http.tls import server_tls
from tests.http.streamed import PLAIN, Echo, read_answers
from tests.http.support import dial, get, on_loop, post
from tests.patience import PATIENCE_S

CLOSE = get("/", "Connection: close")


def hello(exchange: Exchange) -> None:
    exchange.respond(200, PLAIN, b"hello")


async def ask(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Everything until the server closes."""
    streams = await dial(port, tls)
    streams[1].write(request)
    async with asyncio.timeout(PATIENCE_S):
        return await streams[0].read()


# Sockets


@on_loop
async def test_either_a_handler_or_a_target() -> None:
    for arguments in ({}, {"handler": lambda _: None, "target": hello}):
        with pytest.raises(InvalidParameter, match="either a handler or a target"):
            Listener(**arguments)  # type: ignore[arg-type]


@on_loop
async def test_bound_socket_is_adopted_and_the_addresses_are_told() -> None:
    seen: list[tuple[str, int, tuple[str, int]]] = []

    def target(exchange: Exchange) -> None:
        seen.append((exchange.peer, exchange.peer_port, exchange.server))
        hello(exchange)

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    listener = Listener(target=target)
    listener.open_socket(listening)
    assert read_answers(await ask(port, CLOSE))[0].body == b"hello"
    [(peer, peer_port, server)] = seen
    assert (peer, server) == ("127.0.0.1", ("127.0.0.1", port))
    assert peer_port > 0
    await listener.close()
    assert listening.fileno() == -1


@on_loop
async def test_adopted_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    seen: list[tuple[str, tuple[str, int]]] = []

    def target(exchange: Exchange) -> None:
        seen.append((exchange.peer, exchange.server))
        hello(exchange)

    path = tmp_path / "s"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listener = Listener(target=target)
    listener.open_socket(listening)
    reader, writer = await dial(path)
    writer.write(CLOSE)
    assert read_answers(await reader.read())[0].body == b"hello"
    assert seen == [("unix", (str(path), 0))]
    await listener.close()
    assert path.exists()


@on_loop
async def test_clients_of_a_shared_socket_are_left_to_the_others() -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    other = listening.dup()
    first = Listener(target=lambda exchange: exchange.respond(200, PLAIN, b"first"))
    first.open_socket(listening, shared=True)
    client = socket.socket()  # in the backlog: no turn of the loop in which it might be accepted
    client.connect(listening.getsockname())
    client.sendall(CLOSE)
    await first.close()
    second = Listener(target=lambda exchange: exchange.respond(200, PLAIN, b"second"))
    second.open_socket(other)
    reader, writer = await asyncio.open_connection(sock=client)
    assert read_answers(await reader.read())[0].body == b"second"
    writer.close()
    await second.close()


@on_loop
async def test_socket_that_cannot_listen_is_a_clear_error() -> None:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pytest.raises(AddressUnusable):
        Listener(target=hello).open_socket(datagrams)


@pytest.mark.parametrize("kind", ["handler", "target"])
@on_loop
async def test_idle_connections_may_have_a_last_request_while_closing(kind: str) -> None:
    if kind == "target":
        listener = Listener(target=hello)
    else:
        listener = Listener(lambda request: request.respond(200, b"hello"))
    port = listener.open_tcp("127.0.0.1", 0)
    streams = [await dial(port) for _ in range(2)]
    for reader, writer in streams:
        writer.write(get("/"))
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
    closing = asyncio.ensure_future(listener.close(idle_s=PATIENCE_S))
    await asyncio.sleep(0)
    streams[0][1].write(get("/"))
    [answer] = read_answers(await streams[0][0].read())
    assert (answer.body, answer.headers[b"connection"]) == (b"hello", b"close")
    assert not closing.done()
    assert listener.statistics().open == 1
    streams[1][1].close()
    await closing


@on_loop
async def test_idle_connections_are_closed_when_their_time_is_up() -> None:
    listener = Listener(target=hello)
    port = listener.open_tcp("127.0.0.1", 0)
    reader, writer = await dial(port)
    writer.write(get("/"))
    await reader.readuntil(b"hello")
    await listener.close(idle_s=0.01)
    assert await reader.read() == b""


# TLS


class FakeHttp2(Connection):
    """Answers whatever comes with a word."""

    def proceed(self, data: bytes) -> None:
        self.write(b"h2 got %d" % len(data))
        self.close()

    def refuse(self, refusal: Refusal) -> None: ...

    def lost(self) -> None: ...

    def half_closed(self) -> None: ...

    def busy(self) -> bool:
        return False


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, path: Path) -> ssl.SSLContext:
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return server_tls(path)


def client_side(authority: trustme.CA, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@on_loop
async def test_client_chooses_the_protocol_by_alpn(authority: trustme.CA, tmp_path: Path) -> None:
    listener = Listener(target=hello, http2=FakeHttp2, tls=server_side(authority, tmp_path / "pem"))
    port = listener.open_tcp("127.0.0.1", 0)
    assert await ask(port, b"12345", client_side(authority, "h2", "http/1.1")) == b"h2 got 5"
    for protocols in ((), ("http/1.1",), ("spdy",)):
        [answer] = read_answers(await ask(port, CLOSE, client_side(authority, *protocols)))
        assert answer.body == b"hello"
    await listener.close()
    assert listener.statistics().open == 0


@on_loop
async def test_http2_is_not_offered_where_there_is_none(authority: trustme.CA, tmp_path: Path) -> None:
    listener = Listener(target=hello, tls=server_side(authority, tmp_path / "pem"))
    port = listener.open_tcp("127.0.0.1", 0)
    _, writer = await dial(port, client_side(authority, "h2", "http/1.1"))
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.transport.abort()
    await listener.close()


@on_loop
async def test_renewed_certificate_is_used_from_the_next_handshake_on(authority: trustme.CA, tmp_path: Path) -> None:
    context = server_side(authority, tmp_path / "pem")
    listener = Listener(target=hello, tls=context)
    port = listener.open_tcp("127.0.0.1", 0)
    kept = await dial(port, client_side(authority))
    other = trustme.CA()
    other.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "new")
    context.load_cert_chain(tmp_path / "new")
    assert read_answers(await ask(port, CLOSE, client_side(other)))[0].body == b"hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        await dial(port, client_side(authority))
    kept[1].write(CLOSE)
    assert read_answers(await kept[0].read())[0].body == b"hello"
    await listener.close()


# Bodies and answers


@pytest.mark.parametrize("secure", [False, True])
@on_loop
async def test_large_bodies_stream_both_ways_at_the_consumers_pace(
    authority: trustme.CA, tmp_path: Path, secure: bool
) -> None:
    """An echo that takes only what it can send: what is under way is bounded, whatever the body's length."""
    most = 0

    def target(exchange: Exchange) -> None:
        def go_on() -> None:
            nonlocal most
            while exchange.writable and not exchange.gone:
                piece = exchange.take()
                most = max(most, len(piece))
                if piece:
                    exchange.send(piece)
                elif exchange.ended:
                    exchange.notify = None
                    exchange.finish()
                    return
                else:
                    return

        exchange.start(200, PLAIN)
        exchange.notify = go_on
        go_on()

    server = server_side(authority, tmp_path / "pem") if secure else None
    listener = Listener(target=target, limits=Limits(body_bytes=2**30), tls=server)
    port = listener.open_tcp("127.0.0.1", 0)
    reader, writer = await dial(port, client_side(authority) if secure else None)
    body = bytes(range(256)) * 40_000
    writer.write(post("/", body, "Connection: close"))
    [answer] = read_answers(await reader.read())
    assert answer.body == body
    # What may be untaken, and one read of the transport; under TLS what it has read ahead, too.
    assert 0 < most <= 65_536 + 262_144 * (2 if secure else 1)
    await listener.close()


@on_loop
async def test_aborted_answer_is_visibly_cut() -> None:
    def target(exchange: Exchange) -> None:
        exchange.start(200, PLAIN)
        exchange.send(b"half")
        asyncio.get_running_loop().call_later(0.01, exchange.abort)

    listener = Listener(target=target)
    port = listener.open_tcp("127.0.0.1", 0)
    raw = await ask(port, get("/"))
    assert raw.endswith(b"4\r\nhalf\r\n")
    with pytest.raises(ConnectionResetError):  # HTTP/1.0 ends answers by closing: a cut must not look like that
        await ask(port, b"GET / HTTP/1.0\r\n\r\n")
    await listener.close()


@on_loop
async def test_early_answer_reaches_a_client_that_is_still_sending() -> None:
    listener = Listener(target=lambda exchange: exchange.respond(413, PLAIN, b"no"), limits=Limits(body_bytes=2**30))
    port = listener.open_tcp("127.0.0.1", 0)
    reader, writer = await dial(port)
    writer.write(post("/", b"x" * 10_000_000)[:-9_000_000])
    [answer] = read_answers(await reader.read())
    assert (answer.status, answer.body) == (413, b"no")
    writer.close()
    await listener.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@on_loop
async def test_client_that_leaves_is_noticed(how: str) -> None:
    now_s = 0.0
    exchanges: list[Exchange] = []
    began, told = asyncio.Event(), asyncio.Event()

    def target(exchange: Exchange) -> None:
        exchange.notify = told.set
        exchanges.append(exchange)
        began.set()

    listener = Listener(target=target, now_s=lambda: now_s)
    port = listener.open_tcp("127.0.0.1", 0)
    _, writer = await dial(port)
    writer.write(get("/"))
    await began.wait()
    if how == "reset":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    await told.wait()
    if how == "close":  # it may wait for its answer still
        assert (exchanges[0].half_closed, exchanges[0].gone) == (True, False)
        told.clear()
        now_s = 2.0
        listener.advance()
        await told.wait()
    assert exchanges[0].gone
    await listener.close()


# Slow clients


@on_loop
async def test_others_are_served_at_once_beside_slow_connections() -> None:
    """300 clients: silent, in the midst of a head, of a body, of a chunk, or not taking their answer."""
    now_s = 0.0
    large = b"x" * 8_000_000
    echo = Echo()

    def target(exchange: Exchange) -> None:
        if exchange.path == "/large":
            exchange.respond(200, Fields(), large)
        else:
            echo(exchange)

    listener = Listener(target=target, now_s=lambda: now_s)
    port = listener.open_tcp("127.0.0.1", 0)
    begins = [
        b"",
        b"GET / HT",
        post("/", b"x" * 1000)[:-999],
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        get("/large"),
    ]
    loop = asyncio.get_running_loop()
    slow = [socket.socket() for _ in range(300)]
    for number, client in enumerate(slow):
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, begins[number % len(begins)])
    began = loop.time()
    for number in range(100):
        [answer] = read_answers(await ask(port, post("/", b"%d" % number, "Connection: close")))
        assert answer.body == b"%d" % number
    assert loop.time() - began < PATIENCE_S / 2  # nobody waits for a slow one: each alone takes longer
    assert listener.statistics().open == 300
    for second in range(24):
        now_s = float(second)
        listener.advance()
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        while listener.statistics().open:  # sockets close in the loop's turns
            now_s += 1
            listener.advance()
            await asyncio.sleep(0)
    for client in slow:
        client.close()
    await listener.close()
