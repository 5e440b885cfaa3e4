"""Deduplication: a dedup id is stored once in five minutes, also after the message is deleted.

The memory of ids is five-minute generations cut into one-minute slices that are dropped whole: no timer an id.
Source: SQS, "Exactly-once processing".
"""

from __future__ import annotations

import hashlib

from headrace.queue import limits
from headrace.queue.model import QueueSettings, Sent


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
    """The dedup keys of one queue and the message that each first named."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: dict[int, dict[str, tuple[int, Sent]]] = {}  # minute of expiry -> key -> (expires_ms, sent)

    def find(self, key: str, now: int) -> Sent | None:
        """The first message with this key, if its five minutes are not over."""
        for keys in self._slices.values():
            found = keys.get(key)
            if found is not None and found[0] > now:
                return found[1]
        return None

    def add(self, key: str, sent: Sent, expires_ms: int) -> None:
        self._slices.setdefault(expires_ms // limits.MINUTE_MS, {})[key] = (expires_ms, sent)

    def remove(self, key: str) -> None:
        """Forget a key whose message was not stored after all."""
        for keys in self._slices.values():
            keys.pop(key, None)

    def expire(self, now: int) -> None:
        for minute in [minute for minute in self._slices if (minute + 1) * limits.MINUTE_MS <= now]:
            del self._slices[minute]

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._slices.values())
