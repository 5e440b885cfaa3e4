"""Receives under an attempt id: whoever repeats it within five minutes, at whichever node, is answered the same deliveries.

An attempt's row is its lock: a repeat that comes while the first is under way waits for its commit. The answer is repeated
only while every one of its leases is as it was; otherwise the attempt is over, and its id begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, LiteralString, TypeAlias

import msgspec

from headrace.errors import InvalidParameter
from headrace.queue import limits
from headrace.queue.model import ID
from headrace.queue.store.postgres import fifo, groups
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.leasing import RETURNING, THESE, Wish, delivery_of, these
from headrace.queue.store.postgres.transaction import Transaction

Key: TypeAlias = tuple[int, str]
"""A queue's number, the id of an attempt."""

# The update that never happens locks the row that is there.
_LOCK: Final[LiteralString] = """
INSERT INTO attempt AS a (queue, id) SELECT queue, id FROM unnest(%s, %s) AS asked (queue, id)
ON CONFLICT (queue, id) DO UPDATE SET at_ms = a.at_ms WHERE false
"""
_READ: Final[LiteralString] = """
SELECT a.queue, a.id, a.at_ms, a.expires_ms, a.seqs, a.receives
FROM unnest(%s, %s) AS asked (queue, id) JOIN attempt a ON a.queue = asked.queue AND a.id = asked.id
"""
_LEASES: Final[LiteralString] = (
    "SELECT m.seq, m.receives"  # noqa: S608 - our own text, here and below
    + THESE.replace(" FROM", " FROM message m,", 1)
    + " AND m.visible_ms = %(until)s AND m.visible_ms > %(now)s"
)
_EXTEND: Final[LiteralString] = "UPDATE message m SET visible_ms = %(until)s" + THESE + RETURNING  # noqa: S608
_KEEP: Final[LiteralString] = (
    "UPDATE attempt SET at_ms = %s, expires_ms = %s, seqs = %s, receives = %s WHERE queue = %s AND id = %s"
)
_FORGET: Final[LiteralString] = "DELETE FROM attempt WHERE queue = %s AND id = %s"


class Attempt(msgspec.Struct):
    """What an attempt was given: messages, and which of their receives that was. `at_ms` 0: nothing."""

    at_ms: int = 0
    expires_ms: int = 0
    seqs: list[int] = []
    receives: list[int] = []


def check(wish: Wish) -> None:
    """Raise unless this queue takes this attempt id."""
    id_ = wish.attempt_id
    if id_ is None:
        return
    if not wish.queue.info.settings.fifo:
        raise InvalidParameter("ReceiveRequestAttemptId", id_[:200], "only a FIFO queue has it")
    if not ID.fullmatch(id_):
        reason = "1 to 128 alphanumeric and punctuation characters"
        raise InvalidParameter("ReceiveRequestAttemptId", id_[:200], reason)


def run_all(tx: Transaction, wishes: Sequence[Wish]) -> None:
    """Give the wishes, which have attempt ids, what they were given before, or anew. Before any other receive: ids are locked
    before groups, and the groups of all that may be repeated together, so that nodes do not deadlock."""
    if not wishes:
        return
    tx.check()
    known = _lock(tx, sorted({_key(wish) for wish in wishes}))
    _lock_groups(tx, known)
    repeated: set[groups.Group] = set()
    for wish in wishes:
        if _repeat(tx, wish, known[_key(wish)]):
            repeated.update((wish.queue.number, one.message.group or "") for one in wish.deliveries)
        else:
            fifo.run_all(fifo.sorted_out(tx, [wish]))
            known[_key(wish)] = _made(tx, wish)
    for key, attempt in known.items():
        if attempt.at_ms:
            tx.execute(_KEEP, (attempt.at_ms, attempt.expires_ms, Ints(attempt.seqs), Ints(attempt.receives), *key))
        else:
            tx.execute(_FORGET, key)
    groups.settle(tx, repeated, hidden=True)


def _lock_groups(tx: Transaction, known: Mapping[Key, Attempt]) -> None:
    """Lock the groups of what attempts were given that may be repeated."""
    seqs = [(queue, seq) for (queue, _), one in known.items() if _is_open(tx, one) for seq in one.seqs]
    if seqs:
        groups.lock_of(tx, sorted(seqs))
        tx.holding = True


def _is_open(tx: Transaction, attempt: Attempt) -> bool:
    return attempt.at_ms + limits.ATTEMPT_MS > tx.now


def _key(wish: Wish) -> Key:
    assert wish.attempt_id is not None
    return wish.queue.number, wish.attempt_id


def _lock(tx: Transaction, keys: Sequence[Key]) -> dict[Key, Attempt]:
    columns = Ints([queue for queue, _ in keys]), Texts([id_ for _, id_ in keys])
    tx.execute(_LOCK, columns)
    return {(queue, id_): Attempt(*one) for queue, id_, *one in tx.execute(_READ, columns).fetchall()}


def _made(tx: Transaction, wish: Wish) -> Attempt:
    given = wish.deliveries
    if not given:
        return Attempt()
    receives = [one.receives - one.message.receives for one in given]
    return Attempt(tx.now, tx.now + wish.visibility_ms, [one.message.seq for one in given], receives)


def _repeat(tx: Transaction, wish: Wish, attempt: Attempt) -> bool:
    """Give what was given before, its visibility begun anew; False: nothing was, or something of it has changed."""
    if not _is_open(tx, attempt):
        return False
    known = these(wish.queue, attempt.seqs)
    held = {**known, "until": attempt.expires_ms, "now": tx.now}
    leases: dict[int, int] = dict(tx.execute(_LEASES, held).fetchall())
    if leases != dict(zip(attempt.seqs, attempt.receives, strict=True)):
        return False
    attempt.expires_ms = tx.now + wish.visibility_ms
    found = tx.execute(_EXTEND, {**known, "until": attempt.expires_ms}).fetchall()
    deliveries = {row[0]: delivery_of(wish.queue, row) for row in found}
    wish.deliveries = [deliveries[seq] for seq in attempt.seqs]
    tx.wrote()
    return True
