"""The front, the native API's door and a failing store, in process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.broker_settings import BrokerSettings
from headrace.clock import Clock, ManualClock
from headrace.errors import AccessDenied, StoreFailed
from headrace.front import Health, MetricsPage, error_body, native_authorize
from headrace.http.listener import Statistics
from headrace.node import Node
from headrace.queue.broker import Broker
from headrace.queue.model import QueueInfo
from headrace.queue.operations import CreateQueue, Operation
from headrace.queue.store.base import Offload, Ready, Request, Store, StoreStatistics
from headrace.queue.store.memory import open_memory_store
from headrace.sqs.keys import Key, KeyRing, Principal
from headrace.sqs.signature import Verifier
from tests.patience import PATIENCE_S
from tests.sqs.test_signature import NOW, SECRET, FakeRequest, Signer


class Asked(FakeRequest):
    """A request that keeps its answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.answer: tuple[int, bytes] | None = None
        self.answered = asyncio.Event()

    def respond(
        self, status: int, body: bytes, content_type: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        assert self.answer is None
        self.answer = (status, body)
        self.answered.set()


# ----------------------------------------------------------------------------------------------------------- metrics


async def scraped(request: Asked, *, audience: str = "local", behind_proxy: bool = False, queues: int = 0) -> int:
    clock = ManualClock()
    broker = Broker(open_memory_store(clock), clock)
    await broker.start()
    for number in range(queues):
        await broker.call(CreateQueue(f"arn:aws:sqs:us-east-1:000000000000:q{number:04}"))
    page = MetricsPage(broker, clock, http=lambda: Statistics(0, 0, 0, 0), audience=audience, behind_proxy=behind_proxy)
    page.handle(request)
    await request.answered.wait()
    await broker.stop()
    assert request.answer is not None
    return request.answer[0]


@pytest.mark.parametrize(
    ("peer", "headers", "audience", "behind_proxy", "status"),
    [
        ("127.0.0.1", {}, "local", False, 200),
        ("::1", {}, "local", False, 200),
        ("unix", {}, "local", True, 200),
        ("127.0.0.1", {}, "local", True, 403),
        ("127.0.0.1", {b"x-forwarded-for": b"203.0.113.9"}, "local", False, 403),
        ("127.0.0.1", {b"forwarded": b"for=203.0.113.9"}, "local", False, 403),
        ("127.0.0.1", {b"host": b"evil.example"}, "local", False, 403),
        ("192.0.2.1", {}, "local", False, 403),
        ("192.0.2.1", {}, "everyone", True, 200),
        ("127.0.0.1", {}, "off", False, 403),
        ("unix", {}, "off", False, 403),
    ],
)
def test_who_may_read_metrics(
    peer: str, headers: dict[bytes, bytes], audience: str, behind_proxy: bool, status: int
) -> None:
    request = Asked("GET", "/metrics", headers, peer=peer)
    assert asyncio.run(scraped(request, audience=audience, behind_proxy=behind_proxy)) == status


def test_metrics_cover_more_queues_than_one_page() -> None:
    request = Asked("GET", "/metrics")
    assert asyncio.run(scraped(request, queues=2_001)) == 200
    assert request.answer is not None
    assert request.answer[1].count(b"headrace_queue_sent_total{") == 2_001


def test_metrics_of_a_stopped_broker_are_unavailable() -> None:
    async def scrape() -> tuple[int, bytes] | None:
        clock = ManualClock()
        broker = Broker(open_memory_store(clock), clock)
        await broker.start()
        broker.drain()
        request = Asked("GET", "/metrics")
        MetricsPage(broker, clock, http=lambda: Statistics(0, 0, 0, 0), audience="local", behind_proxy=False).handle(
            request
        )
        await request.answered.wait()
        await broker.stop()
        return request.answer

    assert asyncio.run(scrape()) == (503, b"the broker is stopping\n")


@pytest.mark.parametrize("status", [400, 408, 413, 414, 431, 500, 505])
def test_the_engines_refusals_look_like_awss(status: int) -> None:
    kind, body = error_body(status, 'odd "reason"')
    found = msgspec.json.decode(body)
    assert kind == b"application/x-amz-json-1.0"
    assert found["message"] == 'odd "reason"'
    assert found["__type"].startswith("com.amazon.coral.service#")


# ------------------------------------------------------------------------------------------------------------ native


def door(*, operator: bool) -> Verifier:
    principal = Principal("111122223333", "alice", "AKIDEXAMPLE", operator=operator)
    return Verifier(KeyRing({"AKIDEXAMPLE": Key(principal, SECRET)}), lambda: NOW)


def test_native_calls_are_for_the_socket_and_for_operators_who_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = Signer(monkeypatch).header("http://localhost:9324/headrace/v1/call")
    native_authorize(door(operator=True))(signed, None)
    native_authorize(door(operator=False))(FakeRequest(peer="unix"), None)
    with pytest.raises(AccessDenied, match="is not an operator"):
        native_authorize(door(operator=False))(signed, None)
    with pytest.raises(AccessDenied, match="MissingAuthenticationToken"):
        native_authorize(door(operator=True))(FakeRequest(), None)


# ------------------------------------------------------------------------------------------------------ failing store


class FailingStore:
    """A store whose disk fails at the first commit."""

    durable = False
    shared = False

    def __init__(self) -> None:
        self._failure: StoreFailed | None = None
        self.closed = False

    def attach(self, offload: Offload | None) -> None: ...

    def execute(self, requests: Sequence[Request]) -> None:
        if requests:
            self._failure = StoreFailed("fdatasync: Input/output error")
        for request in requests:
            request.done(self._failure)

    def advance(self) -> int | None:
        return None

    def take_ready(self) -> set[Ready]:
        return set()

    def find(self, queue: str) -> QueueInfo | None:
        return None

    def busy(self) -> bool:
        return False

    def failed(self) -> StoreFailed | None:
        return self._failure

    def away(self) -> str | None:
        return None

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(0, 0, 0.0, 0.0, (), (), 0, 0, None, False)

    def close(self) -> None:
        self.closed = True


async def http_call(port: int, head: str, operation: Operation | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = msgspec.json.encode(operation) if operation is not None else b""
    writer.write(f"{head}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode())
    writer.write(b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_a_failed_store_answers_errors_and_ends_the_node_with_one(tmp_path: Path) -> None:
    store = FailingStore()

    def opener(_: BrokerSettings) -> tuple[Store, Clock]:
        return store, ManualClock()

    async def fail() -> tuple[bytes, bytes, int, Health]:
        node = Node(BrokerSettings(data=tmp_path, port=0), opener=opener)
        endpoint = await node.start()
        before = await http_call(endpoint.port, "GET /health/ready HTTP/1.1")
        running = asyncio.create_task(node.run())
        answer = await http_call(endpoint.port, "POST /headrace/v1/call HTTP/1.1", CreateQueue("q"))
        return before, answer, await asyncio.wait_for(running, PATIENCE_S), node.health

    before, answer, code, health = asyncio.run(fail())
    assert b" 200 " in before.partition(b"\r\n")[0]
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"fdatasync" in answer
    assert (code, health) == (1, Health.FAILED)
    assert store.closed


def test_a_taken_port_closes_the_store_again(tmp_path: Path) -> None:
    store = FailingStore()

    async def start() -> Any:
        listening = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        node = Node(BrokerSettings(data=tmp_path, port=port), opener=lambda _: (store, ManualClock()))
        try:
            await node.start()
        finally:
            listening.close()

    with pytest.raises(Exception, match="cannot listen on"):
        asyncio.run(start())
    assert store.closed
