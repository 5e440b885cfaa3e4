"""The schemas of an operator's parts, kept with them: so that state can be read without the pipeline that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from headrace.stream.engine.parts import Parts, PartStore
from headrace.stream.runner import keys
from headrace.stream.runner.store import Store


class RecordingParts(PartStore):
    """Another PartStore, whose operators' schemas go into the first commit that follows, if they are new."""

    def __init__(self, parts: PartStore, store: Store) -> None:
        self._parts = parts
        self._kept = store.read(keys.SCHEMA)
        self._new: list[tuple[bytes, bytes | None]] = []

    def open(self, operator: str, keys_: Sequence[str], schema: pa.Schema) -> Parts:
        key, value = keys.SCHEMA + operator.encode(), schema.serialize().to_pybytes()
        if self._kept.get(key) != value:
            self._new.append((key, value))
        return self._parts.open(operator, keys_, schema)

    def take_changes(self) -> Mapping[bytes, bytes | None]:
        return self._parts.take_changes()

    def take_puts(self) -> list[tuple[bytes, bytes | None]]:
        """All that is to be put into the step's commit."""
        new, self._new = self._new, []
        return [*new, *self._parts.take_changes().items()]

    def size_bytes(self) -> int:
        return self._parts.size_bytes()
