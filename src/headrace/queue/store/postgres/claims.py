"""Claims: ready messages bound to a reader's number, so that the reader may read them again.

    reader   up to which number its claims are acknowledged      a row a reader
    claim    the messages of one number, in their order          a row an open claim

A reader's numbers are decided by its row: whoever binds the next number shares it; whoever acknowledges changes no key of
it, so a batch is claimed while the one before is committed; whoever releases has it alone. Of two that bind the same
number, the second waits at the first one's row of `claim`, and then reads what that has bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, LiteralString, TypeAlias

import msgspec

from headrace.errors import CallerError, ClaimRefused
from headrace.queue.model import ClaimState, Message
from headrace.queue.operations import AcknowledgeClaims, Claim, GetClaims, Operation, ReleaseClaims
from headrace.queue.store.checks import check_limit
from headrace.queue.store.postgres import binding, groups, rows
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.transaction import Answers, Cursor, Transaction, answer

_ALL: Final = (1 << 63) - 1  # up to any number
_LOOKS_MAX: Final = 20  # each further one means that somebody else has changed the reader in between

_STATE: Final[LiteralString] = """
SELECT asked.queue, asked.name, coalesce(r.acknowledged, 0),
    (SELECT max(c.number) FROM claim c WHERE c.queue = asked.queue AND c.reader = asked.name)
FROM unnest(%s, %s) AS asked (queue, name) LEFT JOIN reader r USING (queue, name)
"""
# Without the claim there is no row; without any of its messages (a purge), one without a message. Whoever reads them puts
# them in order: to sort rows with bodies, the database would write them to a disk. LIMIT 1, here and below: a plan that is
# made while the tables are empty would else look through the whole queue for each of them.
_READ: Final[LiteralString] = (
    "SELECT "  # noqa: S608 - our own columns
    + rows.COLUMNS
    + """, bound.place FROM claim c
