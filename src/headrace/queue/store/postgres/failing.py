"""What an error of the database means, and what to tell who asked."""

from __future__ import annotations

from enum import Enum

import psycopg

from headrace.errors import StoreError, StoreFull, StoreUnusable, Unavailable


class Failure(Enum):
    """What can be done about an error."""

    AGAIN = "the transaction is rolled back, through nobody's fault: run it again"
    LOST = "the connection is of no use any more"
    REFUSED = "the transaction is rolled back, and would be again"
    BUG = "no error that a running database gives"


_AGAIN = (
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
)  # gone, starting, a standby
_REFUSED_STATES = ("53", "54", "57014", "58", "42501", "42P01", "3F000", "XX")


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


def told(error: BaseException, name: str, place: str) -> StoreError:
    """The error for who asked for `name`; nothing was changed."""
    state = getattr(error, "sqlstate", None)
    if isinstance(error, StoreUnusable):
        return Unavailable(str(error))
    if not isinstance(error, psycopg.Error):
        return Unavailable(f"an error of headrace itself in {name}, nothing was changed: {error!r}")
    if state == "53100":
        return StoreFull(place)
    if state == "57014":
        return Unavailable(f"the database at {place} took too long (statement_timeout); try again")
    if state in ("42501", "42P01", "3F000"):
        return Unavailable(f"{place}: {_line(error)}; see `headrace store check`")
    return Unavailable(f"the database at {place} cannot be used now: {_line(error)}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
