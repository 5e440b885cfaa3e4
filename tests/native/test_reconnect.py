"""Connections that break: what is tried again, what is not, and what the caller is told."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import headrace
from headrace.http.messages import Request
from headrace.native import protocol
from headrace.native.http_sync import IDLE_MAX_S, HttpTransport
from headrace.queue import operations as ops
from headrace.queue.model import Entry
from tests.native.served import ServedBroker, eventually, interrupted_when
from tests.patience import PATIENCE_S


class CuttingServer:
    """Reads a whole call, then does to the connection what the test says; counts calls."""

    def __init__(self, *behaviours: Callable[[socket.socket], None]) -> None:
        self._behaviours = list(behaviours)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.calls = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._thread.join(PATIENCE_S)
        self._listening.close()

    def _serve(self) -> None:
        for behaviour in self._behaviours:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return  # closed before all behaviours had their turn
            with client:
                _read_request(client)
                self.calls += 1
                behaviour(client)


def _read_request(client: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65_536)


def cut(client: socket.socket) -> None:
    """Close without a word."""


def cut_within_the_answer(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")


def answer(operation: ops.Operation, outcome: object) -> Callable[[socket.socket], None]:
    def send(client: socket.socket) -> None:
        body = protocol.encode_outcome(operation, outcome)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return send


def busy(client: socket.socket) -> None:
    body = protocol.encode_error(headrace.Unavailable("stopping"))
    client.sendall(b"HTTP/1.1 503 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@contextmanager
def transport(url: str, patience_s: float = PATIENCE_S, timeout_s: float = PATIENCE_S) -> Iterator[HttpTransport]:
    with headrace.connect(url, patience=patience_s, timeout=timeout_s) as client:
        assert isinstance(client._transport, HttpTransport)
        yield client._transport


SEND = ops.Send("q", [Entry(b"x")])
DELETE = ops.Delete("q", [b"r"])


@pytest.mark.parametrize("behaviour", [cut, cut_within_the_answer])
def test_send_whose_answer_was_cut_is_not_sent_again(behaviour: Callable[[socket.socket], None]) -> None:
    server = CuttingServer(behaviour, answer(SEND, []))

    with transport(server.url) as broker, pytest.raises(headrace.OutcomeUnknown):
        broker.call(SEND)

    assert server.calls == 1
    server.close()


@pytest.mark.parametrize("behaviour", [cut, cut_within_the_answer])
def test_delete_whose_answer_was_cut_is_sent_again(behaviour: Callable[[socket.socket], None]) -> None:
    server = CuttingServer(behaviour, answer(DELETE, [None]))

    with transport(server.url) as broker:
        assert broker.call(DELETE) == [None]

    assert server.calls == 2
    server.close()


def test_call_that_the_broker_refused_while_stopping_is_sent_again() -> None:
    server = CuttingServer(busy, busy, answer(SEND, []))

    with transport(server.url) as broker:
        assert broker.call(SEND) == []

    assert server.calls == 3
    server.close()


def test_answer_that_does_not_come_is_unknown_after_the_timeout() -> None:
    release = threading.Event()

    def keep_silent(_: socket.socket) -> None:
        release.wait(PATIENCE_S)

    server = CuttingServer(keep_silent)

    with transport(server.url, timeout_s=0.1) as broker, pytest.raises(headrace.OutcomeUnknown, match="no answer"):
        broker.call(SEND)

    release.set()
    server.close()


def test_nobody_there_is_unavailable_and_says_where(tmp_path: Path) -> None:
    for target in ("http://127.0.0.1:1", f"unix://{tmp_path}/none.sock"):
        with headrace.connect(target, patience=0) as client, pytest.raises(headrace.Unavailable, match=target):
            client.queues()


def test_client_outlives_a_restart_of_the_broker(tmp_path: Path) -> None:
    first = ServedBroker(tmp_path)
    with headrace.connect(first.url, patience=PATIENCE_S) as client:
        client.queue("orders", create=True).send("x")
        first.stop()
        restarted: list[ServedBroker] = []
        restart = threading.Timer(0.2, lambda: restarted.append(ServedBroker(tmp_path, first.port)))
        restart.start()

        queue = client.queue("orders", create=True)
        queue.send("y")

        assert [m.text for m in queue.receive(wait=0)] == ["y"]
        restart.join()
    restarted[0].stop()


def test_consumer_goes_on_after_its_connection_broke(served: ServedBroker, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True)
    broken: list[Request] = []

    def break_once(request: Request) -> None:
        del served.handlers[protocol.CALL_PATH]
        broken.append(request)
        request.respond(502, b"<html>", b"text/html")

    queue.send("x")
    served.handlers[protocol.CALL_PATH] = break_once
    with next(iter(queue.consume())) as message:
        assert message.text == "x"
    assert len(broken) == 1


def test_idle_connection_that_the_broker_closed_is_replaced_before_use(served: ServedBroker) -> None:
    with headrace.connect(served.url, patience=0) as client:
        queue = client.queue("orders", create=True)
        assert isinstance(client._transport, HttpTransport)
        [connection] = client._transport._nodes[0]._idle
        connection._socket.shutdown(socket.SHUT_WR)  # the broker answers a half-close with a close
        eventually(lambda: connection.stale(connection.used_s))

        queue.send("x")

        assert queue.counts().visible == 1


def test_connection_idle_for_long_is_not_trusted(served: ServedBroker) -> None:
    with headrace.connect(served.url, patience=0) as client:
        client.queues()
        assert isinstance(client._transport, HttpTransport)
        [connection] = client._transport._nodes[0]._idle

        assert not connection.stale(connection.used_s + IDLE_MAX_S)
        assert connection.stale(connection.used_s + IDLE_MAX_S + 0.1)


def test_connections_are_kept_and_shared(served: ServedBroker, client: headrace.Client) -> None:
    for _ in range(20):
        client.queues()

    assert isinstance(client._transport, HttpTransport)
    assert len(client._transport._nodes[0]._idle) == 1


def test_interrupted_receive_takes_no_messages(served: ServedBroker, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True)
    with interrupted_when(lambda: bool(served.run(lambda broker: broker.waiting()) == 1)):
        queue.receive(wait=20)
    queue.send("x")

    assert [m.receives for m in queue.receive(wait=0)] == [1]


def test_forked_child_opens_connections_of_its_own(served: ServedBroker, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True)
    transport = client._transport
    assert isinstance(transport, HttpTransport)
    parents = list(transport._nodes[0]._idle)
    transport._nodes[0]._process = os.getpid() + 1  # as it looks in a child

    queue.send("x")

    assert len(parents) == 1
    assert parents[0] not in transport._nodes[0]._idle
    parents[0].close()
