"""A worker that does what the test says, frame by frame, on a real link to a real dispatcher."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from headrace.web.dispatch.dispatcher import Dispatcher
from headrace.web.ipc.frames import COUNT, HEAD, HEADER, File, Hello, Kind, Request
from headrace.web.ipc.link_server import LinkServer
from tests.patience import PATIENCE_S
from tests.web.fakes import FakeExchange

Frame = tuple[Kind, int, bytes]


def head(status: int = 200, *, length: int = -1, block: bytes = b"", flags: int = 0) -> bytes:
    return HEAD.pack(status, flags, length, len(block)) + block


@dataclass
class Given:
    """A request that a worker has been given."""

    number: int
    head: Request
    body: bytes


class Worker:
    """One link. `pid` is made up, unless the test gives the real one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.before_pong: Callable[[], None] = lambda: None

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.writer.write(HEADER.pack(len(payload), number, kind) + payload)

    def hello(self, *, pid: int, generation: int = 1, interface: str = "wsgi", capacity: int = 1) -> None:
        hello = Hello(pid=pid, generation=generation, interface=interface, capacity=capacity)
        self.send(Kind.HELLO, 0, msgspec.msgpack.encode(hello))

    async def next(self) -> Frame:
        async with asyncio.timeout(PATIENCE_S):
            length, number, kind = HEADER.unpack(await self.reader.readexactly(HEADER.size))
            return Kind(kind), number, await self.reader.readexactly(length)

    async def frame(self) -> Frame:
        """The next one; PING is answered on the way."""
        while (frame := await self.next())[0] is Kind.PING:
            self.before_pong()
            self.send(Kind.PONG, *frame[1:])
        return frame

    async def request(self) -> Given:
        kind, number, payload = await self.frame()
        assert kind is Kind.REQUEST, kind
        begin = COUNT.size + COUNT.unpack_from(payload)[0]
        return Given(number, msgspec.msgpack.decode(payload[COUNT.size : begin], type=Request), payload[begin:])

    async def rest_of_body(self, given: Given) -> bytes:
        """What comes until ENDED, consumed as it comes."""
        pieces = [given.body]
        self.consumed(given, len(given.body))
        while True:
            kind, _, payload = await self.frame()
            if kind is Kind.ENDED:
                return b"".join(pieces)
            assert kind is Kind.BODY, kind
            pieces.append(payload)
            self.consumed(given, len(payload))

    def consumed(self, given: Given, count: int) -> None:
        self.send(Kind.CONSUMED, given.number, COUNT.pack(count))

    def answer(self, given: Given, body: bytes = b"ok", status: int = 200, block: bytes = b"") -> None:
        self.send(Kind.ANSWER, given.number, head(status, block=block) + body)

    def begin(self, given: Given, status: int = 200, *, length: int = -1) -> None:
        self.send(Kind.HEAD, given.number, head(status, length=length))

    def data(self, given: Given, piece: bytes) -> None:
        self.send(Kind.DATA, given.number, piece)

    def file(self, given: Given, *, fd: int, offset: int, count: int) -> None:
        self.send(Kind.FILE, given.number, msgspec.msgpack.encode(File(fd, offset, count)))

    def end(self, given: Given) -> None:
        self.send(Kind.ENDED, given.number)

    async def left(self) -> bytes:
        """Until the edge has closed the link; what it sent before."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def die(self) -> None:
        self.writer.transport.abort()


@dataclass
class Rig:
    """A dispatcher that listens. Its clock is moved by hand when the test says so."""

    path: Path
    dispatcher: Dispatcher
    server: LinkServer
    hung: list[int]
    workers: list[Worker] = field(default_factory=list)
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(1_000_001))

    async def connect(self) -> Worker:
        worker = Worker(*await asyncio.open_unix_connection(self.path))
        self.workers.append(worker)
        return worker

    async def worker(
        self, *, pid: int = 0, generation: int = 1, interface: str = "wsgi", capacity: int = 1, links: int = 1
    ) -> list[Worker]:
        """A process with so many links; they are ready when this returns."""
        pid = pid or next(self.pids)
        before = self.links_of(pid)
        workers = [await self.connect() for _ in range(links)]
        for worker in workers:
            worker.hello(pid=pid, generation=generation, interface=interface, capacity=capacity)
        await self.until(lambda: self.links_of(pid) == before + links)
        return workers

    async def thread(self, **hello: Any) -> Worker:
        [worker] = await self.worker(**hello)
        return worker

    @property
    def links(self) -> int:
        return sum(link.hello is not None for link in self.server._links)

    def links_of(self, pid: int) -> int:
        return sum(link.hello is not None and link.hello.pid == pid for link in self.server._links)

    def ask(self, method: str = "GET", target: str = "/", **kwargs: Any) -> FakeExchange:
        exchange = FakeExchange(method, target, **kwargs)
        self.dispatcher(exchange)
        return exchange

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # the loop's turns are what is under test
                await asyncio.sleep(0)


@asynccontextmanager
async def dispatching(folder: Path, **settings: Any) -> AsyncIterator[Rig]:
    hung: list[int] = []
    dispatcher = Dispatcher(**{"chance": lambda: 0.0, "on_hung": hung.append, "spool_folder": folder, **settings})
    rig = Rig(folder / "links", dispatcher, LinkServer(folder / "links", dispatcher), hung)
    await rig.server._opening
    try:
        yield rig
    finally:
        for worker in rig.workers:
            worker.writer.transport.abort()
        await rig.server.close()
        if dispatcher._timer is not None:
            dispatcher._timer.cancel()


async def answered(exchange: FakeExchange) -> FakeExchange:
    async with asyncio.timeout(PATIENCE_S):
        await exchange.done.wait()
    return exchange


class Clock:
    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
