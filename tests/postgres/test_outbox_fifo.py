"""The outbox and FIFO queues, topics; and the role that may do no more than this."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from headrace import Outgoing, postgres
from headrace.errors import InvalidParameter, MissingParameter, StoreUnusable, Unavailable
from headrace.queue.model import Entry, Sent, arn_of, topic_arn_of
from headrace.queue.operations import ChangeVisibility, CreateTopic, Send, Subscribe
from headrace.queue.store.postgres import connecting, lane, schema
from headrace.queue.store.postgres.opening import open_store
from tests.postgres.conftest import Shop
from tests.queue.postgres.nodes import ask


@pytest.fixture
def fifo(shop: Shop) -> Shop:
    """With an empty queue `orders.fifo`."""
    shop.make("orders.fifo", fifo=True)
    return shop


def _send(connection: psycopg.Connection[Any], body: str, group: str = "g", dedup_id: str | None = None) -> Any:
    return postgres.send(connection, "orders.fifo", body, group=group, dedup_id=dedup_id or body)


def test_group_keeps_the_order_of_commits_between_outbox_and_brokers(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as connection:
        _send(connection, "1")
        _send(connection, "2")
    fifo.ask(Send(arn_of("orders.fifo"), [Entry(b"3", group="g", dedup_id="3")]))
    with psycopg.connect(fifo.url) as connection:
        _send(connection, "4")
    assert fifo.bodies("orders.fifo") == [b"1", b"2", b"3", b"4"]


def test_second_message_with_a_dedup_id_is_not_stored(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as connection:
        first = _send(connection, "1", dedup_id="d")
        again = _send(connection, "2", dedup_id="d")
        connection.commit()
        later = _send(connection, "3", dedup_id="d")
        connection.commit()
        by_broker = fifo.ask(Send(arn_of("orders.fifo"), [Entry(b"4", group="g", dedup_id="d")]))[0]
    assert [one.duplicate for one in (first, again, later, by_broker)] == [False, True, True, True]
    assert {one.id for one in (first, again, later)} == {first.id}
    assert fifo.bodies("orders.fifo") == [b"1"]


def test_dedup_id_of_what_was_rolled_back_is_free(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as connection:
        _send(connection, "1", dedup_id="d")
        connection.rollback()
        assert not _send(connection, "2", dedup_id="d").duplicate
    assert fifo.bodies("orders.fifo") == [b"2"]


def test_two_transactions_in_one_group_come_one_after_the_other(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as first, psycopg.connect(fifo.url) as second:
        _send(first, "1")
        other = threading.Thread(target=_send, args=(second, "2"))
        other.start()
        with psycopg.connect(fifo.url, autocommit=True) as looks:
            until_waiting = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            while looks.execute(until_waiting, [second.info.backend_pid]).fetchone() != (1,):
                assert other.is_alive()
        first.commit()
        other.join()
        second.commit()
    assert fifo.bodies("orders.fifo") == [b"1", b"2"]


def test_open_transaction_that_holds_a_group_stops_nothing_else(fifo: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "LOCK_MS", 200)
    monkeypatch.setattr(lane, "RECOVER_S", 0.0)
    monkeypatch.setattr(lane, "_PAUSE_S", 0.0)
    with psycopg.connect(fifo.url) as connection:
        _send(connection, "1")
        other = open_store(fifo.url)[0]  # its connections have the short bound
        held = Send(arn_of("orders.fifo"), [Entry(b"2", group="g", dedup_id="2")])
        free = Send(arn_of("orders.fifo"), [Entry(b"3", group="other", dedup_id="3")])
        refused, sent, also_sent = ask(other, held, free, Send(arn_of("packing"), [Entry(b"x")]))
        other.close()
    assert isinstance(refused, Unavailable)
    assert isinstance(sent[0], Sent)
    assert isinstance(also_sent[0], Sent)
    assert sorted(fifo.bodies("orders.fifo")) == [b"1", b"3"]


def test_error_of_the_database_in_a_savepoint_leaves_the_connection_as_it_was(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as holds, psycopg.connect(fifo.url) as connection:
        _send(holds, "1")
        connection.execute("SET LOCAL lock_timeout = 50")
        with pytest.raises(psycopg.errors.LockNotAvailable), connection.transaction():
            _send(connection, "2")
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)
        holds.commit()
        _send(connection, "2")
    assert fifo.bodies("orders.fifo") == [b"1", b"2"]


def test_pipeline_of_the_application_may_be_open(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as connection, connection.pipeline():
        connection.execute("INSERT INTO orders VALUES ('Emma')")
        _send(connection, "1")
        _send(connection, "2")
    assert (fifo.orders(), fifo.bodies("orders.fifo")) == (["Emma"], [b"1", b"2"])


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_stricter_isolation_is_refused_on_a_fifo_queue_and_safe_on_others(
    fifo: Shop, level: psycopg.IsolationLevel
) -> None:
    """It would see messages of a group that are gone by now."""
    with psycopg.connect(fifo.url) as connection:
        connection.isolation_level = level
        postgres.send(connection, "packing", "a")
        connection.commit()
        (delivery,) = fifo.receive("packing")
        connection.execute("SELECT count(*) FROM orders")  # what it sees is fixed from here on
        with pytest.raises(InvalidParameter, match="READ COMMITTED"):
            _send(connection, "1")
        with pytest.raises(InvalidParameter, match="READ COMMITTED"):
            postgres.acknowledge(connection, "orders.fifo", delivery.receipt)
        fifo.ask(ChangeVisibility(arn_of("packing"), [(delivery.receipt, 0)]))
        with pytest.raises(psycopg.errors.SerializationFailure):
            postgres.acknowledge(connection, "packing", delivery.receipt)
        connection.rollback()


def test_acknowledgement_frees_the_group_at_the_commit(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as connection:
        _send(connection, "1")
        _send(connection, "2")
        connection.commit()
        (delivery,) = fifo.receive("orders.fifo", limit=1)
        postgres.acknowledge(connection, "orders.fifo", delivery.receipt)
        connection.rollback()
        assert fifo.receive("orders.fifo") == []
        postgres.acknowledge(connection, "orders.fifo", delivery.receipt)
        connection.commit()
    assert fifo.bodies("orders.fifo") == [b"2"]


def test_fifo_rules_are_a_brokers(fifo: Shop) -> None:
    with psycopg.connect(fifo.url) as connection:
        with pytest.raises(MissingParameter):
            postgres.send(connection, "orders.fifo", "x", dedup_id="d")
        with pytest.raises(InvalidParameter, match="ContentBasedDeduplication"):
            postgres.send(connection, "orders.fifo", "x", group="g")
        with pytest.raises(InvalidParameter, match="a FIFO queue's delay"):
            postgres.send(connection, "orders.fifo", "x", group="g", dedup_id="d", delay=5)


def test_publishing_is_part_of_the_transaction(shop: Shop) -> None:
    _make_topic(shop)
    with psycopg.connect(shop.url) as connection:
        postgres.send(connection, topic_arn_of("t"), "a")
        connection.rollback()
        postgres.send(connection, topic_arn_of("t"), "b")
    assert shop.bodies("packing") == [b"b"]


def _make_topic(shop: Shop) -> None:
    for operation in (
        CreateTopic(topic_arn_of("t"), {"retention_ms": 60_000}),
        Subscribe(topic_arn_of("t"), arn_of("packing")),
    ):
        made = shop.ask(operation)
        assert not isinstance(made, Exception), made


@pytest.fixture
def role(fifo: Shop) -> Iterator[str]:
    """A URL of a role without rights."""
    with psycopg.connect(fifo.url, autocommit=True) as owner:
        owner.execute("CREATE ROLE sends_only LOGIN")
        yield fifo.url.replace("headrace@", "sends_only@")
        owner.execute("DROP OWNED BY sends_only")
        owner.execute("DROP ROLE sends_only")


def test_outbox_role_sends_and_acknowledges_everywhere_and_does_no_more(fifo: Shop, role: str) -> None:
    _make_topic(fifo)
    with psycopg.connect(role) as connection:
        with pytest.raises(StoreUnusable, match="--outbox-role"):
            postgres.send(connection, "packing", "a")
        connection.rollback()
        with psycopg.connect(fifo.url) as owner:
            schema.grant_outbox(owner, "sends_only")
        postgres.send_many(connection, "packing", ["a", Outgoing("later", delay=60), Outgoing("b", group="tenant")])
        _send(connection, "1")
        _send(connection, "1")
        postgres.send(connection, topic_arn_of("t"), "published" * 200)
        connection.commit()
        for queue in ("packing", "orders.fifo"):
            postgres.acknowledge(connection, queue, *[one.receipt for one in fifo.receive(queue)])
        connection.commit()
        for forbidden in (
            "SELECT body FROM headrace.message", "SELECT body FROM headrace.published", "SELECT value FROM headrace.state",
            "DROP TABLE headrace.message", "ALTER TABLE headrace.queue ADD x int", "DELETE FROM headrace.queue",
            "UPDATE headrace.directory SET version = 0", "TRUNCATE headrace.message",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden.encode())
            connection.rollback()
    assert fifo.receive("packing") == fifo.receive("orders.fifo") == []
