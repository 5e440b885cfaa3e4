"""Several nodes on one database are one store."""

from __future__ import annotations

import pytest

from headrace.clock import ManualClock
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.nodes import ask

QUEUE = arn_of("q")


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q`."""
    ask(nodes[0], ops.CreateQueue(QUEUE, {"visibility_ms": 10_000}))
    return nodes


def test_queue_made_on_one_node_is_there_on_the_others(nodes: list[PostgresStore]) -> None:
    (sent,) = ask(nodes[1], ops.Send(QUEUE, [Entry(b"x")]))
    (received,) = ask(nodes[2], ops.Receive(QUEUE))
    assert received[0].message.id == sent[0].id


def test_receipt_of_one_node_is_good_on_another(nodes: list[PostgresStore]) -> None:
    ask(nodes[0], ops.Send(QUEUE, [Entry(b"x")]))
    (received,) = ask(nodes[1], ops.Receive(QUEUE))
    assert ask(nodes[2], ops.Delete(QUEUE, [received[0].receipt])) == [[None]]
    assert ask(nodes[0], ops.Peek(QUEUE)) == [[]]


def test_no_two_nodes_are_given_a_message(nodes: list[PostgresStore]) -> None:
    ask(nodes[0], ops.Send(QUEUE, [Entry(str(number).encode()) for number in range(30)]))
    lots = [ask(one, ops.Receive(QUEUE, 10))[0] for one in nodes]
    assert sorted(int(delivery.message.body) for lot in lots for delivery in lot) == list(range(30))


def test_lease_of_a_node_that_died_ends_on_time(nodes: list[PostgresStore], clock: ManualClock) -> None:
    ask(nodes[0], ops.Send(QUEUE, [Entry(b"x")]))
    ask(nodes[0], ops.Receive(QUEUE))
    clock.advance(9_999)
    assert ask(nodes[1], ops.Receive(QUEUE)) == [[]]
    clock.advance(1)
    (received,) = ask(nodes[1], ops.Receive(QUEUE))
    assert received[0].receives == 2


def test_changed_setting_holds_on_all_nodes_at_once(nodes: list[PostgresStore], clock: ManualClock) -> None:
    ask(nodes[0], ops.Send(QUEUE, [Entry(b"x")]))
    ask(nodes[1], ops.ChangeSettings(QUEUE, {"visibility_ms": 1_000}))
    ask(nodes[2], ops.Receive(QUEUE))
    clock.advance(1_000)
    assert len(ask(nodes[0], ops.Receive(QUEUE))[0]) == 1


def test_node_that_waits_finds_what_another_released(nodes: list[PostgresStore], clock: ManualClock) -> None:
    ask(nodes[0], ops.Send(QUEUE, [Entry(b"x")]))
    ask(nodes[0], ops.Receive(QUEUE))
    assert ask(nodes[1], ops.Receive(QUEUE)) == [[]]
    nodes[1].advance()
    nodes[1].take_ready()
    clock.advance(10_000)
    nodes[1].advance()
    assert nodes[1].take_ready() == {QUEUE}


def test_nodes_that_were_idle_for_days_go_on(
    nodes: list[PostgresStore], clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever keeps house forgets lanes that have written nothing for a day: not its own, and others make theirs anew."""
    for one in nodes:
        ask(one, ops.Send(QUEUE, [Entry(b"before")]))
    clock.advance(2 * limits.DAY_MS)
    nodes[0].advance()
    assert not caplog.records
    for one in nodes:
        (sent,) = ask(one, ops.Send(QUEUE, [Entry(b"after")]))
        assert isinstance(sent[0], Sent)
    assert [one.message.body for one in ask(nodes[0], ops.Peek(QUEUE))[0]] == [b"before"] * 3 + [b"after"] * 3
