"""The pulse of a node: what it says of a database that does not answer, and what it does about nodes that hang."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.queue.store.base import Request
from headrace.queue.store.postgres import connecting
from headrace.queue.store.postgres import lane as lanes
from headrace.queue.store.postgres import pulse as pulses
from headrace.queue.store.postgres.connecting import connect
from headrace.queue.store.postgres.failing import AWAY, COMPLAIN_EACH_S, Complaints
from headrace.queue.store.postgres.families import LaneName
from headrace.queue.store.postgres.lane import Batch
from headrace.queue.store.postgres.pulse import EACH_S, LATE_S, Pulse
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.broker_process import wait_until
from tests.queue.postgres.nodes import Threads, ask, node


class HangingLane:
    """A lane that takes as long as the test says."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.said: str | None = "nothing yet"
        self.pulse: Pulse

    def run(self, operations: Sequence[Any], work: Any) -> list[Batch]:
        del operations, work
        self.now_s += LATE_S + 1
        self.said = self.pulse.trouble()
        return [Batch([])]


def test_database_that_has_not_answered_for_long_is_told_of_before_it_does() -> None:
    lane = HangingLane()
    lane.pulse = Pulse(lane, lambda: lane.now_s)  # type: ignore[arg-type]  # a fake
    lane.now_s = 1_000.0
    assert lane.pulse.trouble() is None
    assert lane.pulse.due()
    lane.pulse.beat()
    assert lane.said is not None and "has not answered" in lane.said
    assert lane.pulse.trouble() == "the database takes no commits"
    lane.now_s = 1_000.0 + EACH_S
    assert lane.pulse.due()
    lane.now_s -= 0.1
    assert not lane.pulse.due()


def test_node_that_hangs_in_a_transaction_loses_its_locks(
    kind: StoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind.durable
    monkeypatch.setattr(pulses, "FROZEN_S", 0)
    store = node(tmp_path, ManualClock())
    with connect(databases().of(tmp_path)) as hanging, suppress(psycopg.OperationalError):
        with hanging.pipeline():
            hanging.execute("BEGIN")
            hanging.execute("SELECT version FROM directory FOR UPDATE").fetchall()
            _end_when_it_hangs(store, hanging, tmp_path)  # the server hears nothing of it
            ask(store, ops.CreateQueue(arn_of("q")))
            hanging.execute("SELECT 1").fetchall()
        pytest.fail("it still has its connection")
    assert len(ask(store, ops.ListQueues())[0]) == 1
    store.close()


def test_node_that_hangs_before_its_commit_is_no_owner_when_it_goes_on(
    kind: StoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind.durable
    monkeypatch.setattr(pulses, "FROZEN_S", 0)
    queue = arn_of("q.fifo")
    hanging, other = node(tmp_path, ManualClock()), node(tmp_path, ManualClock())
    ask(hanging, ops.CreateQueue(queue, {"fifo": True}), ops.Send(queue, [Entry(b"x", group="g", dedup_id="1")]))
    commit = lanes.Lane._commit
    others: list[Any] = []

    def hang_once(lane: lanes.Lane, connection: Any, batch: Batch) -> None:
        if not others:
            others.append(None)
            _end_when_it_hangs(other, connection, tmp_path)
            others[0] = ask(other, ops.Receive(queue, 1))[0]
        commit(lane, connection, batch)

    monkeypatch.setattr(lanes.Lane, "_commit", hang_once)
    (got,) = ask(hanging, ops.Receive(queue, 1))
    assert (got, [one.message.body for one in others[0]]) == ([], [b"x"])
    hanging.close()
    other.close()


def test_lane_whose_statement_the_server_works_on_is_not_broken_off(
    kind: StoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind.durable
    monkeypatch.setattr(pulses, "SILENT_S", 0.0)
    monkeypatch.setattr(connecting, "LOCK_MS", 600_000)
    store, queue = node(tmp_path, ManualClock()), arn_of("q")
    ask(store, ops.CreateQueue(queue))
    threads = Threads(store)
    outcomes: list[Any] = []
    store.execute([Request(ops.Send(queue, [Entry(b"x")]), outcomes.append)])
    with connect(databases().of(tmp_path)) as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute("LOCK TABLE message IN EXCLUSIVE MODE")
            working = pool.submit(threads.work, "send")
            waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            with psycopg.connect(databases().of(tmp_path), autocommit=True) as looking:
                wait_until(lambda: looking.execute(waits).fetchone())
            connection = store._lanes[LaneName.SEND].lane.waits_for(0.0)
            assert connection is not None
            store.pulse.beat()
            assert not connection.closed
        working.result()()
    assert store._lanes[LaneName.SEND].lane._connection is connection
    assert len(outcomes[0]) == 1
    store.attach(None)
    store.close()


def _end_when_it_hangs(store: PostgresStore, hanging: psycopg.Connection[Any], folder: Path) -> None:
    """The server has sent what was asked for a moment before it waits for more: only then it is seen to hang."""
    pid = hanging.info.backend_pid
    with connect(databases().of(folder)) as looking:

        def is_ended() -> bool:
            store.pulse.beat()
            return looking.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() is None

        wait_until(is_ended)


def test_one_line_a_minute_is_written_of_what_fails(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [5.0]
    complaints = Complaints(lambda: now_s[0])
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            complaints.tell("store.refused", "Send was refused", psycopg.errors.DiskFull("no space"))
        complaints.tell("store.refused", "Send was refused", psycopg.errors.OutOfMemory("no memory"))
        now_s[0] += COMPLAIN_EACH_S
        complaints.tell("store.refused", "Send was refused", psycopg.errors.DiskFull("no space"))
    assert [record.getMessage() for record in caplog.records] == [
        "Send was refused: no space",
        "Send was refused: no memory",
        "Send was refused: no space; 2 more since the last such line",
    ]


def test_that_the_database_is_back_is_told_once_for_each_loss_that_was(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [5.0]
    complaints = Complaints(lambda: now_s[0])
    gone = psycopg.OperationalError("closed")
    with caplog.at_level(logging.INFO):
        complaints.tell_back("db")  # the first connection of all
        for _ in range(3):  # lanes, one after another
            complaints.tell(AWAY, "lane lost its connection", gone)
            complaints.tell_back("db")
        now_s[0] += COMPLAIN_EACH_S
        complaints.tell(AWAY, "lane lost its connection", gone)
        complaints.tell_back("db")
    assert [record.__dict__["action"] for record in caplog.records] == [AWAY, "store.back"] * 2
