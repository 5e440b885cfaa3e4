"""Connections that the stores of a test process hand on. A new one is a process of the server, which reads the system's tables and
plans each statement anew: more than most tests do with it.
"""

from __future__ import annotations

from collections import defaultdict

import psycopg
from psycopg.pq import TransactionStatus

from headrace.queue.store.postgres.connecting import Connection, connect


class KeptConnection(Connection):
    """Closed, it waits for the next who connects; unless it is broken, or in the middle of something."""

    keeper: Keeper
    url = ""

    def close(self) -> None:
        if self.url and self.pgconn.transaction_status == TransactionStatus.IDLE:
            self.keeper.take_back(self)
        else:
            super().close()

    def end(self) -> None:
        super().close()


class Keeper:
    """Keeps connections, each for its URL."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, list[KeptConnection]] = defaultdict(list)

    def connect(self, url: str, /, *, turn: int = 0) -> Connection:
        """As `connecting.connect`."""
        kept = self._kept[url]
        while kept:
            connection = kept.pop()
            if _is_as_new(connection):
                return connection
            connection.end()
        made = connect(url, turn=turn, kind=KeptConnection)
        assert isinstance(made, KeptConnection)
        made.keeper, made.url = self, url
        return made

    def take_back(self, connection: KeptConnection) -> None:
        self._kept[connection.url].append(connection)

    def close(self) -> None:
        """End those that nobody has. Idempotent."""
        for kept in self._kept.values():
            while kept:
                kept.pop().end()


def _is_as_new(connection: KeptConnection) -> bool:
    """Forget what a listener or a teller has set; whether the server still answers."""
    connection.answer_s, connection.warning = type(connection).answer_s, None
    try:
        connection.execute("UNLISTEN *; RESET synchronous_commit")
    except psycopg.OperationalError:
        return False
    return True
