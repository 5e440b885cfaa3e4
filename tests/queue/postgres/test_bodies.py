"""Bodies that topics publish are stored once, and go when nobody needs them any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of, topic_arn_of
from headrace.queue.store.postgres import bodies
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask, node

TOPIC = topic_arn_of("t")
A, B = arn_of("a"), arn_of("b")
LONG = b"x" * limits.REFERENCE_BYTES_MIN


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path, clock: ManualClock) -> Iterator[PostgresStore]:
    """A node, the topic `t` without a log, and the queues `a` and `b`, subscribed."""
    assert kind.durable
    made = node(tmp_path, clock)
    ask(made, ops.CreateTopic(TOPIC), ops.CreateQueue(A), ops.CreateQueue(B))
    ask(made, ops.Subscribe(TOPIC, A), ops.Subscribe(TOPIC, B))
    yield made
    made.close()


@pytest.fixture
def database(store: PostgresStore, tmp_path: Path) -> Iterator[psycopg.Connection[tuple[int, ...]]]:
    with psycopg.connect(databases().of(tmp_path), autocommit=True) as connection:
        yield connection


def stored(database: psycopg.Connection[tuple[int, ...]]) -> int:
    """How many bodies are stored for several messages."""
    return database.execute("SELECT count(*) FROM headrace.published").fetchall()[0][0]


def consume(store: PostgresStore, queue: str) -> list[bytes]:
    (deliveries,) = ask(store, ops.Receive(queue, 10_000))
    if deliveries:
        ask(store, ops.Delete(queue, [one.receipt for one in deliveries]))
    return [one.message.body for one in deliveries]


def keep(store: PostgresStore, clock: ManualClock) -> None:
    """More upkeep than a round over what a test stores takes."""
    for _ in range(10):
        store.advance()
        clock.advance(bodies.PAUSE_MS)


def test_long_body_is_stored_once_and_short_ones_with_each_message(
    store: PostgresStore, database: psycopg.Connection[tuple[int, ...]]
) -> None:
    ask(store, ops.Send(TOPIC, [Entry(LONG), Entry(b"short")]))
    assert stored(database) == 1
    assert consume(store, A) == consume(store, B) == [LONG, b"short"]


def test_body_goes_when_the_last_message_that_refers_to_it_has_gone(
    store: PostgresStore, database: psycopg.Connection[tuple[int, ...]], clock: ManualClock
) -> None:
    ask(store, ops.Send(TOPIC, [Entry(LONG)]))
    consume(store, A)
    keep(store, clock)
    assert stored(database) == 1
    assert consume(store, B) == [LONG]
    keep(store, clock)
    assert stored(database) == 0


def test_bodies_behind_others_that_are_still_in_use_go_too(
    store: PostgresStore,
    database: psycopg.Connection[tuple[int, ...]],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "SLICE", 2)
    ask(store, ops.Send(TOPIC, [Entry(LONG)] * 9))
    ask(store, ops.Purge(B))
    (deliveries,) = ask(store, ops.Receive(A, 9))
    ask(store, ops.Delete(A, [one.receipt for one in deliveries[5:]]))
    keep(store, clock)
    assert stored(database) == 5
    keep(store, clock)
    ask(store, ops.Delete(A, [one.receipt for one in deliveries[:5]]))
    keep(store, clock)
    assert stored(database) == 0


def test_deleted_topic_leaves_nothing_when_its_messages_are_consumed(
    store: PostgresStore, database: psycopg.Connection[tuple[int, ...]], clock: ManualClock
) -> None:
    ask(store, ops.ChangeTopic(TOPIC, {"retention_ms": limits.HOUR_MS}))
    ask(store, ops.Send(TOPIC, [Entry(LONG), Entry(LONG)]))
    ask(store, ops.DeleteTopic(TOPIC))
    consume(store, A)
    keep(store, clock)
    assert stored(database) == 2
    assert consume(store, B) == [LONG, LONG]
    keep(store, clock)
    assert stored(database) == 0
    assert database.execute("SELECT count(*) FROM headrace.deleted_topic").fetchall() == [(0,)]
