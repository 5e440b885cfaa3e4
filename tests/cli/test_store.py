"""`headrace store`: as a user runs it, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from click.testing import CliRunner, Result

from headrace.cli.store import store
from headrace.errors import StoreUnusable
from headrace.queue.store.postgres.schema import VERSION
from headrace.testing.postgres import find_programs, server

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
