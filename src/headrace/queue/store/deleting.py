"""Rows of messages that go: deleted ones, those of purged queues, bodies of topics that nobody refers to."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from typing import Any

import apsw

from headrace.queue.store.disk import Key, Trimmed, key_of, seq_of


def delete(db: apsw.Connection, keys: Collection[Key]) -> None:
    """Delete in the transaction that is open: runs of keys as ranges, the rest as one list; in order of arrival a thousand
    deletes are one range."""
    ordered = sorted(keys)
    first = ordered[0]
    if ordered[-1] - first == len(ordered) - 1:
        db.execute("DELETE FROM message WHERE key BETWEEN ? AND ?", (first, ordered[-1]))
    else:
        db.execute("DELETE FROM message WHERE key IN carray(?)", (apsw.carray(array("q", ordered)),))


def sweep(db: apsw.Connection, limit: int) -> bool:
    """Delete a slice of the purged rows, in a commit; whether there may be more."""
    row = db.execute("SELECT id, first, last FROM garbage ORDER BY id LIMIT 1").fetchone()
    if row is None:
        return False
    number, first, last = row
    with db:
        db.execute(
            "DELETE FROM message WHERE key IN (SELECT key FROM message WHERE key BETWEEN ? AND ? LIMIT ?)",
            (first, last, limit),
        )
        if db.changes() < limit:
            db.execute("DELETE FROM garbage WHERE id = ?", (number,))
    return True


def trim(db: apsw.Connection, topic: int, *, after: int, before: int, limit: int) -> Trimmed:
    """See Disk.trim. By the references in order, from their index alone: what lies between two of them nobody needs. Rows
    that are needed, with their bodies, are not touched."""
    low, high = key_of(topic, after) + 1, key_of(topic, before) - 1
    references: list[Any] = db.execute(
        "SELECT body FROM message WHERE typeof(body) = 'integer' AND body BETWEEN ? AND ? ORDER BY body LIMIT ?",
        (low, high, limit),
    ).fetchall()
    end = references[-1][0] if len(references) == limit else high
    gone = _between(db, low, [key for (key,) in references], end, limit)
    if len(gone) == limit:
        end = gone[-1]
    if gone:
        with db:
            delete(db, gone)
    return Trimmed(len(gone), len(references), seq_of(end), more=end < high)


def _between(db: apsw.Connection, low: Key, needed: list[Key], end: Key, limit: int) -> list[Key]:
    """The first `limit` keys of rows from `low` to `end` that are not among the `needed` ones, which are sorted."""
    found: list[Key] = []
    before = low - 1
    for needed_key in (*needed, end + 1):
        if needed_key - before > 1 and len(found) < limit:
            rows = db.execute(
                "SELECT key FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?",
                (before + 1, needed_key - 1, limit - len(found)),
            )
            found += [key for (key,) in rows]
        before = needed_key
    return found
