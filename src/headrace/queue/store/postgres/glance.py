"""A look for a queue that this node does not know: another may have made it a moment ago, and told its client so.

`Store.find` answers without waiting, from the catalogue. News of a new queue takes a millisecond or two, and a client that
goes from node to node is as fast. So a name that is not known, and nothing else, is worth one round trip.
"""

from __future__ import annotations

import time
from typing import Final

import psycopg

from headrace.errors import StoreUnusable
from headrace.queue.store.postgres.connecting import Connection
from headrace.queue.store.postgres.shared import Shared

EACH_S: Final = 0.005  # whoever asks for names that do not exist must not hold up everybody
ANSWER_S: Final = 0.5  # everything on this node stands still meanwhile


class Glance:
    """`open` may wait, so it is called in a thread; `look` is called on the owner's."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._connection: Connection | None = None
        self._looked_s = 0.0

    def open(self) -> None:
        """Connect, unless connected. Raises psycopg.OperationalError, StoreUnusable."""
        if self._connection is None or not self._shared.is_home(self._connection):
            self.close()
            connection = self._shared.connect_home()
            connection.answer_s = ANSWER_S
            self._connection = connection

    def look(self) -> None:
        """Read the catalogue if it has moved. Never raises: without a connection, what is known is all there is."""
        connection, now = self._connection, time.monotonic()
        if connection is None or now < self._looked_s + EACH_S:
            return
        try:
            row = connection.execute("SELECT version FROM directory").fetchone()
            if row is not None and row[0] != self._shared.catalog.version:
                self._shared.look(connection)
        except (psycopg.Error, StoreUnusable):
            self.close()
        self._looked_s = time.monotonic()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
