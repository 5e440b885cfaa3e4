"""The role of `headrace store init --role`: all that a broker does, and nothing that changes the tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headrace.errors import StoreError
from headrace.queue import operations as ops
from headrace.queue.between import ListElsewhere, TellHolders
from headrace.queue.model import Delivery, Entry, HolderState, MoveTask, arn_of, topic_arn_of
from headrace.queue.store.postgres import schema
from headrace.queue.store.postgres.families import FAMILIES
from headrace.queue.store.postgres.opening import open_store
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask

Q, F, D, T = arn_of("q"), arn_of("f.fifo"), arn_of("d"), topic_arn_of("t")


@pytest.fixture
def url(kind: StoreKind, tmp_path: Path) -> Iterator[str]:
    """A store, as a role that may run brokers sees it."""
    del kind
    owned = databases().of(tmp_path)
    with psycopg.connect(owned, autocommit=True) as owner:
        owner.execute("CREATE ROLE runs_only LOGIN")
        schema.grant(owner, "runs_only")
        yield owned.replace("headrace@", "runs_only@")
        owner.execute("DROP OWNED BY runs_only")
        owner.execute("DROP ROLE runs_only")


def _operations(received: Delivery, move: str) -> list[ops.Operation]:
    """One of each kind, with a receipt of `q` and the handle of a move from `d`."""
    return [
        ops.Send(F, [Entry(b"x", group="g", dedup_id="d")]), ops.Receive(F, attempt_id="a"), ops.ReceiveAny([Q, F]),
        ops.Take(Q, [received.message.seq]), ops.ChangeVisibility(Q, [(received.receipt, 0)]), ops.Claim(Q, "r", 1),
        ops.GetClaims(Q, "r"), ops.ReleaseClaims(Q, "r"), ops.AcknowledgeClaims(Q, "r", 1),
        ops.Transact(sends=[(Q, [Entry(b"y")])], state=[(b"k", b"v")], expect=[(b"k", None)], name="n"), ops.Fence("n"),
        ops.GetState("n"), ops.Peek(Q), ops.GetQueue(Q), ops.ListQueues(), ops.ChangeSettings(Q, {"delay_ms": 0}),
        ops.TagQueue(Q, {"a": "b"}), ops.CancelMove(move), ops.ListMoves(D), ops.CreateTopic(T, {"retention_ms": 60_000}),
        ops.ChangeTopic(T, {"retention_ms": 70_000}), ops.Subscribe(T, Q), ops.Send(T, [Entry(b"z" * 2_000)]), ops.ReadLog(T),
        ops.GetTopic(T), ops.ListTopics(), ops.Unsubscribe(T, Q), ops.DeleteTopic(T), ops.Delete(Q, [received.receipt]),
        ops.Purge(Q), ops.DeleteQueue(Q), ListElsewhere("n", ""),
        TellHolders("n", [HolderState("h", "worker", 1, 2, 0, {})], [("g", 1)], [("h", 0)], all_gone=False),
    ]  # fmt: skip


def test_role_runs_every_operation_and_the_upkeep(url: str) -> None:
    store = open_store(url, cooldowns=False)[0]
    ask(store, ops.CreateQueue(D, {}), ops.CreateQueue(F, {"fifo": True}))
    ask(store, ops.CreateQueue(Q, {"redrive": {"target": D, "receives_max": 1}}))
    ask(store, ops.Send(Q, [Entry(b"a"), Entry(b"b", group="tenant")]))
    (received, *_) = ask(store, ops.Receive(Q, 10))[0]
    (started,) = ask(store, ops.StartMove(D, Q))
    handle = started.handle if isinstance(started, MoveTask) else ""
    used = {ops.CreateQueue, ops.Send, ops.Receive, ops.StartMove}
    for operation in _operations(received, handle):
        (outcome,) = ask(store, operation)
        assert not isinstance(outcome, StoreError), (operation, outcome)
        used.add(type(operation))
        store.advance()
    assert used == set(FAMILIES)
    store.close()


def test_role_changes_no_tables(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "DROP TABLE headrace.message", "ALTER TABLE headrace.message ADD x int", "CREATE TABLE headrace.x (y int)",
            "TRUNCATE headrace.message", "DROP INDEX headrace.message_fresh", "UPDATE headrace.meta SET version = 0",
            "DROP SCHEMA headrace CASCADE", "ALTER SCHEMA headrace RENAME TO y", "CREATE INDEX ON headrace.message (id)",
            "DELETE FROM headrace.meta", "CREATE TRIGGER t BEFORE INSERT ON headrace.message EXECUTE FUNCTION f()",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
