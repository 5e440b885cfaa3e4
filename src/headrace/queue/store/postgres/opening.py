"""Opening the store: a look at what is there, the clock, the catalogue."""

from __future__ import annotations

import logging

import psycopg

from headrace.clock import Clock
from headrace.errors import StoreUnusable
from headrace.queue.store.postgres import schema
from headrace.queue.store.postgres.catalog import Catalog
from headrace.queue.store.postgres.clock import DatabaseClock
from headrace.queue.store.postgres.connecting import Connection, Connects, connect, url_of
from headrace.queue.store.postgres.shared import Shared
from headrace.queue.store.postgres.store import PostgresStore

log = logging.getLogger("headrace.store")


def open_store(
    url: str, *, clock: Clock | None = None, cooldowns: bool = True, connects: Connects = connect
) -> tuple[PostgresStore, Clock]:
    """The store in a database that `headrace store init` has prepared, and its clock.

    Args:
        url: `postgresql://user@host:port/database`, or any other libpq connection string.
        clock: for tests; None: the database's.
        cooldowns: whether the 60-second cool-downs hold.
        connects: makes its connections; tests have some that are used again.

    Raises:
        StoreUnusable: no database there, no tables in it, or tables of another version.
    """
    try:
        with connects(url) as connection:
            secret = _secret(connection, url)
            used = clock if clock is not None else DatabaseClock(connection)
            shared = Shared(url, used, Catalog(secret, 0, {}), cooldowns=cooldowns, connects=connects)
            shared.reload(connection)
    except psycopg.Error as error:
        raise StoreUnusable(url_of(url), " ".join(str(error).split())) from None
    return PostgresStore(shared), used


def _secret(connection: Connection, url: str) -> bytes:
    schema.check_version(url_of(url), schema.version_of(connection))
    row = connection.execute("SELECT secret FROM meta").fetchone()
    if row is None:
        raise StoreUnusable(url_of(url), "its table meta is empty: restore it from a backup")
    return bytes(row[0])
