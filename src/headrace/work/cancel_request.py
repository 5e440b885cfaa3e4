"""The row that says that a task is to end. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from headrace.work import keys, limits

KEEP_MS: Final = limits.RETENTION_MS
"""As long as a message may wait."""


class CancelRequest(msgspec.Struct, frozen=True):
    """The row. `at_ms`: when it was wished; `expires_ms`: kept until then, if its task never comes."""

    at_ms: int
    expires_ms: int


def wished(task_id: str, now_ms: int) -> dict[bytes, bytes | None]:
    """What to write for a wish."""
    expires_ms = now_ms + KEEP_MS
    key = keys.cancel(task_id)
    return {key: msgspec.json.encode(CancelRequest(now_ms, expires_ms)), keys.expiry(expires_ms, key): b""}


def fulfilled(task_id: str, read: Callable[[bytes], bytes | None]) -> dict[bytes, bytes | None]:
    """What the commit that ends a cancelled task removes."""
    key = keys.cancel(task_id)
    row = read(key)
    if row is None:
        return {}
    return {key: None, keys.expiry(msgspec.json.decode(row, type=CancelRequest).expires_ms, key): None}
