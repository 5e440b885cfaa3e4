"""Files as answers, on real sockets: by the kernel and under TLS, whole or visibly cut."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.http.tls import server_tls
from tests.http.streamed import PLAIN, StreamRig, read_answers
from tests.http.support import Streams, dial, get, on_loop
from tests.patience import PATIENCE_S

CONTENT = bytes(range(256)) * 12_000  # 3 MB: far more than the sockets' buffers hold


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's."""
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "pem")
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server_tls(folder / "pem"), client


def sized(length: int) -> Fields:
    return Fields.of([(b"Content-Length", b"%d" % length)])


def sends(file: Path, *, offset: int = 0, count: int = len(CONTENT), known: bool = True) -> Callable[[Exchange], None]:
    """A target that answers with a piece of a file, and ends the answer at once."""

    def target(exchange: Exchange) -> None:
        exchange.start(200, sized(count) if known else PLAIN)
        exchange.send_file(os.open(file, os.O_RDONLY), offset, count)
        exchange.finish()

    return target


def is_open(file: Path) -> bool:
    """Whether this process has the file open (Linux tells). A duplicated socket shows as an end that does not come."""
    return any(path.is_symlink() and path.readlink() == file for path in Path("/proc/self/fd").glob("*"))


async def read_all(streams: Streams, request: bytes) -> bytes:
    """Everything until the server closes."""
    streams[1].write(request)
    async with asyncio.timeout(PATIENCE_S):
        return await streams[0].read()


CLOSE = get("/", "Connection: close")


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("known", [False, True])
@on_loop
async def test_file_is_sent_whole(file: Path, tmp_path: Path, authority: trustme.CA, secure: bool, known: bool) -> None:
    server, client = contexts(authority, tmp_path)
    listener = Listener(target=sends(file, known=known), tls=server if secure else None)
    port = listener.open_tcp("127.0.0.1", 0)
    streams = await dial(port, client if secure else None)
    [first, second] = read_answers(await read_all(streams, get("/") + CLOSE))
    assert first.body == second.body == CONTENT
    await listener.close()
    assert not is_open(file)


@pytest.mark.parametrize("secure", [False, True])
@on_loop
async def test_pieces_of_files_and_bytes_keep_their_order(
    file: Path, tmp_path: Path, authority: trustme.CA, secure: bool
) -> None:
    def target(exchange: Exchange) -> None:
        steps: list[Callable[[], None]] = [
            lambda: exchange.send(b"<" * 200_000),
            lambda: exchange.send_file(os.open(file, os.O_RDONLY), 1, 1_000_000),
            lambda: exchange.send(b"|"),
            lambda: exchange.send_file(os.open(file, os.O_RDONLY), 0, 0),
            lambda: exchange.send_file(os.open(file, os.O_RDONLY), 2, 10),
            lambda: exchange.send(b">"),
            exchange.finish,
        ]

        def go_on() -> None:
            while steps and exchange.writable:
                steps.pop(0)()

        exchange.start(200, PLAIN)
        exchange.notify = go_on
        go_on()

    server, client = contexts(authority, tmp_path)
    listener = Listener(target=target, tls=server if secure else None)
    port = listener.open_tcp("127.0.0.1", 0)
    [answer] = read_answers(await read_all(await dial(port, client if secure else None), CLOSE))
    assert answer.body == b"<" * 200_000 + CONTENT[1:1_000_001] + b"|" + CONTENT[2:12] + b">"
    await listener.close()


@on_loop
async def test_file_waits_for_what_the_transport_still_has_to_write(file: Path) -> None:
    def target(exchange: Exchange) -> None:
        if exchange.path == "/file":
            sends(file)(exchange)
        else:
            exchange.respond(200, PLAIN, b"x" * 1_000_000)

    listener = Listener(target=target, limits=Limits(write_buffer_bytes=10_000_000))
    port = listener.open_tcp("127.0.0.1", 0)
    request = get("/") * 3 + get("/file") + get("/") + get("/file", "Connection: close")
    answers = read_answers(await read_all(await dial(port), request))
    assert [len(answer.body) for answer in answers] == [1_000_000] * 3 + [len(CONTENT), 1_000_000, len(CONTENT)]
    assert answers[3].body == answers[5].body == CONTENT
    await listener.close()


@on_loop
async def test_file_does_not_overtake_bytes_when_room_was_told_before(file: Path) -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.transport.client.setblocking(False)
    rig.transport.untaken_bytes = 100
    rig.connection.resume_writing()  # takes effect in the loop's next turn
    rig.exchange.start(200, sized(10))
    rig.exchange.send_file(os.open(file, os.O_RDONLY), 0, 10)
    await rig.turn()
    assert not rig.exchange.writable
    with pytest.raises(BlockingIOError):
        rig.transport.client.recv(100)
    rig.transport.untaken_bytes = 0
    rig.connection.resume_writing()
    await rig.turn()
    assert rig.transport.client.recv(100) == CONTENT[:10]
    assert rig.exchange.writable


