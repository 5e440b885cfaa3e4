"""What the tests of streamed connections share: a rig without a network, a listener in a thread, targets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvloop

from headrace.http.engine import Service
from headrace.http.exchange import Exchange, Target
from headrace.http.fields import Fields
from headrace.http.http1 import StreamedConnection
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from tests.http.support import Answer, FakeTransport, Server
from tests.patience import PATIENCE_S

PLAIN = Fields.of([(b"Content-Type", b"text/plain")])


class StreamRig:
    """One streamed connection without a network; time moves by `advance`. To be made on a running loop."""

    def __init__(self, target: Target | None = None, limits: Limits | None = None) -> None:
        self.exchanges: list[Exchange] = []
        self.service = Service(target=target or self.exchanges.append, limits=limits or Limits())
        self.service.advance(now_s=0.0, unix_s=0.0)
        self.transport = FakeTransport()
        self.connection = StreamedConnection(self.service)
        self.connection.connection_made(self.transport)

    def receive(self, data: bytes) -> None:
        assert self.transport.reading, "the engine has paused reading"
        self.connection.data_received(data)

    def advance(self, seconds: float) -> None:
        end_s = self.service.now_s + seconds
        while self.service.now_s < end_s:
            self.service.advance(now_s=self.service.now_s + 1.0, unix_s=0.0)

    async def turn(self, turns: int = 3) -> None:
        """Let the loop run what is due."""
        for _ in range(turns):
            await asyncio.sleep(0)

    @property
    def written(self) -> bytes:
        return self.transport.written

    @property
    def answers(self) -> list[Answer]:
        return read_answers(self.written)

    @property
    def exchange(self) -> Exchange:
        return self.exchanges[-1]


def read_answers(raw: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """Take a stream of whole answers apart, chunked ones too; a rest that is none fails the test."""
    answers: list[Answer] = []
    while raw:
        method = methods[len(answers)] if len(answers) < len(methods) else "GET"
        head, end, raw = raw.partition(b"\r\n\r\n")
        assert end, f"an answer's head is cut: {head!r}"
        line, *lines = head.split(b"\r\n")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers: dict[bytes, bytes] = {}
        for name, value in (entry.split(b": ", 1) for entry in lines):
            assert name.lower() not in headers, f"{name!r} twice"
            headers[name.lower()] = value
        if method == "HEAD" or status[:1] == b"1" or status in {b"204", b"304"}:
            body = b""
        elif b"transfer-encoding" in headers:
            assert b"content-length" not in headers
            body, raw = _read_chunks(raw)
        elif b"content-length" in headers:
            length = int(headers[b"content-length"])
            assert len(raw) >= length, "an answer is cut"
            body, raw = raw[:length], raw[length:]
        else:
            assert headers[b"connection"] == b"close", "an answer without an end"
            body, raw = raw, b""
        answers.append(Answer(int(status), headers, body))
    return answers


def _read_chunks(raw: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, end, raw = raw.partition(b"\r\n")
        assert end, "an answer's chunks are cut"
        count = int(size, 16)
        assert raw[count : count + 2] == b"\r\n", "an answer's chunks are cut"
        body, raw = body + raw[:count], raw[count + 2 :]
        if not count:
            return body, raw


class Echo:
    """A target that takes the whole body, then answers with it. `seen` is what was whole."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    def __call__(self, exchange: Exchange) -> None:
        body = bytearray()

        def more() -> None:
            body.extend(exchange.take())
            if exchange.ended and not exchange.gone:
                body.extend(exchange.take())
                exchange.notify = None
                self.seen.append((exchange.method, exchange.target, bytes(body)))
                exchange.respond(200, PLAIN, bytes(body))

        exchange.notify = more
        more()


@dataclass
class StreamServer(Server):
    """A listener of streamed connections on a loop in a thread of its own."""

    target: Callable[[Exchange], None] = field(default_factory=Echo)

    def call(self, action: Callable[[], None]) -> None:
        """Run on the server's loop, and wait for that."""
        done = threading.Event()

        def run() -> None:
            try:
                action()
            finally:
                done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(PATIENCE_S)

    loop: asyncio.AbstractEventLoop = field(init=False)


@contextmanager
def stream_serving(target: Target | None = None, limits: Limits | None = None) -> Iterator[StreamServer]:
    server, started = StreamServer(target=target or Echo()), threading.Event()
    loop = server.loop = uvloop.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        server.listener = Listener(target=server.target, limits=limits)
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
