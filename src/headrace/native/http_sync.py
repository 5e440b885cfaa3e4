"""The HTTP transport for threads: blocking sockets, kept alive in a pool.

Not http.client: its parsing of a response's head costs 60 µs, httptools' 2.
"""

from __future__ import annotations

import os
import random
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from headrace.errors import HeadraceError, OutcomeUnknown, Unavailable
from headrace.native import protocol
from headrace.native.endpoint import Endpoint, keep_alive
from headrace.native.exchange import READ_BYTES, BadResponse, RequestWriter, ResponseReader
from headrace.native.retry import Attempts
from headrace.native.signing import Credentials
from headrace.native.turns import Turns
from headrace.queue.operations import Operation, Waiting

T = TypeVar("T")

IDLE_MAX_S: Final = 30.0
"""A connection idle for longer is not used again: the server closes idle ones after 60 s, perhaps just then."""
CONNECT_TIMEOUT_S: Final = 5.0
LOOK_S: Final = 5.0
"""Where there are other nodes, one that has not answered for so long is asked whether it is there at all: one that hangs does
not say, one that works or waits for its database does."""
THERE_S: Final = 5.0  # so long it may take to say so
HANGS: Final = "the node hangs: it does not even say that it is there"


class Connection:
    """One socket, one exchange at a time."""

    __slots__ = ("_poll", "_reader", "_socket", "used_s")

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        try:
            self._socket = _connected_socket(endpoint, context)
        except OSError as error:
            raise Unavailable(f"no broker at {endpoint}: {error.strerror or error}") from None
        self._reader = ResponseReader()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self.used_s = 0.0

    def stale(self, now_s: float) -> bool:
        """Whether the server has closed it, or may be about to. Idle, it has nothing to read unless it has ended."""
        return now_s - self.used_s > IDLE_MAX_S or bool(self._poll.poll(0))

    def exchange(self, request: bytes, timeout_s: float, is_there: Callable[[], bool] | None = None) -> ResponseReader:
        """Send, and read the whole response. `is_there`: asked each LOOK_S whether it is worth waiting.

        Raises:
            Unavailable: the request was not sent whole: the server cannot have acted on it.
            OutcomeUnknown: it was, and no whole response came.
        """
        self._reader.expect()
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(request)
        except OSError as error:
            raise Unavailable(f"the connection broke while the request was sent: {error}") from None
        deadline_s = time.monotonic() + timeout_s
        try:
            while not self._reader.feed(self._read(deadline_s, is_there)):
                pass
        except (OSError, BadResponse) as error:
            if isinstance(error, TimeoutError) and error.errno is None:  # else: the machine is gone, says the system
                raise OutcomeUnknown(f"no answer within {timeout_s:.0f} s") from None
            raise OutcomeUnknown(f"the connection broke before the answer: {error}") from None
        return self._reader

    def close(self) -> None:
        self._socket.close()

    def _read(self, deadline_s: float, is_there: Callable[[], bool] | None) -> bytes:
        while True:
            left_s = deadline_s - time.monotonic()
            self._socket.settimeout(max(0.001, left_s if is_there is None else min(left_s, LOOK_S)))
            try:
                data = self._socket.recv(READ_BYTES)
            except TimeoutError as error:
                if is_there is None or left_s <= LOOK_S or error.errno is not None:
                    raise
                if not is_there():
                    raise BadResponse(HANGS) from None
            else:
                if not data:
                    raise BadResponse("the server closed it")
                return data


