"""A broker of several nodes: a client goes on with another when one is gone, and does nothing twice."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import headrace
from headrace.native import http_async, http_sync
from headrace.native.http_async import AsyncHttpTransport
from headrace.native.http_sync import HttpTransport
from headrace.native.turns import start_of
from headrace.queue import operations as ops
from headrace.queue.model import Entry
from tests.native.served import ServedBroker
from tests.native.test_reconnect import CuttingServer, answer, busy, cut
from tests.patience import PATIENCE_S

SEND = ops.Send("q", [Entry(b"x")])
DELETE = ops.Delete("q", [b"r"])


def in_order(first: str, second: str) -> str:
    """A broker of two nodes, of which this process asks `first` first."""
    return f"{first},{second}" if start_of(os.getpid()) % 2 == 0 else f"{second},{first}"


@pytest.fixture
def good() -> Iterator[CuttingServer]:
    server = CuttingServer(answer(SEND, []), answer(SEND, []))
    yield server
    server.close()


def call(target: str, operation: ops.Operation) -> object:
    with headrace.connect(target, patience=0) as client:
        return client.call(operation)


def call_on_a_loop(target: str, operation: ops.Operation) -> object:
    async def run() -> object:
        async with headrace.connect_async(target, patience=0) as client:
            return await client.call(operation)

    return asyncio.run(run())


CALLS = pytest.mark.parametrize("ask", [call, call_on_a_loop])


@CALLS
def test_node_that_is_not_there_is_passed_over(ask: Callable[..., object], good: CuttingServer) -> None:
    assert ask(in_order("http://127.0.0.1:1", good.url), SEND) == []


@CALLS
def test_node_that_stops_refuses_and_another_answers(ask: Callable[..., object], good: CuttingServer) -> None:
    stopping = CuttingServer(busy)
    assert ask(in_order(stopping.url, good.url), SEND) == []
    assert (stopping.calls, good.calls) == (1, 1)
    stopping.close()


@CALLS
def test_send_that_may_have_been_done_is_not_tried_at_another_node(
    ask: Callable[..., object], good: CuttingServer
) -> None:
    dying = CuttingServer(cut)
    with pytest.raises(headrace.OutcomeUnknown):
        ask(in_order(dying.url, good.url), SEND)
    assert good.calls == 0
    dying.close()


@contextmanager
def looks_soon(*, there_s: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (http_sync, http_async):
            patch.setattr(module, "LOOK_S", 0.01)
            patch.setattr(module, "THERE_S", there_s)
        yield


@CALLS
def test_node_that_does_not_even_say_that_it_is_there_is_left(ask: Callable[..., object], good: CuttingServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen, looks_soon(there_s=0.01):  # connected to by its system alone
        hangs = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        with pytest.raises(headrace.OutcomeUnknown, match="hangs"):
            ask(in_order(hangs, good.url), SEND)
    assert good.calls == 0


class SlowNode:
    """Answers a call after somebody has asked whether it is there."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        call, _ = self._listening.accept()
        look, _ = self._listening.accept()
        with call, look:
            assert look.recv(65_536).startswith(b"GET /health/live ")
            answer(SEND, [])(call)  # first: it is there before anybody looks again
            look.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._thread.join(PATIENCE_S)
        self._listening.close()


@CALLS
def test_node_that_says_that_it_is_there_is_waited_for(ask: Callable[..., object], good: CuttingServer) -> None:
    slow = SlowNode()
    with looks_soon(there_s=PATIENCE_S):
        assert ask(in_order(slow.url, good.url), SEND) == []
    slow.close()
    assert good.calls == 0


def test_what_may_be_done_twice_is_tried_at_another_node() -> None:
    dying, other = CuttingServer(cut), CuttingServer(answer(DELETE, [None]))
    with headrace.connect(in_order(dying.url, other.url), patience=10) as client:
        assert client.call(DELETE) == [None]
    assert (dying.calls, other.calls) == (1, 1)
    dying.close()
    other.close()


def test_nobody_there_names_where_it_was_looked(tmp_path: Path) -> None:
    target = in_order(f"unix://{tmp_path}/a.sock", f"unix://{tmp_path}/b.sock")
    with headrace.connect(target, patience=0) as client, pytest.raises(headrace.Unavailable, match=r"b\.sock"):
        client.queues()


def test_client_stays_with_the_node_that_it_asked(served: ServedBroker, good: CuttingServer) -> None:
    with headrace.connect(in_order(served.url, good.url), patience=10) as client:
        client.queue("orders", create=True)
        client.call(ops.ListQueues())
        assert good.calls == 0


def test_machine_that_is_gone_is_noticed_by_the_system(served: ServedBroker) -> None:
    known = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
    wanted = {name: value for name, value in known.items() if hasattr(socket, name)}

    def options(connected: socket.socket) -> dict[str, int]:
        return {name: connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in wanted}

    with headrace.connect(served.url) as client:
        client.queues()
        assert isinstance(client._transport, HttpTransport)
        assert options(client._transport._nodes[0]._idle[0]._socket) == wanted

    async def on_a_loop() -> None:
        async with headrace.connect_async(served.url) as client:
            await client.queues()
            assert isinstance(client._opened, AsyncHttpTransport)
            transport = client._opened._nodes[0]._idle[0]._transport
            assert transport is not None
            assert options(transport.get_extra_info("socket")) == wanted

    asyncio.run(on_a_loop())
