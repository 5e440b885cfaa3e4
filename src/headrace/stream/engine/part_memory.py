"""Which parts of state are in memory: those used last, up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

_COMMITTED: Final = -(2**62)
"""The generation of what the store has already."""


@dataclass(slots=True, eq=False)
class Part:
    """A part that was taken for a commit, or came from one. `batch` None: it has to be fetched."""

    key: bytes
    rows: int
    size_bytes: int
    batch: pa.RecordBatch | None


class PartMemory:
    """Which parts are in memory, those used least lately first, and how much they take.

    Parts of the last two generations (calls of `shrink`) are never given up: their commit may be on its way.
    """

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        self._used: OrderedDict[int, tuple[Part, int]] = OrderedDict()  # by id: part, the generation that it came in
        self._bytes = 0
        self._generation = 0

    def add(self, part: Part, *, committed: bool = False) -> None:
        self._used[id(part)] = (part, _COMMITTED if committed else self._generation)
        self._bytes += part.size_bytes

    def remove(self, part: Part) -> None:
        if self._used.pop(id(part), None) is not None:
            self._bytes -= part.size_bytes

    def use(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self._used.move_to_end(id(part))

    def shrink(self) -> None:
        self._generation += 1
        self.forget()

    def forget(self) -> None:
        """Give up what is too much, of what may be."""
        for part in list(self._too_much()):
            part.batch = None
            self.remove(part)

    def _too_much(self) -> Iterator[Part]:
        too_much = self._bytes - self._bound_bytes
        for part, generation in self._used.values():
            if too_much <= 0:
                return
            if generation < self._generation - 1:
                too_much -= part.size_bytes
                yield part
