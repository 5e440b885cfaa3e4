"""Networks that break between a node and its database: at every message once, and without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import OutcomeUnknown, Unavailable
from headrace.queue import operations as ops
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.store.base import Request
from headrace.queue.store.postgres import connecting, lane, pulse
from headrace.queue.store.postgres.connecting import turned
from headrace.queue.store.postgres.families import LaneName
from headrace.queue.store.postgres.opening import open_store
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.broker_process import wait_until
from tests.patience import PATIENCE_S
from tests.queue.postgres.nodes import Threads, ask, node
from tests.queue.postgres.proxy import Network

QUEUE, OUT = arn_of("q"), arn_of("out")


@pytest.fixture
def network(kind: StoreKind, tmp_path: Path) -> Iterator[Network]:
    assert kind.durable
    with Network(databases().of(tmp_path)) as network:
        yield network


@pytest.fixture
def near(network: Network, tmp_path: Path) -> Iterator[PostgresStore]:
    """A node whose network stays whole, and which has made the queues."""
    assert network.url
    store = node(tmp_path, ManualClock())
    ask(store, ops.CreateQueue(QUEUE), ops.CreateQueue(OUT))
    yield store
    store.close()


@pytest.fixture
def far(near: PostgresStore, network: Network) -> Iterator[PostgresStore]:
    """A node behind the network."""
    assert near.durable
    store = open_store(network.url, clock=ManualClock(), cooldowns=False)[0]
    yield store
    network.on_bytes = lambda _data, _from_server: True
    network.swallows = False
    store.close()


class Cut:
    """Cuts the connection at piece number `at` of those that pass, once."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.done = False
        self._lock = Lock()

    def __call__(self, _data: bytes, _from_server: bool) -> bool:
        with self._lock:
            self.left -= 1
            cut = self.left == 0
            self.done |= cut
            return not cut


def cut_everywhere(network: Network, once: Callable[[int], None]) -> int:
    """Call `once` with the connection cut at the first piece that passes, the second, … until none is left to cut."""
    at = 0
    while True:
        at += 1
        cut = network.on_bytes = Cut(at)
        once(at)
        if not cut.done:
            return at - 1


def counted(store: PostgresStore, queue: str, field: str) -> int:
    """What a node has counted itself."""
    shared = store._shared
    return shared.known.totals[shared.catalog.queues[queue].number, field]


def test_send_that_is_cut_anywhere_is_stored_once(far: PostgresStore, near: PostgresStore, network: Network) -> None:
    def once(at: int) -> None:
        body = b"%d" % at
        (sent,) = ask(far, ops.Send(QUEUE, [Entry(body)]))
        assert isinstance(sent[0], Sent), sent
        (found,) = ask(near, ops.Peek(QUEUE, limit=500))
        assert [one.message.id for one in found if one.message.body == body] == [sent[0].id], at
        assert counted(far, QUEUE, "sent") == at

    assert cut_everywhere(network, once) >= 7


def test_receive_and_delete_that_are_cut_anywhere_are_done_once(
    far: PostgresStore, near: PostgresStore, network: Network
) -> None:
    def once(at: int) -> None:
        ask(near, ops.Send(QUEUE, [Entry(b"%d" % at)]))
        # empty while the server has not noticed that who locked the message is gone
        got = wait_until(lambda: ask(far, ops.Receive(QUEUE, 1))[0])
        assert [(one.message.body, one.receives) for one in got] == [(b"%d" % at, 1)]
        assert ask(far, ops.Delete(QUEUE, [got[0].receipt])) == [[None]]
        assert ask(near, ops.Peek(QUEUE)) == [[]]
        assert counted(far, QUEUE, "received") == counted(far, QUEUE, "deleted") == at

    assert cut_everywhere(network, once) >= 14


def test_transaction_that_is_cut_anywhere_is_done_once(
    far: PostgresStore, near: PostgresStore, network: Network
) -> None:
    def once(at: int) -> None:
        ask(near, ops.Send(QUEUE, [Entry(b"in")]))
        (got,) = ask(near, ops.Receive(QUEUE, 1))
        (done,) = ask(far, ops.Transact([(QUEUE, [got[0].receipt])], [(OUT, [Entry(b"%d" % at)])]))
        assert not isinstance(done, Exception), done
        (left, found) = ask(near, ops.Peek(QUEUE), ops.Peek(OUT, limit=500))
        assert (left, [one.message.body for one in found]) == ([], [b"%d" % number for number in range(1, at + 1)])
        assert counted(far, QUEUE, "deleted") == counted(far, OUT, "sent") == at

    assert cut_everywhere(network, once) >= 7


