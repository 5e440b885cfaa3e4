"""A primary that crashes under load, its synchronous standby promoted: what was answered holds, whatever node answered."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from headrace.queue.store.postgres.schema import migrate
from headrace.testing.postgres import Pair, find_programs
from tests.faults.broker_process import BrokerProcess
from tests.faults.history import History
from tests.faults.load import STANDARD, Load

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
ROUNDS = int(os.environ.get("HEADRACE_FAILOVERS", "2"))
NODES = 3
QUEUES = (STANDARD,)

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`"),
]


@contextmanager
def pair() -> Iterator[Pair]:
    """Not in pytest's folders: they are closed to the user that the servers run as."""
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
        Path(folder).chmod(0o755)
        with Pair(Path(folder)) as servers:
            with psycopg.connect(servers.url, autocommit=True) as connection:
                migrate(connection)
            yield servers


@contextmanager
def nodes(folder: Path, url: str, count: int = NODES) -> Iterator[list[BrokerProcess]]:
    with ExitStack() as stack:
        brokers = []
        for number in range(count):
            broker = BrokerProcess(folder / f"node{number}", options=("--store", url, "--cooldowns", "off"))
            stack.callback(broker.close)
            broker.start()
            brokers.append(broker)
        yield brokers


class Moment:
    """Comes when so many calls have begun."""

    def __init__(self) -> None:
        self.calls_left = 0
        self.due = asyncio.Event()

    def on_call(self) -> None:
        self.calls_left -= 1
        if self.calls_left == 0:
            self.due.set()

    async def after(self, calls: int) -> None:
        self.due.clear()
        self.calls_left = calls
        await self.due.wait()


async def fail_over_and_over(folder: Path, rounds: int, seed: int) -> tuple[History, dict[str, int]]:
    chance = random.Random(seed)
    with pair() as servers, nodes(folder, servers.url) as brokers:
        moment = Moment()
        ports = [broker.port for broker in brokers]
        load = Load(ports[0], chance, moment.on_call, others=ports[1:], queues=QUEUES)
        load.history.forgetful = frozenset([STANDARD])
        await load.create_queues()
        load.start()
        for _ in range(rounds):
            await moment.after(chance.randint(50, 300))
            await asyncio.to_thread(servers.fail_over)
        await moment.after(100)
        await load.stop()
        left = await load.drain()
        assert [broker.stop() for broker in brokers] == [0] * NODES
        return load.history, left


def judge(history: History, left: dict[str, int], *, rounds: int) -> None:
    found = history.violations()
    acknowledged = sum(one.acknowledged for one in history.sends)
    print(f"seed {SEED}: {rounds} failovers, {acknowledged} sends acknowledged, {len(history.receipts)} deliveries,")
    print(
        f"calls {dict(history.calls)}, left {left}, violations { {name: len(where) for name, where in found.items()} }"
    )
    assert acknowledged > 50 * rounds, "too little load: this run proves little"
    assert not found, {name: where[:5] for name, where in found.items()}
    assert not any(left.values())


@pytest.mark.timeout(900)
def test_failover_breaks_no_promise(tmp_path: Path) -> None:
    history, left = asyncio.run(fail_over_and_over(tmp_path, ROUNDS, SEED))
    judge(history, left, rounds=ROUNDS)
