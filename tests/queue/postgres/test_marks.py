"""Marks: receives pass over nothing that has gone, whatever snapshot keeps it; and they miss nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from headrace.clock import ManualClock
from headrace.queue.model import Entry
from headrace.queue.operations import (
    ChangeVisibility,
    Claim,
    CreateQueue,
    Delete,
    Receive,
    ReleaseClaims,
    Send,
)
from headrace.queue.store.postgres import connecting, receiving
from headrace.queue.store.postgres.marks import ASKED_MS, LATE_MS, MOVE_EACH_MS, Mark, Marks, Noted, mark_of
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask, node

QUEUE = "arn:aws:sqs:eu-west-1:000000000000:marked"
MANY = 3_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_000)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[PostgresStore]:
    made = node(tmp_path, clock)
    with psycopg.connect(databases().of(tmp_path), autocommit=True) as cleaner:
        cleaner.execute("VACUUM headrace.message")  # else pages that are counted may hold what other tests have left
    ask(made, CreateQueue(QUEUE, {}))
    yield made
    made.close()


@pytest.fixture
def other(tmp_path: Path, store: PostgresStore) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's transaction in the same database."""
    del store  # it has made the tables' rows
    with psycopg.connect(databases().of(tmp_path), options="-c search_path=headrace") as connection:
        yield connection


def move(store: PostgresStore, clock: ManualClock, times: int = 3) -> Mark:
    for _ in range(times):
        clock.advance(MOVE_EACH_MS)
        store.advance()
    (number,) = store._shared.catalog.by_number
    return store._shared.known.marks.known(number)


def received(store: PostgresStore, *, limit: int = 10, timeout_ms: int = 30_000) -> list[bytes]:
    (deliveries,) = ask(store, Receive(QUEUE, limit, timeout_ms))
    return [one.message.body for one in deliveries]


