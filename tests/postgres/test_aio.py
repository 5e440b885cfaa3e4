"""The outbox on an event loop."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from headrace import postgres
from headrace.errors import InvalidParameter, QueueNotFound
from tests.postgres.conftest import Shop


def test_message_and_acknowledgement_hold_if_the_transaction_commits(shop: Shop) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection:
            await connection.execute("INSERT INTO orders VALUES ('Emma')")
            await postgres.send_many_async(connection, "packing", ["a", "b"])
            await connection.commit()
            (delivery, _) = shop.receive("packing")
            await postgres.acknowledge_async(connection, "packing", delivery.receipt)
            await connection.rollback()
            await postgres.acknowledge_async(connection, "packing", delivery.receipt)

    asyncio.run(main())
    with psycopg.connect(shop.url) as connection:
        assert connection.execute("SELECT body FROM headrace.message").fetchall() == [(b"b",)]
    assert shop.orders() == ["Emma"]


def test_refusal_leaves_the_transaction_whole(shop: Shop) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection:
            with pytest.raises(QueueNotFound):
                await postgres.send_async(connection, "none", "a")
            await postgres.send_async(connection, "packing", "b")

    asyncio.run(main())
    assert shop.bodies("packing") == [b"b"]


def test_cancelled_send_leaves_a_connection_that_can_be_rolled_back(shop: Shop) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection:
            sending = asyncio.create_task(postgres.send_async(connection, "packing", "a"))
            await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await connection.rollback()
            await postgres.send_async(connection, "packing", "b")

    asyncio.run(main())
    assert shop.bodies("packing") == [b"b"]


def test_connections_of_the_other_kind_are_refused(shop: Shop) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection:
            with pytest.raises(InvalidParameter, match="send_async"):
                postgres.send(connection, "packing", "a")
        with psycopg.connect(shop.url) as sync, pytest.raises(InvalidParameter, match="AsyncConnection"):
            await postgres.send_async(sync, "packing", "a")

    asyncio.run(main())
