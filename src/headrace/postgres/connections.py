"""The psycopg connection in whatever an application calls its connection, and a transaction in it to be a guest of.

Nothing is imported for it: SQLAlchemy and Django are known by what their connections have.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from headrace.errors import InvalidParameter
from headrace.queue.store.postgres import arrays
from headrace.queue.store.postgres.connecting import Cursor
from headrace.queue.store.postgres.schema import place_of

KINDS: Final = "psycopg 3's, SQLAlchemy's (a connection or a session, over postgresql+psycopg) or Django's"


class Guest:
    """A connection in its owner's transaction. Its cursors are its own: no row factory, no adapter of the owner's changes what
    the store reads and writes."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        check(connection)
        self._connection = connection
        self.place = place_of(connection)

    def execute(self, sql: LiteralString, parameters: Any = (), /) -> Cursor:
        cursor = psycopg.Cursor(self._connection, row_factory=tuple_row)
        arrays.register(cursor.adapters)
        return cursor.execute(sql, parameters, binary=True)


def connection_of(given: Any) -> psycopg.Connection[Any]:
    """Its psycopg connection, in a transaction or about to begin one. Raises InvalidParameter."""
    found = _unwrapped(given)
    if isinstance(found, psycopg.AsyncConnection):
        raise InvalidParameter("connection", type(given).__name__, "it is asynchronous: use send_async and the like")
    if not isinstance(found, psycopg.Connection):
        raise InvalidParameter("connection", type(given).__name__, f"it must be {KINDS}")
    return found


def _unwrapped(given: Any) -> Any:
    if hasattr(given, "ensure_connection"):  # Django
        given.ensure_connection()
        return given.connection
    if hasattr(given, "get_bind"):  # a session of SQLAlchemy
        given = given.connection()
    if hasattr(given, "exec_driver_sql"):  # a connection of SQLAlchemy
        if not given.in_transaction():
            given.begin()  # as its own statements do: else its commit would find nothing to commit
        given = given.connection
    return getattr(given, "driver_connection", given)


def check(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise InvalidParameter unless there is a transaction, or will be with the next statement."""
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise InvalidParameter(
            "connection",
            "in autocommit",
            "begin a transaction first (psycopg: `with connection.transaction()`, Django: `with transaction.atomic()`)",
        )
    if connection.info.encoding != "utf-8":
        raise InvalidParameter("client_encoding", connection.info.encoding, "it must be UTF8")
