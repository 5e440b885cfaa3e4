"""A real disk that is full, under a real broker: what is refused, what goes on, and what follows when there is space."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.broker_process import BrokerProcess as Broker
from tests.broker_process import broker, run_to_end, wait_until
from tests.faults.broker_process import BrokerProcess, RawClient
from tests.faults.load import Load
from tests.faults.small_disk import MIB, occupy, small_disk

SEED: Final = 20241124
FILLER: Final = "filler"
BODY: Final = "x" * 100_000
RECOVERS_WITHIN_S: Final = 5.0
SENDS_MAX: Final = 2_000


@dataclass
class Filler:
    """Sends large messages until the disk is full, and knows what was acknowledged."""

    client: RawClient
    stored: set[str] = field(default_factory=set)
    number: int = 0

    async def send(self) -> int:
        body = f"{self.number}:{BODY}"
        self.number += 1
        answer = await self.client.on_queue("SendMessage", FILLER, MessageBody=body)
        if answer.acknowledged:
            self.stored.add(body)
        assert not answer.unknown, "the broker did not answer"
        return answer.status

    async def fill(self) -> None:
        for _ in range(SENDS_MAX):
            if await self.send() == 503:
                return
        raise AssertionError("the disk is never full")

    async def until_accepted(self) -> float:
        """Send until one is accepted; how many seconds that took."""
        began = time.monotonic()
        while await self.send() != 200:
            assert time.monotonic() - began < 60, "sends stay refused"
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def take(self, count: int, *, delete: bool = True) -> list[str]:
        """Receive up to `count` messages, and delete them."""
        taken: list[str] = []
        while len(taken) < count:
            answer = await self.client.on_queue(
                "ReceiveMessage", FILLER, MaxNumberOfMessages=min(10, count - len(taken))
            )
            assert answer.acknowledged, answer
            messages: list[dict[str, Any]] = answer.data.get("Messages", [])
            if not messages:
                break
            for one in messages if delete else ():
                gone = await self.client.on_queue("DeleteMessage", FILLER, ReceiptHandle=one["ReceiptHandle"])
                assert gone.acknowledged, gone
            taken += [one["Body"] for one in messages]
        return taken


async def fill_and_free(root: Path, *, freed: str, kill: bool) -> tuple[list[str], float, str]:
    """Fill the disk under load, free it, and compare. Returns violations, the seconds until a send was accepted, the log."""
    server = BrokerProcess(root / "data", options=("--cooldowns", "off", "--log-format", "json"))
    (root / "data.log").symlink_to(root.parent / "data.log")  # not on the disk that is full
    ballast = root / "ballast"
    occupy(ballast, leave_bytes=48 * MIB)
    server.start()
    filler = Filler(RawClient(server.port))
    try:
        load = Load(server.port, random.Random(SEED))
        await load.create_queues()
        attributes = {"VisibilityTimeout": "600"}
        assert (await filler.client.call("CreateQueue", QueueName=FILLER, Attributes=attributes)).acknowledged
        load.start()
        await filler.fill()
        assert await asyncio.to_thread(health, server) == "full"
        before = dict(load.history.calls)
        filler.stored -= set(await filler.take(10))
        if kill:
            server.kill()
            filler.client.close()
            server.spawn()
            await asyncio.to_thread(server.wait_ready)
            assert await filler.send() == 503, "a restart makes no room"
            filler.stored -= set(await filler.take(10))
        calls = load.history.calls
        assert calls["SendMessageBatch refused"] > before.get("SendMessageBatch refused", 0)
        if freed == "ballast":
            ballast.unlink()
        elif freed == "purge":
            assert (await filler.client.on_queue("PurgeQueue", FILLER)).acknowledged
            filler.stored.clear()
        else:
            filler.stored -= set(await filler.take(100))
        seconds = await filler.until_accepted()
        await asyncio.to_thread(wait_until, lambda: health(server) == "ready")
        await load.stop()
        left = await load.drain()
        found = [f"{name}: {where[:3]}" for name, where in load.history.violations().items()]
        found += [f"left {left}"] if any(left.values()) else []
        there = await filler.take(SENDS_MAX, delete=False)
        found += [f"{len(filler.stored - set(there))} lost"] if filler.stored - set(there) else []
        found += ["doubled or not deleted"] if sorted(there) != sorted(filler.stored) else []
        assert server.stop() == 0, server.log
        return found, seconds, server.log
    finally:
        filler.client.close()
        server.close()


def health(server: BrokerProcess) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        assert answer.status == 200
        return str(json.loads(answer.read())["status"])
    finally:
        connection.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("freed", "kill"), [("ballast", False), ("ballast", True), ("purge", True), ("deletes", False)]
)
def test_full_disk_recovers_without_restart(tmp_path: Path, freed: str, kill: bool) -> None:
    with small_disk(tmp_path / "disk", 64) as root:
        found, seconds, log = asyncio.run(fill_and_free(root, freed=freed, kill=kill))
    print(f"freed by {freed}: the next send was accepted after {seconds:.2f} s")
    assert not found
    assert seconds < RECOVERS_WITHIN_S
    actions = [json.loads(line).get("action") for line in log.splitlines() if line.startswith("{")]
    assert actions.count("store.full") == (2 if kill else 1)
    assert actions.count("store.not_full") == 1


def test_new_store_on_a_disk_too_small_is_refused_with_figures(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as root:
        ended = run_to_end("--data", str(root / "data"), "--port", "0", cwd=tmp_path)
        left = sum(file.stat().st_size for file in (root / "data").iterdir())
    assert ended.returncode == 1
    assert "a new store needs 25.6 MiB of free disk space, and 16.0 MiB are free" in ended.stderr
    assert "19.6 MiB of them are for the write-ahead log" in ended.stderr
    assert left < 1_000


@dataclass
class Consumer:
    """Calls of one connection after the other, over the JSON protocol."""

    broker: Broker
    url: str

    def send_until_refused(self) -> int:
        for number in range(SENDS_MAX):
            status, _ = self.broker.sqs("SendMessage", QueueUrl=self.url, MessageBody=BODY)
            if status != 200:
                assert status == 503
                return number
        raise AssertionError("the disk is never full")

    def receive(self) -> list[str]:
        """Receipts of what was received."""
        status, answer = self.broker.sqs("ReceiveMessage", QueueUrl=self.url, MaxNumberOfMessages=10)
        assert status == 200
        return [one["ReceiptHandle"] for one in answer.get("Messages", [])]

    def delete(self, receipts: list[str]) -> None:
        entries = [{"Id": str(number), "ReceiptHandle": one} for number, one in enumerate(receipts)]
        status, answer = self.broker.sqs("DeleteMessageBatch", QueueUrl=self.url, Entries=entries)
        assert status == 200
        assert len(answer["Successful"]) == len(receipts)

    def accepts(self) -> bool:
        return self.broker.sqs("SendMessage", QueueUrl=self.url, MessageBody="small")[0] == 200


def _queue(broker: Broker) -> Consumer:
    _, made = broker.sqs("CreateQueue", QueueName="q", Attributes={"VisibilityTimeout": "600"})
    return Consumer(broker, made["QueueUrl"])


def test_deletes_need_no_space_at_all(tmp_path: Path) -> None:
    """Another program takes even the reserve that was released. All that was received can be deleted."""
    with small_disk(tmp_path / "disk", 64) as root, broker(root / "data") as one:
        consumer = _queue(one)
        sent = consumer.send_until_refused()
        received = [consumer.receive() for _ in range(sent // 10)]
        occupy(root / "ballast", leave_bytes=0)
        began = time.monotonic()
        for receipts in received:
            consumer.delete(receipts)
        print(f"{sent // 10 * 10} messages deleted in {time.monotonic() - began:.2f} s")
        assert one.metric("headrace_store_full") == 1
        assert not consumer.accepts()
        (root / "ballast").unlink()
        wait_until(consumer.accepts, within_s=RECOVERS_WITHIN_S)
        assert one.metric("headrace_store_full") == 0


def test_receive_without_any_space_is_answered_or_refused_for_a_retry(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as root, broker(root / "data") as one:
        consumer = _queue(one)
        occupy(root / "other", leave_bytes=10 * MIB)
        sent = consumer.send_until_refused()
        occupy(root / "ballast", leave_bytes=0)
        statuses = [
            one.sqs("ReceiveMessage", QueueUrl=consumer.url, MaxNumberOfMessages=1)[0] for _ in range(sent // 2)
        ]
        (root / "ballast").unlink()
        (root / "other").unlink()
        wait_until(consumer.accepts, within_s=RECOVERS_WITHIN_S)
        assert set(statuses) <= {200, 503}
        assert consumer.receive()


@pytest.mark.parametrize("reserved", [True, False])
def test_store_starts_on_a_full_disk_and_can_be_emptied(tmp_path: Path, reserved: bool) -> None:
    """Another program has filled the disk since the broker was stopped. The reserve is what it starts with."""
    with small_disk(tmp_path / "disk", 64) as root:
        with broker(root / "data") as one:
            assert _queue(one).accepts()
            one.signal(signal.SIGTERM)
            one.wait_end()
        if not reserved:
            (root / "data" / "reserve").unlink()
        occupy(root / "ballast", leave_bytes=0)
        if not reserved:
            ended = run_to_end("--data", str(root / "data"), "--port", "0", cwd=tmp_path)
            assert ended.returncode == 1
            assert "its disk is full: free some space, at least 1 MiB" in ended.stderr
            return
        with broker(root / "data") as one:
            consumer = _queue(one)
            assert json.loads(one.get("/health/ready")[1]) == {"status": "full"}
            assert not consumer.accepts()
            consumer.delete(consumer.receive())
            (root / "ballast").unlink()
            wait_until(consumer.accepts, within_s=RECOVERS_WITHIN_S)
            assert json.loads(one.get("/health/ready")[1]) == {"status": "ready"}
