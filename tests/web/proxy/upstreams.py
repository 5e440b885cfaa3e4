"""Upstream servers that do what the test says, on real sockets, and a proxy in front of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from headrace.web.dispatch.statistics import UpstreamStatistics
from headrace.web.proxy import ProxyTarget
from headrace.web.settings import RouteSettings
from tests.patience import PATIENCE_S
from tests.web.fakes import FakeExchange
from tests.web.scripted import Clock, answered

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Got:
    """A request as it came to the upstream."""

    line: str
    headers: dict[str, str]
    body: bytes = b""


class Connection:
    """One that the proxy has made."""

    def __init__(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self.source = source
        self.sink = sink

    async def head(self) -> Got:
        """The next request's head; repeated headers would fail the test."""
        async with asyncio.timeout(PATIENCE_S):
            raw = (await self.source.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = raw[:-4].split("\r\n")
        headers: dict[str, str] = {}
        for name, value in (entry.split(": ", 1) for entry in lines):
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        return Got(line, headers)

    async def request(self) -> Got:
        """The next request with its body."""
        got = await self.head()
        async with asyncio.timeout(PATIENCE_S):
            if "content-length" in got.headers:
                assert "transfer-encoding" not in got.headers
                got.body = await self.source.readexactly(int(got.headers["content-length"]))
            elif "transfer-encoding" in got.headers:
                got.body = await self.chunks()
        return got

    async def chunks(self) -> bytes:
        body = b""
        while size := int(await self.source.readuntil(b"\r\n"), 16):
            body += await self.source.readexactly(size)
            assert await self.source.readexactly(2) == b"\r\n"
        assert await self.source.readexactly(2) == b"\r\n"
        return body

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.source.readexactly(size)

    async def ended(self) -> bytes:
        """What comes until the proxy closes, in order or not."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.source.read()
            except ConnectionError:
                return b""

    def send(self, data: bytes) -> None:
        self.sink.write(data)

    def close(self) -> None:
        self.sink.close()

    def end_now(self) -> None:
        """Close the sending half before the loop turns."""
        fd = self.sink.get_extra_info("socket").fileno()
        with socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as copy:
            copy.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        sock = self.sink.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sink.transport.abort()


@dataclass
class Server:
    """An upstream."""

    url: str = ""
    connections: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)
    accepted: int = 0
    _listener: asyncio.Server | None = None
    _all: list[Connection] = field(default_factory=list)

    async def start(self, tls: ssl.SSLContext | None = None, port: int = 0) -> Server:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=tls)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{port}"
        return self

    async def start_unix(self, path: str) -> Server:
        self._listener = await asyncio.start_unix_server(self._accept, path)
        self.url = f"unix:{path}"
        return self

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def _accept(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = Connection(source, sink)
        self._all.append(connection)
        self.connections.put_nowait(connection)

    async def connection(self) -> Connection:
        async with asyncio.timeout(PATIENCE_S):
            return await self.connections.get()

    async def given(self) -> tuple[Connection, Got]:
        """The next connection, and its first request."""
        connection = await self.connection()
        return connection, await connection.request()

    async def stop(self) -> None:
        """Nobody listens any more, and all connections are cut."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in self._all:
            connection.sink.transport.abort()
        await asyncio.sleep(0)


@dataclass
class Rig:
    """A proxy and its upstreams."""

    proxy: ProxyTarget
    servers: list[Server]
    clock: Clock

    @property
    def server(self) -> Server:
        return self.servers[0]

    def ask(self, method: str = "GET", target: str = "/", **settings: Any) -> FakeExchange:
        exchange = FakeExchange(method, target, **settings)
        self.proxy(exchange)
        return exchange

    async def served(self, answer: bytes, method: str = "GET", **settings: Any) -> tuple[FakeExchange, Connection]:
        """A request that the first upstream answers with these bytes."""
        exchange = self.ask(method, **settings)
        connection, _ = await self.server.given()
        connection.send(answer)
        return await answered(exchange), connection

    def advance(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.proxy.advance(self.clock.now_s)

    def of(self, server: Server) -> UpstreamStatistics:
        return self.proxy.proxy_statistics().upstreams[server.url]

    async def until(self, holds: Any) -> None:
        """Let the loop run until this is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110  # what is waited for is the loop's own doing
                await asyncio.sleep(0.001)


@asynccontextmanager
async def proxying(
    count: int = 1,
    *,
    servers: list[Server] | None = None,
    queue_size: int = 10,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A proxy in front of so many upstreams; `settings` are a route's."""
    servers = servers or [await Server().start() for _ in range(count)]
    clock = Clock()
    route = RouteSettings(proxy=tuple(server.url for server in servers), **settings)
    proxy = ProxyTarget(route, tls=tls, queue_size=queue_size, now_s=clock, chance=lambda: 0.0)
    rig = Rig(proxy, servers, clock)
    try:
        yield rig
    finally:
        for server in servers:
            await server.stop()
        await proxy.close()


__all__ = ["OK", "Connection", "Got", "Rig", "Server", "answered", "proxying"]
