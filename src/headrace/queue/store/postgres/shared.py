"""What the lanes of one node share: where the database is, the clock, the newest catalogue."""

from __future__ import annotations

import logging
import uuid
from threading import Lock

import psycopg

from headrace.clock import Clock
from headrace.errors import StoreUnusable
from headrace.queue.store.postgres import arrays
from headrace.queue.store.postgres.catalog import Catalog, load
from headrace.queue.store.postgres.connecting import Connection, Connects, url_of
from headrace.queue.store.postgres.failing import Complaints
from headrace.queue.store.postgres.known import Known
from headrace.queue.store.postgres.schema import VERSION

log = logging.getLogger("headrace.store")


class Shared:
    """Thread-safe.

    Attributes:
        node: this node's name, new with each start.
        turn: which of several hosts is asked first: the one that took a commit last, or, if it takes none, the next.
        home: the server that took a commit last. All connections go there: another may be a primary that was replaced, which
            answers what it is asked, of a time that is over. Empty while none does; None before the first.
    """

    def __init__(self, url: str, clock: Clock, catalog: Catalog, *, cooldowns: bool, connects: Connects) -> None:
        self.url = url
        self.place = url_of(url)
        self.clock = clock
        self.cooldowns = cooldowns
        self.node = uuid.uuid4().hex
        self.known = Known(self.node)
        self.turn = 0
        self.home: str | None = None
        self.complaints = Complaints()
        self._catalog = catalog
        self._connects = connects
        self._lock = Lock()

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def adopt(self, catalog: Catalog) -> None:
        """From now on this one, unless a newer is known."""
        with self._lock:
            if catalog.version > self._catalog.version:
                self._catalog = catalog

    def look(self, connection: Connection) -> None:
        """Take the database's catalogue if it is newer."""
        self.adopt(load(connection, self._catalog))

    def reload(self, connection: Connection) -> None:
        """Take the database's catalogue, also if it is older: then the database has lost commits, and has the last word.
        Only over a connection that has committed: a deserted primary's does not."""
        known = self._catalog
        found = load(connection, known)
        if found.version < known.version:
            log.error(
                "%s has lost changes of queues: its directory has version %s, version %s was known",
                self.place, found.version, known.version, extra={"action": "store.lost"},
            )  # fmt: skip
        with self._lock:
            if self._catalog is known or found.version > self._catalog.version:
                self._catalog = found

    def enter(self, connection: Connection) -> None:
        """A commit was taken over this connection."""
        self.home, self.turn = connection.server, connection.place

    def suspect(self, connection: Connection) -> None:
        """A commit was not answered over this connection: all lanes are to find out where they are taken."""
        self.home, self.turn = "", connection.place + 1

    def is_home(self, connection: Connection) -> bool:
        return self.home is None or connection.server == self.home

    def connect_home(self) -> Connection:
        """As `connect`, to where commits are taken: for whoever takes none himself."""
        if self.home != "":
            connection = self.connect()
            if self.is_home(connection):
                return connection
            connection.close()
        raise psycopg.OperationalError("this is not the server that takes commits")

    def connect(self) -> Connection:
        """A connection to this very store. Raises psycopg.OperationalError, StoreUnusable."""
        connection = self._connects(self.url, turn=self.turn)
        self.known.marks.forget()  # the database may have crashed meanwhile, and lost leases
        try:
            arrays.register(connection.adapters)
            row = connection.execute("SELECT secret, version FROM meta").fetchone()
            if row is None or row[0] != self._catalog.secret:
                raise StoreUnusable(
                    self.place, "another store answers there than when this node started; start it again"
                )
            if row[1] != VERSION:
                raise StoreUnusable(
                    self.place, f"its format is {row[1]} now, this node knows {VERSION}; start it again"
                )
        except BaseException:
            connection.close()
            raise
        return connection
