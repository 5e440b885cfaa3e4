"""FIFO queues on several nodes: groups that somebody has locked just now, and the order in which they are locked."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from headrace.queue import operations as ops
from headrace.queue.model import Entry, Redrive, arn_of, topic_arn_of
from headrace.queue.store.base import Request
from headrace.queue.store.postgres import claims, fifo
from headrace.queue.store.postgres.families import WITH_SENDS_MAX
from headrace.queue.store.postgres.store import PostgresStore
from headrace.queue.store.postgres.transaction import Transaction
from tests.patience import PATIENCE_S
from tests.queue.postgres.fifo_queue import QUEUE, SETTINGS, receive, send
from tests.queue.postgres.nodes import Threads, ask

DEAD = arn_of("dead.fifo")
NODES = 3


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q.fifo`."""
    ask(nodes[0], ops.CreateQueue(QUEUE, SETTINGS))
    return nodes


def test_receive_waits_for_a_group_that_is_locked_for_a_moment(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fifo, "WAIT_MS", 30_000)
    send(nodes[0], "a1")
    with ThreadPoolExecutor(1) as pool:
        with database.transaction():
            database.execute("SELECT FROM message_group FOR UPDATE")
            waiting = pool.submit(receive, nodes[1])
            until_a_statement_waits(database)
        assert waiting.result() == ["a1"]


def test_receive_does_not_wait_for_a_transaction_that_stays_open(
    nodes: list[PostgresStore], database: psycopg.Connection[Any]
) -> None:
    send(nodes[0], "a1")
    with database.transaction():
        database.execute("SELECT FROM message_group FOR UPDATE")
        assert receive(nodes[1]) == []
        send(nodes[0], "b1")
        assert receive(nodes[1]) == ["b1"]
    assert receive(nodes[1]) == ["a1"]


def test_locked_group_does_not_hold_up_others(nodes: list[PostgresStore], database: psycopg.Connection[Any]) -> None:
    send(nodes[0], "a1", "b1")
    with database.transaction():
        database.execute("SELECT FROM message_group WHERE name = 'a' FOR UPDATE")
        assert receive(nodes[1]) == ["b1"]
    assert receive(nodes[1]) == ["a1"]


def test_dead_letter_waits_for_no_group_of_the_other_queue(
    nodes: list[PostgresStore], database: psycopg.Connection[Any]
) -> None:
    """The receive holds a group already: to wait for another could be a deadlock. Nothing behind the dead letter is given."""
    number = _with_dead_letters(nodes[0])
    send(nodes[0], "a1", "a2")
    assert receive(nodes[0], 1) == ["a1"]
    ask(nodes[0], ops.Send(DEAD, [Entry(b"x", group="a")]))
    with database.transaction():
        database.execute("SELECT FROM message_group WHERE queue = %s FOR UPDATE", (number,))
        assert receive(nodes[1]) == []
    assert receive(nodes[1]) == ["a2"]
    assert [one.message.body for one in ask(nodes[2], ops.Peek(DEAD))[0]] == [b"x", b"a1"]


def test_dead_letter_waits_for_nobody_who_makes_its_group(
    nodes: list[PostgresStore], database: psycopg.Connection[Any]
) -> None:
    """Of a group that is new in the other queue, too. The same for who claims."""
    number = _with_dead_letters(nodes[0])
    send(nodes[0], "a1", "a2", "b1")
    assert receive(nodes[0], 1) == ["a1"]
    with database.transaction():
        database.execute("INSERT INTO message_group (queue, name) VALUES (%s, 'a')", (number,))
        assert receive(nodes[1]) == ["b1"]
        (claimed,) = ask(nodes[2], ops.Claim(QUEUE, "r", 1, limit=10))
        assert claimed == []
        database.execute("DELETE FROM message_group WHERE queue = %s", (number,))
    (claimed,) = ask(nodes[2], ops.Claim(QUEUE, "r", 1, limit=1))
    assert [message.body for message in claimed] == [b"a2"]


def _with_dead_letters(store: PostgresStore) -> int:
    """Let what was received once go to another queue. Returns its number."""
    ask(store, ops.CreateQueue(DEAD, {"fifo": True, "content_dedup": True}))
    ask(store, ops.ChangeSettings(QUEUE, {"redrive": Redrive(DEAD, 1), "visibility_ms": 0}))
    return store._shared.catalog.queues[DEAD].number


# --- the order of locks ---


def by_receipts(store: PostgresStore) -> list[ops.Operation]:
    first, second = (one.receipt for one in ask(store, ops.Receive(QUEUE, 2))[0])
    return [ops.Delete(QUEUE, [second] * (WITH_SENDS_MAX + 1)), ops.ChangeVisibility(QUEUE, [(first, 0)])]


