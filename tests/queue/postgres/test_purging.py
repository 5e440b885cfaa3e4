"""Purges: over at once for everybody, the rows go later; deleted queues are forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import MessageNotFound, ReceiptExpired
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.queue.store.postgres import counting, maintenance
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask, node

QUEUE = arn_of("q")


NODES = 2


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q`."""
    ask(nodes[0], ops.CreateQueue(QUEUE))
    return nodes


@pytest.fixture
def database(nodes: list[PostgresStore], tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the test's own."""
    assert nodes
    with psycopg.connect(databases().of(tmp_path), autocommit=True, options="-c search_path=headrace") as connection:
        yield connection


def rows(database: psycopg.Connection[Any], table: str = "message") -> int:
    row = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    number: int = row[0]
    return number


def send(store: PostgresStore, count: int) -> None:
    ask(store, ops.Send(QUEUE, [Entry(str(number).encode()) for number in range(count)]))


def test_purge_leaves_the_rows_to_maintenance(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SLICE", 4)
    send(nodes[0], 10)
    assert ask(nodes[0], ops.Purge(QUEUE)) == [10]
    assert rows(database) == 10
    send(nodes[1], 1)
    seen: list[int] = []
    while len(seen) < 20 and (due := nodes[1].advance()) is not None:
        seen.append(rows(database))
        assert due
    assert seen[:3] == [7, 3, 1]
    assert [one.message.body for one in ask(nodes[0], ops.Receive(QUEUE, 10))[0]] == [b"0"]


def test_receipt_of_a_purged_message_does_nothing_on_any_node(nodes: list[PostgresStore]) -> None:
    send(nodes[0], 2)
    first, second = [one.receipt for one in ask(nodes[0], ops.Receive(QUEUE, 2))[0]]
    ask(nodes[1], ops.Purge(QUEUE))
    assert ask(nodes[0], ops.Delete(QUEUE, [first])) == [[None]]
    assert isinstance(ask(nodes[0], ops.ChangeVisibility(QUEUE, [(second, 0)]))[0][0], MessageNotFound)
    assert isinstance(ask(nodes[0], ops.Transact(acknowledge=[(QUEUE, [second])]))[0], ReceiptExpired)
    assert ask(nodes[1], ops.GetQueue(QUEUE))[0].counts.deleted == 2


def test_purge_counts_many_messages_without_looking_at_each(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "EXACT_MAX", 5)
    send(nodes[0], 30)
    ask(nodes[0], ops.Receive(QUEUE, 3))
    assert ask(nodes[0], ops.Purge(QUEUE)) == [30]
    counts = ask(nodes[0], ops.GetQueue(QUEUE))[0].counts
    assert (counts.visible, counts.in_flight, counts.delayed, counts.deleted) == (0, 0, 0, 30)


def test_late_message_of_a_purged_queue_goes_too(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], clock: ManualClock
) -> None:
    """A sender that drew its number before the purge and commits after the rows have gone."""
    send(nodes[0], 1)
    ask(nodes[0], ops.Purge(QUEUE))
    nodes[0].advance()
    database.execute(
        "INSERT INTO message (queue, seq, visible_ms, sent_ms, id) SELECT id, floor - 1, 0, %s, '\\x00' FROM queue",
        (clock(),),
    )
    assert ask(nodes[1], ops.Receive(QUEUE)) == [[]]
    nodes[0].advance()
    assert rows(database) == 0


def test_deleted_queue_is_forgotten_with_what_came_late(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], clock: ManualClock
) -> None:
    send(nodes[0], 3)
    ask(nodes[0], ops.DeleteQueue(QUEUE))
    for _ in range(3):
        nodes[0].advance()
    assert (rows(database), rows(database, "deleted_queue")) == (0, 1)
    database.execute(
        "INSERT INTO message (queue, seq, visible_ms, sent_ms, id) SELECT id, 1, 0, %s, '\\x00' FROM deleted_queue",
        (clock(),),
    )
    clock.advance(maintenance.LATE_MS + 1)
    for _ in range(4):
        nodes[1].advance()
    assert (rows(database), rows(database, "deleted_queue"), rows(database, "queue_total")) == (0, 0, 0)


def test_groups_of_a_fifo_queue_are_whole_after_purges_among_sends_and_receives(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], clock: ManualClock, tmp_path: Path
) -> None:
    """Whatever each purge took: what is left comes in order, and then nothing is left of any group."""
    queue = arn_of("q.fifo")
    ask(nodes[0], ops.CreateQueue(queue, {"fifo": True}))
    nodes.append(node(tmp_path, clock))

    def send_all(store: PostgresStore) -> None:
        for number in range(40):
            entry = Entry(b"%03d" % number, group=f"g{number % 3}", dedup_id=str(number))
            ask(store, ops.Send(queue, [entry]))

    def purge(store: PostgresStore) -> None:
        for _ in range(8):
            ask(store, ops.Purge(queue))
            store.advance()

    def consume(store: PostgresStore) -> None:
        for _ in range(25):
            for one in ask(store, ops.Receive(queue, 3))[0]:
                ask(store, ops.Delete(queue, [one.receipt]))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(send_all, nodes[0]), pool.submit(purge, nodes[1]), pool.submit(consume, nodes[2])]:
            done.result()
    nodes[0].advance()
    left: dict[str | None, list[bytes]] = {}
    while deliveries := ask(nodes[0], ops.Receive(queue, 10))[0]:
        for one in deliveries:
            left.setdefault(one.message.group, []).append(one.message.body)
        ask(nodes[1], ops.Delete(queue, [one.receipt for one in deliveries]))
    assert all(bodies == sorted(bodies) for bodies in left.values())
    for _ in range(4):
        nodes[0].advance()
    assert (rows(database), rows(database, "message_group")) == (0, 0)
    ask(nodes[0], ops.Send(queue, [Entry(b"new", group="g0", dedup_id="new")]))
    assert [one.message.body for one in ask(nodes[1], ops.Receive(queue, 10))[0]] == [b"new"]
