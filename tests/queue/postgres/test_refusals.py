"""Whatever a database refuses: it is told as a store's error, nothing is done, and it goes on by itself when that is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, LiteralString, TypeAlias

import psycopg
import pytest
from psycopg import sql

from headrace.clock import ManualClock
from headrace.errors import StoreError, StoreFull, Unavailable
from headrace.queue import operations as ops
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.store.postgres import connecting, lane
from headrace.queue.store.postgres.opening import open_store
from headrace.queue.store.postgres.schema import grant
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.patience import PATIENCE_S
from tests.queue.postgres.nodes import ask, node

QUEUE = arn_of("q")
ROLE = "runs_refused_brokers"
Database: TypeAlias = "psycopg.Connection[Any]"

# An error of any kind, in the statement that stores a message. What nextval draws is drawn, also if all is rolled back.
_FAILS: LiteralString = """
CREATE SEQUENCE fails;
GRANT USAGE ON SEQUENCE fails TO PUBLIC;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('fails') <= {times} THEN RAISE EXCEPTION 'planted' USING ERRCODE = {state}; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fails BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION fail();
"""
_WELL: LiteralString = "DROP TRIGGER IF EXISTS fails ON message; DROP FUNCTION fail(); DROP SEQUENCE fails"


def plant(database: Database, state: str, *, times: int) -> None:
    database.execute(sql.SQL(_FAILS).format(times=times, state=state))


@pytest.fixture
def database(kind: StoreKind, tmp_path: Path) -> Iterator[Database]:
    """The owner's connection to a database with a queue."""
    assert kind.durable
    made = node(tmp_path, ManualClock())
    ask(made, ops.CreateQueue(QUEUE))
    with psycopg.connect(databases().of(tmp_path), autocommit=True, options="-c search_path=headrace") as connection:
        row = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone()
        if row == (0,):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(ROLE)))
        grant(connection, ROLE)
        yield connection
    made.close()


@pytest.fixture
def store(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStore]:
    """A node that may do what brokers may, and is impatient."""
    assert not database.closed
    monkeypatch.setattr(lane, "RECOVER_S", 0.2)
    monkeypatch.setattr(connecting, "LOCK_MS", 100)
    store = open_store(databases().of(tmp_path).replace("headrace@", f"{ROLE}@"), clock=ManualClock(), cooldowns=False)[
        0
    ]
    ask(store, ops.Send(QUEUE, [Entry(b"before")]))
    yield store
    store.close()


def end_connections(database: Database) -> None:
    database.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", (ROLE,))


def send(store: PostgresStore, body: bytes) -> Any:
    (outcome,) = ask(store, ops.Send(QUEUE, [Entry(body)]))
    return outcome


def goes_on(store: PostgresStore, *, times: int = 1) -> bool:
    """Whether a send works, at the latest at attempt number `times`, and only what was acknowledged is there."""
    outcomes = [send(store, b"after %d" % number) for number in range(times)]
    sent = [b"after %d" % number for number, outcome in enumerate(outcomes) if isinstance(outcome, list)]
    (found,) = ask(store, ops.Peek(QUEUE))
    return bool(sent) and [one.message.body for one in found] == [b"before", *sent]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("53100", StoreFull),  # disk_full
        ("53200", Unavailable),  # out_of_memory
        ("53400", Unavailable),  # configuration_limit_exceeded
        ("57014", Unavailable),  # statement_timeout
        ("42501", Unavailable),  # insufficient_privilege
        ("58030", Unavailable),  # io_error
        ("XX001", Unavailable),  # data_corrupted
        ("55P03", Unavailable),  # lock_not_available, again and again
    ],
)
def test_error_is_told_and_passes(
    store: PostgresStore, database: Database, state: str, expected: type[StoreError], caplog: pytest.LogCaptureFixture
) -> None:
    plant(database, state, times=1_000_000)
    for number in range(3):
        assert isinstance(send(store, b"%d" % number), expected)
    told = [record for record in caplog.records if getattr(record, "action", "") == "store.refused"]
    assert len(told) == 1, "a line a request"
    database.execute(_WELL)
    assert goes_on(store)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "0A000", "26000", "57P01", "08006"])
