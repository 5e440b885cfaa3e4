"""The one clock of all nodes: the database's, made steady.

A node asks what time it is in the database, and from then on counts by its own monotonic clock, corrected every few
seconds: forward at once, backward by standing still. So it never goes back, and asks nobody for each batch; but each batch
is told what time it is there, and if a node is wrong by seconds, it is corrected, and the batch run again.

To stand still is right for milliseconds. A database's clock that is set back by an hour (or the clock of the standby that
takes over) would stop all nodes for an hour: leases would not end, delays not pass. So the steady time of all is the
database's clock plus an offset that they share, in the table `clock`; whoever sees the database's clock gone back, by its
own monotonic clock or by the latest time that was written there, raises the offset by as much.

Set forward a little, it is followed: to a node that was paused it looks the same, and leases that end early are what
at-least-once allows. Set forward by days it would end the retention of everything. So a node that has run meanwhile does not
believe in more than AHEAD_MAX_MS, and lowers the offset; unless others have written later times, then it was paused itself.
When no node has run for as long, the one that starts begins anew with the database's clock: an offset is not for ever.

The clocks of the nodes' own machines may be set to anything: none is asked.
"""

from __future__ import annotations

from typing import Final, LiteralString

from headrace.clock import uptime_ns
from headrace.queue import limits
from headrace.queue.store.postgres.connecting import Connection

CORRECT_EACH_S: Final = 5.0
STEP_MS: Final = 1_000
"""What a clock goes back by less than this the nodes stand still for: it is drift, or an answer that took long."""
LATE_MS: Final = 2_000
"""So much later a transaction may begin in the database than its node says that it is. Beyond this the node has stood still (a
virtual machine is paused, and its clocks with it), and would grant leases that have ended already."""
AHEAD_MAX_MS: Final = 10 * limits.MINUTE_MS
"""Longer, one hopes, than a machine is paused while no other node runs: then leases last longer by as much as it was, and time is
behind by as much until no node has run for so long."""
SLOW_NS: Final = 500_000_000  # an answer that took longer says too little of when it was true
FAST_NS: Final = 4_000_000
"""An answer that took no longer is true to 2 ms. On a busy machine one takes a hundred, and nodes whose clocks differ by as much end
each other's leases early: so a slower one is asked for again, and the fastest counts."""
ASKED_MAX: Final = 5

_LOCK: Final[LiteralString] = "SELECT offset_ms, seen_ms FROM clock FOR UPDATE"
_WALL: Final[LiteralString] = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_KEEP: Final[LiteralString] = "UPDATE clock SET offset_ms = %s, seen_ms = %s"


def settled(offset_ms: int, *, wall_ms: int, certain_ms: int, possible_ms: int | None) -> int:
    """The offset with which steady time is what it can be.

    Args:
        offset_ms: as it has been.
        wall_ms: the database's clock.
        certain_ms: a steady time that is past.
        possible_ms: one that is still to come, or has just come, unless this node was paused; None: it cannot know.
    """
    steady_ms = wall_ms + offset_ms
    if steady_ms < certain_ms - STEP_MS:
        return certain_ms - wall_ms
    if possible_ms is not None:
        return possible_ms - wall_ms if steady_ms > possible_ms + AHEAD_MAX_MS else offset_ms
    nobody_ran = steady_ms > certain_ms + AHEAD_MAX_MS
    return 0 if nobody_ran and wall_ms >= certain_ms else offset_ms


class ClockMoved(Exception):
    """Decisions were made at a time that it is not."""


class DatabaseClock:
    """Steady ms. `correct` may run in another thread."""

    def __init__(self, connection: Connection) -> None:
        self._offset_ns: int | None = None
        self._shared_ms = 0  # the offset of all nodes
        self._last_ms = self._corrected_ns = 0
        self._fastest_ns = 0  # that an answer ever took
        self.correct(connection)

    def __call__(self) -> int:
        now = self._at(uptime_ns())
        if now < self._last_ms:
            return self._last_ms
        self._last_ms = now
        return now

    def _at(self, uptime: int) -> int:
        return (uptime + (self._offset_ns or 0)) // 1_000_000

    def check(self, now: int, wall_ms: int) -> None:
        """Raise ClockMoved unless `now` was right for a transaction that began when the database's clock was `wall_ms`."""
        if not -STEP_MS <= wall_ms + self._shared_ms - now <= LATE_MS:
            raise ClockMoved

    def correct_when_due(self, connection: Connection) -> None:
        """Correct it, unless that was done a moment ago. Raises psycopg.Error."""
        if uptime_ns() - self._corrected_ns > CORRECT_EACH_S * 1e9:
            self.correct(connection)

    def correct(self, connection: Connection) -> None:
        """Ask the database; the answer is as old as half the way there and back."""
        with connection.transaction():
            connection.execute(
                "SET LOCAL synchronous_commit = off"
            )  # others wait for the row; a crash may take the latest
            shared = connection.execute(_LOCK).fetchone()
            wall_us, asked, answered = self._ask(connection)
            assert shared is not None
            offset_ms, seen_ms = shared
            wall_ms = wall_us // 1_000
            certain_ms, possible_ms = self._bounds(seen_ms, asked, answered)
            offset_ms = settled(offset_ms, wall_ms=wall_ms, certain_ms=certain_ms, possible_ms=possible_ms)
            connection.execute(_KEEP, (offset_ms, max(seen_ms, wall_ms + offset_ms)))
        self._corrected_ns, self._shared_ms = answered, offset_ms
        if answered - asked < SLOW_NS or self._offset_ns is None:
            self._offset_ns = wall_us * 1_000 + offset_ms * 1_000_000 - (asked + answered) // 2

    def _bounds(self, seen_ms: int, asked: int, answered: int) -> tuple[int, int | None]:
        """Steady times between which it is now, by this node and by what others have seen."""
        if self._offset_ns is None:
            return seen_ms, None
        return max(seen_ms, self._at(asked)), max(seen_ms, self._at(answered))

    def _ask(self, connection: Connection) -> tuple[int, int, int]:
        """What time it is there, in microseconds; and when that was asked, and answered, here."""
        enough_ns = max(FAST_NS, 2 * self._fastest_ns)  # the database may be far away
        answers = []
        for _ in range(ASKED_MAX):
            asked = uptime_ns()
            row = connection.execute(_WALL).fetchone()
            answered = uptime_ns()
            assert row is not None
            answers.append((answered - asked, row[0], asked, answered))
            if answered - asked <= enough_ns:
                break
        took_ns, wall_us, asked, answered = min(answers)
        self._fastest_ns = min(took_ns, self._fastest_ns or took_ns)
        return wall_us, asked, answered
