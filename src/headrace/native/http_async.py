"""The HTTP transport for an event loop: asyncio connections, kept alive in a pool."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

from headrace.errors import HeadraceError, OutcomeUnknown, Unavailable
from headrace.native import protocol
from headrace.native.endpoint import Endpoint, keep_alive
from headrace.native.exchange import BadResponse, RequestWriter, ResponseReader
from headrace.native.http_sync import CONNECT_TIMEOUT_S, HANGS, IDLE_MAX_S, LOOK_S, THERE_S
from headrace.native.retry import Attempts
from headrace.native.signing import Credentials
from headrace.native.turns import Turns
from headrace.queue.operations import Operation, Waiting

T = TypeVar("T")

CONNECTIONS_MAX: Final = 64
"""Calls on their way at once; more wait for their turn. Receives that wait have connections of their own."""


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = ResponseReader()
        self._reader.complete = True
        self._answer: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._watching: asyncio.Task[None] | None = None
        self.used_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, though no subclass
        connected = transport.get_extra_info("socket")
        if connected.family != socket.AF_UNIX:
            keep_alive(connected)

    def data_received(self, data: bytes) -> None:
        try:
            complete = self._reader.feed(data)
        except BadResponse as error:
            self._end(error)
            return
        if complete and self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(exc or BadResponse("the server closed it"))

    def stale(self, now_s: float) -> bool:
        return now_s - self.used_s > IDLE_MAX_S or self._transport is None or self._transport.is_closing()

    async def exchange(
        self, request: bytes, timeout_s: float, is_there: Callable[[], Awaitable[bool]] | None = None
    ) -> ResponseReader:
        """As in `http_sync`; that a request was not sent whole cannot be known here."""
        if self._transport is None:
            raise Unavailable("the connection broke before the request was sent")
        self._reader.expect()
        self._answer = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._end, TimeoutError(f"no answer within {timeout_s:.0f} s"))
        look = self._loop.call_later(LOOK_S, self._watch, is_there) if is_there is not None else None
        try:
            self._transport.write(request)
            await self._answer
        except (OSError, BadResponse) as error:
            raise OutcomeUnknown(f"the connection broke before the answer: {error}") from None
        finally:
            timer.cancel()
            if look is not None:
                look.cancel()
            if self._watching is not None:
                self._watching.cancel()
            self._answer = self._watching = None
        return self._reader

    def _watch(self, is_there: Callable[[], Awaitable[bool]]) -> None:
        async def watch() -> None:
            while await is_there():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(LOOK_S)
            self._end(BadResponse(HANGS))

        self._watching = self._loop.create_task(watch())

    def close(self) -> None:
        """At once: what is still to be written is not."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _end(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()


class _Node:
    """One node and its connections."""

    __slots__ = ("_context", "_endpoint", "_idle", "_open", "_there_s", "writer")

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None) -> None:
        self.writer = RequestWriter(endpoint, credentials)
        self._endpoint = endpoint
        self._context = endpoint.ssl_context()
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._there_s = 0.0

    async def take(self) -> Connection:
        """A connection for one exchange. Raises Unavailable."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale(now_s):
                return connection
            self.end(connection)
        connection = await _connect(self._endpoint, self._context)
        self._open.add(connection)
        return connection

    async def is_there(self) -> bool:
        """As in `http_sync`."""
        now_s = asyncio.get_running_loop().time
        if now_s() < self._there_s + LOOK_S:
            return True
        try:
            connection = await _connect(self._endpoint, self._context)
            try:
                await connection.exchange(self.writer.live(), THERE_S)
            finally:
                connection.close()
        except (Unavailable, OutcomeUnknown):
            return False
        self._there_s = now_s()
        return True

    def give_back(self, connection: Connection) -> None:
        connection.used_s = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def end(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        for connection in list(self._open):
            connection.close()
        self._idle.clear()


class AsyncHttpTransport:
    """A pool of connections to one broker, to one of its nodes at a time; arguments as `HttpTransport`."""

    def __init__(
        self, endpoint: Endpoint, *, timeout_s: float, patience_s: float, credentials: Credentials | None = None
    ) -> None:
        self._nodes = [_Node(node, credentials) for node in endpoint.nodes]
        self._turns = Turns(len(self._nodes))
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._closed = False

    async def call(self, operation: Operation, wait_ms: int = 0) -> Any:
        wait = wait_ms if isinstance(operation, Waiting) else None
        body = protocol.encode_operation(operation)
        attempts = Attempts(operation, now_s=asyncio.get_running_loop().time(), patience_s=self._patience_s)

        async def exchange(node: _Node) -> Any:
            answered = await self._in_turn(node, node.writer.call(body, wait), wait or 0)
            return protocol.decode_outcome(operation, *answered)

        while True:
            try:
                return await self._at_a_node(exchange)
            except HeadraceError as error:
                now_s = asyncio.get_running_loop().time()
                chance = random.random()  # noqa: S311 - jitter is no secret
                await asyncio.sleep(attempts.pause_s(error, now_s=now_s, chance=chance))

    async def statistics(self) -> protocol.BrokerStatistics:
        async def exchange(node: _Node) -> protocol.BrokerStatistics:
            return protocol.decode_statistics(*await self._in_turn(node, node.writer.statistics(), 0))

        return await self._at_a_node(exchange)

    async def close(self) -> None:
        self._closed = True
        for node in self._nodes:
            node.close()

    async def _at_a_node(self, exchange: Callable[[_Node], Awaitable[T]]) -> T:
        """As in `http_sync`."""
        for turn in self._turns.each(asyncio.get_running_loop().time):
            with turn as at:
                return await exchange(self._nodes[at])
        raise AssertionError("a broker has a node")

    async def _in_turn(self, node: _Node, request: bytes, wait_ms: int) -> tuple[int, bytes]:
        if wait_ms:
            return await self._exchange(node, request, self._timeout_s + wait_ms / 1000)
        async with self._places:
            return await self._exchange(node, request, self._timeout_s)

    async def _exchange(self, node: _Node, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        if self._closed:
            raise Unavailable("this client is closed")
        connection = await node.take()
        reusable = False
        try:
            response = await connection.exchange(request, timeout_s, node.is_there if len(self._nodes) > 1 else None)
            reusable = response.reusable and not self._closed
            return response.status, response.body
        finally:  # a cancelled call closes its connection: the broker then hands out nothing on it
            if reusable:
                node.give_back(connection)
            else:
                node.end(connection)


async def _connect(endpoint: Endpoint, context: ssl.SSLContext | None) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if endpoint.unix_path is not None:
                _, connection = await loop.create_unix_connection(lambda: Connection(loop), endpoint.unix_path)
            else:
                _, connection = await loop.create_connection(
                    lambda: Connection(loop), endpoint.host, endpoint.port, ssl=context
                )
    except OSError as error:
        raise Unavailable(f"no broker at {endpoint}: {error.strerror or error}") from None
    return connection
