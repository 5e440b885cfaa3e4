"""Move tasks belong to no node: whichever keeps house goes on with them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.errors import MoveTaskRefused
from headrace.queue import operations as ops
from headrace.queue.model import Entry, MoveTask, Redrive, arn_of
from headrace.queue.store.postgres import moves
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from tests.queue.postgres.nodes import ask, kill, node

QUEUE, DEAD = arn_of("q"), arn_of("dead")


def open_nodes(folder: Path, clock: ManualClock, letters: int) -> list[PostgresStore]:
    """Three nodes, and so many dead letters of the queue `q`."""
    nodes = [node(folder, clock) for _ in range(3)]
    ask(nodes[0], ops.CreateQueue(DEAD), ops.CreateQueue(QUEUE, {"redrive": Redrive(DEAD, 1)}))
    ask(nodes[0], ops.Send(DEAD, [Entry(b"%d" % number, source=QUEUE) for number in range(letters)]))
    return nodes


def task(store: PostgresStore) -> MoveTask:
    found: MoveTask = ask(store, ops.ListMoves(DEAD))[0][0]
    return found


def bodies(store: PostgresStore, *queues: str) -> Counter[bytes]:
    return Counter(one.message.body for queue in queues for one in ask(store, ops.Peek(queue, 1_000))[0])


def test_task_of_a_node_that_died_is_taken_over(kind: StoreKind, tmp_path: Path) -> None:
    assert kind.durable
    clock = ManualClock()
    nodes = open_nodes(tmp_path, clock, 30)
    ask(nodes[0], ops.StartMove(DEAD, rate_max=10))
    for _ in range(10):
        nodes[0].advance()
        clock.advance(100)
    moved = task(nodes[1]).moved
    assert 5 <= moved <= 11
    kill(nodes.pop(0))
    while nodes[0].advance() is not None:
        clock.advance(100)
    assert (task(nodes[1]).status, task(nodes[1]).moved) == ("COMPLETED", 30)
    assert bodies(nodes[0], QUEUE, DEAD) == Counter({b"%d" % number: 1 for number in range(30)})
    for one in nodes:
        one.close()


def test_nodes_that_go_on_at_the_same_time_move_each_message_once(
    kind: StoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind.durable
    monkeypatch.setattr(moves, "SLICE", 7)
    nodes = open_nodes(tmp_path, ManualClock(), 100)
    ask(nodes[0], ops.StartMove(DEAD))

    def advance(store: PostgresStore) -> None:
        for _ in range(12):
            store.advance()

    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(advance, nodes))
    while task(nodes[0]).status == "RUNNING":
        nodes[0].advance()
    assert task(nodes[0]).moved == 100
    assert bodies(nodes[0], QUEUE) == Counter({b"%d" % number: 1 for number in range(100)})
    for one in nodes:
        one.close()


def test_second_task_of_a_source_is_refused_on_any_node(kind: StoreKind, tmp_path: Path) -> None:
    assert kind.durable
    nodes = open_nodes(tmp_path, ManualClock(), 1)
    outcomes = [ask(one, ops.StartMove(DEAD, rate_max=1))[0] for one in nodes]
    assert [isinstance(one, MoveTaskRefused) for one in outcomes] == [False, True, True]
    assert ask(nodes[2], ops.CancelMove(outcomes[0].handle))[0].status == "CANCELLED"
    assert task(nodes[1]).status == "CANCELLED"
    for one in nodes:
        one.close()


def test_messages_of_a_fifo_queue_are_moved_in_order_among_receives(kind: StoreKind, tmp_path: Path) -> None:
    """A group of which something is in flight waits; the rest goes, each message once, each group in order."""
    assert kind.durable
    clock = ManualClock()
    nodes = [node(tmp_path, clock) for _ in range(3)]
    queue, dead = arn_of("q.fifo"), arn_of("dead.fifo")
    content = {"fifo": True, "content_dedup": True, "visibility_ms": 1_000}
    ask(nodes[0], ops.CreateQueue(dead, content), ops.CreateQueue(queue, {**content, "redrive": Redrive(dead, 1)}))
    letters = [Entry(b"%03d" % number, group=f"g{number % 4}", source=queue) for number in range(60)]
    ask(nodes[0], ops.Send(dead, letters))
    (held,) = ask(nodes[0], ops.Receive(dead, 1))
    (moving,) = ask(nodes[1], ops.StartMove(dead))
    while nodes[1].advance() == clock() and ask(nodes[0], ops.ListMoves(dead))[0][0].status == "RUNNING":
        nodes[2].advance()
    done = ask(nodes[0], ops.ListMoves(dead))[0][0]
    assert (done.handle, done.status, done.moved) == (moving.handle, "COMPLETED", 45)
    assert {one.message.group for one in ask(nodes[0], ops.Peek(dead, 100))[0]} == {held[0].message.group}
    seen: dict[str | None, list[bytes]] = {}
    while deliveries := ask(nodes[2], ops.Receive(queue, 7))[0]:
        for one in deliveries:
            seen.setdefault(one.message.group, []).append(one.message.body)
        ask(nodes[0], ops.Delete(queue, [one.receipt for one in deliveries]))
    assert sorted(len(ones) for ones in seen.values()) == [15, 15, 15]
    assert all(ones == sorted(ones) for ones in seen.values())
    for one in nodes:
        one.close()


def test_one_task_of_fifo_queues_moves_at_a_time(kind: StoreKind, tmp_path: Path) -> None:
    """Each locks groups: of two in one transaction the second one would wait while it holds those of the first."""
    assert kind.durable
    store = node(tmp_path, ManualClock())
    sources = [arn_of(f"dead{number}.fifo") for number in range(3)]
    for number, source in enumerate(sources):
        queue = arn_of(f"q{number}.fifo")
        ask(store, ops.CreateQueue(source, {"fifo": True}))
        ask(store, ops.CreateQueue(queue, {"fifo": True, "redrive": Redrive(source, 1)}))
        ask(store, ops.Send(source, [Entry(b"x", group="g", dedup_id="x", source=queue)]))
        ask(store, ops.StartMove(source))
    for turn in range(1, 4):
        store.advance()
        assert sum(ask(store, ops.ListMoves(source))[0][0].moved for source in sources) == turn
    store.close()
