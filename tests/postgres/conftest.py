"""A store on a PostgreSQL of this test process, and a connection of an application to the same database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")

from headrace.queue.model import Delivery, arn_of  # noqa: E402 - see above
from headrace.queue.operations import CreateQueue, Operation, Receive  # noqa: E402
from headrace.queue.store.postgres.store import PostgresStore  # noqa: E402
from headrace.testing.postgres import databases, find_programs  # noqa: E402
from tests.queue.postgres.nodes import ask  # noqa: E402


class Shop:
    """A database with a store, and a table of an application's own."""

    def __init__(self, url: str, store: PostgresStore) -> None:
        self.url = url
        self.store = store

    def ask(self, operation: Operation) -> Any:
        """The outcome of an operation that a broker would be asked for."""
        return ask(self.store, operation)[0]

    def make(self, name: str, **settings: Any) -> None:
        made = self.ask(CreateQueue(arn_of(name), settings))
        assert not isinstance(made, Exception), made

    def receive(self, name: str, *, limit: int = 10, visibility_ms: int | None = None) -> list[Delivery]:
        deliveries: list[Delivery] = self.ask(Receive(arn_of(name), limit, visibility_ms))
        return deliveries

    def bodies(self, name: str) -> list[bytes]:
        return [delivery.message.body for delivery in self.receive(name)]

    def orders(self) -> list[str]:
        with psycopg.connect(self.url) as connection:
            return [book for (book,) in connection.execute("SELECT book FROM orders ORDER BY book").fetchall()]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """With an empty queue `packing`."""
    if find_programs() is None:
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    url = databases().of(tmp_path)
    store = databases().open(tmp_path, None, cooldowns=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS orders")
        connection.execute("CREATE TABLE orders (book text)")
    made = Shop(url, store)
    made.make("packing")
    yield made
    store.close()
