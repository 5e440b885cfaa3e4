"""Dead letters and the limit of what is in flight, on several nodes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.clock import ManualClock
from headrace.errors import InFlightLimit
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Redrive, arn_of
from headrace.queue.store.postgres import redriving
from headrace.queue.store.postgres.flight import GOOD_MS
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.nodes import ask

QUEUE, DEAD = arn_of("q"), arn_of("dead")


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q`, whose messages may be received once, and its dead-letter queue."""
    ask(nodes[0], ops.CreateQueue(DEAD), ops.CreateQueue(QUEUE, {"redrive": Redrive(DEAD, 1), "visibility_ms": 1_000}))
    return nodes


def send(store: PostgresStore, count: int, prefix: str = "") -> None:
    ask(store, ops.Send(QUEUE, [Entry(f"{prefix}{number}".encode()) for number in range(count)]))


def test_each_dead_letter_is_moved_once_whoever_finds_it(nodes: list[PostgresStore], clock: ManualClock) -> None:
    send(nodes[0], 60)
    ask(nodes[0], ops.Receive(QUEUE, 60))
    send(nodes[1], 30, "new")
    clock.advance(1_000)

    def receive(store: PostgresStore) -> list[Delivery]:
        return [one for _ in range(10) for one in ask(store, ops.Receive(QUEUE, 7))[0]]

    with ThreadPoolExecutor(len(nodes)) as pool:
        received = [one.message.body for lot in pool.map(receive, nodes) for one in lot]
    assert sorted(received) == sorted(f"new{number}".encode() for number in range(30))
    letters = ask(nodes[0], ops.Peek(DEAD, 100))[0]
    assert sorted(one.message.body for one in letters) == sorted(b"%d" % number for number in range(60))
    assert {(one.message.source, one.receives) for one in letters} == {(QUEUE, 1)}


def test_receives_of_one_batch_share_what_is_left_behind_dead_letters(
    nodes: list[PostgresStore], clock: ManualClock
) -> None:
    send(nodes[0], 8)
    ask(nodes[0], ops.Receive(QUEUE, 8))
    send(nodes[0], 6, "new")
    clock.advance(1_000)
    lots = ask(nodes[1], ops.Receive(QUEUE, 4), ops.Receive(QUEUE, 4))
    assert [len(lot) for lot in lots] == [4, 2]
    assert len(ask(nodes[1], ops.Peek(DEAD, 100))[0]) == 8


def test_receive_moves_a_bounded_number_of_dead_letters_and_those_who_wait_go_on(
    nodes: list[PostgresStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redriving, "ROUNDS_MAX", 2)
    monkeypatch.setattr(redriving, "LOT", 5)
    send(nodes[0], 30)
    ask(nodes[0], ops.Receive(QUEUE, 30))
    send(nodes[0], 1, "new")
    clock.advance(1_000)
    rounds = 0
    while not (received := ask(nodes[0], ops.Receive(QUEUE, 1))[0]):
        assert QUEUE in nodes[0].take_ready()
        rounds += 1
    assert received[0].message.body == b"new0"
    assert rounds >= 2
    assert len(ask(nodes[0], ops.Peek(DEAD, 100))[0]) == 30


def test_limit_in_flight_holds_for_what_all_nodes_have_leased(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 20)
    ask(nodes[0], ops.ChangeSettings(QUEUE, {"visibility_ms": 60_000}))
    send(nodes[0], 60)
    assert [len(ask(one, ops.Receive(QUEUE, 8))[0]) for one in nodes] == [8, 8, 4]
    assert all(isinstance(ask(one, ops.Receive(QUEUE, 1))[0], InFlightLimit) for one in nodes)


def test_node_counts_again_when_it_has_used_a_quarter_of_the_room_or_long_after(
    nodes: list[PostgresStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile it does not know what others lease."""
    monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 40)
    ask(nodes[0], ops.ChangeSettings(QUEUE, {"visibility_ms": 600_000}))
    send(nodes[0], 60)
    assert [len(ask(one, ops.Receive(QUEUE, 5))[0]) for one in nodes] == [5, 5, 5]
    ask(nodes[1], ops.Receive(QUEUE, 25))  # all of the room
    assert len(ask(nodes[0], ops.Receive(QUEUE, 5))[0]) == 5  # it has used no quarter yet
    assert isinstance(ask(nodes[0], ops.Receive(QUEUE, 1))[0], InFlightLimit)
    assert len(ask(nodes[2], ops.Receive(QUEUE, 1))[0]) == 1
    clock.advance(GOOD_MS)
    assert isinstance(ask(nodes[2], ops.Receive(QUEUE, 1))[0], InFlightLimit)


def test_node_that_deletes_what_it_leases_need_not_count(nodes: list[PostgresStore], clock: ManualClock) -> None:
    send(nodes[0], 3)
    ask(nodes[0], ops.Receive(QUEUE, 1, 60_000))
    clock.advance(2_000)
    for _ in range(2):
        (leased,) = ask(nodes[0], ops.Receive(QUEUE, 1))
        ask(nodes[0], ops.Delete(QUEUE, [leased[0].receipt]))
    (flight,) = nodes[0]._shared.known.flights.values()
    assert (flight.counted, flight.now()) == (0, 1)