def beside_sends(store: PostgresStore) -> list[ops.Operation]:
    _, second = (one.receipt for one in ask(store, ops.Receive(QUEUE, 2))[0])
    return [ops.Delete(QUEUE, [second]), ops.Send(QUEUE, [Entry(b"a2", group="a")])]


def takes(store: PostgresStore) -> list[ops.Operation]:
    first, second = (one.message.seq for one in ask(store, ops.Peek(QUEUE))[0])
    return [ops.Take(QUEUE, [second]), ops.Take(QUEUE, [first])]


def attempts(store: PostgresStore) -> list[ops.Operation]:
    repeated = ask(store, *[ops.Receive(QUEUE, 1, attempt_id=name) for name in ("y", "x")])
    assert [len(deliveries) for deliveries in repeated] == [1, 1]
    return [ops.Receive(QUEUE, 1, attempt_id=name) for name in ("x", "y")]


def acknowledges(store: PostgresStore) -> list[ops.Operation]:
    ask(store, ops.Claim(QUEUE, "first", 1, limit=1), ops.Claim(QUEUE, "second", 1, limit=1))
    return [ops.AcknowledgeClaims(QUEUE, "second", 1), ops.ReleaseClaims(QUEUE, "first")]


@pytest.mark.parametrize(
    ("lane", "operations"),
    [
        ("settle", by_receipts),
        ("order", beside_sends),
        ("settle", takes),
        ("receive", attempts),
        ("settle", acknowledges),
    ],
)
def test_operations_of_a_batch_lock_groups_in_one_order(
    nodes: list[PostgresStore],
    database: psycopg.Connection[Any],
    lane: str,
    operations: Callable[[PostgresStore], list[ops.Operation]],
) -> None:
    """While it waits for the first group, it has not locked the second one, which is asked for first."""
    send(nodes[0], "a1", "b1")
    asked = operations(nodes[0])
    threads = Threads(nodes[1])
    outcomes: list[Any] = []
    nodes[1].execute([Request(operation, outcomes.append) for operation in asked])
    with ThreadPoolExecutor(1) as pool:
        with database.transaction():
            database.execute("SELECT FROM message_group WHERE name = 'a' FOR UPDATE")
            working = pool.submit(threads.work, lane)
            until_a_statement_waits(database)
            database.execute("SELECT FROM message_group WHERE name = 'b' FOR UPDATE NOWAIT")
        working.result()()
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert len(outcomes) == 2
    nodes[1].attach(None)


def test_a_batch_locks_topics_before_groups(nodes: list[PostgresStore], database: psycopg.Connection[Any]) -> None:
    """Who publishes to a FIFO topic has it before the groups of its queues; so has who deletes in the same transaction."""
    topic = topic_arn_of("t.fifo")
    ask(nodes[0], ops.CreateTopic(topic, {"fifo": True}), ops.Subscribe(topic, QUEUE))
    send(nodes[0], "a1")
    ((given,),) = ask(nodes[0], ops.Receive(QUEUE))
    asked = [ops.Delete(QUEUE, [given.receipt]), ops.Send(topic, [Entry(b"a2", group="a", dedup_id="a2")])]
    threads = Threads(nodes[1])
    outcomes: list[Any] = []
    nodes[1].execute([Request(operation, outcomes.append) for operation in asked])
    with ThreadPoolExecutor(1) as pool:
        with database.transaction():
            database.execute("SELECT FROM topic FOR UPDATE")
            working = pool.submit(threads.work, "order")
            until_a_statement_waits(database)
            database.execute("SELECT FROM message_group FOR UPDATE NOWAIT")
        working.result()()
    assert outcomes[0] == [None]
    assert len(outcomes[1]) == 1
    assert receive(nodes[2]) == ["a2"]
    nodes[1].attach(None)


@pytest.mark.parametrize("settles", [ops.ReleaseClaims(QUEUE, "r"), ops.AcknowledgeClaims(QUEUE, "r", 1)])
def test_first_claim_that_is_settled_at_once_leaves_no_group_behind(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch, settles: ops.Operation
) -> None:
    """It is committed when who settles has looked for claims already."""
    send(nodes[0], "a1")
    looks = claims._touched

    def looks_too_early(tx: Transaction, *asked: Any) -> Any:
        found = looks(tx, *asked)
        ask(nodes[1], ops.Claim(QUEUE, "r", 1))
        return found

    monkeypatch.setattr(claims, "_touched", looks_too_early)
    ask(nodes[0], settles)
    monkeypatch.undo()
    ask(nodes[0], ops.ReleaseClaims(QUEUE, "r"))
    assert receive(nodes[2]) == ["a1"]


def until_a_statement_waits(database: psycopg.Connection[Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while database.execute(waits).fetchone() is None:
        database.execute("SELECT pg_stat_clear_snapshot()")
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.005)
