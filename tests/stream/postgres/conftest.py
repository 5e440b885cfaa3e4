"""A broker of two nodes on a PostgreSQL of this test process; without its programs the tests are skipped, and say so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")

import headrace
from headrace.native.client import Client
from headrace.native.protocol import BrokerStatistics
from headrace.queue.operations import Operation
from headrace.queue.store.postgres.opening import open_store
from headrace.testing.postgres import databases, find_programs
from tests.native.served import ServedBroker


class Alternating:
    """A transport whose calls go to one node after the other: what one has done, the next must know."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._turns = itertools.cycle([client._transport for client in clients])

    def call(self, operation: Operation, wait_ms: int = 0) -> Any:
        return next(self._turns).call(operation, wait_ms)

    def statistics(self) -> BrokerStatistics:
        return next(self._turns).statistics()

    def close(self) -> None:
        """Its clients are closed by who made them."""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client of both nodes."""
    if find_programs() is None:
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    url = databases().of(tmp_path)  # here: the server ends with the thread that starts it
    with ExitStack() as stack:
        clients = []
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            node = ServedBroker(folder, open_store=lambda: open_store(url, cooldowns=False))
            stack.callback(node.stop)
            databases().keep_for(node, tmp_path)
            clients.append(stack.enter_context(headrace.connect(f"unix://{node.unix_path}")))
        yield Client(Alternating(clients))
