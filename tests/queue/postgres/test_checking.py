"""What `headrace store check` makes of facts; and migrations: whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from headrace.errors import StoreUnusable, Unavailable
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import CreateQueue, Send
from headrace.queue.store.postgres import lane, schema
from headrace.queue.store.postgres.catalog import Catalog, load
from headrace.queue.store.postgres.checking import (
    AGE_MAX,
    judge_age,
    judge_connections,
    judge_dead,
    judge_format,
    judge_nodes,
    judge_old,
    judge_rights,
    judge_setting,
    judge_tls,
)
from headrace.queue.store.postgres.connecting import connect
from headrace.queue.store.postgres.opening import open_store
from headrace.testing.postgres import find_programs, server
from tests.queue.postgres.nodes import ask


@pytest.mark.parametrize(
    ("version", "level", "advice"),
    [
        (schema.VERSION, "ok", ""),
        (0, "problem", "store init"),
        (schema.VERSION - 1 or -2, "problem", "store"),
        (schema.VERSION + 1, "problem", "upgrade headrace"),
        (schema.COPYING, "problem", "store copy"),
    ],
)
def test_format(version: int, level: str, advice: str) -> None:
    found = judge_format(version)
    assert found.level == level
    assert advice in found.advice


def test_settings() -> None:
    assert judge_setting("synchronous_commit", "remote_apply").level == "ok"
    assert judge_setting("synchronous_commit", "off").level == "warning"
    assert judge_setting("server_encoding", "LATIN1").level == "problem"


def test_rights() -> None:
    assert judge_rights("r", []).level == "ok"
    assert "--role r" in judge_rights("r", ["message"]).advice


def test_old_snapshots() -> None:
    assert judge_old([]).level == "ok"
    found = judge_old([("psql of me, idle", 400), ("replication slot s, which nobody uses", None)])
    assert found.level == "warning"
    assert found.fact == "2: psql of me, idle, for 400 s; replication slot s, which nobody uses"


def test_transaction_ids() -> None:
    assert [judge_age(age).level for age in (AGE_MAX - 1, AGE_MAX)] == ["ok", "warning"]


def test_dead_rows() -> None:
    assert judge_dead("message", 10, 199_999, 1 << 20).level == "ok"
    assert judge_dead("message", 5_000_000, 400_000, 1 << 20).level == "ok"
    assert "VACUUM headrace.message" in judge_dead("message", 10, 200_000, 1 << 20).advice


def test_nodes() -> None:
    assert judge_nodes(0, None, 0, waiting=0).fact == "0 known of the last day; no upkeep has written yet"
    assert "wrote 5 s ago; the messages of 2 purged" in judge_nodes(1, 1_000, 6_000, waiting=2).fact


def test_connections() -> None:
    assert [judge_connections(97, used).level for used in (75, 76)] == ["ok", "warning"]


@pytest.mark.parametrize(
    ("host", "version", "level"),
    [
        ("db", "TLSv1.3", "ok"),
        ("db", None, "warning"),
        ("127.0.0.1", None, "ok"),
        ("/run/pg", None, "ok"),
        ("", None, "ok"),
    ],
)
def test_tls(host: str, version: str | None, level: str) -> None:
    assert judge_tls(host, version).level == level


# --- migrations ---


@pytest.fixture
def url() -> Iterator[str]:
    """An empty database."""
    if find_programs() is None:
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    with psycopg.connect(server().url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
        yield server().url("migrated")
        connection.execute("DROP DATABASE migrated WITH (FORCE)")


def _migrate(url: str) -> tuple[int, int]:
    with psycopg.connect(url, autocommit=True) as connection:
        return schema.migrate(connection)


def _tables(url: str) -> list[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        found = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'headrace' ORDER BY 1, 2"
        return [(table, column) for table, column in connection.execute(found).fetchall()]


def _next_step(monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, parts))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)


def test_migration_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _migrate(url)
    before = _tables(url)
    with monkeypatch.context() as newer:
        _next_step(newer, "ALTER TABLE queue ADD COLUMN colour text; CREATE TABLE other (x int)", "SELECT 1 / 0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            _migrate(url)
    assert _tables(url) == before
    assert _migrate(url) == (schema.VERSION, schema.VERSION)
    open_store(url)[0].close()


def test_first_migration_that_fails_leaves_no_schema(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        _next_step(broken, "SELECT 1 / 0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            _migrate(url)
    assert _tables(url) == []
    assert _migrate(url) == (0, schema.VERSION)


def test_two_that_migrate_at_once_migrate_once(url: str) -> None:
    done: list[tuple[int, int]] = []
    both = [threading.Thread(target=lambda: done.append(_migrate(url))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(done) == [(0, schema.VERSION), (schema.VERSION, schema.VERSION)]


def test_node_of_an_older_version_does_not_open_newer_tables(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _migrate(url)
    with monkeypatch.context() as newer:
        _next_step(newer, "ALTER TABLE queue ADD COLUMN colour text")
        assert _migrate(url) == (schema.VERSION - 1, schema.VERSION)
    with pytest.raises(StoreUnusable, match="it is of a newer headrace"):
        open_store(url)
    with pytest.raises(StoreUnusable, match="it is of a newer headrace"):
        _migrate(url)


def test_node_that_runs_while_tables_become_newer_writes_no_more(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _migrate(url)
    store = open_store(url)[0]
    arn = arn_of("q")
    ask(store, CreateQueue(arn, {}), Send(arn, [Entry(b"x")]))
    with monkeypatch.context() as newer:
        _next_step(newer, "ALTER TABLE queue ADD COLUMN colour text")
        _migrate(url)
    monkeypatch.setattr(lane, "RECOVER_S", 0.3)
    (refused,) = ask(store, Send(arn, [Entry(b"y")]))
    assert isinstance(refused, Unavailable)
    assert f"its format is {schema.VERSION + 1} now" in str(refused)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT body FROM headrace.message").fetchall() == [(b"x",)]
    store.close()


def test_node_does_not_open_older_tables(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _migrate(url)
    _next_step(monkeypatch, "ALTER TABLE queue ADD COLUMN colour text")
    with pytest.raises(StoreUnusable, match="headrace store migrate"):
        open_store(url)


@pytest.mark.parametrize(
    "broken", [f"UPDATE headrace.meta SET version = {schema.VERSION + 1}", "DROP TABLE headrace.subscription"]
)
def test_catalogue_that_cannot_be_read_leaves_no_transaction_open(url: str, broken: str) -> None:
    _migrate(url)
    with psycopg.connect(url) as other:
        other.execute(broken)
    with connect(url) as connection:
        with pytest.raises((StoreUnusable, psycopg.errors.UndefinedTable)):
            load(connection, Catalog(b"", 0, {}))
        assert connection.info.transaction_status == TransactionStatus.IDLE
        assert connection.execute("SELECT 1").fetchone() == (1,)
