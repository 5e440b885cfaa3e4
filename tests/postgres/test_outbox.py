"""Sending and acknowledging in an application's transaction, on psycopg connections."""

from __future__ import annotations

import base64
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from headrace import Outgoing, postgres
from headrace.errors import (
    CallerError,
    InvalidMessage,
    InvalidParameter,
    MessageTooLong,
    QueueNotFound,
    ReceiptExpired,
    ReceiptInvalid,
    StoreUnusable,
)
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.operations import ChangeVisibility, DeleteQueue, GetQueue, Peek, Send
from headrace.queue.store.postgres import guests, news
from headrace.queue.store.postgres.catalog import Catalog
from headrace.testing.postgres import server
from tests.patience import PATIENCE_S
from tests.postgres.conftest import Shop


def test_message_exists_if_the_transaction_commits(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        connection.execute("INSERT INTO orders VALUES ('Emma')")
        sent = postgres.send(connection, "packing", {"book": "Emma"})
        assert shop.receive("packing") == []
    (delivery,) = shop.receive("packing")
    assert (delivery.message.body, delivery.message.seq) == (b'{"book":"Emma"}', sent.sequence)
    assert shop.orders() == ["Emma"]


def test_message_does_not_exist_if_the_transaction_rolls_back(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send_many(connection, "packing", ["a", "b"])
        connection.rollback()
    assert shop.receive("packing") == []


def test_savepoint_takes_its_messages_along(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send(connection, "packing", "kept")
        with connection.transaction(force_rollback=True):
            postgres.send(connection, "packing", "dropped")
    assert shop.bodies("packing") == [b"kept"]


def test_what_commits_is_in_the_totals_and_stays_there_when_it_is_added_up(shop: Shop) -> None:
    for _ in range(3):
        with psycopg.connect(shop.url) as connection:
            postgres.send_many(connection, "packing", ["a", "b"])
            postgres.send(connection, "packing", "c")
    (delivery,) = shop.receive("packing", limit=1)
    with psycopg.connect(shop.url) as connection:
        postgres.acknowledge(connection, "packing", delivery.receipt)
        with connection.transaction(force_rollback=True):
            postgres.send(connection, "packing", "dropped")
    assert totals_of(shop) == (9, 1)
    assert rows_of_guests(shop) == 7
    shop.store.advance()
    assert totals_of(shop) == (9, 1)
    assert rows_of_guests(shop) == 0


def totals_of(shop: Shop) -> tuple[int, int]:
    """Messages sent and deleted."""
    counts = shop.ask(GetQueue(arn_of("packing"))).counts
    return counts.sent, counts.deleted


def rows_of_guests(shop: Shop) -> int:
    with psycopg.connect(shop.url) as connection:
        (found,) = connection.execute("SELECT count(*) FROM headrace.queue_total WHERE node LIKE 'guest/%'").fetchall()
    return int(found[0])


def test_totals_of_a_queue_that_is_gone_meanwhile_are_dropped(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send(connection, "packing", "late")
        connection.execute("DELETE FROM headrace.queue")
    shop.store.advance()
    with psycopg.connect(shop.url) as connection:
        assert connection.execute("SELECT * FROM headrace.queue_total").fetchall() == []


def test_send_takes_all_that_a_client_sends(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send(connection, "packing", b"x", attributes={"n": 1}, delay=600, group="tenant")
    (peeked,) = shop.ask(Peek(arn_of("packing")))
    message = peeked.message
    assert (peeked.state, message.group, message.visible_ms - message.sent_ms) == ("delayed", "tenant", 600_000)
    assert b"Number" in message.attributes


@pytest.mark.parametrize(
    ("error", "queue", "message"),
    [
        (QueueNotFound, "none", Outgoing(b"x")),
        (InvalidMessage, "packing", Outgoing(b"")),
        (MessageTooLong, "packing", Outgoing(b"x" * 2_000_000)),
        (InvalidParameter, "packing", Outgoing(b"x", dedup_id="d")),
        (InvalidParameter, "packing", Outgoing(b"x", delay=1e9)),
        (InvalidParameter, "packing", Outgoing(b"x", group=" ")),
    ],
    ids=["no such queue", "empty", "too long", "dedup id", "delay", "group"],
)
def test_send_is_refused_as_by_a_broker_and_the_transaction_goes_on(
    shop: Shop, error: type[CallerError], queue: str, message: Outgoing
) -> None:
    with psycopg.connect(shop.url) as connection:
        with pytest.raises(error) as told:
            postgres.send_many(connection, queue, ["good", message])
        connection.execute("INSERT INTO orders VALUES ('Emma')")
    refused = shop.ask(Send(arn_of(queue), [message.entry()]))
    by_broker = refused[0] if isinstance(refused, list) else refused
    assert (type(by_broker), str(by_broker)) == (type(told.value), str(told.value))
    assert shop.receive("packing") == []
    assert shop.orders() == ["Emma"]


def test_connection_is_as_it_was(shop: Shop) -> None:
    shown = "SELECT name, setting FROM pg_settings"
    with psycopg.connect(shop.url, row_factory=dict_row, options="-c search_path=pg_catalog,public") as connection:
        before = connection.execute(shown).fetchall()
        postgres.send(connection, "packing", "a")
        assert connection.execute(shown).fetchall() == before
        with pytest.raises(QueueNotFound):
            postgres.send(connection, "none", "a")
        assert connection.execute(shown).fetchall() == before


def test_queue_that_is_new_or_gone_is_known_at_once(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send(connection, "packing", "a")
        shop.make("billing")
        postgres.send(connection, "billing", "b")
        connection.commit()
        shop.ask(DeleteQueue(arn_of("packing")))
        with pytest.raises(QueueNotFound):
            postgres.send(connection, "packing", "c")
    assert shop.bodies("billing") == [b"b"]


def test_what_another_server_said_is_not_believed(shop: Shop) -> None:
    """One that took the place of the database may have lost the latest queue, and given its version to another."""
    with psycopg.connect(shop.url) as connection:
        postgres.send(connection, "packing", "a")
        (secret,) = connection.execute("SELECT secret FROM headrace.meta").fetchone() or (None,)
        _, known = guests._known[secret]
        guests._known[secret] = "before", Catalog(secret, known.version, {})
        postgres.send(connection, "packing", "b")
        guests._known[secret] = guests._known[secret][0], Catalog(secret, known.version, {})
        with pytest.raises(QueueNotFound):  # the same server's is believed: nothing is read again
            postgres.send(connection, "packing", "c")
        del guests._known[secret]
    assert shop.bodies("packing") == [b"a", b"b"]


def test_commit_tells_all_nodes_once(shop: Shop) -> None:
    with psycopg.connect(shop.url, autocommit=True) as hears, psycopg.connect(shop.url) as connection:
        hears.execute("LISTEN headrace")
        postgres.send(connection, "packing", "a")
        postgres.send(connection, "packing", "b")
        postgres.send(connection, "packing", "later", delay=60)
        hears.execute("SELECT 1")
        assert list(hears.notifies(timeout=0)) == []
        connection.commit()
        told = [news.read(one.payload) for one in hears.notifies(timeout=PATIENCE_S, stop_after=1)]
        postgres.send(connection, "packing", "c", wake=False)
        connection.commit()
        hears.execute("SELECT 1")
        told += [news.read(one.payload) for one in hears.notifies(timeout=0)]
    (one,) = told
    assert one is not None
    assert len(one.queues) == 1


def test_acknowledgement_holds_if_the_transaction_commits(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send_many(connection, "packing", ["a", "b"])
    first, second = shop.receive("packing")
    with psycopg.connect(shop.url) as connection:
        connection.execute("INSERT INTO orders VALUES ('a')")
        postgres.acknowledge(connection, "packing", first.receipt)
    with psycopg.connect(shop.url) as connection:
        connection.execute("INSERT INTO orders VALUES ('b')")
        postgres.acknowledge(connection, "packing", second.receipt)
        connection.rollback()
    assert shop.orders() == ["a"]
    assert [one.message.body for one in shop.ask(Peek(arn_of("packing"), limit=10))] == [b"b"]


def test_acknowledgement_takes_a_handle_of_sqs(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send(connection, "packing", "a")
    (delivery,) = shop.receive("packing")
    handle = base64.urlsafe_b64encode(delivery.receipt).decode()
    with psycopg.connect(shop.url) as connection:
        postgres.acknowledge(connection, "packing", handle)
    assert shop.ask(GetQueue(arn_of("packing"))).counts.in_flight == 0


def test_acknowledgement_of_a_lease_that_is_gone_is_refused(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        postgres.send_many(connection, "packing", ["released", "held"])
    released, held = shop.receive("packing")
    shop.ask(ChangeVisibility(arn_of("packing"), [(released.receipt, 0)]))
    with psycopg.connect(shop.url) as connection:
        with pytest.raises(ReceiptExpired):
            postgres.acknowledge(connection, "packing", held.receipt, released.receipt)
        postgres.acknowledge(connection, "packing", held.receipt)
        with pytest.raises(ReceiptExpired):
            postgres.acknowledge(connection, "packing", held.receipt)
    assert shop.bodies("packing") == [b"released"]


@pytest.mark.parametrize("receipt", [b"x" * 30, "no base64", "ü", "eHh4"])
def test_acknowledgement_of_what_is_no_receipt_is_refused(shop: Shop, receipt: bytes | str) -> None:
    with psycopg.connect(shop.url) as connection, pytest.raises(ReceiptInvalid):
        postgres.acknowledge(connection, "packing", receipt)


def test_connection_in_autocommit_is_refused_unless_it_is_in_a_transaction(shop: Shop) -> None:
    with psycopg.connect(shop.url, autocommit=True) as connection:
        with pytest.raises(InvalidParameter, match="begin a transaction first"):
            postgres.send(connection, "packing", "a")
        with connection.transaction():
            postgres.send(connection, "packing", "b")
    assert shop.bodies("packing") == [b"b"]


@pytest.mark.parametrize("given", [None, "postgresql://", object()])
def test_what_is_no_connection_is_refused(given: Any) -> None:
    with pytest.raises(InvalidParameter, match="it must be psycopg 3's"):
        postgres.send(given, "packing", "a")


def test_encoding_that_would_spoil_text_is_refused(shop: Shop) -> None:
    with (
        psycopg.connect(shop.url, client_encoding="latin1") as connection,
        pytest.raises(InvalidParameter, match="UTF8"),
    ):
        postgres.send(connection, "packing", "ä")


def test_database_without_a_store_is_told_so() -> None:
    with psycopg.connect(server().url()) as connection, pytest.raises(StoreUnusable, match="store init"):
        postgres.send(connection, "packing", "a")


def test_tables_of_another_version_are_left_alone(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        connection.execute("UPDATE headrace.meta SET version = version + 1")
        with pytest.raises(StoreUnusable, match="newer headrace"):
            postgres.send(connection, "packing", "a")
        connection.rollback()


def test_store_whose_own_rows_are_gone_is_told_so(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        connection.execute("DELETE FROM headrace.clock")
        with pytest.raises(StoreUnusable, match="restore it from a backup"):
            postgres.send(connection, "packing", "a")
        connection.rollback()


def test_entering_costs_too_little_to_be_compiled(shop: Shop) -> None:
    """The database compiles what costs 100,000, half a second each time. What a guest enters by is planned by his settings."""
    with psycopg.connect(shop.url) as connection:
        ((plan,),) = connection.execute(b"EXPLAIN (FORMAT JSON) " + guests._ENTER.encode()).fetchall()
    assert plan[0]["Plan"]["Total Cost"] < 1_000


def test_id_and_sequence_are_the_messages(shop: Shop) -> None:
    with psycopg.connect(shop.url) as connection:
        sent = postgres.send_many(connection, "packing", ["a", "b"])
    peeked = shop.ask(Peek(arn_of("packing"), limit=10))
    assert [one.message.seq for one in peeked] == [one.sequence for one in sent]
    (after,) = shop.ask(Send(arn_of("packing"), [Entry(b"c")]))
    assert isinstance(after, Sent)
    assert after.seq > sent[1].sequence