@on_loop
async def test_client_that_half_closes_gets_its_file_still(file: Path) -> None:
    listener = Listener(target=sends(file))
    port = listener.open_tcp("127.0.0.1", 0)
    streams = await dial(port)
    streams[1].write(get("/"))
    streams[1].write_eof()
    [answer] = read_answers(await streams[0].read())
    assert answer.body == CONTENT
    await listener.close()


@on_loop
async def test_only_one_file_at_a_time(file: Path) -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.transport.untaken_bytes = 100
    rig.exchange.start(200, PLAIN)
    rig.exchange.send_file(os.open(file, os.O_RDONLY), 0, 10)
    with pytest.raises(AssertionError, match="wait until writable"):
        rig.exchange.send(b"x")
    rig.exchange.abort()
    assert not is_open(file)


@on_loop
async def test_head_method_takes_and_closes_the_file(file: Path) -> None:
    listener = Listener(target=sends(file))
    port = listener.open_tcp("127.0.0.1", 0)
    raw = await read_all(await dial(port), CLOSE.replace(b"GET", b"HEAD"))
    [answer] = read_answers(raw, ["HEAD"])
    assert answer.headers[b"content-length"] == b"%d" % len(CONTENT)
    await listener.close()
    assert not is_open(file)


@pytest.mark.parametrize("secure", [False, True])
@on_loop
async def test_file_that_was_cut_in_the_meantime_cuts_the_answer(
    file: Path, tmp_path: Path, authority: trustme.CA, secure: bool
) -> None:
    exchanges: list[Exchange] = []
    told = asyncio.Event()

    def target(exchange: Exchange) -> None:
        exchanges.append(exchange)
        exchange.notify = told.set
        exchange.start(200, sized(len(CONTENT) + 1))
        exchange.send_file(os.open(file, os.O_RDONLY), 0, len(CONTENT) + 1)
        assert not exchange.gone  # it is told, not changed inside of the call

    server, client = contexts(authority, tmp_path)
    listener = Listener(target=target, tls=server if secure else None)
    port = listener.open_tcp("127.0.0.1", 0)
    streams = await dial(port, client if secure else None)
    try:
        raw = await read_all(streams, get("/"))
        assert len(raw.partition(b"\r\n\r\n")[2]) <= len(CONTENT)
    except ConnectionError:
        pass  # a reset is as visible
    await told.wait()
    assert exchanges[0].gone
    await listener.close()


@on_loop
async def test_client_that_leaves_while_a_file_is_sent_ends_it(file: Path) -> None:
    exchanges: list[Exchange] = []
    told = asyncio.Event()

    def target(exchange: Exchange) -> None:
        exchanges.append(exchange)
        exchange.notify = told.set
        exchange.start(200, sized(len(CONTENT)))
        exchange.send_file(os.open(file, os.O_RDONLY), 0, len(CONTENT))

    listener = Listener(target=target)
    port = listener.open_tcp("127.0.0.1", 0)
    streams = await dial(port)
    streams[1].write(get("/"))
    await streams[0].readexactly(10)
    assert not exchanges[0].writable
    streams[1].transport.abort()
    await told.wait()
    assert exchanges[0].gone
    await listener.close()
    assert not is_open(file)


@on_loop
async def test_client_that_takes_its_file_too_slowly_is_cut_off(file: Path) -> None:
    now_s = 0.0
    listener = Listener(target=sends(file), limits=Limits(rate_window_s=10), now_s=lambda: now_s)
    port = listener.open_tcp("127.0.0.1", 0)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, get("/"))
        assert await loop.sock_recv(client, 4)  # the file is on its way
        for second in range(14):
            now_s = float(second)
            listener.advance()
        async with asyncio.timeout(PATIENCE_S):
            while listener.statistics().open:  # noqa: ASYNC110  # the loop's turns end it
                await asyncio.sleep(0)
    await listener.close()


@on_loop
async def test_others_are_served_while_a_large_file_is_sent(file: Path) -> None:
    def target(exchange: Exchange) -> None:
        if exchange.path == "/file":
            sends(file)(exchange)
        else:
            exchange.respond(200, PLAIN, b"small")

    listener = Listener(target=target)
    port = listener.open_tcp("127.0.0.1", 0)
    slow = await dial(port)
    slow[1].write(get("/file"))
    await slow[0].readexactly(10)
    [answer] = read_answers(await read_all(await dial(port), CLOSE))
    assert answer.body == b"small"
    await listener.close(grace_s=0)
