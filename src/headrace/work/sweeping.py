"""The Sweeper removes what has expired: results, unique locks, wishes, groups, limits that nobody uses.

The index's rows are sorted by time, so a look costs what is due. Each row is checked against what it points to: a lock
that was taken anew, or a limit that is in use, stays, and its index row moves on. Any number of sweepers may run: of two
that remove the same, one is told that it is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.queue.operations import Transact
from headrace.work import cancel_request, keys, limiting, results, workflows
from headrace.work.backend import Backend, committed
from headrace.work.unique import Lock

EVERY_MS: Final = 10_000
"""Between two looks, where nothing is due. What has expired is known as expired without being removed."""
ROWS_MAX: Final = 1_000
"""Index rows a commit."""


class Sweeper:
    """Advanced by whoever runs it; keeps nothing between two calls."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def advance(self, now_ms: int) -> int:
        """Remove what is due, a commit's worth. Returns when to be called again."""
        due = self._due(now_ms, 1) and self._due(now_ms, ROWS_MAX)
        if due and not self._removed(due, now_ms):
            # One of them is in use just now; it must not keep the others.
            for index in due:
                self._removed([index], now_ms)
        return now_ms if len(due) == ROWS_MAX else now_ms + EVERY_MS

    def _due(self, now_ms: int, limit: int) -> list[bytes]:
        rows = self._backend.state(keys.EXPIRY, limit=limit)
        return [key for key, _ in rows if keys.of_expiry(key)[0] <= now_ms]

    def _removed(self, due: Sequence[bytes], now_ms: int) -> bool:
        """Whether what these index rows point to was removed, or found to stay; False: something changed meanwhile."""
        change = workflows.Part([], [(index, None) for index in due], [(index, b"") for index in due])
        single: list[bytes] = []
        for index in due:
            _, key = keys.of_expiry(index)
            if key.startswith(keys.LIMIT):
                self._sweep_limit(change, key, now_ms)
            elif key.startswith(keys.GROUP):
                self._sweep_group(change, key)
            else:
                single.append(key)
        for key, value in self._values(single).items():
            if _expires_ms(key, value) <= now_ms:
                change.puts.append((key, None))
                change.expects.append((key, value))
        return committed(self._backend, Transact(state=change.puts, name=keys.NAME, expect=change.expects))

    def _values(self, wanted: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of the rows that are there. What expires together was mostly written together, and has keys that are near
        each other: a page brings many."""
        found: dict[bytes, bytes] = {}
        left = sorted(set(wanted))
        while left:
            first = left[0]
            page = self._backend.state(first[:2], limit=ROWS_MAX, after=_just_before(first))
            found |= dict(page)
            last = page[-1][0] if len(page) == ROWS_MAX else first[:2] + b"\xff"
            left = [key for key in left if key > last]
        return {key: found[key] for key in wanted if key in found}

    def _sweep_group(self, change: workflows.Part, key: bytes) -> None:
        change.puts += [(row, None) for row, _ in self._backend.state(key + b"/")]
        change.puts.append((key, None))

    def _sweep_limit(self, change: workflows.Part, prefix: bytes, now_ms: int) -> None:
        rows = {key[len(prefix) :]: value for key, value in self._backend.state(prefix)}
        if not limiting.idle(rows, now_ms):
            change.puts.append((keys.expiry(now_ms + limiting.IDLE_MS, prefix), b""))
            return
        change.puts += [(prefix + name, None) for name in rows]
        change.expects += [(prefix + name, value) for name, value in rows.items()]


def _just_before(key: bytes) -> bytes:
    """What sorts before the key and after all others that do: keys are text, which has no byte 255."""
    return key[:-1] + bytes([key[-1] - 1, 255])


def _expires_ms(key: bytes, value: bytes) -> int:
    """When the row ends, by what it says itself: it may have been written anew since it was put into the index."""
    if key.startswith(keys.RESULT):
        return results.decode(value).expires_ms
    if key.startswith(keys.UNIQUE):
        return msgspec.json.decode(value, type=Lock).expires_ms
    if key.startswith(keys.CANCEL):
        return msgspec.json.decode(value, type=cancel_request.CancelRequest).expires_ms
    return 0
