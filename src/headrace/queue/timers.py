"""Deadlines by the million: eight bytes each.

Leases and delays are (due time, sequence number) pairs that mostly never fall due, because the message is deleted
first. They are not cancelled: whoever takes a due pair checks whether it still holds. Pairs wait in one array a second;
a second that has begun is opened into a heap, so that each pair is due on its exact millisecond.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection
from heapq import heapify, heappop, heappush
from typing import Final

SEQ_BITS: Final = 40
SEQ_MASK: Final = (1 << SEQ_BITS) - 1


class Timers:
    """Pairs (due_ms, seq), given back in order of time. Pure: the clock is an argument."""

    __slots__ = ("_count", "_near", "_opened", "_seconds", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[int, array[int]] = {}  # second -> array of (millisecond << 40 | seq)
        self._seconds: list[int] = []  # heap of the seconds in _waiting
        self._near: list[int] = []  # heap of (due_ms << 40 | seq) whose second has begun
        self._opened = 0  # seconds up to here are opened
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, due_ms: int, seq: int) -> None:
        self.add_all(due_ms, (seq,))

    def add_all(self, due_ms: int, seqs: Collection[int]) -> None:
        """Many pairs with one due time."""
        self._count += len(seqs)
        second, millisecond = divmod(due_ms, 1_000)
        if second <= self._opened:
            for seq in seqs:
                heappush(self._near, due_ms << SEQ_BITS | seq)
            return
        pairs = self._waiting.get(second)
        if pairs is None:
            pairs = self._waiting[second] = array("Q")
            heappush(self._seconds, second)
        high = millisecond << SEQ_BITS
        pairs.extend([high | seq for seq in seqs])

    def due(self, now: int) -> list[tuple[int, int]]:
        """Remove and return every pair with due_ms ≤ now, earliest first."""
        out = self._take_past(now // 1_000)
        near = self._near
        bound = (now + 1) << SEQ_BITS
        if near and near[0] < bound:
            while near and near[0] < bound:
                out.append(heappop(near))
            out.sort()  # those of whole seconds are in order; those that were added late may lie between them
        self._count -= len(out)
        return [(pair >> SEQ_BITS, pair & SEQ_MASK) for pair in out]

    def next_ms(self) -> int | None:
        """When something may be due: exact for the second that has begun, its start for a later one."""
        if self._near:
            return self._near[0] >> SEQ_BITS
        return self._seconds[0] * 1_000 if self._seconds else None

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]  # back to empty, one definition of empty

    def _take_past(self, second: int) -> list[int]:
        """The pairs of seconds that are wholly past, sorted; `second` itself is opened into the heap."""
        past: list[int] = []
        while self._seconds and self._seconds[0] <= second:
            begun = heappop(self._seconds)
            base = begun * 1_000
            pairs = [(base + (pair >> SEQ_BITS)) << SEQ_BITS | pair & SEQ_MASK for pair in self._waiting.pop(begun)]
            if begun < second:
                past += sorted(pairs)
            else:
                self._near += pairs
                heapify(self._near)
        self._opened = max(self._opened, second)
        return past
