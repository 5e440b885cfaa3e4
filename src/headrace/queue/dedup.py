"""Deduplication: a dedup id is stored once in five minutes, also after the message is deleted.

The memory of ids is five-minute generations cut into one-minute slices that are dropped whole: no timer an id.
Source: SQS, "Exactly-once processing".
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from headrace.queue import limits
from headrace.queue.model import QueueSettings, Sent

_packed: Final = struct.Struct(">QQ16s")


def dedup_key(settings: QueueSettings, *, group: str, dedup_id: str | None, body: bytes) -> str | None:
    """What must be unique: the id, or the SHA-256 of the body where the queue deduplicates by content; in the group's
    scope if the queue says so. None: the caller gave no id and the queue makes none."""
    if dedup_id is None:
        if not settings.content_dedup:
            return None
        dedup_id = content_id(body)
    return f"{group}\0{dedup_id}" if settings.dedup_scope == "messageGroup" else dedup_id


def content_id(body: bytes) -> str:
    """The dedup id of a body, attributes left out: its SHA-256 in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


class DedupWindow:
    """The dedup keys of one queue and the message that each first named: about 200 bytes a key."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: dict[int, dict[bytes, bytes]] = {}  # minute of expiry -> digest of key -> packed (expiry, sent)

    def find(self, key: str, now: int) -> Sent | None:
        """The first message with this key, if its five minutes are not over."""
        digest = _digest(key)
        for keys in self._slices.values():
            found = keys.get(digest)
            if found is not None:
                expires_ms, seq, id_bytes = _packed.unpack(found)
                if expires_ms > now:
                    return Sent(id_bytes, seq)
        return None

    def add(self, key: str, sent: Sent, expires_ms: int) -> None:
        keys = self._slices.setdefault(expires_ms // limits.MINUTE_MS, {})
        keys[_digest(key)] = _packed.pack(expires_ms, sent.seq, sent.id)

    def remove(self, key: str) -> None:
        """Forget a key whose message was not stored after all."""
        for keys in self._slices.values():
            keys.pop(_digest(key), None)

    def expire(self, now: int) -> None:
        for minute in [minute for minute in self._slices if (minute + 1) * limits.MINUTE_MS <= now]:
            del self._slices[minute]

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._slices.values())


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
