"""A poll that looked before something became ready, and was not answered yet, is not left to wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.queue.store.base import Request
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from tests.queue.postgres.nodes import Threads, ask, node

QUEUE = arn_of("q")


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path) -> Iterator[PostgresStore]:
    assert kind.durable
    store = node(tmp_path, ManualClock())
    ask(store, ops.CreateQueue(QUEUE))
    yield store
    store.attach(None)
    store.close()


def submit(store: PostgresStore, operation: ops.Operation) -> list[Any]:
    outcomes: list[Any] = []
    store.execute([Request(operation, outcomes.append)])
    return outcomes


@pytest.mark.parametrize(
    ("poll", "lane", "change", "changing", "ready"),
    [
        (ops.Receive(QUEUE), "receive", ops.Send(QUEUE, [Entry(b"x")]), "send", QUEUE),
        (ops.ReceiveAny([QUEUE]), "receive", ops.Send(QUEUE, [Entry(b"x")]), "send", QUEUE),
        (
            ops.GetState("n", b"k"),
            "directory",
            ops.Transact(name="n", state=[(b"key", b"v")]),
            "transact",
            ("n", b"key"),
        ),
    ],
)
def test_what_became_ready_meanwhile_is_ready_again_for_who_found_nothing(
    store: PostgresStore, poll: ops.Operation, lane: str, change: ops.Operation, changing: str, ready: Any
) -> None:
    threads = Threads(store)
    found = submit(store, poll)
    tell = threads.work(lane)
    submit(store, change)
    threads.work(changing)()
    assert store.take_ready() == {ready}  # the poll stands in no line yet
    tell()
    assert found == [[]]
    assert store.take_ready() == {ready}


def test_what_is_ready_wakes_nobody_who_has_found_something(store: PostgresStore) -> None:
    threads = Threads(store)
    submit(store, ops.Send(QUEUE, [Entry(b"1")]))
    threads.work("send")()
    found = submit(store, ops.Receive(QUEUE))
    tell = threads.work("receive")
    submit(store, ops.Send(QUEUE, [Entry(b"2")]))
    threads.work("send")()
    store.take_ready()
    tell()
    assert len(found[0]) == 1
    assert store.take_ready() == set()
