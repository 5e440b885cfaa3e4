"""Sending and acknowledging in a transaction of one's own, on an event loop: psycopg's AsyncConnection, SQLAlchemy's
AsyncConnection and AsyncSession.

The rules are the store's, which runs in a thread; its statements run on the loop that the connection belongs to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from headrace.errors import InvalidParameter
from headrace.native.bodies import AttributeValue, Body
from headrace.native.messages import Outgoing, SentMessage
from headrace.postgres import plans
from headrace.postgres.connections import check
from headrace.queue.operations import Transact, TransactOutcome
from headrace.queue.store.postgres import arrays, guests
from headrace.queue.store.postgres.schema import place_of


async def send_async(
    connection: Any,
    queue: plans.Place,
    body: Body,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    delay: float | None = None,
    group: str | None = None,
    dedup_id: str | None = None,
    wake: bool = True,
) -> SentMessage:
    """`send`, on an asynchronous connection."""
    entry = Outgoing(body, attributes, delay, group, dedup_id)
    return (await send_many_async(connection, queue, [entry], wake=wake))[0]


async def send_many_async(
    connection: Any,
    queue: plans.Place,
    messages: Iterable[Body | Outgoing],
    *,
    delay: float | None = None,
    group: str | None = None,
    wake: bool = True,
) -> list[SentMessage]:
    """`send_many`, on an asynchronous connection."""
    return plans.sent(await _run(connection, plans.sending(queue, messages, delay=delay, group=group), wake=wake))


async def acknowledge_async(connection: Any, queue: plans.Place, *receipts: bytes | str, wake: bool = True) -> None:
    """`acknowledge`, on an asynchronous connection."""
    if receipts:
        await _run(connection, plans.acknowledging(queue, receipts), wake=wake)


class AsyncGuest:
    """An asynchronous connection as the store's functions see one, in a thread that waits for the loop."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        check(connection)
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.place = place_of(connection)

    def execute(self, sql: LiteralString, parameters: Any = (), /, *, binary: bool = False) -> Any:
        return asyncio.run_coroutine_threadsafe(self._execute(sql, parameters, binary), self._loop).result()

    async def _execute(self, sql: LiteralString, parameters: Any, binary: bool) -> Rows:
        cursor = psycopg.AsyncCursor(self._connection, row_factory=tuple_row)
        arrays.register(cursor.adapters)
        await cursor.execute(sql, parameters, binary=binary)
        return Rows(await cursor.fetchall() if cursor.description is not None else [])


class Rows:
    """What a statement answered."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


async def _run(connection: Any, operation: Transact, *, wake: bool) -> TransactOutcome:
    """Who is cancelled meanwhile is told when the connection is its own again: then it can be rolled back."""
    guest = AsyncGuest(await _connection_of(connection))
    work = asyncio.ensure_future(asyncio.to_thread(guests.run, guest, guest.place, operation, wake=wake))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def _connection_of(given: Any) -> psycopg.AsyncConnection[Any]:
    found = given
    if hasattr(found, "get_bind"):  # a session of SQLAlchemy
        found = await found.connection()
    if hasattr(found, "get_raw_connection"):  # a connection of SQLAlchemy
        if not found.in_transaction():
            await found.begin()  # as its own statements do: else its commit would find nothing to commit
        found = (await found.get_raw_connection()).driver_connection
    if not isinstance(found, psycopg.AsyncConnection):
        kinds = "psycopg 3's AsyncConnection, or SQLAlchemy's AsyncConnection or AsyncSession"
        raise InvalidParameter("connection", type(given).__name__, f"it must be {kinds}")
    return found
