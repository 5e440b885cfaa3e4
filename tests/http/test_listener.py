"""Sockets: opening, accepting, running out of descriptors, TLS, closing."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from headrace.http.limits import Limits
from headrace.http.listener import AddressUnusable, Listener
from headrace.http.messages import Request
from tests.http.support import Streams, dial, get, on_loop, post, split_answers
from tests.patience import PATIENCE_S


def echo(request: Request) -> None:
    request.respond(200, request.body)


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(dir="/tmp") as name:  # socket paths must be short
        yield Path(name)


async def ask(streams: Streams, request: bytes) -> bytes:
    """The first answer's bytes to a small request."""
    reader, writer = streams
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the kernel has to bring about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # the kernel sets no event
        assert time.monotonic() < deadline, "it never came about"
        await asyncio.sleep(0.005)


@on_loop
async def test_tcp_and_unix_sockets_serve_the_same_handler(folder: Path) -> None:
    peers: list[tuple[str, bool]] = []

    def handler(request: Request) -> None:
        peers.append((request.peer, request.secure))
        echo(request)

    listener = Listener(handler)
    port = listener.open_tcp("127.0.0.1", 0)
    listener.open_unix(folder / "s")
    for streams in (await dial(port), await dial(folder / "s")):
        assert (await ask(streams, post("/", b"hi"))).endswith(b"\r\n\r\nhi")
        streams[1].close()
    assert peers == [("127.0.0.1", False), ("unix", False)]
    statistics = listener.statistics()
    assert (statistics.accepted, statistics.requests, statistics.refused) == (2, 2, 0)
    await listener.close()
    assert listener.statistics().open == 0


