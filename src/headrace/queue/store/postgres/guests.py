"""Transactions of guests: applications that send and acknowledge in a transaction of their own, on a connection of their own.

It runs the very functions that a node's lane runs, so it checks, orders and deduplicates as a broker does. What it sets for its
statements (where tables are, how they are found) it sets back before it returns: the guest's own statements go on as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final, LiteralString

import psycopg

from headrace.errors import CallerError, InvalidParameter, StoreUnusable, Unavailable
from headrace.queue.operations import Transact, TransactOutcome
from headrace.queue.store.postgres import families, news, schema, totals
from headrace.queue.store.postgres.catalog import Catalog, read
from headrace.queue.store.postgres.connecting import BY_INDEX, Executes
from headrace.queue.store.postgres.known import Known
from headrace.queue.store.postgres.transaction import CatalogMoved, Transaction

NODE: Final = "guest"  # no node's name: all of them hear what a guest tells
READS_MAX: Final = 20  # of a catalogue that others keep changing meanwhile

_NAMES: Final[tuple[LiteralString, ...]] = ("search_path", *BY_INDEX)
_BEFORE: Final[LiteralString] = ", ".join(f"current_setting('{name}') AS {name}" for name in _NAMES)
_SET: Final[LiteralString] = ", ".join(
    ["set_config('search_path', 'headrace', true)", *[f"set_config('{name}', 'off', true)" for name in BY_INDEX]]
)
# What stood there is read before anything is set: the inner query makes the row that the outer one works on. Of the tables each
# has a row, which the planner need not know: as a join they would seem large enough to compile it, half a second each time.
_ENTER: Final[LiteralString] = (
    "WITH before AS MATERIALIZED (SELECT " + _BEFORE + ")"  # noqa: S608 - our own names
    " SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + (SELECT offset_ms FROM headrace.clock),"
    " (SELECT version FROM headrace.meta), (SELECT secret FROM headrace.meta), (SELECT version FROM headrace.directory),"
    " pg_postmaster_start_time()::text, current_setting('transaction_isolation'), before.*, " + _SET + " FROM before"
)
_SET_BACK: Final[LiteralString] = "SELECT " + ", ".join(f"set_config('{name}', %s, true)" for name in _NAMES)
_LEAVE: Final[LiteralString] = (
    "WITH counted AS ("  # noqa: S608 - our own names
    + totals.TELL_AS_GUEST
    + ") "
    + _SET_BACK
    + ", (SELECT count(pg_notify(%s, payload)) FROM unnest(%s::text[]) AS told (payload))"
)

# The newest catalogue of each store, by its secret (a process has one or two), and since when the server that gave it runs: one
# that has taken its place, or was started again, may have lost the latest changes, and count the next ones by the same numbers.
_known: dict[bytes, tuple[str, Catalog]] = {}
_lock: Final = Lock()


def run(guest: Executes, place: str, operation: Transact, *, wake: bool) -> TransactOutcome:
    """Do it in the guest's transaction: it holds if that commits.

    Args:
        guest: a connection in a transaction.
        place: where it leads, for errors.
        wake: tell all nodes at the commit, whose polls then take what was sent.

    Raises:
        CallerError: it was refused; nothing was written, and the transaction may go on.
        StoreUnusable: no store there, one of another version, or no right to do this.
        Unavailable: a queue or topic is being changed; roll back and try again.
        psycopg.Error: as any statement of the guest's; the transaction must be rolled back.
    """
    try:
        with _entered(guest, place, operation, wake=wake) as tx:
            outcome = families.run_in_order(tx, [operation])[0]
            if isinstance(outcome, CallerError):
                raise outcome
    except CatalogMoved:
        raise Unavailable(
            "the topic was changed at this very moment; roll the transaction back and run it again"
        ) from None
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable):
        raise StoreUnusable(place, "there is no store in this database: run `headrace store init` first") from None
    except psycopg.errors.InsufficientPrivilege as error:
        reason = f"{str(error).splitlines()[0]}: run `headrace store init --outbox-role` for this role"
        raise StoreUnusable(place, reason) from None
    assert isinstance(outcome, TransactOutcome)
    return outcome


@contextmanager
def _entered(guest: Executes, place: str, operation: Transact, *, wake: bool) -> Iterator[Transaction]:
    """The guest's transaction as one of a lane. After an error of the database it is past setting anything back."""
    row = guest.execute(_ENTER).fetchone()
    assert row is not None
    if None in row[:4]:
        raise StoreUnusable(place, "its tables meta, directory and clock are empty: restore it from a backup")
    now, version, secret, directory, server, isolation = row[:6]
    before = row[6 : 6 + len(_NAMES)]
    try:
        schema.check_version(place, version)
        catalog = _catalog(guest, bytes(secret), directory, server)
        _check_isolation(catalog, operation, isolation)
        tx = Transaction(guest, catalog, now, cooldowns=True, known=Known(NODE))
        yield tx
    except psycopg.Error:
        raise
    except BaseException:
        guest.execute(_SET_BACK, before)
        raise
    told = _news(tx) if wake and tx.ready else []
    guest.execute(_LEAVE, (*totals.guest_row(tx), *before, news.CHANNEL, told))


def _check_isolation(catalog: Catalog, operation: Transact, isolation: str) -> None:
    """FIFO rules read what has been committed when a group's lock is had: a stricter transaction would not see it."""
    places = [
        catalog.queues.get(arn) or catalog.topics.get(arn) for arn, _ in [*operation.acknowledge, *operation.sends]
    ]
    if isolation != "read committed" and any(place is not None and place.info.settings.fifo for place in places):
        raise InvalidParameter("isolation level", isolation, "with a FIFO queue it must be READ COMMITTED")


def _catalog(guest: Executes, secret: bytes, version: int, server: str) -> Catalog:
    """The catalogue of this version, or, if others have changed it meanwhile, of a newer one."""
    since, known = _known.get(secret, ("", _none(secret)))
    if since != server:
        known = _none(secret)
    for _ in range(READS_MAX):
        if known.version == version:
            with _lock:
                _known[secret] = server, known
            return known
        known = read(guest, known)
        row = guest.execute("SELECT version FROM directory").fetchone()
        version = row[0] if row is not None else 0
    raise Unavailable(f"queues were changed {READS_MAX} times while they were read; try again")


def _none(secret: bytes) -> Catalog:
    return Catalog(secret, 0, {})


def _news(tx: Transaction) -> list[str]:
    """Sorted, so that a transaction that sends twice to the same queues tells it once."""
    queues = sorted(one for one in tx.ready if isinstance(one, int))
    state = sorted(one for one in tx.ready if not isinstance(one, int))
    return news.payloads(NODE, queues, state, catalog=False)
