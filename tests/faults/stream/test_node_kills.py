"""Members of one pipeline share it over two brokers of one PostgreSQL store, while members and brokers are killed and the
database crashes: every window comes out once, with every row in it."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import headrace
from headrace.testing.ports import free_ports
from headrace.testing.postgres import Server, find_programs
from tests.broker_process import BrokerProcess, wait_until
from tests.faults.stream.cluster import Cluster, assert_same, end_broker, left, messages_of
from tests.faults.stream.events import columns, events, windows
from tests.faults.stream.test_sharing_kills import FILE, LIMITS, owners

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
KILLS = int(os.environ.get("HEADRACE_STREAM_KILLS", "4"))
BATCH_ROWS = os.environ.get("HEADRACE_STREAM_BATCH", "100")
ROWS = int(os.environ.get("HEADRACE_STREAM_ROWS", "2000"))

pytestmark = [
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`"),
]


class Nodes(Cluster):
    """Two brokers at `ports`, on a database of their own."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
        from headrace.testing.postgres import Databases

        self._database = tempfile.TemporaryDirectory(prefix="headrace-pg-")  # pytest's folders are root's alone
        self.server = Server(Path(self._database.name))
        self.server.start()
        self._store = Databases(self.server).of(folder)
        self._ports = free_ports(2)
        super().__init__(folder, FILE, chance, limits=LIMITS)
        self.target = ",".join(f"http://127.0.0.1:{port}" for port in self._ports)
        self.nodes = [self.broker, self._started(self._ports[1])]
        self._starting: set[int] = set()

    def kill_node(self) -> None:
        """A successor is started; until it is there, the other has to do."""
        place = self._chance.randrange(2)
        self._wait_for(place)
        end_broker(self.nodes[place])
        self.kills["node"] += 1
        self.nodes[place] = self._born_at(self._ports[place])
        self._starting.add(place)

    def crash_database(self) -> None:
        self._wait_for(0, 1)  # a broker does not start without it
        self.server.stop()
        self.kills["database"] += 1
        self.server.start()

    def close(self) -> None:
        for _, one in self.processes:
            one.close()
        for node in self.nodes:
            end_broker(node)
        self.server.stop()
        self._database.cleanup()

    def _started_broker(self) -> BrokerProcess:
        return self._started(self._ports[0])

    def _started(self, port: int) -> BrokerProcess:
        one = self._born_at(port)
        one.wait_ready()
        return one

    def _born_at(self, port: int) -> BrokerProcess:
        return BrokerProcess(self.folder / f"node-{port}", "--store", self._store, "--port", str(port))

    def _wait_for(self, *places: int) -> None:
        for place in self._starting.intersection(places):
            self.nodes[place].wait_ready()
        self._starting.difference_update(places)


@contextmanager
def nodes(folder: Path, chance: random.Random) -> Iterator[Nodes]:
    one = Nodes(folder, chance)
    try:
        yield one
    finally:
        one.close()


def disturb(one: Nodes, what: str) -> None:
    match what:
        case "member":
            one.kill_one()
        case "node":
            one.kill_node()
        case "both":
            one.kill_one()
            one.kill_node()
        case "database":
            one.crash_database()


def kinds(chance: random.Random) -> Iterator[str]:
    """Each kind soon, in any order."""
    while True:
        yield from chance.sample(["member", "node", "both", "database"], 4)


def test_nothing_is_lost_or_doubled_over_two_nodes(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    rows = events(ROWS, chance)
    seen: Counter[str] = Counter()
    members: set[int] = set()
    drawn = kinds(chance)
    with nodes(tmp_path, chance) as one:
        with headrace.connect(one.target) as client:
            client.queue("events", create=True).send_many(row.body() for row in rows)
        for _ in range(2):
            one.start("shared", "--batch-rows", BATCH_ROWS)
        for number in range(KILLS):
            with headrace.connect(one.target) as client:
                wait_until(lambda: left(client, "events") <= ROWS - number * ROWS // KILLS, within_s=300)  # noqa: B023
            members.add(len(owners(one).slots))
            what = next(drawn)
            disturb(one, what)
            seen[what] += 1
        with headrace.connect(one.target) as client:
            wait_until(lambda: left(client, "events") == 0, within_s=300)
        one.stop()
        one.finish("shared", "end")
        with headrace.connect(one.target) as client:
            found = columns((message.body for message in messages_of(client, "out")), "window_start", "k", "n", "s")
            assert_same(found, windows(rows, 10), "windows")
            for queue in ("late", "dead", "events"):
                assert not list(messages_of(client, queue)), queue
        print(
            f"seed {SEED}: {ROWS} messages, {dict(seen)}, members at work {sorted(members)}: {found.total()} rows equal"
        )
