"""The database's clock, kept by each node: the one clock of all of them.

A node asks what time it is in the database, and from then on counts by its own monotonic clock, corrected every few
seconds: forward at once, backward by standing still. So it never goes back, and asks nobody for each batch.
"""

from __future__ import annotations

from typing import Final

from headrace.clock import uptime_ns
from headrace.queue.store.postgres.connecting import Connection

CORRECT_EACH_S: Final = 5.0


class DatabaseClock:
    """Steady ms. `correct` may run in another thread."""

    def __init__(self, connection: Connection) -> None:
        self._offset_ns = 0
        self._last_ms = self._corrected_ns = 0
        self.correct(connection)

    def __call__(self) -> int:
        now = (uptime_ns() + self._offset_ns) // 1_000_000
        if now < self._last_ms:
            return self._last_ms
        self._last_ms = now
        return now

    def correct_when_due(self, connection: Connection) -> None:
        """Correct it, unless that was done a moment ago. Raises psycopg.Error."""
        if uptime_ns() - self._corrected_ns > CORRECT_EACH_S * 1e9:
            self.correct(connection)

    def correct(self, connection: Connection) -> None:
        """Ask the database; the answer is as old as half the way there and back."""
        asked = uptime_ns()
        row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
        answered = uptime_ns()
        assert row is not None
        self._corrected_ns = answered
        self._offset_ns = row[0] * 1_000 - (asked + answered) // 2
