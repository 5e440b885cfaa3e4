"""Clients that leave and descriptors that run out: no message goes to a dead socket, no client starves the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.broker_process import BrokerProcess, RawClient, limit_descriptors, request_bytes

pytestmark = pytest.mark.serial

DESCRIPTORS: Final = 80


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path / "data")
    broker.start()
    yield broker
    broker.close()


def long_poll(port: int, queue: str) -> socket.socket:
    """A connection that waits for a message."""
    client = socket.create_connection(("127.0.0.1", port))
    url = f"http://127.0.0.1:{port}/000000000000/{queue}"
    client.sendall(request_bytes("ReceiveMessage", {"QueueUrl": url, "WaitTimeSeconds": 20}, port))
    return client


def leave(client: socket.socket, how: str) -> None:
    if how == "half-close":
        client.shutdown(socket.SHUT_WR)
        return
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def settle(client: RawClient) -> None:
    """A whole exchange: what came before on other connections has been read by then."""
    assert (await client.call("ListQueues")).acknowledged


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_message_does_not_go_to_a_poll_whose_client_has_left(broker: BrokerProcess, how: str) -> None:
    async def run() -> list[int]:
        client = RawClient(broker.port)
        await client.call("CreateQueue", QueueName="q", Attributes={"VisibilityTimeout": "600"})
        counts = []
        for number in range(40):
            dead = [long_poll(broker.port, "q") for _ in range(3)]
            await settle(client)
            for one in dead:
                leave(one, how)
            if number % 2:
                await settle(client)  # else the send comes in the same turn as the clients' leaving
            assert (await client.on_queue("SendMessage", "q", MessageBody=str(number))).acknowledged
            answer = await client.on_queue(
                "ReceiveMessage", "q", WaitTimeSeconds=5, MessageSystemAttributeNames=["ApproximateReceiveCount"]
            )
            for message in answer.data.get("Messages", []):
                counts.append(int(message["Attributes"]["ApproximateReceiveCount"]))
                await client.on_queue("DeleteMessage", "q", ReceiptHandle=message["ReceiptHandle"])
            for one in dead:
                one.close()
        client.close()
        return counts

    counts = asyncio.run(run())
    assert counts == [1] * 40, f"{40 - len(counts)} of 40 messages went to clients that had left"


def test_living_poll_behind_dead_ones_is_served(broker: BrokerProcess) -> None:
    async def run() -> None:
        client, sender = RawClient(broker.port), RawClient(broker.port)
        await sender.call("CreateQueue", QueueName="q")
        dead = [long_poll(broker.port, "q") for _ in range(10)]
        await settle(sender)
        waiting = asyncio.ensure_future(client.on_queue("ReceiveMessage", "q", WaitTimeSeconds=20))
        await settle(sender)
        for one in dead:
            leave(one, "reset")
        started = time.monotonic()
        await sender.on_queue("SendMessage", "q", MessageBody="x")
        answer = await waiting
        assert [message["Body"] for message in answer.data["Messages"]] == ["x"]
        assert time.monotonic() - started < 15, "served late"
        client.close()
        sender.close()

    asyncio.run(run())


def test_exhausted_descriptors_starve_nobody_who_is_connected(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data", before_start=limit_descriptors(DESCRIPTORS))
    broker.start()

    async def run() -> None:
        client = RawClient(broker.port)
        await client.call("CreateQueue", QueueName="q")
        flood = [_connect(broker.port) for _ in range(2 * DESCRIPTORS)]
        cpu, started = broker.cpu_seconds(), time.monotonic()
        sent = 0
        for _ in range(25):
            sent += (await client.on_queue("SendMessage", "q", MessageBody=str(sent))).acknowledged
            await asyncio.sleep(0.1)
        share = (broker.cpu_seconds() - cpu) / (time.monotonic() - started)
        assert sent == 25, "the open connection was not served"
        assert share < 0.5, f"{share:.0%} of a core while descriptors were short"  # it would be nearly all of one
        for one in flood:
            one.close()
        late = RawClient(broker.port)
        received = 0
        while received < sent:
            answer = await late.on_queue("ReceiveMessage", "q", MaxNumberOfMessages=10, WaitTimeSeconds=1)
            assert answer.acknowledged, "no recovery after the flood"
            received += len(answer.data["Messages"])
        client.close()
        late.close()

    try:
        asyncio.run(run())
        assert broker.stop() == 0, broker.log
    finally:
        broker.close()


def _connect(port: int) -> socket.socket:
    """Connect, and send the beginning of a request; the kernel accepts even what the broker cannot."""
    client = socket.socket()
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        client.connect(("127.0.0.1", port))
    with contextlib.suppress(OSError):
        client.send(b"POST / HTTP/1.1\r\n")
    return client