def use_up(store: PostgresStore, number: int, timeout_ms: int = 1_000) -> None:
    """Send, receive and delete so many messages."""
    for _ in range(number // 1_000):
        ask(store, Send(QUEUE, [Entry(b"gone")] * 1_000))
        (deliveries,) = ask(store, Receive(QUEUE, 1_000, timeout_ms))
        ask(store, Delete(QUEUE, [one.receipt for one in deliveries]))


def pages_of_a_lease(store: PostgresStore, other: psycopg.Connection[Any], clock: ManualClock, mark: Mark) -> int:
    """How many pages the statement of a receive touches that begins at a mark."""
    (queue,) = store._shared.catalog.by_number
    known = {
        "queue": queue, "now": clock(), "until": clock() + 1, "floor": 0, "from": mark.seq, "since": mark.ms, "oldest": 0,
        "limit": 10,
    }  # fmt: skip
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", receiving._LEASE)))
    lease = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", receiving._LEASE)
    values = ", ".join(str(known[name]) for name in names)
    for setting in connecting.BY_INDEX:  # as nodes plan it: once, for any values, whatever the statistics say of these
        other.execute(f"SET LOCAL {setting} = off")
    other.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    other.execute(f"PREPARE lease AS {lease}")
    plan = other.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE lease ({values})").fetchall()
    other.execute("DEALLOCATE lease")
    root = plan[0][0][0]["Plan"]
    pages: int = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    return pages


def test_old_snapshot_does_not_make_receives_pass_over_what_has_gone(
    store: PostgresStore, other: psycopg.Connection[Any], clock: ManualClock
) -> None:
    with psycopg.connect(other.info.dsn) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT FROM headrace.queue")
        use_up(store, MANY)
        clock.advance(LATE_MS + 5_000)
        received(store)
        mark = move(store, clock)
        from_the_front = pages_of_a_lease(store, other, clock, Mark())
        assert pages_of_a_lease(store, other, clock, mark) * 10 < from_the_front


def test_seq_that_was_drawn_early_and_committed_late_is_received(
    store: PostgresStore, other: psycopg.Connection[Any], clock: ManualClock
) -> None:
    other.execute(
        "INSERT INTO message (queue, seq, visible_ms, sent_ms, id, body)"
        " SELECT id, nextval('message_seq'), 0, %s, 'x', 'late' FROM queue",
        (clock(),),
    )
    use_up(store, 1_000)
    mark = move(store, clock)
    assert mark == Mark()  # somebody is not at his end
    other.commit()
    assert received(store) == [b"late"]
    assert move(store, clock, 4).seq > 1_000


def test_writers_in_a_twin_database_hold_nothing_back(tmp_path: Path, clock: ManualClock) -> None:
    """One that was made from the same template: its tables have the same numbers."""
    url = conninfo_to_dict(databases().of(tmp_path))
    databases().keeper.close()  # a template is one that nobody is connected to
    with psycopg.connect(databases().server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE twin TEMPLATE {}").format(sql.Identifier(str(url["dbname"]))))
    with psycopg.connect(databases().server.url("twin"), options="-c search_path=headrace") as twin:
        twin.execute("LOCK message IN ROW EXCLUSIVE MODE")
        store = node(tmp_path, clock)
        ask(store, CreateQueue(QUEUE, {}))
        use_up(store, 1_000)
        assert move(store, clock).seq > 1_000
        store.close()


def test_number_drawn_before_anything_is_written_holds_the_mark_back(
    store: PostgresStore, other: psycopg.Connection[Any], clock: ManualClock
) -> None:
    row = other.execute("SELECT nextval('message_seq')").fetchone()
    assert row is not None
    use_up(store, 1_000)
    move(store, clock)
    other.execute(
        "INSERT INTO message (queue, seq, visible_ms, sent_ms, id, body) SELECT id, %s, 0, %s, 'x', 'late' FROM queue",
        (row[0], clock()),
    )
    other.commit()
    assert received(store) == [b"late"]


def test_message_that_somebody_holds_and_gives_back_holds_the_mark_back(
    store: PostgresStore, other: psycopg.Connection[Any], clock: ManualClock
) -> None:
    ask(store, Send(QUEUE, [Entry(b"first")]))
    other.execute("SELECT FROM message FOR UPDATE")  # as a receive that comes to nothing
    use_up(store, 1_000)
    move(store, clock)
    other.rollback()
    assert received(store) == [b"first"]


def test_lease_that_ends_is_received_again_behind_the_mark(store: PostgresStore, clock: ManualClock) -> None:
    ask(store, Send(QUEUE, [Entry(b"again"), Entry(b"released")]))
    (deliveries,) = ask(store, Receive(QUEUE, 2, 60_000))
    use_up(store, 1_000)
    move(store, clock)
    ask(store, ChangeVisibility(QUEUE, [(deliveries[1].receipt, 0)]))
    assert received(store) == [b"released"]
    clock.advance(60_000)
    move(store, clock)
    assert sorted(received(store)) == [b"again", b"released"]


def test_released_claim_of_a_message_that_was_delayed_is_received(store: PostgresStore, clock: ManualClock) -> None:
    ask(store, Send(QUEUE, [Entry(b"delayed", delay_ms=5_000)]))
    use_up(store, 1_000)
    clock.advance(5_000)
    ask(store, Claim(QUEUE, "reader", 1, 10))
    received(store)
    move(store, clock)
    ask(store, ReleaseClaims(QUEUE, "reader"))
    assert received(store) == [b"delayed"]


def test_marks_are_forgotten_with_a_new_connection_and_what_was_found_before_it_is_dropped() -> None:
    marks = Marks()
    noted = Noted(marks.era, 9, 0, [])
    marks.move(noted, {1: Mark(9, 9)})
    marks.forget()
    marks.move(noted, {1: Mark(9, 9)})
    marks.note(noted)
    assert (marks.of(1, 0), marks.noted) == (Mark(), None)


def test_node_that_connects_again_looks_from_the_front(store: PostgresStore, clock: ManualClock) -> None:
    use_up(store, 1_000)
    assert move(store, clock) != Mark()
    store._alone._drop()
    received(store)
    (number,) = store._shared.catalog.by_number
    assert store._shared.known.marks.known(number) == Mark()


def test_look_from_the_front_corrects_a_mark_that_is_wrong(store: PostgresStore, clock: ManualClock) -> None:
    ask(store, Send(QUEUE, [Entry(b"below")]))
    received(store, limit=1, timeout_ms=1)
    marks = store._shared.known.marks
    (number,) = store._shared.catalog.by_number
    move(store, clock)
    marks.move(Noted(marks.era, 0, 0, []), {number: Mark(1 << 40, clock())})
    assert received(store) == []
    clock.advance(60_000)
    received(store)
    move(store, clock, 2)
    assert received(store) == [b"below"]


def test_mark_is_below_what_may_come_and_what_is_there() -> None:
    noted = Noted(0, 100, 50_000, [])
    assert mark_of(noted, None, None, None) == Mark(101, 50_000 - LATE_MS)
    assert mark_of(noted, 7, 5, 30) == Mark(5, 30)


def test_queues_that_nobody_receives_from_are_not_moved() -> None:
    marks = Marks()
    assert not marks.due(1_000_000)
    marks.of(1, 1_000_000)
    assert marks.due(1_000_000)
    assert not marks.due(1_000_000 + ASKED_MS)
    assert marks.wanted(1_000_000 + ASKED_MS) == []
