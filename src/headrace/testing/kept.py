"""Connections that the stores of a test process hand on. A new one is a process of the server, which reads the system's tables and
plans each statement anew: more than most tests do with it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, LiteralString

import psycopg
from psycopg.pq import TransactionStatus

from headrace.queue.store.postgres.connecting import Connection, connect

# Nobody has it: who counts the connections of nodes is not to count it. What a listener or a teller has set is undone.
_LAY_DOWN: Final = "UNLISTEN *; RESET synchronous_commit; SET application_name = 'kept'"
_TAKE_UP: Final = "RESET application_name"


class KeptConnection(Connection):
    """Closed, it waits for the next who connects; unless it is broken, or in the middle of something."""

    keeper: Keeper
    url = ""

    def close(self) -> None:
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        if not (self.url and idle and self._does(_LAY_DOWN)):
            super().close()
        else:
            self.keeper.take_back(self)

    def take_up(self) -> bool:
        """Whether it is as a new one is, and the server still there."""
        self.answer_s, self.warning = type(self).answer_s, None
        return self._does(_TAKE_UP)

    def end(self) -> None:
        super().close()

    def _does(self, sql: LiteralString) -> bool:
        try:
            self.execute(sql)
        except psycopg.Error:
            return False
        return True


class Keeper:
    """Keeps connections, each for its URL."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, list[KeptConnection]] = defaultdict(list)

    def connect(self, url: str, /, *, turn: int = 0) -> Connection:
        """As `connecting.connect`."""
        kept = self._kept[url]
        while kept:
            connection = kept.pop()
            if connection.take_up():
                return connection
            connection.end()
        made = connect(url, turn=turn, kind=KeptConnection)
        assert isinstance(made, KeptConnection)
        made.keeper, made.url = self, url
        return made

    def take_back(self, connection: KeptConnection) -> None:
        kept = self._kept[connection.url]
        if connection not in kept:  # whoever closes it twice must not give it to two
            kept.append(connection)

    def close(self) -> None:
        """End those that nobody has. Idempotent."""
        for kept in self._kept.values():
            while kept:
                kept.pop().end()
