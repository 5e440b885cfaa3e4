"""What an error of the database means, what to tell who asked, and what to write in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum
from threading import Lock
from typing import Final

import psycopg

from headrace.errors import HeadraceError, InvalidParameter, StoreError, StoreFull, StoreUnusable, Unavailable
from headrace.queue.store.postgres.transaction import CatalogMoved

log = logging.getLogger("headrace.store")

COMPLAIN_EACH_S: Final = 60.0
AWAY: Final = "store.away"
_ASKED_BY_LIBPQ: Final = " Is the server running on that host and accepting TCP/IP connections?"


class Failure(Enum):
    """What can be done about an error."""

    AGAIN = "the transaction is rolled back, through nobody's fault: run it again"
    LOST = "the connection is of no use any more"
    REFUSED = "the transaction is rolled back, and would be again"
    BUG = "no error that a running database gives: one request of the batch is to blame"


_AGAIN = (
    CatalogMoved,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)
_LOST_STATES = (
    "08",
    "57P01",
    "57P02",
    "57P03",
    "57P04",
    "57P05",
    "25006",
    "25P03",
    "25P04",
    "0A000",  # the result of a prepared statement has another form: somebody has changed the tables
    "26000",  # a prepared statement is gone
)  # gone, starting, a standby
_REFUSED_STATES = ("53", "57014", "58", "42", "3F000", "XX")


def failure_of(error: BaseException) -> Failure:
    state = getattr(error, "sqlstate", None)
    if isinstance(error, StoreUnusable | psycopg.errors.DivisionByZero):  # another store; fenced (`lane._MARK`)
        return Failure.LOST
    if isinstance(error, _AGAIN):
        return Failure.AGAIN
    if state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Failure.LOST
    if state is not None and state.startswith(_LOST_STATES):
        return Failure.LOST
    if state is not None and state.startswith(_REFUSED_STATES):
        return Failure.REFUSED
    return Failure.BUG


def told(error: BaseException, name: str, place: str) -> HeadraceError:
    """The error for who asked for `name`; nothing was changed."""
    state = getattr(error, "sqlstate", None)
    if isinstance(error, psycopg.DataError):  # whoever tries that again tries for ever
        return InvalidParameter(name, "a text or number", f"a PostgreSQL store cannot keep it: {_line(error)}")
    if isinstance(error, StoreUnusable):
        return Unavailable(str(error))
    if isinstance(error, CatalogMoved):
        return Unavailable(f"queues at {place} are changed faster than {name} comes to its turn; try again")
    if not isinstance(error, psycopg.Error):
        return Unavailable(f"an error of headrace itself in {name}, nothing was changed: {error!r}")
    if state == "53100":
        return StoreFull(place)
    if state == "57014":
        return Unavailable(f"the database at {place} took too long (statement_timeout); try again")
    if state is not None and state.startswith(("42", "3F000")):
        return Unavailable(f"{place}: {_line(error)}; see `headrace store check`")
    return Unavailable(f"the database at {place} cannot be used now: {_line(error)}; see `headrace store check`")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).removesuffix(_ASKED_BY_LIBPQ)[:300] or type(error).__name__


class Complaints:
    """Log lines about what fails: of each kind one a minute, however many requests it concerns. Thread-safe."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._told: dict[tuple[str, str], float] = {}  # there are as many kinds as errors of PostgreSQL
        self._untold: dict[tuple[str, str], int] = {}
        self._away = False
        self._lock = Lock()

    def tell(self, action: str, text: str, error: BaseException) -> None:
        """Write a line, unless one of the kind was written less than a minute ago."""
        kind = (action, getattr(error, "sqlstate", None) or type(error).__name__)
        with self._lock:
            now = self._now_s()
            if now < self._told.get(kind, -COMPLAIN_EACH_S) + COMPLAIN_EACH_S:
                self._untold[kind] = self._untold.get(kind, 0) + 1
                return
            self._told[kind], untold = now, self._untold.pop(kind, 0)
            self._away = self._away or action == AWAY
        known = isinstance(error, psycopg.Error | StoreError | CatalogMoved)
        more = f"; {untold} more since the last such line" if untold else ""
        log.error("%s: %s%s", text, _line(error), more, extra={"action": action}, exc_info=None if known else error)

    def tell_back(self, place: str) -> None:
        """A connection is there again: a line for each that told of a loss, however many connections there are."""
        with self._lock:
            told, self._away = self._away, False
        if told:
            log.info("connected to %s again", place, extra={"action": "store.back"})