class _Node:
    """One node and its connections; the last used is used first, so that the rest may go idle and end."""

    __slots__ = ("_context", "_endpoint", "_idle", "_process", "_there_s", "writer")

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None) -> None:
        self.writer = RequestWriter(endpoint, credentials)
        self._endpoint = endpoint
        self._context = endpoint.ssl_context()
        self._idle: list[Connection] = []
        self._process = os.getpid()
        self._there_s = 0.0

    def take(self) -> Connection:
        """A connection for one exchange. Raises Unavailable."""
        self._forget_parents_connections()
        now_s = time.monotonic()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return Connection(self._endpoint, self._context)
            if not connection.stale(now_s):
                return connection
            connection.close()

    def is_there(self) -> bool:
        """Whether it answers anything, on a connection of its own. Many calls that wait ask once."""
        if time.monotonic() < self._there_s + LOOK_S:
            return True
        try:
            connection = Connection(self._endpoint, self._context)
            try:
                connection.exchange(self.writer.live(), THERE_S)
            finally:
                connection.close()
        except (Unavailable, OutcomeUnknown):
            return False
        self._there_s = time.monotonic()
        return True

    def give_back(self, connection: Connection) -> None:
        connection.used_s = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _forget_parents_connections(self) -> None:
        """After a fork two processes hold the same sockets: the child opens its own."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._idle = []


class HttpTransport:
    """A pool of connections to one broker, to one of its nodes at a time.

    Args:
        endpoint: the broker.
        timeout_s: how long an answer may take, the wait of a receive not counted.
        patience_s: how long a call is tried again while the broker cannot be reached.
        credentials: a key, for a broker that has keys.
    """

    def __init__(
        self, endpoint: Endpoint, *, timeout_s: float, patience_s: float, credentials: Credentials | None = None
    ) -> None:
        self._nodes = [_Node(node, credentials) for node in endpoint.nodes]
        self._turns = Turns(len(self._nodes))
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._closed = False

    def call(self, operation: Operation, wait_ms: int = 0) -> Any:
        wait = wait_ms if isinstance(operation, Waiting) else None
        body = protocol.encode_operation(operation)
        timeout_s = self._timeout_s + wait_ms / 1000
        attempts = Attempts(operation, now_s=time.monotonic(), patience_s=self._patience_s)

        def exchange(node: _Node) -> Any:
            return protocol.decode_outcome(operation, *self._exchange(node, node.writer.call(body, wait), timeout_s))

        while True:
            try:
                return self._at_a_node(exchange)
            except HeadraceError as error:
                chance = random.random()  # noqa: S311 - jitter is no secret
                time.sleep(attempts.pause_s(error, now_s=time.monotonic(), chance=chance))

    def statistics(self) -> protocol.BrokerStatistics:
        def exchange(node: _Node) -> protocol.BrokerStatistics:
            return protocol.decode_statistics(*self._exchange(node, node.writer.statistics(), self._timeout_s))

        return self._at_a_node(exchange)

    def close(self) -> None:
        self._closed = True
        for node in self._nodes:
            node.close()

    def _at_a_node(self, exchange: Callable[[_Node], T]) -> T:
        """What `exchange` returns of the first node that can be reached: each is tried once."""
        for turn in self._turns.each(time.monotonic):
            with turn as at:
                return exchange(self._nodes[at])
        raise AssertionError("a broker has a node")

    def _exchange(self, node: _Node, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        if self._closed:
            raise Unavailable("this client is closed")
        connection = node.take()
        reusable = False
        try:
            response = connection.exchange(request, timeout_s, node.is_there if len(self._nodes) > 1 else None)
            reusable = response.reusable and not self._closed
            return response.status, response.body
        finally:  # an interrupted wait (Ctrl-C) closes the connection too: the broker then hands out nothing on it
            if reusable:
                node.give_back(connection)
            else:
                connection.close()


def _connected_socket(endpoint: Endpoint, context: ssl.SSLContext | None) -> socket.socket:
    if endpoint.unix_path is not None:
        unix = socket.socket(socket.AF_UNIX)
        unix.settimeout(CONNECT_TIMEOUT_S)
        try:
            unix.connect(endpoint.unix_path)
        except OSError:
            unix.close()
            raise
        return unix
    plain = socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(plain)
    return context.wrap_socket(plain, server_hostname=endpoint.host) if context is not None else plain
