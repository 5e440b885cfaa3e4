"""What a node's upkeep asks of the database: little when there is nothing to do, however many queues there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.queue.store.postgres import maintenance
from headrace.queue.store.postgres.store import PostgresStore
from headrace.queue.store.postgres.transaction import Transaction
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask, node

STATEMENTS_MAX = 12
"""Of one turn with nothing to do: bounded, whatever the store holds."""


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path, clock: ManualClock) -> Iterator[PostgresStore]:
    store = node(tmp_path, clock)
    yield store
    store.close()


@pytest.fixture
def statements(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What transactions of the store have sent."""
    sent: list[str] = []
    execute = Transaction.execute

    def noted(tx: Transaction, sql: str, *parameters: object) -> object:
        sent.append(sql)
        return execute(tx, sql, *parameters)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(Transaction, "execute", noted)
    return sent


def settle(store: PostgresStore, clock: ManualClock) -> None:
    while (due_ms := store.advance()) is not None and due_ms <= clock():
        pass


def test_idle_turn_asks_as_much_of_many_queues_as_of_one(
    store: PostgresStore, clock: ManualClock, statements: list[str]
) -> None:
    for number in range(20):
        ask(store, ops.CreateQueue(arn_of(f"q{number}"), {}), ops.Send(arn_of(f"q{number}"), [Entry(b"x")]))
    settle(store, clock)
    clock.advance(limits.SECOND_MS)
    statements.clear()
    store.advance()
    assert 0 < len(statements) <= STATEMENTS_MAX


def test_round_that_found_nothing_is_not_begun_again_at_the_same_time(
    store: PostgresStore, clock: ManualClock, statements: list[str]
) -> None:
    ask(store, ops.CreateQueue(arn_of("q"), {}), ops.Send(arn_of("q"), [Entry(b"x")]))
    settle(store, clock)  # it tells the totals
    settle(store, clock)  # and finds nothing
    ask(store, ops.Peek(arn_of("q")))
    statements.clear()
    settle(store, clock)
    assert not statements


def test_node_that_was_kept_out_by_another_looks_again_at_the_same_time(
    store: PostgresStore, clock: ManualClock, statements: list[str], tmp_path: Path
) -> None:
    """It has not seen what there is to do."""
    ask(store, ops.CreateQueue(arn_of("q"), {}))
    with psycopg.connect(databases().of(tmp_path)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (maintenance._LOCK_NUMBER,))
        settle(store, clock)
        settle(store, clock)
    statements.clear()
    settle(store, clock)
    assert statements


def test_node_that_hears_of_another_catalogue_looks_again_at_the_same_time(
    store: PostgresStore, clock: ManualClock, statements: list[str], tmp_path: Path
) -> None:
    """A queue that is to catch up, say."""
    ask(store, ops.CreateQueue(arn_of("q"), {}))
    settle(store, clock)
    settle(store, clock)
    other = node(tmp_path, clock)
    ask(other, ops.CreateQueue(arn_of("another"), {}))
    other.close()
    ask(store, ops.ListQueues())
    statements.clear()
    settle(store, clock)
    assert statements


def test_turn_that_failed_is_done_again_at_the_same_time(
    store: PostgresStore, clock: ManualClock, statements: list[str]
) -> None:
    ask(store, ops.CreateQueue(arn_of("q"), {}))
    settle(store, clock)

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(maintenance, "run", fail)
        settle(store, clock)
    statements.clear()
    settle(store, clock)
    assert statements


def test_each_queue_of_a_slice_loses_what_has_expired_of_it(store: PostgresStore, clock: ManualClock) -> None:
    short, long, none = arn_of("short"), arn_of("long"), arn_of("none")
    ask(store, ops.CreateQueue(short, {"retention_ms": limits.MINUTE_MS}))
    ask(store, ops.CreateQueue(none, {}), ops.CreateQueue(long, {"retention_ms": limits.HOUR_MS}))
    ask(store, ops.Send(short, [Entry(b"goes")]), ops.Send(long, [Entry(b"stays")]))
    clock.advance(limits.MINUTE_MS + 1)
    ask(store, ops.Send(short, [Entry(b"new")]))
    settle(store, clock)
    left = [
        [one.message.body for one in peeked] for peeked in ask(store, *[ops.Peek(one) for one in (short, long, none)])
    ]
    assert left == [[b"new"], [b"stays"], []]
