"""Counts and totals: those of all nodes on each; exact for few messages, cheap for many."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.errors import OutcomeUnknown
from headrace.queue import operations as ops
from headrace.queue.model import Entry, QueueCounts, arn_of
from headrace.queue.store.postgres import counting, totals
from headrace.queue.store.postgres.known import TELL_EACH_MS
from headrace.queue.store.postgres.lane import Batch
from headrace.queue.store.postgres.store import PostgresStore
from headrace.queue.store.postgres.upkeep import MEASURE_EACH_MS
from tests.queue.postgres.nodes import ask, node

QUEUE, FIFO = arn_of("q"), arn_of("q.fifo")


NODES = 2


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q`."""
    ask(nodes[0], ops.CreateQueue(QUEUE))
    return nodes


def send(store: PostgresStore, count: int) -> None:
    ask(store, ops.Send(QUEUE, [Entry(str(number).encode()) for number in range(count)]))


def counts(store: PostgresStore) -> QueueCounts:
    found: QueueCounts = ask(store, ops.GetQueue(QUEUE))[0].counts
    return found


def test_each_node_tells_what_all_have_done(nodes: list[PostgresStore], clock: ManualClock) -> None:
    send(nodes[0], 3)
    send(nodes[1], 4)
    ask(nodes[1], ops.Receive(QUEUE, 2))
    clock.advance(TELL_EACH_MS)
    for one in nodes:
        one.advance()
    assert [(counts(one).sent, counts(one).received) for one in nodes] == [(7, 2)] * 2
    for one in nodes:
        one.advance()
    assert [counts(one).sent for one in nodes] == [7, 7]


def test_totals_of_a_node_that_stops_stay(nodes: list[PostgresStore], tmp_path: Path, clock: ManualClock) -> None:
    send(nodes[0], 3)
    nodes[0].close()
    assert counts(nodes[1]).sent == 3
    nodes[0] = node(tmp_path, clock)
    send(nodes[0], 2)
    assert counts(nodes[0]).sent == 5


def test_totals_of_a_node_that_stops_stay_while_others_make_queues(nodes: list[PostgresStore]) -> None:
    send(nodes[0], 3)
    ask(nodes[1], ops.CreateQueue(FIFO, {"fifo": True}))
    nodes[0].close()
    assert counts(nodes[1]).sent == 3


def test_totals_of_a_node_that_died_stay(nodes: list[PostgresStore], tmp_path: Path, clock: ManualClock) -> None:
    send(nodes[0], 3)
    clock.advance(TELL_EACH_MS)
    nodes[0].advance()
    for _ in range(2):  # another one keeps what it has told, once
        clock.advance(totals.GONE_MS + 1)
        nodes[1].advance()
        assert counts(nodes[1]).sent == 3


def test_node_that_was_thought_gone_is_not_counted_twice(nodes: list[PostgresStore], clock: ManualClock) -> None:
    send(nodes[0], 3)
    clock.advance(TELL_EACH_MS)
    nodes[0].advance()
    clock.advance(totals.GONE_MS + 1)
    nodes[1].advance()
    nodes[0].advance()
    assert counts(nodes[0]).sent == 3
    send(nodes[0], 2)
    clock.advance(TELL_EACH_MS)
    nodes[0].advance()
    assert [counts(one).sent for one in nodes] == [5, 5]


