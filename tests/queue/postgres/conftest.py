"""A PostgreSQL of this test process; without its programs the tests are skipped, and say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")

import psycopg

from headrace.clock import ManualClock
from headrace.queue.store.postgres import glance
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases, find_programs
from headrace.testing.stores import POSTGRES
from tests.patience import PATIENCE_S
from tests.queue.postgres.nodes import node


@pytest.fixture(scope="session")
def kind() -> StoreKind:
    if find_programs() is None and not os.environ.get("CI"):
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    return POSTGRES


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node looks for a queue that another has made for as long as it takes: on a busy machine that is longer."""
    monkeypatch.setattr(glance, "ANSWER_S", PATIENCE_S)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def nodes(
    kind: StoreKind, tmp_path: Path, clock: ManualClock, request: pytest.FixtureRequest
) -> Iterator[list[PostgresStore]]:
    """Nodes on one empty database: three, or as many as the test's file says in NODES."""
    assert kind.durable
    made = [node(tmp_path, clock) for _ in range(getattr(request.module, "NODES", 3))]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def database(nodes: list[PostgresStore], tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the test's own."""
    assert nodes
    with psycopg.connect(databases().of(tmp_path), autocommit=True, options="-c search_path=headrace") as connection:
        yield connection
