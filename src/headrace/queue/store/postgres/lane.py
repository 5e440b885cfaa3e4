"""A lane: one connection, on which batches of operations run as one transaction each.

                       not committed: known             unknown, until asked
    BEGIN … statements … results │ mark batch n, COMMIT │ answers
                                 └──── connection lost ─┘ → connect, raise the epoch, read the last batch:
                                                             n: it is committed; n - 1: it is not, run it again

The mark is a row of the lane's own. To raise its epoch waits for a commit that is still on its way in the database, and
makes one that has not begun fail: so what is read then stays true, and nothing is done twice or lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg

from headrace.errors import OutcomeUnknown, StoreUnusable
from headrace.queue.operations import Operation
from headrace.queue.store.postgres.clock import ClockMoved, DatabaseClock
from headrace.queue.store.postgres.connecting import ANSWER_S, COMMIT_S, Connection
from headrace.queue.store.postgres.failing import AWAY, Failure, failure_of, told
from headrace.queue.store.postgres.shared import Shared
from headrace.queue.store.postgres.transaction import Transaction

log = logging.getLogger("headrace.store")

RECOVER_S: Final = 5.0
"""So long batches wait for a database that is away; then they are refused, and the clients may go elsewhere. It begins when
the first one finds it away: those that follow try once."""
SYNC_EACH_S: Final = 5.0
"""So often a lane syncs what need not be. A primary that was cut off from its standbys, one of which has taken its place,
goes on answering what is not synced: leases of messages that are long gone. So it does not for longer than this."""
HELD_FOR_S: Final = 10.0
HELD_MS: Final = 1_000
"""So long a lane waits for locks when one has been waited for in vain less than HELD_FOR_S ago: it may be held for minutes, and all
else would wait with each batch."""
BRIEF_MS: Final = 250
"""So long an operation waits for a lock when its batch has waited in vain: which of them it was that somebody kept from it is not
known, and each would wait as long again, one after the other."""
ALONE_S: Final = 5.0  # and all of them together so long
_PAUSE_S: Final = 0.05  # between two tries
_CLOSE_S: Final = 1.0  # to say goodbye; nobody needs it

# 1/0 where the row has another epoch: the whole is then rolled back, before the COMMIT behind it.
_MARK: Final[LiteralString] = (
    "WITH marked AS (UPDATE lane SET batch = %s, seen_ms = %s WHERE id = %s AND epoch = %s RETURNING 1)"
    " SELECT 1 / count(*) FROM marked"
)
_ENTER: Final[LiteralString] = (
    "INSERT INTO lane AS l VALUES (%s, 1, 0, %s) ON CONFLICT (id)"
    " DO UPDATE SET epoch = l.epoch + 1, seen_ms = excluded.seen_ms RETURNING epoch, batch"
)

Work = Callable[[Transaction, Sequence[Operation]], list[Any]]
"""Runs operations: an outcome each, in order."""


class Batch(msgspec.Struct):
    """What came of some operations. `transaction` is None if nothing was committed: then all outcomes are errors."""

    outcomes: list[Any]
    transaction: Transaction | None = None


class Lane:
    """Runs one batch at a time, in whatever thread. `close` when none runs."""

    def __init__(self, name: str, shared: Shared, work: Work, *, answer_s: float | None = None) -> None:
        """`answer_s`: how long it waits for an answer; None: as long as a statement may take."""
        self.name = name
        self._answer_s = answer_s
        self._id = f"{shared.node}/{name}"
        self._shared = shared
        self._work = work
        self._connection: Connection | None = None
        self._epoch = self._batch = 0
        self._committing: Batch | None = None
        self._lost_s: float | None = None  # since when the database has been away
        self._synced_s = 0.0  # when a commit was last synced
        self._held_s = -HELD_FOR_S  # when a lock was last waited for in vain

    def run(
        self, operations: Sequence[Operation], work: Work | None = None, *, alone_until: float | None = None
    ) -> list[Batch]:
        """Run a batch, again and again if it must be, until its outcome is known. Raises nothing.

        Args:
            operations: what is asked.
            work: instead of the lane's own; what it returns need not be outcomes.
            alone_until: it is one of a batch that came to nothing: it waits for locks only briefly, and is run again until then.

        Returns one, or, where the database refuses what one of them asks, a batch an operation.
        """
        until = alone_until or (self._lost_s or time.monotonic()) + RECOVER_S
        lock_ms = self._lock_ms(alone=alone_until is not None)
        tries = 0
        while True:
            tries += 1
            try:
                return [self._once(operations, work or self._work, timed=tries == 1, lock_ms=lock_ms)]
            except ClockMoved:
                self._rollback()
                self.correct_clock(at_once=True)
            except OutcomeUnknown as unknown:
                return [Batch([unknown] * len(operations))]
            except Exception as error:  # noqa: BLE001 - whatever it is, each of the batch must be told
                failure = self._note(error)
                try:
                    if self._took_place(failure, until):
                        return [self._settled()]
                except OutcomeUnknown as unknown:
                    return [Batch([unknown] * len(operations))]
                held = isinstance(error, psycopg.errors.LockNotAvailable)
                if (held and lock_ms is not None) or self._gives_up(failure, tries, until):
                    self._held_s = time.monotonic() if held else self._held_s
                    return self._refuse(operations, error, failure)

    def waits_for(self, seconds: float) -> Connection | None:
        """Its connection, if it has waited for an answer for so long. In any thread."""
        connection = self._connection
        since_s = connection.waits_since_s if connection is not None else None
        return connection if since_s is not None and time.monotonic() >= since_s + seconds else None

    def correct_clock(self, *, at_once: bool = False) -> None:
        """Set the clock by the database's, if it is kept by that and the time has come (or `at_once`)."""
        clock, connection = self._shared.clock, self._connection
        if isinstance(clock, DatabaseClock) and connection is not None and not connection.closed:
            try:
                (clock.correct if at_once else clock.correct_when_due)(connection)
            except psycopg.Error:
                self._drop()

    def last(self, work: Work) -> None:
        """Run something before the lane is closed, if it has a connection; again for a moment, if that is all that it needs."""
        until = time.monotonic() + _CLOSE_S
        while self._connection is not None and not self._connection.closed:
            try:
                self._once([], work)
                return
            except Exception as error:
                if failure_of(error) is Failure.AGAIN and time.monotonic() < until:
                    self._rollback()
                    continue
                log.debug("the lane's last work is not done", exc_info=True, extra={"action": "store.lane_left"})
                self._drop()

    def close(self) -> None:
        """Idempotent."""
        if self._connection is not None and not self._connection.closed:
            self._connection.answer_s = _CLOSE_S
            try:
                self._connection.execute("DELETE FROM lane WHERE id = %s", (self._id,))
            except psycopg.Error:
                log.debug("the lane's row stays", extra={"action": "store.lane_left"})
        self._drop()

    # --- one try ---

    def _lock_ms(self, *, alone: bool) -> int | None:
        """How long to wait for a lock, None: as long as is usual."""
        if alone:
            return BRIEF_MS
        return HELD_MS if time.monotonic() < self._held_s + HELD_FOR_S else None

    def _once(
        self, operations: Sequence[Operation], work: Work, *, timed: bool = False, lock_ms: int | None = None
    ) -> Batch:
        connection = self._connected()
        connection.answer_s = self._answer_s or ANSWER_S
        shared = self._shared
        statements = connection.statements
        with statements.together():
            tx = Transaction(statements, shared.catalog, shared.clock(), cooldowns=shared.cooldowns, known=shared.known)
            tx.begin()
            if lock_ms is not None:
                tx.execute("SELECT set_config('lock_timeout', %s, true)", (str(lock_ms),))
            outcomes = work(tx, operations)
            tx.check()
            if timed and isinstance(shared.clock, DatabaseClock) and tx.wall_ms is not None:
                shared.clock.check(tx.now, tx.wall_ms)
            self._commit(connection, Batch(outcomes, tx))
        if not tx.writes:
            return Batch(outcomes, tx)
        if connection.warning is not None:
            self._committing = None
            raise OutcomeUnknown(f"{shared.place} has committed it, and warns: {connection.warning}")
        return self._settled()

    def _commit(self, connection: Connection, batch: Batch) -> None:
        tx = batch.transaction
        assert tx is not None
        if tx.writes:
            self._batch += 1
            connection.statements.execute(_MARK, (self._batch, tx.now, self._id, self._epoch))
            if tx.durable or time.monotonic() > self._synced_s + SYNC_EACH_S:
                self._synced_s = time.monotonic()
            else:
                connection.statements.execute("SET LOCAL synchronous_commit = off")
            self._committing = batch
        connection.warning = None  # of a commit: that a wait for the standby was cancelled
        connection.answer_s = COMMIT_S
        connection.statements.execute("COMMIT")

    def _settled(self) -> Batch:
        batch, self._committing = self._committing, None
        assert batch is not None
        assert batch.transaction is not None
        self._shared.adopt(batch.transaction.catalog)
        return batch

    # --- connections ---

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed or not self._shared.is_home(self._connection):
            self._drop()
            connection = self._shared.connect()
            try:
                self._enter(connection)
            except BaseException:
                connection.close()
                self._shared.suspect(connection)  # a primary that does not commit is none: there may be another
                raise
            self._connection = connection
        return self._connection

    def _enter(self, connection: Connection) -> None:
        """Shut out the connection before, and learn what it committed last."""
        connection.warning = None
        row = connection.execute(_ENTER, (self._id, self._shared.clock())).fetchone()
        if connection.warning is not None:  # as of a commit: what is read here need not be what the standby has
            raise psycopg.OperationalError(connection.warning)
        assert row is not None
        self._shared.enter(connection)
        self._shared.reload(connection)
        if self._lost_s is not None:
            self._shared.complaints.tell_back(self._shared.place)
        self._synced_s, self._lost_s = time.monotonic(), None
        self._epoch, marked = row
        if marked != self._batch:
            self._committing = None
        self._batch = marked

    def _rollback(self) -> None:
        """After a try that came to nothing; the catalogue may have moved."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.rollback()
            self._shared.reload(connection)
        except (psycopg.Error, StoreUnusable):
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- failures ---

    def _note(self, error: Exception) -> Failure:
        """What an error means. What the database has not said itself says nothing about a commit that is on its way."""
        failure = failure_of(error)
        if self._committing is not None and getattr(error, "sqlstate", None) is None:
            failure = Failure.LOST
            if self._connection is not None:
                self._shared.suspect(self._connection)
        if failure is Failure.LOST and self._lost_s is None:
            self._lost_s = time.monotonic()
            self._shared.complaints.tell(AWAY, f"lane {self.name} lost its connection", error)
        return failure

    def _took_place(self, failure: Failure, until: float) -> bool:
        """Whether the commit that may have been under way took place after all. Raises OutcomeUnknown: nobody says."""
        if failure is not Failure.LOST:
            self._committing = None  # the database said so itself
            self._rollback()
            return False
        self._drop()
        while self._committing is not None:
            try:
                self._connected()
                break
            except Exception as error:  # noqa: BLE001 - as long as the database is away, it may say anything
                self._drop()
                if time.monotonic() > until:
                    self._committing = None
                    raise OutcomeUnknown(f"the connection to {self._shared.place} broke: {error}") from None
                time.sleep(_PAUSE_S)
        return self._committing is not None

    def _gives_up(self, failure: Failure, tries: int, until: float) -> bool:
        if failure in (Failure.REFUSED, Failure.BUG):
            return True
        if failure is Failure.LOST and tries == 1 and self._connection is not None:
            return False  # there is another one already, which has said that nothing was committed
        if failure is Failure.LOST or tries > 1:
            time.sleep(_PAUSE_S)
        return time.monotonic() > until

    def _refuse(self, operations: Sequence[Operation], error: BaseException, failure: Failure) -> list[Batch]:
        if failure in (Failure.BUG, Failure.AGAIN) and len(operations) > 1:  # one may be to blame, all else goes on
            return self._one_by_one(operations, error, failure)
        name = ", ".join(sorted({type(operation).__name__ for operation in operations})) or self.name
        self._shared.complaints.tell("store.refused", f"{name} was refused", error)
        return [Batch([told(error, name, self._shared.place)] * len(operations))]

    def _one_by_one(self, operations: Sequence[Operation], error: BaseException, failure: Failure) -> list[Batch]:
        """If many have to wait, each for a moment, the last of them are refused."""
        if failure is Failure.BUG:
            return [batch for operation in operations for batch in self.run([operation])]
        until = time.monotonic() + ALONE_S
        batches: list[Batch] = []
        for operation in operations:
            late = time.monotonic() > until
            batches += self._refuse([operation], error, failure) if late else self.run([operation], alone_until=until)
        return batches
