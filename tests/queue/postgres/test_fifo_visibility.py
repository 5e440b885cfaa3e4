"""Visibility in FIFO queues on several nodes: it is a message's, not a group's; groups take turns."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import CallerError, ReceiptExpired
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Redrive, arn_of
from headrace.queue.store.postgres import fifo_lease
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.fifo_queue import QUEUE, SETTINGS, receive, send
from tests.queue.postgres.nodes import ask, node
from tests.queue.postgres.test_fifo_locks import until_a_statement_waits

NODES = 2
SECOND = 1_000
PAUSE = 4711  # an advisory lock


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q.fifo`."""
    ask(nodes[0], ops.CreateQueue(QUEUE, SETTINGS))
    return nodes


@pytest.fixture
def late(nodes: list[PostgresStore], tmp_path: Path, clock: ManualClock) -> Iterator[PostgresStore]:
    """Another node, whose clock stands still."""
    assert nodes
    store = node(tmp_path, ManualClock(clock()))
    yield store
    store.close()


def take(store: PostgresStore, limit: int = 10, visibility_ms: int | None = None) -> dict[str, Delivery]:
    (deliveries,) = ask(store, ops.Receive(QUEUE, limit, visibility_ms))
    return {one.message.body.decode(): one for one in deliveries}


def hide(store: PostgresStore, delivery: Delivery, visibility_ms: int) -> CallerError | None:
    ((outcome,),) = ask(store, ops.ChangeVisibility(QUEUE, [(delivery.receipt, visibility_ms)]))
    assert outcome is None or isinstance(outcome, CallerError)
    return outcome


def delete(store: PostgresStore, delivery: Delivery) -> CallerError | None:
    ((outcome,),) = ask(store, ops.Delete(QUEUE, [delivery.receipt]))
    assert outcome is None or isinstance(outcome, CallerError)
    return outcome


# --- the messages before the first that is in flight ---


@pytest.mark.parametrize(("extended", "given"), [("a1", []), ("a2", ["a1"]), ("a3", ["a1", "a2"])])
def test_one_node_extends_and_the_other_receives_what_is_before(
    nodes: list[PostgresStore], clock: ManualClock, extended: str, given: list[str]
) -> None:
    send(nodes[0], "a1", "a2", "a3")
    assert hide(nodes[0], take(nodes[0], visibility_ms=SECOND)[extended], 4 * SECOND) is None
    clock.advance(2_500)
    assert receive(nodes[1]) == given
    assert receive(nodes[0]) == []


def test_message_that_is_deleted_leaves_those_behind_it_in_flight(
    nodes: list[PostgresStore], clock: ManualClock
) -> None:
    send(nodes[0], "a1", "a2", "a3", "a4")
    first = take(nodes[0], 1, SECOND)["a1"]
    assert hide(nodes[0], first, 0) is None
    found = take(nodes[0], 3, 2 * SECOND)
    assert hide(nodes[1], found["a3"], 4 * SECOND) is None
    assert delete(nodes[1], found["a1"]) is None
    assert receive(nodes[0]) == []
    clock.advance(2 * SECOND)
    assert receive(nodes[0]) == ["a2"]
    clock.advance(2 * SECOND)
    assert receive(nodes[1]) == []  # until the lease of a2 ends
    clock.advance(3 * SECOND)
    assert receive(nodes[1]) == ["a2", "a3", "a4"]


def test_release_of_the_first_message_gives_it_alone_while_others_wait(nodes: list[PostgresStore]) -> None:
    send(nodes[0], "a1", "a2", "a3")
    found = take(nodes[0], 2)
    assert hide(nodes[1], found["a1"], 0) is None
    again = take(nodes[1])
    assert list(again) == ["a1"]
    assert isinstance(delete(nodes[0], found["a1"]), ReceiptExpired)
    assert delete(nodes[1], again["a1"]) is None
    assert receive(nodes[1]) == []
    assert delete(nodes[0], found["a2"]) is None
    assert receive(nodes[1]) == ["a3"]


def test_release_of_a_later_message_shows_nothing(nodes: list[PostgresStore]) -> None:
    send(nodes[0], "a1", "a2", "a3")
    found = take(nodes[0], 2)
    assert hide(nodes[0], found["a2"], 0) is None
    assert receive(nodes[1]) == []
    assert delete(nodes[0], found["a1"]) is None
    assert receive(nodes[1]) == ["a2", "a3"]


def test_move_takes_what_a_receive_would(nodes: list[PostgresStore]) -> None:
    other = arn_of("other.fifo")
    ask(nodes[0], ops.CreateQueue(other, {**SETTINGS, "redrive": Redrive(QUEUE, 1)}))
    send(nodes[0], "a1", "a2", "a3", "b1")
    assert hide(nodes[0], take(nodes[0], 2)["a1"], 0) is None
    ask(nodes[0], ops.StartMove(QUEUE, other))
    for _ in range(5):
        nodes[0].advance()
    assert [one.message.body for one in ask(nodes[1], ops.Peek(QUEUE))[0]] == [b"a2", b"a3"]
    assert [one.message.body for one in ask(nodes[1], ops.Peek(other))[0]] == [b"a1", b"b1"]


