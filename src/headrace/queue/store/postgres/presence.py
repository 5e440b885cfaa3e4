"""Who is present at which node: rows that each node writes of its own holders, and the others read. Not logged: a crash of
the database empties the table, and two seconds later it is full again."""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec

from headrace.queue import limits
from headrace.queue.between import ListElsewhere, TellHolders
from headrace.queue.model import HolderState
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.transaction import Transaction

_TELL: Final[LiteralString] = """
INSERT INTO holder (node, told_ms, name, kind, since_ms, seen_ms, leases, facts)
SELECT %s, %s, told.* FROM (
    SELECT name, kind, since_ms, seen_ms, leases, facts::json
    FROM unnest(%s, %s, %s, %s, %s, %s) AS row (name, kind, since_ms, seen_ms, leases, facts) ORDER BY name
) AS told
ON CONFLICT (name, node) DO UPDATE SET told_ms = excluded.told_ms, kind = excluded.kind, since_ms = excluded.since_ms,
    seen_ms = excluded.seen_ms, leases = excluded.leases, facts = excluded.facts
"""
_GONE: Final[LiteralString] = """
DELETE FROM holder h USING unnest(%s, %s) AS gone (name, seen_ms)
WHERE h.name = gone.name AND (h.node = %s OR h.seen_ms <= gone.seen_ms)
"""
_ALL_GONE: Final[LiteralString] = "DELETE FROM holder WHERE node = %s"
_ASK: Final[LiteralString] = """
SELECT DISTINCT name FROM holder h JOIN unnest(%s, %s) AS asked (name, seen_ms) USING (name)
WHERE h.node <> %s AND h.told_ms > %s AND h.seen_ms > asked.seen_ms
"""
_LIST: Final[LiteralString] = """
SELECT DISTINCT ON (name) name, kind, since_ms, seen_ms, leases, facts::text FROM holder
WHERE node <> %s AND told_ms > %s AND %s IN (kind, '') ORDER BY name, seen_ms DESC
"""


def tell_holders(tx: Transaction, operation: TellHolders) -> list[str]:
    if operation.present:
        tx.execute(_TELL, (operation.node, tx.now, *_columns(operation.present)))
    if operation.gone:
        tx.execute(_GONE, (*_seen(operation.gone), operation.node))
    if operation.all_gone:
        tx.execute(_ALL_GONE, (operation.node,))
    tx.wrote(durable=False)
    if not operation.asked:
        return []
    rows = tx.execute(_ASK, (*_seen(operation.asked), operation.node, _fresh(tx))).fetchall()
    return [name for (name,) in rows]


def list_elsewhere(tx: Transaction, operation: ListElsewhere) -> list[HolderState]:
    rows = tx.execute(_LIST, (operation.node, _fresh(tx), operation.kind)).fetchall()
    return [
        HolderState(name, kind, since_ms, seen_ms, leases, msgspec.json.decode(facts))
        for name, kind, since_ms, seen_ms, leases, facts in rows
    ]


def _fresh(tx: Transaction) -> int:
    """What was told later than this is believed."""
    return tx.now - limits.HOLDERS_FRESH_MS


def _seen(names: list[tuple[str, int]]) -> tuple[Texts, Ints]:
    return Texts([name for name, _ in names]), Ints([seen_ms for _, seen_ms in names])


def _columns(holders: list[HolderState]) -> tuple[Texts | Ints, ...]:
    return (
        Texts([one.holder for one in holders]),
        Texts([one.kind for one in holders]),
        Ints([one.since_ms for one in holders]),
        Ints([one.seen_ms for one in holders]),
        Ints([one.leases for one in holders]),
        Texts([msgspec.json.encode(one.facts).decode() for one in holders]),
    )
