"""What the tests of the HTTP engine share: a transport without a socket, a server in a thread, a client of raw bytes."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from headrace.http.buffered import BufferedConnection
from headrace.http.engine import Service
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.http.messages import Request
from tests.patience import PATIENCE_S

_pairs: list[socket.socket] = []  # of the fake transports of the running test


_writers: list[asyncio.StreamWriter] = []  # of the clients of the running test
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(address: int | Path, tls: ssl.SSLContext | None = None) -> Streams:
    """A client of a port on loopback or of a Unix socket, closed at the end of the test."""
    if isinstance(address, Path):
        streams = await asyncio.open_unix_connection(address)
    else:
        streams = await asyncio.open_connection("127.0.0.1", address, ssl=tls)
    _writers.append(streams[1])
    return streams


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on uvloop."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def main() -> None:
            try:
                async with asyncio.timeout(PATIENCE_S * 3):
                    await test(*args, **kwargs)
            finally:
                while _pairs:
                    _pairs.pop().close()
                for writer in _writers:
                    writer.transport.abort()
                _writers.clear()
                await asyncio.sleep(0)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    return run


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


def split_answers(raw: bytes, *, to_head: bool = False) -> list[Answer]:
    """Take a stream of answers apart, strictly; a rest that is not a whole answer fails the test."""
    answers = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = {}
        for name, value in (entry.split(b": ", 1) for entry in lines):
            headers[name.lower()] = value
        length = 0 if to_head else int(headers.get(b"content-length", b"0"))
        assert len(raw) >= length, "an answer is cut"
        answers.append(Answer(int(status), headers, raw[:length]))
        raw = raw[length:]
    return answers


class FakeTransport(asyncio.Transport):
    """Keeps what is written. Its socket is one end of a real pair, so that liveness can be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.socket, self.client = socket.socketpair()
        _pairs.extend((self.socket, self.client))
        self.writes: list[bytes] = []
        self.untaken_bytes = 0
        self.reading = True
        self.closed = False
        self.aborted = False
        self.eof_written = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self.socket, "peername": ("192.0.2.1", 5000)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def get_write_buffer_size(self) -> int:
        return self.untaken_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after close"
        self.writes.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)


class Rig:
    """One connection without a network; time moves by `advance`. To be made on a running loop."""

    def __init__(self, handler: Callable[[Request], None] | None = None, limits: Limits | None = None) -> None:
        self.requests: list[Request] = []
        self.service = Service(handler or self.requests.append, limits=limits or Limits())
        self.service.advance(now_s=0.0, unix_s=0.0)
        self.transport = FakeTransport()
        self.connection = BufferedConnection(self.service)
        self.connection.connection_made(self.transport)

    def receive(self, data: bytes) -> None:
        """Bytes come in, as from a transport: not while reading is paused."""
        assert self.transport.reading, "the engine has paused reading"
        self.connection.data_received(data)

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick a second."""
        end_s = self.service.now_s + seconds
        while self.service.now_s < end_s:
            self.service.advance(now_s=self.service.now_s + 1.0, unix_s=0.0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until `condition` holds; the test's patience is the deadline."""
        while not condition():  # noqa: ASYNC110  # the loop's turns are what is under test
            await asyncio.sleep(0)

    @property
    def answers(self) -> list[Answer]:
        return split_answers(self.transport.written)


def get(path: str = "/", *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Server:
    """A listener on a loop in a thread of its own. `seen` is what its handler was given: it echoes bodies."""

    port: int = 0
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    listener: Listener = field(init=False)

    def echo(self, request: Request) -> None:
        self.seen.append((request.method, request.target, request.body))
        request.respond(200, request.body, b"application/octet-stream")

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(self, stream: bytes) -> bytes:
        """Send `stream` and read until the server closes."""
        with self.connect() as client:
            client.sendall(stream)
            return read_to_end(client)


def read_to_end(client: socket.socket) -> bytes:
    received = []
    while data := client.recv(65_536):
        received.append(data)
    return b"".join(received)


@contextmanager
def serving(limits: Limits | None = None) -> Iterator[Server]:
    server, started = Server(), threading.Event()
    loop = uvloop.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        server.listener = Listener(server.echo, limits=limits)
        server.port = server.listener.open_tcp("127.0.0.1", 0)
        started.set()
        await stop.wait()
        await server.listener.close(grace_s=1.0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert started.wait(PATIENCE_S)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
