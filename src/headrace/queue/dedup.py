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
_DIGEST: Final = "\0"  # no group and no dedup id begins with it


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
        digest = digest_of(key)
        for keys in self._slices.values():
            found = keys.get(digest)
            if found is not None:
                expires_ms, seq, id_bytes = _packed.unpack(found)
                if expires_ms > now:
                    return Sent(id_bytes, seq)
        return None

    def add(self, key: str, sent: Sent, expires_ms: int) -> None:
        keys = self._slices.setdefault(expires_ms // limits.MINUTE_MS, {})
        keys[digest_of(key)] = _packed.pack(expires_ms, sent.seq, sent.id)

    def remove(self, key: str) -> None:
        """Forget a key whose message was not stored after all."""
        for keys in self._slices.values():
            keys.pop(digest_of(key), None)

    def expire(self, now: int) -> None:
        for minute in [minute for minute in self._slices if (minute + 1) * limits.MINUTE_MS <= now]:
            del self._slices[minute]

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._slices.values())


def digest_of(key: str) -> bytes:
    """What stands for a key: 128 bits."""
    if key.startswith(_DIGEST):
        return bytes.fromhex(key[len(_DIGEST) :])
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def key_of_digest(digest: bytes) -> str:
    """A key for what only the digest is known of: it finds, and is found by, the key that it is the digest of."""
    return _DIGEST + digest.hex()