@on_loop
async def test_port_in_use_and_unknown_host_are_clear_errors() -> None:
    listener = Listener(echo)
    port = listener.open_tcp("127.0.0.1", 0)
    with pytest.raises(AddressUnusable, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        Listener(echo).open_tcp("127.0.0.1", port)
    with pytest.raises(AddressUnusable, match=r"cannot listen on 300\.0\.0\.1:0"):
        listener.open_tcp("300.0.0.1", 0)
    await listener.close()


@on_loop
async def test_unix_socket_is_private_and_removed_on_close(folder: Path) -> None:
    path = folder / "s"
    listener = Listener(echo)
    old = os.umask(0)
    try:
        listener.open_unix(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await listener.close()
    assert not path.exists()


@on_loop
async def test_unix_socket_of_a_dead_server_is_replaced_and_of_a_live_one_refused(folder: Path) -> None:
    path = folder / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    first = Listener(echo)
    first.open_unix(path)
    second = Listener(echo)
    with pytest.raises(AddressUnusable, match="another server listens there"):
        second.open_unix(path)
    assert (await ask(await dial(path), get("/"))).startswith(b"HTTP/1.1 200")
    await first.close()


@on_loop
async def test_what_is_no_socket_is_left_alone(folder: Path) -> None:
    (folder / "file").write_text("precious")
    (folder / "link").symlink_to(folder / "file")
    for name in ("file", "link"):
        with pytest.raises(AddressUnusable, match="left alone"):
            Listener(echo).open_unix(folder / name)
    with pytest.raises(AddressUnusable, match="longer than"):
        Listener(echo).open_unix(folder / ("x" * 108))
    assert (folder / "file").read_text() == "precious"


@on_loop
async def test_close_does_not_remove_a_successors_socket(folder: Path) -> None:
    path = folder / "s"
    first, second = Listener(echo), Listener(echo)
    first.open_unix(path)
    path.rename(folder / "moved")
    second.open_unix(path)
    await first.close()
    assert (await ask(await dial(path), get("/"))).startswith(b"HTTP/1.1 200")
    await second.close()


@on_loop
async def test_close_lets_requests_finish_and_accepts_no_more() -> None:
    waiting: list[Request] = []
    listener = Listener(waiting.append)
    port = listener.open_tcp("127.0.0.1", 0)
    idle = await dial(port)
    busy = await dial(port)
    answer = asyncio.create_task(ask(busy, get("/")))
    await until(lambda: bool(waiting))
    closing = asyncio.create_task(listener.close(grace_s=PATIENCE_S))
    assert await idle[0].read() == b""
    with pytest.raises(ConnectionRefusedError):
        await dial(port)
    assert not closing.done()
    waiting[0].respond(200, b"done")
    assert b"Connection: close" in await answer
    await closing
    await listener.close()


@on_loop
async def test_close_serves_what_is_in_the_backlog() -> None:
    listener = Listener(echo)
    port = listener.open_tcp("127.0.0.1", 0)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]  # the loop has not turned since
    for client in clients:
        client.sendall(post("/", b"sent in time"))
    await listener.close(grace_s=PATIENCE_S)
    for client in clients:
        with client:
            assert client.recv(1_000).endswith(b"sent in time")


@on_loop
async def test_close_cuts_what_exceeds_the_grace() -> None:
    waiting: list[Request] = []
    listener = Listener(waiting.append)
    reader, writer = await dial(listener.open_tcp("127.0.0.1", 0))
    left = asyncio.Event()
    writer.write(get("/"))
    await until(lambda: bool(waiting))
    waiting[0].on_disconnect = left.set
    await listener.close(grace_s=0.01)
    assert left.is_set()
    assert listener.statistics().open == 0
    assert await reader.read() == b""


@on_loop
async def test_connections_beyond_the_bound_wait_and_are_then_served() -> None:
    listener = Listener(echo, limits=Limits(connections_max=2))
    port = listener.open_tcp("127.0.0.1", 0)
    first = [await dial(port) for _ in range(2)]
    for streams in first:
        await ask(streams, get("/"))
    third = await dial(port)
    answer = asyncio.create_task(ask(third, get("/")))
    await ask(first[0], get("/"))
    assert not answer.done()
    first[0][1].close()
    assert (await answer).startswith(b"HTTP/1.1 200")
    await listener.close()


@on_loop
async def test_idle_connections_make_room_when_all_are_taken() -> None:
    now_s = 0.0
    listener = Listener(echo, limits=Limits(connections_max=2), now_s=lambda: now_s)
    port = listener.open_tcp("127.0.0.1", 0)
    for _ in range(2):
        await ask(await dial(port), get("/"))
    now_s = 3.0
    listener.advance()
    assert (await ask(await dial(port), get("/"))).startswith(b"HTTP/1.1 200")
    await listener.close()


@pytest.mark.serial
@on_loop
async def test_running_out_of_descriptors_costs_no_cpu_and_no_open_connection() -> None:
    listener = Listener(echo)
    port = listener.open_tcp("127.0.0.1", 0)
    served = await dial(port)
    await ask(served, get("/"))
    clients = [socket.socket() for _ in range(5)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 1, hard))
    try:
        for client in clients:
            client.connect(("127.0.0.1", port))
            client.sendall(get("/late"))
        started_s, used_s = time.monotonic(), time.process_time()
        for _ in range(20):
            assert (await ask(served, get("/"))).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.05)
        share = (time.process_time() - used_s) / (time.monotonic() - started_s)
        assert share < 0.5  # it would be nearly all; 0.01 on a quiet machine
        assert listener.statistics().accepted == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken)
    await until(lambda: listener.statistics().requests == 21 + len(clients))
    for client in clients:
        with client:
            assert client.recv(1_000).startswith(b"HTTP/1.1 200")
    await listener.close()


@pytest.mark.parametrize("ending", ["fin", "reset", "half"])
@on_loop
async def test_client_that_leaves_is_noticed_before_the_loop_turns(ending: str) -> None:
    waiting: list[Request] = []
    listener = Listener(waiting.append)
    client = socket.create_connection(("127.0.0.1", listener.open_tcp("127.0.0.1", 0)))
    client.sendall(get("/poll"))
    await until(lambda: bool(waiting))
    [request] = waiting
    left = asyncio.Event()
    request.on_disconnect = left.set
    assert request.connected()
    if ending == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if ending == "half":
        client.shutdown(socket.SHUT_WR)
    else:
        client.close()
    assert not request.connected()
    assert not left.is_set()
    await left.wait()
    request.respond(200, b"too late")
    client.close()
    await until(lambda: listener.statistics().open == 0)
    await listener.close()


@on_loop
async def test_large_answer_reaches_a_client_that_reads_late() -> None:
    listener = Listener(lambda request: request.respond(200, b"x" * 20_000_000))
    reader, writer = await dial(listener.open_tcp("127.0.0.1", 0))
    writer.write(get("/", "Connection: close"))
    await until(lambda: listener.statistics().requests == 1)
    assert len(split_answers(await reader.read())[0].body) == 20_000_000
    await listener.close()
