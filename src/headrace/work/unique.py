"""Unique locks: at most one task of a key is queued or runs. Pure but for what it reads.

A lock is a row; taking it is a put that expects what was read, in the commit that sends the task, so of two senders one
wins. It is released in the commit that settles the task, and only by its owner. One that outlived its task, by accident or
because it is held until its `ttl`, ends at its time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from headrace.work import keys
from headrace.work.admission import Read
from headrace.work.dispatch import Sendable
from headrace.work.envelope import Envelope


class Lock(msgspec.Struct, frozen=True):
    """The row of a lock: whose it is and when it ends by itself."""

    id: str
    expires_ms: int


@dataclass(slots=True)
class Change:
    """Rows that a commit writes, and what they must be before."""

    puts: dict[bytes, bytes | None] = field(default_factory=dict)
    expects: dict[bytes, bytes | None] = field(default_factory=dict)


_decoder = msgspec.json.Decoder(Lock)


def claim(dispatch: Sendable, *, now_ms: int, read: Read) -> Change | str:
    """What to write with the send; or the id of the task that holds the lock."""
    unique = dispatch.unique
    if unique is None:
        return Change()
    key = keys.unique_lock(unique.key)
    stored = read(key)
    held = _decoder.decode(stored) if stored is not None else None
    if held is not None and held.expires_ms > now_ms and held.id != dispatch.id:
        return held.id
    expires_ms = now_ms + dispatch.delay_ms + dispatch.ttl_ms
    change = Change({key: msgspec.json.encode(Lock(dispatch.id, expires_ms))}, {key: stored})
    if held is not None:
        change.puts[keys.expiry(held.expires_ms, key)] = None
    change.puts[keys.expiry(expires_ms, key)] = b""  # after the other: it may be the same row
    return change


def is_redriven(envelope: Envelope) -> bool:
    """Whether it comes from the dead letters and had given its lock back when it went there."""
    held = envelope.unique is not None and envelope.unique.until == "finished"
    return held and envelope.attempt == 0 and bool(envelope.history)


def release(envelope: Envelope, *, read: Read) -> Change:
    """What to write when the task no longer needs its lock. Nothing if somebody else has it now, or if it is held for a time."""
    if envelope.unique is None or envelope.unique.until == "ttl":
        return Change()
    key = keys.unique_lock(envelope.unique.key)
    stored = read(key)
    if stored is None:
        return Change()
    held = _decoder.decode(stored)
    if held.id != envelope.id:
        return Change()
    return Change({key: None, keys.expiry(held.expires_ms, key): None}, {key: stored})