def test_node_that_is_cut_off_says_so_in_time_and_recovers(
    far: PostgresStore, near: PostgresStore, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(far, ops.Send(QUEUE, [Entry(b"before")]))
    network.swallows = True
    with monkeypatch.context() as impatient:
        impatient.setattr(lane, "ANSWER_S", 0.3)
        impatient.setattr(lane, "RECOVER_S", 0.1)
        impatient.setitem(connecting._DEFAULTS, "connect_timeout", 2)  # libpq's least
        (refused,) = ask(far, ops.Send(QUEUE, [Entry(b"meanwhile")]))
    assert isinstance(refused, Unavailable)
    network.swallows = False
    (sent,) = ask(far, ops.Send(QUEUE, [Entry(b"after")]))
    assert isinstance(sent[0], Sent)
    assert [one.message.body for one in ask(near, ops.Peek(QUEUE))[0]] == [b"before", b"after"]


def test_commit_that_nobody_answers_is_told_as_unknown(
    far: PostgresStore, near: PostgresStore, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The COMMIT arrives, its answer does not."""
    ask(far, ops.Send(QUEUE, [Entry(b"before")]))

    def swallow_answers(data: bytes, from_server: bool) -> bool:
        network.swallows |= from_server and b"COMMIT\0" in data
        return True

    network.on_bytes = swallow_answers
    with monkeypatch.context() as impatient:
        impatient.setattr(lane, "COMMIT_S", 2.0)
        impatient.setattr(lane, "RECOVER_S", 0.1)
        impatient.setitem(connecting._DEFAULTS, "connect_timeout", 2)
        (unknown,) = ask(far, ops.Send(QUEUE, [Entry(b"meanwhile")]))
    assert isinstance(unknown, OutcomeUnknown)
    network.on_bytes, network.swallows = lambda _data, _from_server: True, False
    ask(far, ops.Send(QUEUE, [Entry(b"after")]))
    assert [one.message.body for one in ask(near, ops.Peek(QUEUE))[0]] == [b"before", b"meanwhile", b"after"]


def test_answer_that_is_lost_without_a_word_is_waited_for_until_the_server_says_that_it_has_answered(
    far: PostgresStore, near: PostgresStore, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "SILENT_S", 0.0)
    monkeypatch.setattr(lane, "ANSWER_S", 3_600.0)
    monkeypatch.setattr(lane, "RECOVER_S", PATIENCE_S)
    threads = Threads(far)
    outcomes: list[Any] = []
    for body in (b"before", b"meanwhile"):
        far.execute([Request(ops.Send(QUEUE, [Entry(body)]), outcomes.append)])
        if body == b"before":
            threads.work("send")()

    def lose_an_answer(_data: bytes, from_server: bool) -> bool:
        network.swallows |= from_server
        return True

    connection = far._lanes[LaneName.SEND].lane._connection
    assert connection is not None
    far.pulse.beat()
    network.on_bytes = lose_an_answer
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(threads.work, "send")
        wait_until(lambda: network.swallows)
        network.on_bytes, network.swallows = lambda _data, _from_server: True, False
        while not connection.closed:
            far.pulse.beat()
        working.result()()
    assert [isinstance(outcome[0], Sent) for outcome in outcomes] == [True, True]
    assert [one.message.body for one in ask(near, ops.Peek(QUEUE))[0]] == [b"before", b"meanwhile"]
    far.attach(None)


def test_hosts_take_turns() -> None:
    given = {"host": "a,b,c", "port": "1,2,3", "user": "u"}
    assert turned(given, 0) == given
    assert turned(given, 4) == {"host": "b,c,a", "port": "2,3,1", "user": "u"}
    assert turned({"host": "a,b", "port": "1"}, 1) == {"host": "b,a", "port": "1"}
    assert turned({"dbname": "x"}, 5) == {"dbname": "x"}


def test_lanes_follow_each_other_to_the_server_that_takes_commits(near: PostgresStore) -> None:
    """Another lane has gone to another server: this one's would go on answering, of a time that is over."""
    shared = near._shared
    home = shared.home
    shared.home = "another"
    (sent,) = ask(near, ops.Send(QUEUE, [Entry(b"x")]))
    assert isinstance(sent[0], Sent)
    assert shared.home == home is not None


def test_who_takes_no_commits_goes_where_they_are_taken(near: PostgresStore) -> None:
    near._shared.connect_home().close()
    near._shared.home = "another"
    with pytest.raises(psycopg.OperationalError, match="takes commits"):
        near._shared.connect_home()


def test_place_is_that_of_the_host_that_answered(network: Network, near: PostgresStore) -> None:
    url = network.url.replace("127.0.0.1", "127.0.0.1,127.0.0.1").replace(
        "@127.0.0.1,127.0.0.1:", "@127.0.0.1:1,127.0.0.1:"
    )
    with connecting.connect(url) as connection, connecting.connect(network.url) as other:
        assert (connection.place, other.place) == (1, 0)
        assert connection.server == other.server
    assert near.durable
