"""FIFO queues on several nodes: order, one owner of a group, deduplication; and what is left behind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import HeadraceError, ReceiptExpired
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Sent
from headrace.queue.store.postgres import fifo, fifo_lease
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.connecting import connect
from headrace.queue.store.postgres.store import PostgresStore
from headrace.queue.store.postgres.transaction import Cursor, Transaction
from headrace.testing.postgres import databases
from tests.queue.postgres.fifo_queue import QUEUE, SETTINGS, VISIBILITY_MS, receive, send
from tests.queue.postgres.nodes import ask, node

NODES = 3


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q.fifo`."""
    ask(nodes[0], ops.CreateQueue(QUEUE, SETTINGS))
    return nodes


def rows(database: psycopg.Connection[Any], table: str) -> int:
    row = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


# --- many nodes at once ---


@dataclass
class Batch:
    """Messages of one group that somebody has received: when, until when at least, whether they are being given back."""

    seqs: list[int]
    deliveries: list[Delivery]
    until_ms: int
    step: int
    given_back: bool = False


@dataclass
class Witness:
    """Sees everything, and what may not be. `steps` orders what was noted."""

    clock: ManualClock
    lock: Lock = field(default_factory=Lock)
    steps: int = 0
    sent: dict[str, dict[int, int]] = field(default_factory=dict)  # group -> seq -> the step at which its delete began
    batches: dict[str, list[Batch]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def step(self) -> int:
        self.steps += 1
        return self.steps

    def received(self, group: str, deliveries: list[Delivery], until_ms: int) -> Batch:
        with self.lock:
            batch = Batch([one.message.seq for one in deliveries], deliveries, until_ms, self.step())
            now = self.clock()
            for other in self.batches.setdefault(group, []):
                if not other.given_back and now < min(other.until_ms, until_ms):
                    self.wrong.append(f"group {group} has two owners: {other.seqs} and {batch.seqs} at {now}")
            self.batches[group].append(batch)
            return batch

    def check_order(self) -> None:
        """Whoever received from a group received its first messages that were there."""
        for group, batches in self.batches.items():
            for batch in batches:
                before = [seq for seq in self.sent[group] if seq < batch.seqs[-1] and seq not in batch.seqs]
                skipped = [seq for seq in before if self.sent[group][seq] > batch.step]
                assert not skipped, f"group {group}: {skipped} came after {batch.seqs}"
                assert batch.seqs == sorted(batch.seqs)


class Client:
    """Produces and consumes at one node, which may die."""

    def __init__(self, store: PostgresStore, witness: Witness, seed: int) -> None:
        self.store = store
        self.witness = witness
        self.chance = random.Random(seed)
        self.name = seed
        self.sends = 0
        self.deleted: list[int] = []

    def run(self, rounds: int, folder: Path) -> None:
        for at in range(rounds):
            if self.name == 0 and at == rounds // 2:
                self.store = node(folder, self.witness.clock)  # dies with what it has: nothing is closed
            if self.chance.random() < 0.6:
                self.produce()
            self.consume()
            if self.chance.random() < 0.1:
                self.witness.clock.advance(VISIBILITY_MS // 2)

    def produce(self) -> None:
        self.sends += 1
        bodies = [f"{self.chance.choice('abc')}-{self.name}-{self.sends}-{n}" for n in range(self.chance.randint(1, 4))]
        for body, sent in zip(bodies, send(self.store, *bodies), strict=True):
            with self.witness.lock:
                self.witness.sent.setdefault(body[0], {}).setdefault(sent.seq, 1 << 60)

    def consume(self) -> bool:
        until_ms = self.witness.clock() + VISIBILITY_MS
        (deliveries,) = ask(self.store, ops.Receive(QUEUE, self.chance.randint(1, 6)))
        groups: dict[str, list[Delivery]] = {}
        for one in deliveries:
            groups.setdefault(one.message.group, []).append(one)
        for group, ones in groups.items():
            self.settle(group, self.witness.received(group, ones, until_ms))
        return bool(deliveries)

    def settle(self, group: str, batch: Batch) -> None:
        """Delete them, release them, or let the lease end."""
        receipts = [one.receipt for one in batch.deliveries]
        fate = self.chance.random()
        if fate < 0.7:
            with self.witness.lock:
                batch.given_back = True
            self.delete(group, batch, receipts)
        elif fate < 0.85:
            batch.given_back = True
            ask(self.store, ops.ChangeVisibility(QUEUE, [(receipt, 0) for receipt in receipts]))

    def delete(self, group: str, batch: Batch, receipts: list[bytes]) -> None:
        with self.witness.lock:
            begun = self.witness.step()
        (outcomes,) = ask(self.store, ops.Delete(QUEUE, receipts))
        with self.witness.lock:
            for seq, outcome in zip(batch.seqs, outcomes, strict=True):
                assert outcome is None or isinstance(outcome, ReceiptExpired), outcome
                if outcome is None:
                    self.deleted.append(seq)
                    self.witness.sent[group][seq] = begun


def test_groups_keep_order_and_owner_on_many_nodes(
    nodes: list[PostgresStore], clock: ManualClock, tmp_path: Path, database: psycopg.Connection[Any]
) -> None:
    """Three producers and consumers, few groups, releases, leases that end, a node that dies."""
    witness = Witness(clock)
    clients = [Client(store, witness, seed) for seed, store in enumerate(nodes)]
    with ThreadPoolExecutor(NODES) as pool:
        for done in [pool.submit(client.run, 150, tmp_path) for client in clients]:
            done.result()
    clock.advance(VISIBILITY_MS)
    last = clients[1]
    while last.consume() or rows(database, "message"):
        clock.advance(VISIBILITY_MS)
    assert witness.wrong == []
    witness.check_order()
    # Whose lease has ended may delete what the next owner has deleted before him: it is gone, as he asks.
    deleted = {seq for client in clients for seq in client.deleted}
    assert deleted == {seq for group in witness.sent.values() for seq in group}
    assert rows(database, "message_group") == 0
    for client in clients:
        client.store.close()


def test_dedup_id_is_stored_once_by_all_nodes(nodes: list[PostgresStore]) -> None:
    def run(store: PostgresStore) -> list[Sent]:
        return [
            ask(store, ops.Send(QUEUE, [Entry(b"x", group=f"g{at % 3}", dedup_id=f"d{at}")]))[0][0] for at in range(20)
        ]

    with ThreadPoolExecutor(NODES) as pool:
        answers = list(pool.map(run, nodes))
    for ones in zip(*answers, strict=True):
        assert sum(not one.duplicate for one in ones) == 1
        assert len({(one.id, one.seq) for one in ones}) == 1
    assert len(ask(nodes[0], ops.Peek(QUEUE, 100))[0]) == 20


def test_attempt_is_answered_alike_by_all_nodes(nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fifo, "WAIT_MS", 30_000)  # each for the group that another has
    send(nodes[0], "a1", "a2", "b1")
    attempt = ops.Receive(QUEUE, 2, attempt_id="try")
    with ThreadPoolExecutor(NODES) as pool:
        answers = [one for (one,) in pool.map(lambda store: ask(store, attempt), nodes)]
    assert [[one.message.body for one in answer] for answer in answers] == [[b"a1", b"a2"]] * NODES
    assert len({one.receipt for answer in answers for one in answer}) == 2


# --- what a receive gives ---


def test_requests_of_a_batch_have_groups_of_their_own(nodes: list[PostgresStore]) -> None:
    send(nodes[0], *[f"{group}{number}" for group in "abcd" for number in range(3)])
    answers = ask(nodes[1], *[ops.Receive(QUEUE, 2) for _ in range(3)])
    assert [[one.message.body for one in answer] for answer in answers] == [
        [b"a0", b"a1"], [b"b0", b"b1"], [b"c0", b"c1"]
    ]  # fmt: skip


def test_requests_of_a_batch_have_the_groups_that_begin_in_their_share(nodes: list[PostgresStore]) -> None:
    """Three messages a request: of the last group that a request has, it leaves what is too much."""
    send(nodes[0], *[f"{group}{number}" for group in "abcdef" for number in range(2 if group == "a" else 3)])
    answers = ask(nodes[1], *[ops.Receive(QUEUE, 3) for _ in range(3)])
    assert [[one.message.body for one in answer] for answer in answers] == [
        [b"a0", b"a1", b"b0"], [b"c0", b"c1", b"c2"], [b"d0"]
    ]  # fmt: skip
    assert receive(nodes[2]) == ["e0", "e1", "e2", "f0", "f1", "f2"]


def test_receive_goes_on_behind_what_must_be_judged(nodes: list[PostgresStore], clock: ManualClock) -> None:
    """What has expired, or is not shown yet, in one of many groups holds up no other."""
    ask(nodes[0], ops.ChangeSettings(QUEUE, {"retention_ms": limits.MINUTE_MS}))
    send(nodes[0], "a1", "b1")
    clock.advance(limits.MINUTE_MS)
    send(nodes[0], "a2", "c1")
    assert receive(nodes[1]) == ["a2", "c1"]
    ask(nodes[0], ops.ChangeSettings(QUEUE, {"delay_ms": 1_000}))
    send(nodes[0], "d1")
    clock.advance(500)
    send(nodes[0], "d2", "e1")
    assert receive(nodes[1]) == []
    clock.advance(500)
    assert receive(nodes[1]) == ["d1"]


def test_head_that_is_not_there_is_not_leased_around(
    nodes: list[PostgresStore], database: psycopg.Connection[Any]
) -> None:
    """The statement that leases at once sees the group's newest row, but older messages: so it goes by the head."""
    send(nodes[0], "a1", "a2")
    database.execute("UPDATE message_group SET head = head - 1")
    assert fifo_lease.read(*_leased_at_once(nodes[1])) == []
    assert receive(nodes[1]) == ["a1", "a2"]


def _leased_at_once(store: PostgresStore) -> tuple[StoredQueue, Cursor]:
    """What the first statement of a receive gives."""
    found: list[tuple[StoredQueue, Cursor]] = []

    def work(tx: Transaction, _: Sequence[ops.Operation]) -> list[Any]:
        queue = tx.catalog.queue(QUEUE)
        found.append((queue, fifo_lease.lease(tx, queue, limit=10, room=10, visibility_ms=1_000)))
        return []

    store._alone.run([], work)
    return found[0]


def test_usual_isolation_of_the_database_does_not_matter(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], tmp_path: Path
) -> None:
    database.execute(f"ALTER DATABASE {database.info.dbname} SET default_transaction_isolation = 'repeatable read'")
    with connect(databases().of(tmp_path)) as connection:
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


# --- what is left behind ---


def test_ids_are_forgotten_when_their_five_minutes_are_over(
    nodes: list[PostgresStore], clock: ManualClock, database: psycopg.Connection[Any]
) -> None:
    send(nodes[0], "a1", "a2")
    ask(nodes[1], ops.Receive(QUEUE, attempt_id="try"))
    assert (rows(database, "dedup"), rows(database, "attempt")) == (2, 1)
    clock.advance(limits.DEDUP_MS)
    while nodes[2].advance() == clock():
        pass
    assert (rows(database, "dedup"), rows(database, "attempt")) == (0, 0)


def test_deleted_queue_leaves_nothing(nodes: list[PostgresStore], database: psycopg.Connection[Any]) -> None:
    send(nodes[0], "a1", "b1")
    ask(nodes[1], ops.Receive(QUEUE, 1, attempt_id="try"))
    ask(nodes[2], ops.DeleteQueue(QUEUE))
    for _ in range(5):
        nodes[0].advance()
    assert [rows(database, table) for table in ("message", "message_group", "dedup", "attempt")] == [0] * 4


def test_refused_and_repeated_sends_leave_no_group(
    nodes: list[PostgresStore], database: psycopg.Connection[Any]
) -> None:
    send(nodes[0], "a1")
    ask(nodes[0], ops.Send(QUEUE, [Entry(b"a1", group="new")]))
    refused = ops.Transact(sends=[(QUEUE, [Entry(b"x", group="other")])], expect=[(b"k", b"v")], name="n")
    assert isinstance(ask(nodes[0], refused)[0], HeadraceError)
    assert rows(database, "message_group") == 1
