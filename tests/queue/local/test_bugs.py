"""What an error of headrace itself costs."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.errors import StoreFailed, Unavailable
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import CreateQueue, Operation, Send
from headrace.queue.store.base import Request
from headrace.queue.store.local import planners
from headrace.queue.store.local.store import LocalStore
from headrace.queue.store.memory import open_memory_store

QUEUE = arn_of("q")
SEND = Send(QUEUE, [Entry(b"x")])


def run(store: LocalStore, operation: Operation) -> Any:
    outcomes: list[Any] = []
    store.execute([Request(operation, outcomes.append)])
    assert len(outcomes) == 1
    return outcomes[0]


def plant(monkeypatch: pytest.MonkeyPatch, *, late: bool) -> None:
    real = planners.PLANNERS[Send]

    def planner(state: Any, operation: Any, now: int) -> Any:
        if late:
            real(state, operation, now)
        raise ZeroDivisionError

    table: dict[Any, Any] = planners.PLANNERS
    monkeypatch.setitem(table, Send, planner)


def test_bug_before_anything_is_planned_costs_that_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_memory_store(ManualClock())
    run(store, CreateQueue(QUEUE))
    with monkeypatch.context() as patch:
        plant(patch, late=False)
        assert isinstance(run(store, SEND), Unavailable)
    assert store.failed() is None
    assert run(store, SEND)[0].seq == 1


def test_bug_in_the_middle_of_a_plan_stops_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_memory_store(ManualClock())
    run(store, CreateQueue(QUEUE))
    plant(monkeypatch, late=True)
    assert isinstance(run(store, SEND), StoreFailed)
    assert store.failed() is not None
