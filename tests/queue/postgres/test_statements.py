"""Statements of a transaction: sent together, answered together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from headrace.queue.store.postgres.connecting import Connection, connect
from headrace.queue.store.postgres.statements import Statements
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int + 1'"


@pytest.fixture
def connection(tmp_path: Path, kind: StoreKind) -> Iterator[Connection]:
    del kind  # skips without PostgreSQL
    with connect(databases().of(tmp_path)) as made:
        yield made


@pytest.fixture
def statements(connection: Connection) -> Statements:
    return connection.statements


def send(statements: Statements, *texts: LiteralString) -> None:
    with statements.together():
        for text in texts:
            statements.execute(text)


def read(statements: Statements, *texts: LiteralString) -> None:
    """Send, and read the last one's reply."""
    with statements.together():
        replies = [statements.execute(text) for text in texts]
        replies[-1].fetchall()
        pytest.fail("it was read")


def test_replies_are_read_in_any_order(statements: Statements) -> None:
    with statements.together():
        first = statements.execute("SELECT 1")
        second = statements.execute("SELECT n FROM generate_series(1, 3) n")
        assert second.fetchall() == [(1,), (2,), (3,)]
        assert first.fetchone() == (1,)
        assert statements.execute("SELECT 1 WHERE false").fetchone() is None


def test_replies_can_be_read_after_the_end(statements: Statements) -> None:
    with statements.together():
        reply = statements.execute("SELECT 7")
    assert reply.fetchall() == [(7,)]


def test_parameters_have_places_or_names(statements: Statements) -> None:
    with statements.together():
        placed = statements.execute("SELECT %s::int, 'a%%', %s::text", (1, "ö"))
        named = statements.execute("SELECT %(b)s::int, %(a)s::int, %(b)s::int", {"a": 1, "b": 2, "unused": 3})
    assert placed.fetchall() == [(1, "a%", "ö")]
    assert named.fetchall() == [(2, 1, 2)]


def test_an_error_is_raised_by_who_reads_the_next_reply(statements: Statements) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        read(statements, "SELECT 1 / 0", "SELECT 1")


def test_an_error_of_what_nobody_reads_is_raised_at_the_end(statements: Statements) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        send(statements, "SELECT 1 / 0")


def test_what_was_not_done_has_no_reply(statements: Statements) -> None:
    with statements.together():
        with pytest.raises(psycopg.errors.DivisionByZero), statements.apart():
            failed, behind = statements.execute("SELECT 1 / 0"), statements.execute("SELECT 1")
        with pytest.raises(psycopg.errors.DivisionByZero):
            failed.fetchall()
        with pytest.raises(psycopg.Error):
            behind.fetchall()


def test_nothing_behind_an_error_is_done(connection: Connection) -> None:
    connection.execute("CREATE TABLE done (one int)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        send(connection.statements, "BEGIN", "INSERT INTO done VALUES (1)", "SELECT 1 / 0", "COMMIT")
    connection.rollback()
    assert connection.execute("SELECT * FROM done").fetchall() == []


def test_whatever_goes_wrong_the_connection_goes_on(connection: Connection) -> None:
    statements = connection.statements
    with pytest.raises(KeyError, match="ours"), statements.together():
        raise KeyError("ours", statements.execute("SELECT 1 / 0"))
    with pytest.raises(psycopg.DataError), statements.together():  # before it is sent
        statements.execute("SELECT %s::text", ("\0",))
    assert connection.execute("SELECT 1").fetchone() == (1,)
    with statements.together():
        assert statements.execute("SELECT 2").fetchone() == (2,)


def test_an_error_of_statements_apart_is_theirs(statements: Statements) -> None:
    with statements.together():
        statements.execute("BEGIN")
        before = statements.execute("SELECT 1")
        statements.execute("SAVEPOINT here")
        with pytest.raises(psycopg.errors.DivisionByZero), statements.apart():
            statements.execute("SELECT 1 / 0").fetchall()
        statements.execute("ROLLBACK TO here")
        after = statements.execute("SELECT 2")
        statements.execute("COMMIT")
    assert (before.fetchone(), after.fetchone()) == ((1,), (2,))


def test_a_statement_is_prepared_once(connection: Connection) -> None:
    statements = connection.statements
    for _ in range(3):
        with statements.together():
            statements.execute("SELECT %s::int + 1", (1,))
            statements.execute("SELECT %s::int + 1", (2,))
    assert connection.execute(PREPARED).fetchone() == (1,)


def test_a_rollback_keeps_what_is_prepared(connection: Connection) -> None:
    with connection.statements.together():
        connection.statements.execute("BEGIN")
        connection.statements.execute("SELECT %s::int + 1", (1,))
    connection.rollback()
    with connection.statements.together():
        assert connection.statements.execute("SELECT %s::int + 1", (1,)).fetchone() == (2,)


def test_what_an_error_kept_from_being_prepared_is_prepared_later(connection: Connection) -> None:
    statements = connection.statements
    with pytest.raises(psycopg.errors.DivisionByZero):
        send(statements, "SELECT 1 / 0", "SELECT 1")
    with statements.together():
        assert statements.execute("SELECT 1").fetchone() == (1,)


def test_much_goes_both_ways_at_once(statements: Statements) -> None:
    """More than what fits into buffers on the way: neither side waits for the other."""
    much = b"x" * 2_000_000
    with statements.together():
        replies = [statements.execute("SELECT %s::bytea", (much,)) for _ in range(10)]
        assert [len(reply.fetchall()[0][0]) for reply in replies] == [len(much)] * 10


def test_a_connection_that_breaks_is_told(connection: Connection) -> None:
    with connect(connection.info.dsn) as killer:
        killer.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        send(connection.statements, "SELECT 1")
    assert connection.closed


def test_an_answer_that_does_not_come_closes_the_connection(connection: Connection) -> None:
    connection.answer_s = 0.0
    with pytest.raises(psycopg.OperationalError, match="no answer within 0 s"), connection.statements.together():
        connection.statements.execute("SELECT pg_sleep(3600)").fetchall()
    assert connection.closed
