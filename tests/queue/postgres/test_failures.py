"""What fails between a node and its database: told as it is, done once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import InvalidParameter, OutcomeUnknown, Unavailable
from headrace.queue import operations as ops
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.store.postgres import lane as lanes
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask, node

QUEUE = arn_of("q")


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path) -> Iterator[PostgresStore]:
    assert kind.durable
    store = node(tmp_path, ManualClock())
    ask(store, ops.CreateQueue(QUEUE))
    yield store
    store.close()


@pytest.fixture
def database(store: PostgresStore, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the test's own."""
    assert store.durable
    with psycopg.connect(databases().of(tmp_path), autocommit=True, options="-c search_path=headrace") as connection:
        yield connection


def end_connections(database: psycopg.Connection[Any]) -> None:
    database.execute(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name IN ('headrace', 'kept')"
    )


def test_broken_connection_is_replaced(store: PostgresStore, database: psycopg.Connection[Any]) -> None:
    end_connections(database)
    (sent,) = ask(store, ops.Send(QUEUE, [Entry(b"x")]))
    assert isinstance(sent[0], Sent)
    assert len(ask(store, ops.Peek(QUEUE))[0]) == 1


@pytest.mark.parametrize(
    ("warning", "expected"),
    [
        ("DETAIL = 'it has already committed locally'", OutcomeUnknown),  # a wait for the standby was cancelled
        (
            "ERRCODE = '57P01', DETAIL = 'it has already committed locally'",
            OutcomeUnknown,
        ),  # so that the server may end
        ("ERRCODE = '57P01'", list),  # it ends
        ("ERRCODE = '57P02', DETAIL = 'another process exited abnormally'", list),
    ],
)
def test_warning_behind_a_commit_counts_if_it_is_of_the_commit(
    store: PostgresStore, database: psycopg.Connection[Any], warning: str, expected: type
) -> None:
    database.execute(
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE WARNING 'something' USING {warning}; RETURN NULL; END $$".encode()
    )
    database.execute(
        "CREATE CONSTRAINT TRIGGER warns AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION warn()"
    )
    (outcome,) = ask(store, ops.Send(QUEUE, [Entry(b"x")]))
    database.execute("DROP FUNCTION warn CASCADE")
    assert isinstance(outcome, expected), outcome


def test_commit_whose_answer_was_lost_is_not_done_again(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[lanes.Lane] = []
    settled = lanes.Lane._settled

    def lose_once(lane: lanes.Lane) -> lanes.Batch:
        if not broken:
            broken.append(lane)
            raise psycopg.OperationalError("the answer is lost")
        return settled(lane)

    monkeypatch.setattr(lanes.Lane, "_settled", lose_once)
    _assert_stored_once(store)
    assert broken


def test_commit_that_did_not_arrive_is_done_again(
    store: PostgresStore, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[lanes.Lane] = []
    commit = lanes.Lane._commit

    def break_once(lane: lanes.Lane, connection: Any, batch: lanes.Batch) -> None:
        if not broken:
            broken.append(lane)
            end_connections(database)
        commit(lane, connection, batch)

    monkeypatch.setattr(lanes.Lane, "_commit", break_once)
    _assert_stored_once(store)
    assert broken


def _assert_stored_once(store: PostgresStore) -> None:
    (sent,) = ask(store, ops.Send(QUEUE, [Entry(b"x")]))
    assert isinstance(sent[0], Sent)
    (peeked,) = ask(store, ops.Peek(QUEUE))
    assert [one.message.id for one in peeked] == [sent[0].id]


def test_database_that_is_away_is_told_and_comes_back(
    store: PostgresStore,
    database: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with psycopg.connect(databases().server.url(), autocommit=True) as other:
        other.execute(f"ALTER DATABASE {database.info.dbname} ALLOW_CONNECTIONS false")
        end_connections(database)
        with monkeypatch.context() as impatient:
            impatient.setattr(lanes, "RECOVER_S", 0.2)
            assert isinstance(ask(store, ops.Send(QUEUE, [Entry(b"x")]))[0], Unavailable)
        other.execute(f"ALTER DATABASE {database.info.dbname} ALLOW_CONNECTIONS true")
    assert isinstance(ask(store, ops.Send(QUEUE, [Entry(b"x")]))[0][0], Sent)
    assert len(ask(store, ops.Peek(QUEUE))[0]) == 1


def test_database_that_has_lost_commits_has_the_last_word(
    store: PostgresStore, database: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As when a standby takes over that did not have the last of them: the node knows more than is there."""
    before = database.execute("SELECT version FROM directory").fetchone()
    assert before is not None
    ask(store, ops.CreateQueue(arn_of("lost")))
    end_connections(database)
    database.execute("DELETE FROM queue WHERE arn = %s", (arn_of("lost"),))
    database.execute("UPDATE directory SET version = %s", before)
    assert isinstance(ask(store, ops.Send(QUEUE, [Entry(b"x")]))[0][0], Sent)
    assert store.find(arn_of("lost")) is None
    assert [record for record in caplog.records if getattr(record, "action", "") == "store.lost"]


def test_request_that_the_database_refuses_touches_no_other(store: PostgresStore) -> None:
    outcomes = ask(
        store,
        ops.Send(QUEUE, [Entry(b"1")]),
        ops.Send(QUEUE, [Entry(b"2", trace="\x00")]),
        ops.Send(QUEUE, [Entry(b"3")]),
    )
    assert [isinstance(outcome, list) for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], InvalidParameter)  # not Unavailable: that is tried again and again
    assert [one.message.body for one in ask(store, ops.Peek(QUEUE))[0]] == [b"1", b"3"]


def test_connection_of_before_cannot_commit_any_more(store: PostgresStore, database: psycopg.Connection[Any]) -> None:
    """A lane that has been taken over by a newer connection is fenced: it connects anew, and the batch is done once."""
    database.execute("UPDATE lane SET epoch = epoch + 1")
    _assert_stored_once(store)


def test_delete_counts_though_its_lease_was_lost(store: PostgresStore, database: psycopg.Connection[Any]) -> None:
    ask(store, ops.Send(QUEUE, [Entry(b"x")]))
    (delivery,) = ask(store, ops.Receive(QUEUE, 1))[0]
    database.execute("UPDATE message SET receives = 0, visible_ms = 0")  # as a crash of the database leaves it
    assert ask(store, ops.Delete(QUEUE, [delivery.receipt])) == [[None]]
    assert ask(store, ops.Peek(QUEUE)) == [[]]
