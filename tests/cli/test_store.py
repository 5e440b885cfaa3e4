"""`headrace store`: as a user runs it, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from headrace.cli.store import store
from headrace.errors import StoreUnusable
from headrace.queue.model import Entry
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
    return CliRunner().invoke(store, arguments)


def test_init_makes_the_tables_once(url: str) -> None:
    assert f"made (format {VERSION})" in headrace_store("init", url).output
    assert "there already" in headrace_store("init", url).output
    assert "already" in headrace_store("migrate", url).output


def test_check_says_what_to_do_before_init(url: str) -> None:
    checked = headrace_store("check", url)
    assert checked.exit_code == 1
    assert "run `headrace store init`" in checked.output


def test_role_is_given_what_brokers_need_and_no_more(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE cli_role LOGIN")
    assert headrace_store("init", url).exit_code == 0
    as_role = url.replace("headrace@", "cli_role@")
    assert headrace_store("check", as_role).exit_code == 1
    assert headrace_store("init", url, "--role", "cli_role").exit_code == 0
    assert headrace_store("check", as_role).exit_code == 0
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


def test_database_that_is_not_there_is_named_without_a_password() -> None:
    missing = server().url("nowhere").replace("headrace@", "headrace:secret@")
    checked = headrace_store("check", missing)
    assert isinstance(checked.exception, StoreUnusable)
    assert "nowhere" in str(checked.exception)
    assert "secret" not in str(checked.exception)


def test_store_is_copied_over_and_back(url: str, tmp_path: Path) -> None:
    driver = StoreDriver(SQLITE, tmp_path)
    driver.send_all(driver.create("orders"), [Entry(str(one).encode()) for one in range(20)])
    driver.store.close()
    over = headrace_store("copy", str(driver.folder), url)
    assert over.exception is None
    assert "1 queues, 0 topics, 20 messages" in over.output
    assert headrace_store("check", url).exit_code == 0
    assert "20 messages" in headrace_store("copy", url, str(tmp_path / "back")).output
    again = headrace_store("copy", str(driver.folder), url)
    assert isinstance(again.exception, StoreUnusable)
    driver.close()


def test_copy_of_nothing_is_refused(url: str, tmp_path: Path) -> None:
    assert isinstance(headrace_store("copy", str(tmp_path / "none"), url).exception, StoreUnusable)
    assert isinstance(headrace_store("copy", url, str(tmp_path / "new")).exception, StoreUnusable)
    assert not (tmp_path / "new").exists()
