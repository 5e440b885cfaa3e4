"""A primary whose synchronous standby is gone: it reads well, commits nothing, and may have been replaced by another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import OutcomeUnknown, Unavailable
from headrace.queue import operations as ops
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.store.postgres import connecting, lane
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.broker_process import wait_until
from tests.queue.postgres.nodes import ask, node

QUEUE = arn_of("q")


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path) -> Iterator[PostgresStore]:
    assert kind.durable
    store = node(tmp_path, ManualClock())
    ask(store, ops.CreateQueue(QUEUE))
    yield store
    store.close()


@pytest.fixture
def database(store: PostgresStore) -> Iterator[psycopg.Connection[Any]]:
    assert store.durable
    with psycopg.connect(databases().server.url(), autocommit=True) as connection:
        yield connection


@contextmanager
def standby_gone(database: psycopg.Connection[Any], *, patient: bool = False) -> Iterator[None]:
    """Commits wait for a standby that does not come, until the end; nodes wait for them a moment only, unless `patient`."""
    _set_standby(database, "nobody")
    try:
        with nullcontext() if patient else impatient():
            yield
    finally:
        _set_standby(database, "")


@contextmanager
def impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "COMMIT_S", 0.2)
        patch.setattr(connecting.Connection, "answer_s", 0.2)  # a lane begins with a commit
        patch.setattr(lane, "RECOVER_S", 0.0)
        patch.setattr(connecting, "LOCK_MS", 200)
        yield


def _set_standby(database: psycopg.Connection[Any], name: str) -> None:
    database.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    database.execute("SELECT pg_reload_conf()")
    asked = "SELECT current_setting('synchronous_standby_names')"
    wait_until(lambda: database.execute(asked).fetchone() == (name,))
    wait_until(lambda: _commit_waits(database) if name else not waiting(database))


def _commit_waits(database: psycopg.Connection[Any]) -> bool:
    """Whether commits wait by now: it is the checkpointer that tells all, a moment after it has read the setting."""
    with psycopg.connect(databases().server.url(), autocommit=True) as probe:
        pid = probe.info.backend_pid
        thread = Thread(target=_commit_something, args=(probe,))
        thread.start()
        wait_until(lambda: pid in waiting(database) or not thread.is_alive())
        waits = thread.is_alive()
        database.execute("SELECT pg_terminate_backend(%s)", (pid,))
        thread.join()
        return waits


def _commit_something(probe: psycopg.Connection[Any]) -> None:
    with suppress(psycopg.Error):  # it is terminated
        probe.execute("SELECT pg_logical_emit_message(true, 'probe', '')")


def waiting(database: psycopg.Connection[Any]) -> list[int]:
    """Who waits for the standby."""
    found = database.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall()
    return [pid for (pid,) in found]


def test_commit_without_its_standby_is_told_as_unknown(store: PostgresStore, database: psycopg.Connection[Any]) -> None:
    with standby_gone(database):
        (unknown,) = ask(store, ops.Send(QUEUE, [Entry(b"1")]))
        assert isinstance(unknown, OutcomeUnknown)
        (refused,) = ask(store, ops.Send(QUEUE, [Entry(b"2")]))
        assert isinstance(refused, Unavailable)
    assert isinstance(ask(store, ops.Send(QUEUE, [Entry(b"3")]))[0][0], Sent)
    assert [one.message.body for one in ask(store, ops.Peek(QUEUE))[0]] == [b"1", b"3"]


def test_commit_whose_wait_for_the_standby_is_cancelled_is_told_as_unknown(
    store: PostgresStore, database: psycopg.Connection[Any]
) -> None:
    """PostgreSQL calls it committed, and warns that the standby may not have it."""

    def cancel() -> None:
        with psycopg.connect(databases().server.url(), autocommit=True) as another:
            (pid,) = wait_until(lambda: waiting(another))
            another.execute("SELECT pg_cancel_backend(%s)", (pid,))

    ask(store, ops.Send(QUEUE, [Entry(b"before")]))
    with standby_gone(database, patient=True):
        canceller = Thread(target=cancel)
        canceller.start()
        (unknown,) = ask(store, ops.Send(QUEUE, [Entry(b"x")]))
        canceller.join()
    assert isinstance(unknown, OutcomeUnknown)
    assert "standby" in str(unknown) or "synchronous" in str(unknown)


def test_commit_is_not_taken_for_done_by_a_look_that_did_not_wait_for_the_standby_either(
    store: PostgresStore, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost while the commit waits; and whoever asks what became of it is told not to wait."""

    def harm() -> None:
        with psycopg.connect(databases().server.url(), autocommit=True) as another:
            (committing,) = wait_until(lambda: waiting(another))
            another.execute("SELECT pg_terminate_backend(%s)", (committing,))
            (asking,) = wait_until(lambda: [pid for pid in waiting(another) if pid != committing])
            another.execute("SELECT pg_cancel_backend(%s)", (asking,))

    ask(store, ops.Send(QUEUE, [Entry(b"before")]))
    monkeypatch.setattr(lane, "RECOVER_S", 0.0)
    with standby_gone(database, patient=True):
        harming = Thread(target=harm)
        harming.start()
        (unknown,) = ask(store, ops.Send(QUEUE, [Entry(b"x")]))
        harming.join()
    assert isinstance(unknown, OutcomeUnknown)


def test_leases_of_a_deserted_primary_come_to_an_end(
    store: PostgresStore, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease of a standard queue waits for no standby; one in a while does."""
    ask(store, ops.Send(QUEUE, [Entry(b"x")] * 3))
    monkeypatch.setattr(lane, "SYNC_EACH_S", 3_600.0)
    with standby_gone(database, patient=True):
        assert len(ask(store, ops.Receive(QUEUE, 1))[0]) == 1
        monkeypatch.setattr(lane, "SYNC_EACH_S", 0.0)
        with impatient():
            assert isinstance(ask(store, ops.Receive(QUEUE, 1))[0], OutcomeUnknown)


def test_node_without_a_standby_is_not_ready(
    store: PostgresStore, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse, now_s = store.pulse, [100.0]
    monkeypatch.setattr(pulse, "_now_s", lambda: now_s[0])
    pulse.beat()
    assert store.away() is None
    now_s[0] += 60
    with standby_gone(database):
        pulse.beat()
        assert store.away() is not None
    now_s[0] += 60
    pulse.beat()
    assert store.away() is None
