"""The databases that tests are given: emptied when they are used again, on connections that others had before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import ReceiptInvalid
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.queue.store.postgres.connecting import Connection
from headrace.testing.driver import StoreKind
from headrace.testing.kept import Keeper
from headrace.testing.postgres import Databases, server
from tests.queue.postgres.nodes import ask

QUEUE = arn_of("q.fifo")


@pytest.fixture(scope="module")
def databases(kind: StoreKind) -> Iterator[Databases]:
    assert kind.durable
    databases = Databases(server(), prefix="trial")
    yield databases
    databases.keeper.close()
    with psycopg.connect(server().url(), autocommit=True) as connection:
        for name in ("template", *range(1, databases.made + 1)):
            connection.execute(f"DROP DATABASE IF EXISTS trial_{name} WITH (FORCE)")


@pytest.fixture
def keeper(databases: Databases) -> Keeper:
    return databases.keeper


@pytest.fixture
def url(databases: Databases, tmp_path: Path) -> str:
    return databases.of(tmp_path)


def fill(databases: Databases, folder: Path, clock: ManualClock) -> None:
    store = databases.open(folder, clock, cooldowns=False)
    ask(store, ops.CreateQueue(QUEUE, {"fifo": True}), ops.CreateTopic(arn_of("t"), {"retention_ms": 60_000}))
    ask(store, ops.Send(QUEUE, [Entry(b"x", group="g", dedup_id="d")]), ops.Receive(QUEUE, 1), ops.Fence("job"))
    store.close()


def rows(url: str) -> int:
    """Of all tables but those that hold one always."""
    with psycopg.connect(url, options="-c search_path=headrace") as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'headrace'").fetchall()
        names = {name for (name,) in found} - {"meta", "directory", "clock"}
        return sum(len(connection.execute(f"SELECT FROM {name}").fetchall()) for name in names)


def test_database_whose_stores_are_gone_is_used_again_and_empty(
    databases: Databases, tmp_path: Path, clock: ManualClock
) -> None:
    fill(databases, tmp_path, clock)
    url, made = databases.of(tmp_path), databases.made
    assert rows(url) > 5
    again = databases.of(tmp_path / "another")
    assert (databases.made, rows(again)) == (made, 0)
    store = databases.open(tmp_path / "another", clock, cooldowns=False)
    assert ask(store, ops.ListQueues(), ops.ListTopics()) == [[], []]
    store.close()


def test_database_that_is_used_again_has_the_usual_settings(databases: Databases, tmp_path: Path) -> None:
    before = databases.of(tmp_path / "before")
    with psycopg.connect(before, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    assert before in map(databases.of, (tmp_path / f"after-{number}" for number in range(databases.made + 1)))
    with psycopg.connect(before) as connection:
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def test_database_of_a_store_that_lives_is_given_to_nobody(
    databases: Databases, tmp_path: Path, clock: ManualClock
) -> None:
    store = databases.open(tmp_path, clock, cooldowns=False)
    assert databases.of(tmp_path / "another") != databases.of(tmp_path)
    store.close()


def test_databases_are_stores_of_their_own(databases: Databases, tmp_path: Path, clock: ManualClock) -> None:
    """A receipt of one is none of another, though both are copies."""
    stores = [databases.open(tmp_path / name, clock, cooldowns=False) for name in ("one", "two")]
    for store in stores:
        ask(store, ops.CreateQueue(QUEUE, {"fifo": True}), ops.Send(QUEUE, [Entry(b"x", group="g", dedup_id="d")]))
    ((delivery,), _) = [ask(store, ops.Receive(QUEUE, 1))[0] for store in stores]
    ((refused,),) = ask(stores[1], ops.Delete(QUEUE, [delivery.receipt]))
    assert isinstance(refused, ReceiptInvalid)
    for store in stores:
        store.close()


def test_database_that_cannot_be_emptied_is_left_alone(databases: Databases, url: str, tmp_path: Path) -> None:
    with psycopg.connect(url, autocommit=True) as broken:
        broken.execute("DROP TABLE headrace.move_task")
    assert databases.of(tmp_path / "another") != url


def test_connection_that_is_closed_is_handed_on(keeper: Keeper, url: str) -> None:
    keeper.connect(url).close()
    with keeper.connect(url) as first, keeper.connect(url) as second:
        pids = [first.info.backend_pid, second.info.backend_pid]
    with keeper.connect(url) as third, keeper.connect(url) as fourth:
        assert {third.info.backend_pid, fourth.info.backend_pid} == set(pids)


def test_connection_that_is_closed_twice_is_handed_to_one(keeper: Keeper, url: str) -> None:
    first = keeper.connect(url)
    first.close()
    first.close()
    with keeper.connect(url) as second, keeper.connect(url) as third:
        assert second is not third


def test_connection_in_the_middle_of_something_is_not_handed_on(keeper: Keeper, url: str) -> None:
    first = keeper.connect(url)
    first.execute("BEGIN")
    first.close()
    assert first.closed
    with keeper.connect(url) as second:
        assert answers(second)


def test_connection_that_the_server_has_ended_is_not_handed_on(keeper: Keeper, url: str) -> None:
    first = keeper.connect(url)
    first.close()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", (first.info.backend_pid,))
    with keeper.connect(url) as second:
        assert second is not first
        assert answers(second)


def test_connection_is_handed_on_without_what_was_set(keeper: Keeper, url: str) -> None:
    with keeper.connect(url) as first:
        first.execute("SET synchronous_commit = off")
        first.execute("LISTEN headrace")
    with keeper.connect(url) as second:
        assert second is first
        assert second.execute("SELECT pg_listening_channels()").fetchall() == []
        assert second.execute("SHOW synchronous_commit").fetchone() == ("on",)


def answers(connection: Connection) -> bool:
    return connection.execute("SELECT 1").fetchone() == (1,)
