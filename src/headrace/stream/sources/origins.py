"""Rows of several origins put together: ORIGIN is counted through."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream.schema import ORIGIN
from headrace.stream.sources.base import Dead, Origins


class ManyOrigins(Origins):
    """Origins one behind the other."""

    def __init__(self) -> None:
        self._known: list[tuple[int, Origins]] = []
        self._next = 0

    def add(self, rows: pa.Table, origins: Origins) -> pa.Table:
        """The rows, their ORIGIN behind those that were added before. Rows without ORIGIN stay as they are."""
        first = self._next
        self._known.append((first, origins))
        place = rows.schema.get_field_index(ORIGIN)
        if place < 0:
            return rows
        last = pc.max(rows.column(place)).as_py()
        self._next += 0 if last is None else last + 1
        if first == 0:
            return rows
        shifted = pc.add(rows.column(place), pa.scalar(first, pa.int32()))
        return rows.set_column(place, rows.schema.field(place), shifted)

    def dead(self, origin: int, reason: str, step: str) -> Dead:
        first, origins = next(item for item in reversed(self._known) if item[0] <= origin)
        return origins.dead(origin - first, reason, step)
