"""Deduplication in FIFO queues: the first of messages with the same key is stored, for five minutes, on any node; a purge of the
queue ends them.

The key's row is the lock: who comes second with a key waits for the first one's commit, and is then a duplicate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, LiteralString, TypeAlias

from headrace.queue import limits
from headrace.queue.model import Entry, QueueSettings, Sent
from headrace.queue.store.checks import dedup_key_of
from headrace.queue.store.postgres.arrays import Blobs, Ints
from headrace.queue.store.postgres.transaction import Transaction

Key: TypeAlias = tuple[int, bytes]
"""A queue's number, the digest of a dedup key in it."""

_FIND: Final[LiteralString] = """
SELECT d.queue, d.key, d.id, d.seq FROM unnest(%s, %s) AS asked (queue, key)
JOIN dedup d ON d.queue = asked.queue AND d.key = asked.key
"""
_REMEMBER: Final[LiteralString] = """
INSERT INTO dedup AS d (queue, key, expires_ms, seq, id)
SELECT queue, key, %s, seq, id FROM unnest(%s, %s, %s, %s) AS entry (queue, key, seq, id) ORDER BY queue, key
ON CONFLICT (queue, key) DO UPDATE SET expires_ms = excluded.expires_ms, seq = excluded.seq, id = excluded.id
    WHERE d.expires_ms <= %s
RETURNING d.queue, d.key
"""


def digest_of(settings: QueueSettings, entry: Entry) -> bytes:
    """What stands for the entry's dedup key: 128 bits. Raises if it has no group or no dedup id."""
    return hashlib.blake2b(dedup_key_of(settings, entry).encode(), digest_size=16).digest()


def originals(tx: Transaction, keys: Sequence[Key]) -> dict[Key, Sent]:
    """What was stored first with these keys."""
    ones = sorted(set(keys))
    columns = Ints([queue for queue, _ in ones]), Blobs([key for _, key in ones])
    rows = tx.execute(_FIND, columns).fetchall() if ones else []
    return {(queue, bytes(key)): Sent(bytes(id_), seq, duplicate=True) for queue, key, id_, seq in rows}


def remember(tx: Transaction, firsts: Mapping[Key, Sent]) -> set[Key]:
    """Let these keys name what is about to be stored. Returns those that are new: the others name something already."""
    keys, sent = list(firsts), list(firsts.values())
    columns = (
        Ints([queue for queue, _ in keys]), Blobs([key for _, key in keys]), Ints([one.seq for one in sent]),
        Blobs([one.id for one in sent]),
    )  # fmt: skip
    found = tx.execute(_REMEMBER, (tx.now + limits.DEDUP_MS, *columns, tx.now)).fetchall()
    return {(queue, bytes(key)) for queue, key in found}
