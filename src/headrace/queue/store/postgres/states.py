"""State and fences: values under names, who owns a name; and how a value is locked that may not be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, LiteralString, TypeAlias

from headrace.queue.operations import Fence, GetState
from headrace.queue.store.checks import check_limit
from headrace.queue.store.postgres.arrays import Blobs, Texts
from headrace.queue.store.postgres.transaction import Cursor, Transaction

# A key that is absent is locked by a row without a value, which is gone again (`unlock`, `put`) before the commit. The
# update that never happens locks the row that is there; unlike DO NOTHING, it does so whoever deletes that meanwhile.
_LOCK: Final[LiteralString] = """
INSERT INTO state AS s (name, key) SELECT name, key FROM unnest(%s, %s) AS wanted (name, key)
ON CONFLICT (name, key) DO UPDATE SET value = s.value WHERE false
"""
_VALUES: Final[LiteralString] = """
SELECT s.name, s.key, s.value FROM unnest(%s, %s) AS wanted (name, key) JOIN state s USING (name, key)
"""
_PUT: Final[LiteralString] = """
INSERT INTO state (name, key, value) SELECT name, key, value FROM unnest(%s, %s, %s) AS put (name, key, value)
ON CONFLICT (name, key) DO UPDATE SET value = excluded.value
"""
_DELETE: Final[LiteralString] = (
    "DELETE FROM state s USING unnest(%s, %s) AS gone (name, key) WHERE s.name = gone.name AND s.key = gone.key"
)
_GET: Final[LiteralString] = """
SELECT key, value FROM state
WHERE name = %(name)s AND key >= %(prefix)s AND key > %(after)s AND (%(end)s::bytea IS NULL OR key < %(end)s)
ORDER BY key LIMIT %(limit)s
"""
_FENCE: Final[LiteralString] = (
    "INSERT INTO fence AS f VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET epoch = f.epoch + 1 RETURNING epoch"
)

Place: TypeAlias = tuple[str, bytes]
"""Where a value stands: (name, key)."""


def lock(tx: Transaction, places: Sequence[Place]) -> Cursor:
    """Keep everybody from changing these values, also those that are absent. The rows: (name, key, value or None)."""
    columns = _columns(places)
    tx.execute(_LOCK, columns)
    return tx.execute(_VALUES, columns)


def unlock(tx: Transaction, absent: Iterable[Place]) -> None:
    """Leave nothing of the locks of absent values."""
    gone = sorted(absent)
    if gone:
        tx.execute(_DELETE, _columns(gone))


def put(tx: Transaction, values: Mapping[Place, bytes | None]) -> None:
    """Let these values stand at their places from now on; None: nothing."""
    if not values:
        return
    tx.wrote()
    unlock(tx, [place for place, value in values.items() if value is None])
    places = sorted(place for place, value in values.items() if value is not None)
    if places:
        tx.execute(_PUT, (*_columns(places), Blobs([values[place] for place in places])))
        tx.ready.update(places)


def _columns(places: Sequence[Place]) -> tuple[Texts, Blobs]:
    return Texts([name for name, _ in places]), Blobs([key for _, key in places])


def get_state(tx: Transaction, operation: GetState) -> list[tuple[bytes, bytes]]:
    check_limit(operation.limit)
    wanted = {
        "name": operation.name,
        "prefix": operation.prefix,
        "after": operation.after,
        "end": _end_of(operation.prefix),
        "limit": operation.limit,
    }
    return tx.execute(_GET, wanted).fetchall()


def _end_of(prefix: bytes) -> bytes | None:
    """The first key behind all that start with the prefix; None: there is no such key."""
    start = prefix.rstrip(b"\xff")
    return start[:-1] + bytes([start[-1] + 1]) if start else None


def fence(tx: Transaction, operation: Fence) -> int:
    row = tx.execute(_FENCE, (operation.name,)).fetchone()
    assert row is not None
    tx.wrote()
    epoch: int = row[0]
    return epoch
