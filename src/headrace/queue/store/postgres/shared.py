"""What the lanes of one node share: where the database is, the clock, the newest catalogue."""

from __future__ import annotations

import uuid
from threading import Lock

from headrace.clock import Clock
from headrace.errors import StoreUnusable
from headrace.queue.store.postgres import arrays
from headrace.queue.store.postgres.catalog import Catalog, load
from headrace.queue.store.postgres.connecting import Connection, connect, url_of
from headrace.queue.store.postgres.known import Known


class Shared:
    """Thread-safe. `node`: this node's name, new with each start."""

    def __init__(self, url: str, clock: Clock, catalog: Catalog, *, cooldowns: bool) -> None:
        self.url = url
        self.place = url_of(url)
        self.clock = clock
        self.cooldowns = cooldowns
        self.node = uuid.uuid4().hex
        self.known = Known()
        self._catalog = catalog
        self._lock = Lock()

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def adopt(self, catalog: Catalog) -> None:
        """From now on this one, unless a newer is known."""
        with self._lock:
            if catalog.version > self._catalog.version:
                self._catalog = catalog

    def reload(self, connection: Connection) -> None:
        self.adopt(load(connection, self._catalog))

    def connect(self) -> Connection:
        """A connection to this very store. Raises psycopg.OperationalError, StoreUnusable."""
        connection = connect(self.url)
        try:
            arrays.register(connection.adapters)
            row = connection.execute("SELECT secret FROM meta", prepare=False).fetchone()
            if row is None or row[0] != self._catalog.secret:
                raise StoreUnusable(
                    self.place, "another store answers there than when this node started; start it again"
                )
        except BaseException:
            connection.close()
            raise
        return connection