def test_totals_that_others_have_kept_are_told_once_though_nobody_knows_whether_they_were(
    nodes: list[PostgresStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node was silent for so long that it was taken for gone; the commit with which it begins anew has no answer."""
    send(nodes[0], 3)
    clock.advance(TELL_EACH_MS)
    nodes[0].advance()
    send(nodes[0], 4)
    clock.advance(totals.GONE_MS + 1)
    nodes[1].advance()
    with monkeypatch.context() as lossy:
        run = nodes[0]._alone.run
        lossy.setattr(nodes[0]._alone, "run", lambda *given: run(*given) and [Batch([OutcomeUnknown("cut")])])
        nodes[0].advance()
    for _ in range(2):
        clock.advance(TELL_EACH_MS)
        nodes[0].advance()
    # What it had counted since it told last is lost, as when it dies.
    assert [counts(one).sent for one in nodes] == [3, 3]


def test_long_queue_is_counted_now_and_then_and_kept_up_by_totals(
    nodes: list[PostgresStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "EXACT_MAX", 10)
    monkeypatch.setattr(counting, "REMEMBERED_PER_MS", 1)
    send(nodes[0], 100)
    assert counts(nodes[0]).visible == 100
    monkeypatch.setattr(counting, "_FRESH", "not counted again")
    send(nodes[0], 5)
    received = ask(nodes[0], ops.Receive(QUEUE, 8))[0]
    assert (counts(nodes[0]).visible, counts(nodes[0]).in_flight) == (97, 8)
    ask(nodes[0], ops.Delete(QUEUE, [one.receipt for one in received[:3]]))
    assert (counts(nodes[0]).visible, counts(nodes[0]).in_flight) == (97, 5)
    ask(nodes[0], ops.Receive(QUEUE, 30))
    assert (counts(nodes[0]).visible, counts(nodes[0]).in_flight) == (67, 35)
    monkeypatch.undo()
    monkeypatch.setattr(counting, "EXACT_MAX", 10)
    clock.advance(200)
    assert (counts(nodes[0]).visible, counts(nodes[0]).in_flight) == (67, 35)


def test_exact_count_is_what_is_there_also_where_an_estimate_is_out_of_date(
    nodes: list[PostgresStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "EXACT_MAX", 10)
    monkeypatch.setattr(counting, "REMEMBERED_PER_MS", 0.001)
    send(nodes[0], 100)
    assert counts(nodes[0]).visible == 100
    send(nodes[1], 50)  # which it tells later
    ask(nodes[0], ops.Receive(QUEUE, 20))
    assert counts(nodes[0]).visible == 80
    assert ask(nodes[0], ops.GetQueue(QUEUE, exact=True))[0].counts.visible == 130


def test_exact_count_by_slices_tells_every_state(
    nodes: list[PostgresStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "SLICE", 7)
    ask(nodes[0], ops.ChangeSettings(QUEUE, {"retention_ms": 60_000}))
    send(nodes[0], 3)  # which will have expired
    clock.advance(30_000)
    send(nodes[0], 40)
    ask(nodes[0], ops.Send(QUEUE, [Entry(b"later", delay_ms=60_000 - 1)] * 9))
    ask(nodes[0], ops.Receive(QUEUE, 8, visibility_ms=40_000), ops.Receive(QUEUE, 4, visibility_ms=1_000))
    ask(nodes[0], ops.Claim(QUEUE, "reader", 1, limit=5))
    clock.advance(30_000)
    found = ask(nodes[1], ops.GetQueue(QUEUE, exact=True))[0].counts
    assert found == counts(nodes[1])
    assert (found.visible, found.in_flight, found.delayed) == (40 - 5 - 5, 5 + 5, 9)


def test_exact_count_knows_the_delay_of_a_fifo_queue(
    nodes: list[PostgresStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "SLICE", 2)
    ask(nodes[0], ops.CreateQueue(FIFO, {"fifo": True, "content_dedup": True, "delay_ms": 1_000}))
    assert ask(nodes[0], ops.GetQueue(FIFO, exact=True))[0].counts == QueueCounts()
    for number in range(2):
        ask(nodes[0], ops.Send(FIFO, [Entry(b"%d" % (number * 3 + at), group="g") for at in range(3)]))
        clock.advance(600)
    found = ask(nodes[0], ops.GetQueue(FIFO, exact=True))[0].counts
    assert (found.visible, found.in_flight, found.delayed) == (3, 0, 3)


def test_node_forgets_queues_that_are_deleted(nodes: list[PostgresStore], clock: ManualClock) -> None:
    other = arn_of("other")
    ask(nodes[0], ops.CreateQueue(other), ops.Send(other, [Entry(b"x", group="tenant")]), ops.Receive(other))
    send(nodes[0], 1)
    ask(nodes[0], ops.DeleteQueue(other))
    clock.advance(MEASURE_EACH_MS)
    nodes[0].advance()
    known = nodes[0]._shared.known
    assert {number for number, _ in known.totals} == set(nodes[0]._shared.catalog.by_number)
    assert not known.flights and not known.tenants


def test_store_tells_its_size(nodes: list[PostgresStore]) -> None:
    nodes[0].advance()
    assert nodes[0].statistics().size_bytes > 100_000
