"""What the functions of one batch work with: statements, the time, the catalogue; and what their commit brings about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString, TypeAlias, TypeVar

import psycopg

from headrace.errors import CallerError
from headrace.queue.operations import Operation
from headrace.queue.store.base import Ready
from headrace.queue.store.postgres import connecting
from headrace.queue.store.postgres.catalog import Catalog
from headrace.queue.store.postgres.known import Known
from headrace.queue.store.postgres.statements import Statements

Cursor: TypeAlias = connecting.Cursor
Answers: TypeAlias = Generator[None, None, list[Any]]
"""A family's function: it sends statements, yields before it reads their rows (as often as it needs to), and returns an
outcome an operation, in order."""
Op = TypeVar("Op", bound=Operation)


_BEGIN: Final[LiteralString] = "SELECT version, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM directory"


class CatalogMoved(Exception):
    """The catalogue that decisions were made by is not the newest: all again, by the new one."""


class Transaction:
    """One transaction of a lane (or of a guest: `guests.py`).

    Invariant: whoever writes calls `wrote` (before the commit); a transaction in which nobody has is read-only.

    Attributes:
        now: steady ms; one moment for all operations of the batch.
        wall_ms: the database's clock when it began there; None until `check`.
        catalog: queues and topics; after `lock_directory` those that this transaction sees.
        cooldowns: whether the 60-second cool-downs hold.
        ready: numbers of queues in which a message became visible, and values of state that were put.
        due: number of a queue -> when something in it will be visible, as far as this transaction knows.
        empty: numbers of queues in which a receive has found nothing: they may be waited for.
        holding: whether it has locked groups to receive from them.
        beside: messages of FIFO queues, (queue, seq), whose groups sends lock with their own: for deletes of the same batch.
        locked: those of which they have.
        totals: (number of a queue, field of QueueCounts) -> how many more.
        known: what this node remembers.
        landed: numbers of queues -> how many messages were deleted that were leased.
        ended: leases of tenants' messages that were deleted: (queue, tenant, how long it had a consumer).
    """

    def __init__(
        self,
        connection: connecting.Executes,
        catalog: Catalog,
        now: int,
        *,
        cooldowns: bool,
        known: Known,
    ) -> None:
        self.now = now
        self.catalog = catalog
        self.cooldowns = cooldowns
        self.ready: set[int | tuple[str, bytes]] = set()
        self.due: dict[int, int] = {}
        self.empty: set[int] = set()
        self.ended: list[tuple[int, str, int]] = []
        self.landed: Counter[int] = Counter()
        self.holding = False
        self.beside: set[tuple[int, int]] = set()
        self.locked: set[tuple[int, int]] = set()
        self.totals: Counter[tuple[int, str]] = Counter()
        self._began = catalog
        self.known = known
        self.writes = False
        self.durable = False
        self._connection = connection
        self._locked = False
        self.wall_ms: int | None = None
        self._version: Cursor | None = None

    def begin(self) -> None:
        """Begin it in the database, and ask for the newest catalogue's version."""
        self._connection.execute("BEGIN")
        self._version = self.execute(_BEGIN)

    def check(self) -> None:
        """Make sure that the catalogue is the newest, once; before anything is decided by rows. Raises CatalogMoved."""
        if self._version is not None:
            row = self._version.fetchone()
            self._version = None
            if row is None or row[0] != self.catalog.version:
                raise CatalogMoved
            self.wall_ms = row[1]

    def execute(self, sql: LiteralString, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        """Send a statement (prepared; parameters as %s). Its rows are read by the cursor's `fetchall`, which waits; until
        then more statements may be sent."""
        return self._connection.execute(sql, parameters)

    def wrote(self, *, durable: bool = True) -> None:
        """Something is written. Not `durable`: it may be lost if the database crashes (a lease of a standard queue)."""
        self.writes = True
        self.durable |= durable

    def count(self, queue: int, field: str, number: int = 1) -> None:
        """Add to a total of QueueCounts, once this is committed."""
        if number:
            self.totals[queue, field] += number

    def due_at(self, queue: int, ms: int) -> None:
        """Something in the queue will be visible at `ms`."""
        if ms < self.due.get(queue, ms + 1):
            self.due[queue] = ms

    def has_made(self, queue: int) -> bool:
        """Whether the queue was not there when this transaction began."""
        return queue not in self._began.by_number

    def lock_directory(self) -> None:
        """Let nobody else change queues or topics until the commit. Raises CatalogMoved."""
        self.check()
        if not self._locked:
            row = self.execute("SELECT version FROM directory FOR UPDATE").fetchone()
            if row is None or row[0] != self.catalog.version:
                raise CatalogMoved
            self._locked = True
        self.execute("UPDATE directory SET version = version + 1")
        self.wrote()

    def wait_briefly(self, sql: LiteralString, parameters: Sequence[Any] | Mapping[str, Any], ms: int) -> bool | None:
        """Send a statement that waits for locks: whether it has found something; None: it would have waited longer."""
        connection = self._connection
        assert isinstance(connection, Statements), "only a lane's waits"
        self.execute("SAVEPOINT brief")
        try:
            with connection.apart():
                self.execute("SELECT set_config('lock_timeout', %s, true)", (str(ms),))
                found = self.execute(sql, parameters).fetchone() is not None
        except psycopg.errors.LockNotAvailable:
            self.execute("ROLLBACK TO SAVEPOINT brief")
            return None
        self.execute("SELECT set_config('lock_timeout', %s, true)", (str(connecting.LOCK_MS),))
        self.execute("RELEASE SAVEPOINT brief")
        return found

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """All of it, or, with an error, nothing of it: for an operation that finds out only after it has written."""
        self.execute("SAVEPOINT one")
        before = self.catalog, set(self.ready), dict(self.due), self.totals.copy()
        try:
            yield
        except CallerError:
            self.catalog, self.ready, self.due, self.totals = before
            self.execute("ROLLBACK TO SAVEPOINT one")
            raise
        self.execute("RELEASE SAVEPOINT one")

    def places(self) -> set[Ready]:
        """What is ready, by the names that polls wait at."""
        named = (self._place_of(one) if isinstance(one, int) else one for one in self.ready)
        return {place for place in named if place is not None}

    def _place_of(self, number: int) -> str | None:
        """A queue's ARN; also of one that this transaction has deleted: who waits for it is to learn of it."""
        queue = self.catalog.by_number.get(number) or self._began.by_number.get(number)
        return queue.arn if queue is not None else None


def each(function: Callable[[Transaction, Op], Any]) -> Callable[[Transaction, Sequence[Op]], Answers]:
    """A family of operations that run one after another: `function` answers one, or raises its CallerError (before it has
    written anything, or in a savepoint)."""

    def family(tx: Transaction, operations: Sequence[Op]) -> Answers:
        yield
        return [answer(function, tx, operation) for operation in operations]

    return family


def answer(function: Callable[[Transaction, Op], Any], tx: Transaction, operation: Op) -> Any:
    """What `function` answers, a CallerError as a value."""
    try:
        return function(tx, operation)
    except CallerError as error:
        return error
