"""`kill -9` of a process that holds leases: its messages are received elsewhere at once, nothing is lost, and nothing is
given twice at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import headrace
from headrace.native.messages import Outgoing
from tests.faults.broker_process import BrokerProcess
from tests.patience import PATIENCE_S

VISIBILITY_S = 43_200.0  # nobody in this test waits for a timeout
"""Of this machine's time; the visibility timeout is twelve hours."""
MESSAGES = 40
GROUPS = 4


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path / "data")
    broker.start()
    yield broker
    broker.close()


def url_of(broker: BrokerProcess, place: str) -> str:
    return f"http://127.0.0.1:{broker.port}" if place == "tcp" else f"unix://{broker.folder / 'headrace.sock'}"


class Worker:
    """A process that takes messages and keeps them."""

    def __init__(self, url: str, name: str, limit: int, *queues: str) -> None:
        command = [sys.executable, "-m", "tests.faults.holder", url, name, str(limit), *queues]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def take(self, count: int) -> list[tuple[str, int]]:
        """The next messages that it reports: (body, receives)."""
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline().split() for _ in range(count)]
        return [(line[0], int(line[1])) for line in lines]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def working(url: str, name: str, limit: int, *queues: str) -> Iterator[Worker]:
    worker = Worker(url, name, limit, *queues)
    try:
        yield worker
    finally:
        worker.kill()


def filled(client: headrace.Client) -> tuple[list[str], list[str]]:
    """A standard and a FIFO queue with messages; what is in them."""
    plain = client.queue("plain", create=True, visibility_timeout=VISIBILITY_S)
    fifo = client.queue("q.fifo", create=True, fifo=True, visibility_timeout=VISIBILITY_S)
    bodies = [f"p{number}" for number in range(MESSAGES)]
    ordered = [f"g{number % GROUPS}:{number}" for number in range(MESSAGES)]
    plain.send_many(bodies)
    fifo.send_many(Outgoing(body, group=body.partition(":")[0], dedup_id=body) for body in ordered)
    return bodies, ordered


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_messages_of_a_killed_holder_are_received_elsewhere_at_once(broker: BrokerProcess, place: str) -> None:
    url = url_of(broker, place)
    with headrace.connect(url) as client:
        bodies, ordered = filled(client)
        with working(url, "first", 100, "plain", "q.fifo") as first:
            assert {body for body, _ in first.take(2 * MESSAGES)} == {*bodies, *ordered}
            with working(url, "second", 100, "plain", "q.fifo") as second:
                while {one.holder for one in client.holders("worker")} != {"first", "second"}:
                    time.sleep(0.01)
                assert client.receive_any(["plain", "q.fifo"], wait=0) == [], "given twice at a time"
                first.kill()
                taken = second.take(2 * MESSAGES)
                assert sorted(taken) == sorted((body, 2) for body in (*bodies, *ordered)), "lost, or counted wrongly"
                for group in range(GROUPS):
                    mine = [body for body, _ in taken if body.startswith(f"g{group}:")]
                    assert mine == ordered[group::GROUPS], "out of order"
                assert [(one.holder, one.leases) for one in client.holders()] == [("second", 2 * MESSAGES)]


def test_many_kills_in_turn_lose_nothing_and_double_nothing(broker: BrokerProcess) -> None:
    url = url_of(broker, "unix")
    with headrace.connect(url) as client:
        bodies, ordered = filled(client)
        for turn in range(5):
            with working(url, f"worker-{turn}", 30, "plain", "q.fifo") as worker:
                taken = worker.take(2 * MESSAGES)
                assert sorted(taken) == sorted((body, turn + 1) for body in (*bodies, *ordered))
                assert client.receive_any(["plain", "q.fifo"], wait=0) == []
        left = client.receive_any(["plain", "q.fifo"], max=1_000)
        assert sorted((one.text, one.receives) for one in left) == sorted((body, 6) for body in (*bodies, *ordered))


def test_holder_that_outlives_the_broker_holds_again(broker: BrokerProcess) -> None:
    url = url_of(broker, "tcp")
    with headrace.connect(url, patience=30) as client:
        queue = client.queue("plain", create=True, visibility_timeout=VISIBILITY_S)
        queue.send("before")
        with working(url, "worker", 10, "plain") as worker:
            assert worker.take(1) == [("before", 1)]
            broker.kill()
            broker.start()
            queue.send("after")
            assert worker.take(1) == [("after", 1)]
            while [(one.holder, one.leases) for one in client.holders()] != [("worker", 1)]:
                time.sleep(0.01)
        assert [(one.text, one.receives) for one in queue.receive()] == [("after", 2)]
        assert queue.receive(wait=0) == [], "what was leased before the restart is not tied: it waits for its timeout"