LEFT JOIN LATERAL unnest(c.seqs) WITH ORDINALITY AS bound (seq, place) ON true
LEFT JOIN LATERAL (
    SELECT * FROM message found
    WHERE found.queue = c.queue AND found.seq = bound.seq AND found.seq >= %s LIMIT 1
) m ON true
WHERE c.queue = %s AND c.reader = %s AND c.number = %s
"""
)
_ENTER: Final[LiteralString] = "INSERT INTO reader (queue, name) VALUES (%s, %s) ON CONFLICT DO NOTHING"
_SHARE: Final[LiteralString] = "SELECT true FROM reader WHERE queue = %s AND name = %s FOR KEY SHARE"
_OPEN: Final[LiteralString] = (
    "INSERT INTO claim (queue, reader, number) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING true"
)
_BEFORE: Final[LiteralString] = """
SELECT greatest(r.acknowledged, (
    SELECT max(c.number) FROM claim c WHERE c.queue = r.queue AND c.reader = r.name AND c.number < %(number)s
)) FROM reader r WHERE r.queue = %(queue)s AND r.name = %(reader)s
"""
_BIND: Final[LiteralString] = "UPDATE claim SET seqs = %s WHERE queue = %s AND reader = %s AND number = %s"
_CANCEL: Final[LiteralString] = "DELETE FROM claim WHERE queue = %s AND reader = %s AND number = %s"
_LOCK: Final[LiteralString] = """
SELECT true FROM unnest(%s, %s) AS asked (queue, name) JOIN reader r USING (queue, name)
ORDER BY r.queue, r.name FOR NO KEY UPDATE OF r
"""
_ALONE: Final[LiteralString] = """
SELECT true FROM unnest(%s, %s) AS asked (queue, name) JOIN reader r USING (queue, name)
ORDER BY r.queue, r.name FOR UPDATE OF r
"""
_GROUPS: Final[LiteralString] = """
SELECT DISTINCT m.queue, m.grp FROM unnest(%s, %s, %s) AS done (queue, reader, number)
JOIN claim c ON c.queue = done.queue AND c.reader = done.reader AND c.number <= done.number
CROSS JOIN LATERAL unnest(c.seqs) AS bound (seq) CROSS JOIN LATERAL (
    SELECT found.queue, found.grp FROM message found WHERE found.queue = c.queue AND found.seq = bound.seq LIMIT 1
) m
"""
_NOTE: Final[LiteralString] = """
UPDATE reader r SET acknowledged = done.number FROM unnest(%s, %s, %s) AS done (queue, name, number)
WHERE r.queue = done.queue AND r.name = done.name
"""
_DELETE: Final[LiteralString] = """
WITH settled AS (
    DELETE FROM claim c USING unnest(%s, %s, %s) AS done (queue, reader, number)
    WHERE c.queue = done.queue AND c.reader = done.reader AND c.number <= done.number RETURNING c.queue, c.seqs
), gone AS (
    DELETE FROM message m USING (SELECT queue, unnest(seqs) AS seq FROM settled) AS bound
    WHERE m.queue = bound.queue AND m.seq = bound.seq RETURNING m.queue, m.seq
)
SELECT q.id, count(*) FROM gone JOIN queue q ON q.id = gone.queue AND gone.seq >= q.floor GROUP BY q.id
"""
_FORGET: Final[LiteralString] = "DELETE FROM reader WHERE queue = %s AND name = %s RETURNING true"
_RELEASE: Final[LiteralString] = """
WITH released AS (DELETE FROM claim WHERE queue = %(queue)s AND reader = %(reader)s RETURNING queue, seqs)
UPDATE message m SET visible_ms = CASE WHEN m.receives = 0 AND m.due_ms IS NULL THEN 0 ELSE %(now)s END
FROM (SELECT queue, unnest(seqs) AS seq FROM released) AS bound WHERE m.queue = bound.queue AND m.seq = bound.seq
"""

Reader: TypeAlias = tuple[int, str]
"""(number of a queue, the reader's name)."""


# --- claiming ---


class Look(msgspec.Struct):
    """What is asked before anything is locked: most claims need no more."""

    queue: StoredQueue
    state: Cursor
    ready: Cursor


def claim(tx: Transaction, operations: Sequence[Claim]) -> Answers:
    looks = [answer(_look, tx, operation) for operation in operations]
    yield
    return [
        _claim(tx, operation, look) if isinstance(look, Look) else look
        for look, operation in zip(looks, operations, strict=True)
    ]


def _look(tx: Transaction, operation: Claim) -> Look:
    queue = tx.catalog.queue(operation.queue)
    check_limit(operation.limit)
    return Look(queue, _ask(tx, [(queue.number, operation.reader)]), binding.look(tx, queue, operation.reader))


def _claim(tx: Transaction, operation: Claim, look: Look) -> list[Message] | CallerError:
    for _ in range(_LOOKS_MAX):
        try:
            outcome = _try(tx, operation, look)
        except CallerError as error:
            return error
        if outcome is not None:
            return outcome
        look = _look(tx, operation)
    return []


def _try(tx: Transaction, operation: Claim, look: Look) -> list[Message] | None:
    """None: somebody has changed the reader meanwhile."""
    queue, number = look.queue, operation.number
    (state,) = states(look.state).values()
    if state.acknowledged < number <= state.last:
        return _read(tx, queue, operation)
    if number != state.last + 1:
        open_ = f"open are {state.acknowledged + 1} to {state.last}, next is {state.last + 1}"
        raise ClaimRefused(queue.arn, operation.reader, f"number {number}; {open_}")
    first_size = binding.first_size(look.ready)
    if first_size is None:
        tx.empty.add(queue.number)
        return []
    return _bind(tx, queue, operation, first_size)


def _read(tx: Transaction, queue: StoredQueue, operation: Claim) -> list[Message] | None:
    """The messages of an open claim; None: it is open no more."""
    claimed = queue.floor, queue.number, operation.reader, operation.number
    found = tx.execute(_READ, claimed).fetchall()
    return rows.in_order(row for row in found if row[0] is not None) if found else None


def _bind(tx: Transaction, queue: StoredQueue, operation: Claim, first_size: int) -> list[Message] | None:
    key = queue.number, operation.reader, operation.number
    if not _open(tx, key):
        return None
    bound = binding.bind(
        tx, queue, operation.reader, limit=operation.limit, bytes_max=operation.bytes_max, first_size=first_size
    )
    if not bound:  # no claim is made: the same number binds later
        tx.execute(_CANCEL, key)
        tx.empty.add(queue.number)
        return []
    tx.execute(_BIND, (Ints([message.seq for message in bound]), *key))
    tx.wrote()
    tx.count(queue.number, "received", len(bound))
    return bound


def _open(tx: Transaction, key: tuple[int, str, int]) -> bool:
    """Make the claim, without messages as yet; False: look again, the number is somebody else's or not the next any more."""
    queue, reader, number = key
    tx.wrote(durable=False)
    shared = tx.execute(_SHARE, (queue, reader))
    opened = tx.execute(_OPEN, key)
    before = tx.execute(_BEFORE, {"queue": queue, "reader": reader, "number": number})
    is_known, is_own = shared.fetchone() is not None, opened.fetchone() is not None
    if is_known and is_own and before.fetchone() == (number - 1,):
        return True
    if is_own:
        tx.execute(_CANCEL, key)
    if not is_known:  # its first claim; an insert in any case would wait for whoever acknowledges
        tx.execute(_ENTER, (queue, reader))
    return False


# --- what is claimed ---


def ask(tx: Transaction, readers: Iterable[Reader]) -> Cursor:
    """Ask for what `states` reads, after nobody else can acknowledge these readers' claims any more."""
    wanted = sorted(set(readers))
    tx.execute(_LOCK, _columns(wanted))
    return _ask(tx, wanted)


def states(cursor: Cursor) -> dict[Reader, ClaimState]:
    """Up to where each reader's claims are acknowledged, and are made."""
    return {
        (queue, name): ClaimState(acknowledged, max(last or 0, acknowledged))
        for queue, name, acknowledged, last in cursor.fetchall()
    }


def check_acknowledge(arn: str, reader: str, number: int, state: ClaimState) -> None:
    """Raise ClaimRefused for a number that was never claimed."""
    if not 0 <= number <= state.last:
        raise ClaimRefused(arn, reader, f"number {number} was never claimed; the last is {state.last}")


def groups_of(tx: Transaction, done: Mapping[Reader, int]) -> Cursor:
    """Ask for the groups of the messages of claims up to a number, of FIFO queues: they are to be locked before `acknowledge`,
    and settled after it. Until the commit nobody claims for these readers."""
    readers = sorted(done)
    tx.execute(_ALONE, _columns(readers))
    return tx.execute(_GROUPS, (*_columns(readers), Ints([min(done[reader], _ALL) for reader in readers])))


def named_by(tx: Transaction, operations: Sequence[Operation]) -> list[groups.Group]:
    """The groups of FIFO queues that operations acknowledge or release claims in; until the commit nobody else does, nor
    claims for these readers."""
    done: dict[Reader, int] = {}
    for one in operations:
        if isinstance(one, AcknowledgeClaims | ReleaseClaims):
            queue = tx.catalog.queues.get(one.queue)
            if queue is not None and queue.info.settings.fifo:
                number = one.number if isinstance(one, AcknowledgeClaims) else _ALL
                key = queue.number, one.reader
                done[key] = max(number, done.get(key, 0))
    return groups_of(tx, done).fetchall() if done else []


def acknowledge(tx: Transaction, done: Mapping[Reader, int]) -> Cursor | None:
    """Delete the messages of these readers' claims up to a number. The rows are for `count_deleted`."""
    if not done:
        return None
    tx.wrote()
    readers = sorted(done)
    columns = (*_columns(readers), Ints([done[reader] for reader in readers]))
    tx.execute(_NOTE, columns)
    return tx.execute(_DELETE, columns)


def count_deleted(tx: Transaction, cursor: Cursor | None) -> None:
    for queue, deleted in cursor.fetchall() if cursor is not None else ():
        tx.count(queue, "deleted", deleted)


def get_claims(tx: Transaction, operation: GetClaims) -> ClaimState:
    (state,) = states(_ask(tx, [(tx.catalog.queue(operation.queue).number, operation.reader)])).values()
    return state


def acknowledge_claims(tx: Transaction, operation: AcknowledgeClaims) -> ClaimState:
    queue = tx.catalog.queue(operation.queue)
    reader, number = (queue.number, operation.reader), operation.number
    (state,) = states(ask(tx, [reader])).values()
    check_acknowledge(queue.arn, operation.reader, number, state)
    if number <= state.acknowledged:
        return state
    touched = _touched(tx, queue, {reader: number})  # as in `release_claims`
    groups.lock(tx, touched)
    count_deleted(tx, acknowledge(tx, {reader: number}))
    groups.settle(tx, touched)
    return ClaimState(number, state.last)


def release_claims(tx: Transaction, operation: ReleaseClaims) -> None:
    queue = tx.catalog.queue(operation.queue)
    if tx.execute(_FORGET, (queue.number, operation.reader)).fetchone() is None:
        return
    # Only now: a reader's first claim may have been committed a moment ago, and its groups must be settled.
    touched = _touched(tx, queue, {(queue.number, operation.reader): _ALL})
    groups.lock(tx, touched)
    tx.execute(_RELEASE, {"queue": queue.number, "reader": operation.reader, "now": tx.now})
    groups.settle(tx, touched)
    tx.wrote()
    tx.ready.add(queue.number)


def _touched(tx: Transaction, queue: StoredQueue, done: Mapping[Reader, int]) -> list[groups.Group]:
    return groups_of(tx, done).fetchall() if queue.info.settings.fifo else []


def _ask(tx: Transaction, readers: Sequence[Reader]) -> Cursor:
    return tx.execute(_STATE, _columns(readers))


def _columns(readers: Sequence[Reader]) -> tuple[Ints, Texts]:
    return Ints([queue for queue, _ in readers]), Texts([name for _, name in readers])
