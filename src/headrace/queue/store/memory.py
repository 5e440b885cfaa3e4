"""A disk that forgets: for tests, and for those who want an SQS endpoint that leaves nothing behind."""

from __future__ import annotations

import os
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile

from headrace.clock import Anchor, Clock
from headrace.queue.model import Message
from headrace.queue.store.disk import Batch, Key, LeaseRecord, PutGarbage, PutState, Stored, Trimmed, key_of, seq_of
from headrace.queue.store.local.store import LocalStore
from headrace.queue.timers import SEQ_BITS


def open_memory_store(clock: Clock, *, cooldowns: bool = True) -> LocalStore:
    """A store without a disk: every rule, no durability."""
    return LocalStore(MemoryDisk(), clock, cooldowns=cooldowns)


class MemoryDisk:
    """Rows in a dict, keys in a sorted list."""

    durable = False
    sync_seconds = 0.0
    on_damage: Callable[[Key, str], None] = staticmethod(lambda _key, _reason: None)

    def __init__(self) -> None:
        self._messages: dict[Key, Message] = {}
        self._keys: list[Key] = []
        self._state: dict[tuple[str, bytes], bytes] = {}
        self._garbage: list[PutGarbage] = []

    def load(self) -> Stored:
        return Stored(os.urandom(32))

    def prepare(self, batch: Batch) -> None:
        for number, message in batch.inserts:
            key = key_of(number, message.seq)
            self._messages[key] = message
            if not self._keys or key > self._keys[-1]:
                self._keys.append(key)
            else:
                insort(self._keys, key)
        for key in batch.deletes:
            self._messages.pop(key, None)  # its place in _keys stays until the next sweep
        for change in batch.changes:
            if isinstance(change, PutState):
                self._put_state(change)
            elif isinstance(change, PutGarbage):
                self._garbage.append(change)
        if len(self._keys) > 2 * len(self._messages) + 1_000:
            self._keys = sorted(self._messages)

    def _put_state(self, change: PutState) -> None:
        if change.value is None:
            self._state.pop((change.name, change.key), None)
        else:
            self._state[change.name, change.key] = change.value

    def commit(self) -> None: ...

    def tidy_due(self) -> bool:
        return False

    def tidy_aside(self) -> None: ...

    def tidy(self) -> None: ...

    def lease(self, record: LeaseRecord) -> None: ...

    def flush_leases(self) -> None: ...

    def leases_want_snapshot(self) -> bool:
        return False

    def snapshot_leases(self, records: Iterable[LeaseRecord]) -> None: ...

    def read(self, keys: Sequence[Key]) -> dict[Key, Message]:
        return {key: self._messages[key] for key in keys if key in self._messages}

    def scan(self, queue: int, *, after: int, limit: int, bytes_max: int) -> tuple[list[Message], int, bool]:
        found: list[Message] = []
        last, size = after, 0
        for key in self._after(queue, after):
            if len(found) >= limit or size >= bytes_max:
                return found, last, True
            last = seq_of(key)
            found.append(self._messages[key])
            size += len(self._messages[key].body)
        return found, last, False

    def groups(self, queue: int, seqs: Sequence[int]) -> dict[int, str]:
        found = ((seq, self._messages.get(key_of(queue, seq))) for seq in seqs)
        return {seq: message.group for seq, message in found if message is not None and message.group is not None}

    def first(self, queue: int, *, after: int) -> tuple[int, int] | None:
        key = next(self._after(queue, after), None)
        return (seq_of(key), self._messages[key].sent_ms) if key is not None else None

    def sent_after(self, queue: int, sent_ms: int) -> list[int]:
        newest = list(self._after(queue, 0))[::-1]
        return [seq_of(key) for key in takewhile(lambda key: self._messages[key].sent_ms > sent_ms, newest)]

    def expired(self, queue: int, *, after: int, sent_before_ms: int, limit: int) -> list[int]:
        keys = (key for key in self._after(queue, after) if self._messages[key].sent_ms <= sent_before_ms)
        return [seq_of(key) for key, _ in zip(keys, range(limit), strict=False)]

    def state(self, name: str, *, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        found = [
            (key, value)
            for (owner, key), value in self._state.items()
            if owner == name and key.startswith(prefix) and key > after
        ]
        return sorted(found)[:limit]

    def log_front(self, topic: int, *, after: int, limit: int) -> list[tuple[int, int, int]]:
        found = [self._messages[key] for key in islice(self._after(topic, after), limit)]
        return [(message.seq, message.sent_ms, len(message.body) + len(message.attributes)) for message in found]

    def trim(self, topic: int, *, after: int, before: int, limit: int) -> Trimmed:
        """Whoever refers to a body has it: they share the object."""
        keys = list(takewhile(lambda key: seq_of(key) < before, islice(self._after(topic, after), limit)))
        for key in keys:
            del self._messages[key]
        return Trimmed(len(keys), 0, seq_of(keys[-1]) if keys else after, more=len(keys) == limit)

    def sweep(self, limit: int) -> bool:
        del limit  # a dict takes it all at once
        for garbage in self._garbage:
            for key in [key for key in self._messages if garbage.first <= key <= garbage.last]:
                del self._messages[key]
        self._garbage.clear()
        return False

    def reserve(self) -> bool:
        return True

    def reserved(self) -> bool:
        return True

    def size_bytes(self) -> int:
        return sum(len(message.body) for message in self._messages.values())

    def anchor(self, anchor: Anchor) -> None: ...

    def close(self) -> None: ...

    def _after(self, queue: int, seq: int) -> Iterator[Key]:
        end = (queue + 1) << SEQ_BITS
        for index in range(bisect_right(self._keys, key_of(queue, seq)), len(self._keys)):
            key = self._keys[index]
            if key >= end:
                return
            if key in self._messages:
                yield key