# --- claims ---


def test_reader_begins_with_no_group_of_which_a_message_is_leased(
    nodes: list[PostgresStore], clock: ManualClock
) -> None:
    send(nodes[0], "a1", "a2", "a3", "b1")
    assert hide(nodes[0], take(nodes[0], 2)["a1"], 0) is None
    assert _claim(nodes[1], 1) == ["b1"]
    clock.advance(SETTINGS["visibility_ms"])
    assert _claim(nodes[0], 2) == ["a1", "a2", "a3"]
    send(nodes[0], "a4")
    assert receive(nodes[1]) == []
    assert _claim(nodes[1], 1, reader="other") == []
    assert _claim(nodes[1], 3) == ["a4"]


def _claim(store: PostgresStore, number: int, *, reader: str = "r") -> list[str]:
    (found,) = ask(store, ops.Claim(QUEUE, reader, number))
    return [message.body.decode() for message in found]


# --- turns ---


def test_group_that_was_served_goes_behind_the_others(nodes: list[PostgresStore]) -> None:
    send(nodes[0], "a1", "b1", "b2", "c1", "a2")
    assert list(take(nodes[0], 3, 0)) == ["a1", "a2", "b1"]
    assert list(take(nodes[1], 10, 0)) == ["c1", "a1", "a2", "b1", "b2"]
    send(nodes[0], "d1")
    assert list(take(nodes[1], 10, 0)) == ["c1", "a1", "a2", "b1", "b2", "d1"]


def test_groups_whose_leases_end_keep_the_turns_in_which_they_were_served(
    nodes: list[PostgresStore], clock: ManualClock
) -> None:
    send(nodes[0], "a1", "b1", "b2", "c1", "a2")
    assert list(take(nodes[0], 2, SECOND)) == ["a1", "a2"]
    assert list(take(nodes[1], 1, SECOND)) == ["b1"]
    clock.advance(SECOND)
    assert receive(nodes[0]) == ["c1", "a1", "a2", "b1", "b2"]


# --- what others do while a statement is under way ---


@contextmanager
def paused(
    store: PostgresStore, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Future[list[str]]]:
    """A receive whose first statement has seen the queue, and has not locked a group yet."""
    slow = fifo_lease._LEASE.replace(
        "busy_ms = 0", f"busy_ms = 0 AND pg_advisory_xact_lock_shared({PAUSE})::text IS NOT NULL", 1
    )
    monkeypatch.setattr(fifo_lease, "_LEASE", slow)
    with ThreadPoolExecutor(1) as pool:
        database.execute("SELECT pg_advisory_lock(%s)", (PAUSE,))
        try:
            receiving = pool.submit(receive, store)
            until_a_statement_waits(database)
            monkeypatch.undo()
            yield receiving
        finally:
            database.execute("SELECT pg_advisory_unlock(%s)", (PAUSE,))
        receiving.result()


def test_receive_that_others_overtake_gives_nothing_around_what_they_have(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw all three messages free; now the second one is in flight, and the group is free again."""
    send(nodes[0], "a1", "a2", "a3")
    with paused(nodes[0], database, monkeypatch) as receiving:
        assert hide(nodes[1], take(nodes[1], 2)["a1"], 0) is None
    assert receiving.result() == ["a1"]


def test_receive_sees_an_extension_that_overtook_it(
    nodes: list[PostgresStore],
    database: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    late: PostgresStore,
    clock: ManualClock,
) -> None:
    """The lease of a2 has ended by its own clock, not by that of the node that extends it, and the group's row is the same."""
    send(nodes[0], "a1", "a2", "a3")
    found = take(late, 2, SECOND)
    assert hide(late, found["a1"], 0) is None
    clock.advance(SECOND)
    with paused(nodes[0], database, monkeypatch) as receiving:
        assert hide(late, found["a2"], 4 * SECOND) is None
    assert receiving.result() == ["a1"]


def test_message_that_is_deleted_meanwhile_is_left_out(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(nodes[0], "a1", "a2", "a3")
    found = take(nodes[1], 2)
    assert hide(nodes[1], found["a1"], 0) is None
    with paused(nodes[0], database, monkeypatch) as receiving:
        assert delete(nodes[1], found["a2"]) is None
    assert receiving.result() == ["a1"]


# --- purge ---


def test_purge_frees_dedup_ids_on_all_nodes(nodes: list[PostgresStore]) -> None:
    entry = Entry(b"x", group="a", dedup_id="same")
    assert not ask(nodes[0], ops.Send(QUEUE, [entry]))[0][0].duplicate
    assert ask(nodes[1], ops.Purge(QUEUE)) == [1]
    again = ask(nodes[0], ops.Send(QUEUE, [entry]))[0][0]
    assert not again.duplicate
    assert ask(nodes[1], ops.Send(QUEUE, [entry]))[0][0] == type(again)(again.id, again.seq, duplicate=True)
    assert receive(nodes[1]) == ["x"]
