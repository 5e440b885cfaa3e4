"""The record that the database keeps of itself, for the tests of faults: it finds what is planted, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from headrace.queue import operations as ops
from headrace.queue.store.postgres.store import PostgresStore
from tests.faults import audit
from tests.queue.postgres.fifo_queue import QUEUE, SETTINGS, receive, send
from tests.queue.postgres.nodes import ask

NODES = 2
LEASE = (
    "UPDATE message SET receives = receives + 1, visible_ms = (extract(epoch FROM clock_timestamp()) * 1000) + 60000"
)


@pytest.fixture
def database(database: psycopg.Connection[Any], nodes: list[PostgresStore]) -> Iterator[psycopg.Connection[Any]]:
    """With the queue `q.fifo`, three messages of a group, the first of them received; all of it written down."""
    audit.install(database)
    ask(nodes[0], ops.CreateQueue(QUEUE, SETTINGS))
    send(nodes[0], "a1", "a2", "b1", "a3")
    assert receive(nodes[1], 1) == ["a1"]
    yield database
    database.execute("DROP SCHEMA audit CASCADE")


def test_what_nodes_do_is_no_violation(nodes: list[PostgresStore], database: psycopg.Connection[Any]) -> None:
    ((other,),) = ask(nodes[0], ops.Receive(QUEUE))
    ask(nodes[1], ops.ChangeVisibility(QUEUE, [(other.receipt, 0)]))
    found = ask(nodes[1], ops.Receive(QUEUE, 10))[0]
    assert [one.message.body for one in found] == [b"b1"]
    ask(nodes[0], ops.Delete(QUEUE, [found[0].receipt]))
    assert audit.violations(database) == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (f"{LEASE} WHERE body = 'a3'", ": before "),
        (f"{LEASE} WHERE body = 'a1'; {LEASE} WHERE body = 'a2'", ": before "),
        (f"{LEASE} WHERE body = 'a1'; {LEASE} WHERE body = 'a1'", ": while it is leased"),
        ("UPDATE message SET receives = receives + 2 WHERE body = 'b1'", ": its count"),
        ("DELETE FROM message WHERE body = 'a1'", "group ("),
        ("DELETE FROM message_group WHERE name = 'b'", "group ("),
    ],
)
def test_violation_is_found(database: psycopg.Connection[Any], planted: str, found: str) -> None:
    for statement in planted.split(";"):
        database.execute(statement.encode())
    assert any(found in one for one in audit.violations(database))
