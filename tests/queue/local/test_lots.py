"""What one receive may take of a queue with large messages."""

from __future__ import annotations

import pytest

from headrace.clock import ManualClock
from headrace.queue import limits
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import CreateQueue, GetQueue, Receive, Send
from headrace.queue.store.base import Request
from headrace.queue.store.memory import open_memory_store


def test_receive_stops_at_the_bound_of_bytes_and_leaves_the_rest_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NATIVE_BATCH_BYTES_MAX", 10_000)
    monkeypatch.setattr(limits, "LOT", 4)
    store = open_memory_store(ManualClock())
    queue = arn_of("q")
    outcomes: list[object] = []
    for operation in (CreateQueue(queue), *[Send(queue, [Entry(b"x" * 1_000)]) for _ in range(30)]):
        store.execute([Request(operation, outcomes.append)])
    first: list[list[object]] = []
    store.execute([Request(Receive(queue, 30), first.append)])
    assert len(first[0]) == 12  # the first lot that reaches the bound is the last
    described: list[object] = []
    store.execute([Request(GetQueue(queue), described.append)])
    assert described[0].counts.visible == 18  # type: ignore[attr-defined]