def test_error_that_passes_is_not_seen(
    store: PostgresStore, database: Database, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlocks, serialization failures, connections that are of no use any more."""
    monkeypatch.setattr(lane, "RECOVER_S", 30.0)
    plant(database, state, times=2)
    assert isinstance(send(store, b"after 0")[0], Sent)
    (found,) = ask(store, ops.Peek(QUEUE))
    assert [one.message.body for one in found] == [b"before", b"after 0"]
    database.execute(_WELL)


def test_one_that_waits_for_a_lock_is_refused_and_those_beside_it_are_not(
    store: PostgresStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "ALONE_S", PATIENCE_S)
    ordered = arn_of("q.fifo")
    ask(store, ops.CreateQueue(ordered, {"fifo": True, "content_dedup": True}))
    ask(store, ops.Send(ordered, [Entry(b"a1", group="a"), Entry(b"b1", group="b")]))
    with database.transaction():
        database.execute("SELECT FROM message_group WHERE name = 'a' FOR UPDATE")
        outcomes = ask(
            store, *[ops.Send(ordered, [Entry(name.encode(), group=name[0])]) for name in ("a2", "b2", "a3")]
        )
    assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [True, False, True]
    (found,) = ask(store, ops.Peek(ordered))
    assert [one.message.body for one in found] == [b"a1", b"b1", b"b2"]


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many operations each try of a lane was."""
    made: list[int] = []
    once = lane.Lane._once

    def noted(self: lane.Lane, operations: Sequence[ops.Operation], *asked: Any, **more: Any) -> Any:
        made.append(len(operations))
        return once(self, operations, *asked, **more)

    monkeypatch.setattr(lane.Lane, "_once", noted)
    return made


def test_many_that_wait_for_a_lock_are_refused_together(
    store: PostgresStore, database: Database, tries: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one after the other, each when it has waited for as long as may be."""
    monkeypatch.setattr(lane, "ALONE_S", 0.5)
    with database.transaction():
        database.execute("LOCK TABLE message IN EXCLUSIVE MODE")
        outcomes = ask(store, *[ops.Send(QUEUE, [Entry(b"x")])] * 50)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert len(tries) < 20
    assert goes_on(store)


def test_who_comes_when_a_lock_was_waited_for_in_vain_waits_once(
    store: PostgresStore, database: Database, tries: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "HELD_FOR_S", PATIENCE_S)
    with database.transaction():
        database.execute("LOCK TABLE message IN EXCLUSIVE MODE")
        assert isinstance(send(store, b"first"), Unavailable)
        monkeypatch.setattr(lane, "RECOVER_S", PATIENCE_S)
        tries.clear()
        assert isinstance(send(store, b"second"), Unavailable)
        assert tries == [1]
    assert goes_on(store)


def _read_only(database: Database) -> Callable[[], None]:
    name = sql.Identifier(database.info.dbname)
    database.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    end_connections(database)
    return lambda: _run(database, sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))


def _too_many_connections(database: Database) -> Callable[[], None]:
    database.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    end_connections(database)
    return lambda: _run(database, sql.SQL(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1"))


def _no_login(database: Database) -> Callable[[], None]:
    database.execute(f"ALTER ROLE {ROLE} NOLOGIN")
    end_connections(database)
    return lambda: _run(database, sql.SQL(f"ALTER ROLE {ROLE} LOGIN"))


def _rights_revoked(database: Database) -> Callable[[], None]:
    database.execute(f"REVOKE ALL ON message FROM {ROLE}")
    return lambda: grant(database, ROLE)


def _tables_gone(database: Database) -> Callable[[], None]:
    database.execute("ALTER SCHEMA headrace RENAME TO gone")
    return lambda: _run(database, sql.SQL("ALTER SCHEMA gone RENAME TO headrace"))


def _another_format(database: Database) -> Callable[[], None]:
    database.execute("UPDATE meta SET version = version + 1")
    end_connections(database)
    return lambda: _run(database, sql.SQL("UPDATE meta SET version = version - 1"))


def _another_store(database: Database) -> Callable[[], None]:
    row = database.execute("SELECT secret FROM meta").fetchone()
    assert row is not None
    database.execute("UPDATE meta SET secret = 'another'")
    end_connections(database)
    return lambda: _run(database, sql.SQL("UPDATE meta SET secret = {}").format(row[0]))


def _table_locked(database: Database) -> Callable[[], None]:
    database.execute("BEGIN")
    database.execute("LOCK TABLE message")
    return lambda: _run(database, sql.SQL("COMMIT"))


def _run(database: Database, statement: sql.SQL | sql.Composed) -> None:
    database.execute(statement)


@pytest.mark.parametrize(
    "happen",
    [
        _read_only, _too_many_connections, _no_login, _rights_revoked, _tables_gone, _another_format, _another_store,
        _table_locked,
    ],
)  # fmt: skip
def test_what_happens_to_the_database_is_told_and_passes(
    store: PostgresStore, database: Database, happen: Callable[[Database], Callable[[], None]]
) -> None:
    heal = happen(database)
    try:
        for number in range(2):
            assert isinstance(send(store, b"%d" % number), Unavailable)
    finally:
        heal()
    assert goes_on(store)


def test_columns_that_change_their_type_do_not_stop_a_node(store: PostgresStore, database: Database) -> None:
    """What it has prepared has another result now, and the connection is of no use."""
    (first,) = ask(store, ops.Receive(QUEUE, 1))
    database.execute("ALTER TABLE message ALTER COLUMN receives TYPE bigint")
    assert ask(store, ops.ChangeVisibility(QUEUE, [(first[0].receipt, 0)])) == [[None]]
    (again,) = ask(store, ops.Receive(QUEUE, 1))
    assert [one.receives for one in again] == [2]
    database.execute("ALTER TABLE message ALTER COLUMN receives TYPE int")
