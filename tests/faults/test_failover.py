"""Databases that crash under load, standbys that take over, nodes that die or hang: what was answered holds.

By hand: `HEADRACE_FAULTS="failover failover node_killed" HEADRACE_SEED=7`, as many as one likes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import OutcomeUnknown
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.queue.store.postgres import connecting, lane
from headrace.queue.store.postgres.opening import open_store
from headrace.queue.store.postgres.schema import migrate
from headrace.testing.postgres import Pair, find_programs
from tests.faults import audit
from tests.faults.broker_process import BrokerProcess
from tests.faults.history import History
from tests.faults.load import DEAD, RETRIED, STANDARD, VISIBILITY_S, Load
from tests.queue.postgres.nodes import ask

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
FAULTS = os.environ.get(
    "HEADRACE_FAULTS", "failover node_killed connections_end node_paused primary_crashes failover"
).split()
NODES = 3

pytestmark = [
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
                audit.install(connection)
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


class Faults:
    """What can happen to a primary, its standby and three nodes; each returns when all is well again."""

    def __init__(self, servers: Pair, brokers: list[BrokerProcess], chance: random.Random) -> None:
        self.servers = servers
        self.brokers = brokers
        self.chance = chance

    async def failover(self) -> None:
        await asyncio.to_thread(self.servers.fail_over)

    async def node_killed(self) -> None:
        broker = self.chance.choice(self.brokers)
        broker.kill()
        broker.spawn()
        await asyncio.to_thread(broker.wait_ready)

    async def node_paused(self) -> None:
        """For longer than leases last: they are others' when it goes on."""
        broker = self.chance.choice(self.brokers)
        broker.signal(signal.SIGSTOP)
        await asyncio.sleep(VISIBILITY_S + 1)
        broker.signal(signal.SIGCONT)

    async def primary_crashes(self) -> None:
        """It comes back as it was; what its standby may not have is not answered meanwhile."""
        self.servers.primary.stop(signal.SIGKILL)
        await asyncio.to_thread(self.servers.primary.start)

    async def connections_end(self) -> None:
        with psycopg.connect(self.servers.primary.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace'"
            )


async def run_faults(folder: Path, names: list[str], seed: int) -> tuple[History, dict[str, int], list[str]]:
    chance = random.Random(seed)
    with pair() as servers, nodes(folder, servers.url) as brokers:
        moment = Moment()
        ports = [broker.port for broker in brokers]
        load = Load(ports[0], chance, moment.on_call, others=ports[1:])
        load.history.forgetful = frozenset([STANDARD, RETRIED, DEAD])
        faults = Faults(servers, brokers, chance)
        await load.create_queues()
        load.start()
        for name in names:
            await moment.after(chance.randint(50, 300))
            await getattr(faults, name)()
        await moment.after(100)
        await load.stop()
        left = await load.drain()
        assert [broker.stop() for broker in brokers] == [0] * NODES
        with psycopg.connect(servers.url) as connection:
            return load.history, left, audit.violations(connection)


def judge(history: History, left: dict[str, int], seen: list[str], *, faults: int) -> None:
    found = history.violations()
    acknowledged = sum(one.acknowledged for one in history.sends)
    print(f"seed {SEED}: {faults} faults, {acknowledged} sends acknowledged, {len(history.receipts)} deliveries,")
    print(
        f"calls {dict(history.calls)}, left {left}, violations { {name: len(where) for name, where in found.items()} }"
    )
    assert acknowledged > 50 * faults, "too little load: this run proves little"
    assert not found, {name: where[:5] for name, where in found.items()}
    assert not seen, f"the database saw {len(seen)} violations: {seen[:5]}"
    assert not any(left.values())


@pytest.mark.timeout(900)
def test_faults_of_nodes_and_database_break_no_promise(tmp_path: Path) -> None:
    judge(*asyncio.run(run_faults(tmp_path, FAULTS, SEED)), faults=len(FAULTS))


def test_primary_that_was_replaced_and_lives_on_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standby has taken its place, and nobody told it or its nodes: what they answer is answered by the new one."""
    queue = arn_of("q")
    with pair() as servers:
        store = open_store(servers.url, clock=ManualClock())[0]
        ask(store, ops.CreateQueue(queue), ops.Send(queue, [Entry(b"before")]))
        old = servers.promote()
        try:
            with psycopg.connect(servers.primary.url(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                connection.execute("SELECT pg_reload_conf()")
            monkeypatch.setattr(lane, "COMMIT_S", 2.0)
            monkeypatch.setattr(connecting.Connection, "answer_s", 2.0)
            monkeypatch.setattr(connecting, "LOCK_MS", 200)
            monkeypatch.setattr(lane, "RECOVER_S", 0.0)
            outcomes = [ask(store, ops.Send(queue, [Entry(b"%d" % number)]))[0] for number in range(8)]
            monkeypatch.undo()
            sent = [b"%d" % number for number, outcome in enumerate(outcomes) if isinstance(outcome, list)]
            assert sent, outcomes
            old.stop(signal.SIGKILL)
            unknown = [b"%d" % number for number, outcome in enumerate(outcomes) if isinstance(outcome, OutcomeUnknown)]
            (found,) = ask(store, ops.Peek(queue, limit=500))
            assert [one.message.body for one in found if one.message.body not in unknown] == [b"before", *sent]
            store.close()
        finally:
            old.stop()
