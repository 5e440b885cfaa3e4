"""`headrace store`: as a user runs it, on a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from headrace.cli.store import store
from headrace.errors import StoreUnusable
from headrace.queue.model import Entry
from headrace.queue.store.postgres import checking
from headrace.queue.store.postgres.schema import VERSION
from headrace.testing.driver import StoreDriver
from headrace.testing.postgres import find_programs, server
from headrace.testing.stores import SQLITE

pytestmark = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")


@pytest.fixture
def url() -> Iterator[str]:
    """An empty database."""
    with psycopg.connect(server().url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE cli_store")
        yield server().url("cli_store")
        connection.execute("DROP DATABASE cli_store WITH (FORCE)")
        connection.execute("DROP ROLE IF EXISTS cli_role")


def headrace_store(*arguments: str) -> Result:
    return CliRunner().invoke(store, arguments, standalone_mode=False)


def exit_code(result: Result) -> int:
    assert result.exception is None, result.exception
    return int(result.return_value or 0)


def test_init_makes_the_tables_once(url: str) -> None:
    assert f"made (format {VERSION})" in headrace_store("init", url).output
    assert "there already" in headrace_store("init", url).output
    assert "already" in headrace_store("migrate", url).output


def test_check_says_what_to_do_before_init(url: str) -> None:
    checked = headrace_store("check", url)
    assert exit_code(checked) == 1
    assert "run `headrace store init`" in checked.output


def test_role_is_given_what_brokers_need_and_no_more(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE cli_role LOGIN")
    assert exit_code(headrace_store("init", url)) == 0
    as_role = url.replace("headrace@", "cli_role@")
    assert exit_code(headrace_store("check", as_role)) == 1
    assert exit_code(headrace_store("init", url, "--role", "cli_role")) == 0
    assert exit_code(headrace_store("check", as_role)) == 0
    with (
        psycopg.connect(as_role, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("UPDATE headrace.meta SET version = 0")


def test_newer_tables_are_left_alone(url: str) -> None:
    headrace_store("init", url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE headrace.meta SET version = %s", (VERSION + 1,))
    migrated = headrace_store("migrate", url)
    assert isinstance(migrated.exception, StoreUnusable)
    assert "upgrade" in str(migrated.exception)


def test_database_that_is_not_there_is_named_without_a_password(url: str) -> None:
    missing = server().url("nowhere").replace("headrace@", "headrace:secret@")
    headrace_store("init", url)
    checked = headrace_store("check", missing, url, "--output", "table")
    assert exit_code(checked) == 1
    assert "✗  connection: " in checked.output
    assert "nowhere" in checked.output
    assert "secret" not in checked.output
    assert "✓  format" in checked.output  # of the other


def test_check_looks_at_all_that_the_settings_name(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(headrace_store("check").exception, click.UsageError)
    other = server().url("postgres")  # a database without tables
    (tmp_path / "headrace.toml").write_text(f'[broker]\nstore = "{url}"\nstore_of = ["a*={other}"]\n')
    headrace_store("init", url)
    checked = headrace_store("check", "--output", "json")
    told = {(one["database"], one["subject"]): one["level"] for one in json.loads(checked.output)}
    assert (told[url, "format"], told[other, "format"]) == ("ok", "problem")
    assert exit_code(checked) == 1


def test_store_is_copied_over_and_back(url: str, tmp_path: Path) -> None:
    driver = StoreDriver(SQLITE, tmp_path)
    driver.send_all(driver.create("orders"), [Entry(str(one).encode()) for one in range(20)])
    driver.store.close()
    over = headrace_store("copy", str(driver.folder), url)
    assert over.exception is None
    assert "1 queues, 0 topics, 20 messages" in over.output
    assert exit_code(headrace_store("check", url)) == 0
    assert "20 messages" in headrace_store("copy", url, str(tmp_path / "back")).output
    again = headrace_store("copy", str(driver.folder), url)
    assert isinstance(again.exception, StoreUnusable)
    driver.close()


def test_copy_of_nothing_is_refused(url: str, tmp_path: Path) -> None:
    assert isinstance(headrace_store("copy", str(tmp_path / "none"), url).exception, StoreUnusable)
    assert isinstance(headrace_store("copy", url, str(tmp_path / "new")).exception, StoreUnusable)
    assert not (tmp_path / "new").exists()


def test_check_tells_all_as_json_and_to_people(url: str) -> None:
    headrace_store("init", url)
    told = {one["subject"]: one for one in json.loads(headrace_store("check", url, "--output", "json").output)}
    assert told["format"]["level"] == told["rights"]["level"] == "ok"
    assert told["fsync"]["level"] == "warning"  # a test's server does not sync
    assert {"old snapshots", "transaction ids", "dead rows", "nodes", "connections", "TLS"} <= told.keys()
    assert (
        "!  fsync: off\n   → what is acknowledged may be lost"
        in headrace_store("check", url, "--output", "table").output
    )


def test_check_names_what_keeps_dead_rows(url: str) -> None:
    headrace_store("init", url)
    with psycopg.connect(url, application_name="forgotten") as connection:
        connection.execute("SELECT 1")
        with patched_bound():
            told = headrace_store("check", url, "--output", "table").output
    assert "forgotten of headrace, idle in transaction" in told


@contextmanager
def patched_bound() -> Iterator[None]:
    """A transaction that is open at all is open for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "OLD_S", 0)
        yield
