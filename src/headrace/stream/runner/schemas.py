"""The schemas of operators' parts, kept with them: so that state is read by who has no pipeline, and never misread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from headrace.stream.engine.state import OperatorState, StateBackend
from headrace.stream.errors import DefinitionChanged
from headrace.stream.runner import keys
from headrace.stream.runner.store import Store


class SchemaRecorder(StateBackend):
    """Another StateBackend, whose operators' schemas go into the first commit that follows, if they are new."""

    def __init__(self, parts: StateBackend, store: Store, pipeline: str) -> None:
        self._parts = parts
        self._pipeline = pipeline
        self._prepared = store.read(keys.SCHEMA)
        self._new: list[tuple[bytes, bytes | None]] = []

    def open(self, operator: str, keys_: Sequence[str], schema: pa.Schema) -> OperatorState:
        """Raises DefinitionChanged: the operator's parts have other columns. Parts are without their schema, and would be
        read as what they are not."""
        key = keys.SCHEMA + operator.encode()
        if key not in self._prepared:
            self._new.append((key, schema.serialize().to_pybytes()))
        else:
            kept = pa.ipc.read_schema(pa.py_buffer(self._prepared[key]))
            if not kept.equals(schema):
                change = f"state of {operator} has columns {_text(kept)}; this version keeps {_text(schema)}"
                raise DefinitionChanged(self._pipeline, [change])
        return self._parts.open(operator, keys_, schema)

    def take_changes(self) -> Mapping[bytes, bytes | None]:
        return self._parts.take_changes()

    def take_puts(self) -> list[tuple[bytes, bytes | None]]:
        """All that is to be put into the step's commit."""
        new, self._new = self._new, []
        return [*new, *self._parts.take_changes().items()]

    def size_bytes(self) -> int:
        return self._parts.size_bytes()


def _text(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
