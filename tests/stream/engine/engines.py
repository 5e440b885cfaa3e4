"""Runs small plans in the engine, and restarts it from what it would have committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from headrace.stream import physical, plan
from headrace.stream.engine.engine import Engine, Step
from headrace.stream.engine.operator import END
from headrace.stream.engine.state_backend import DurableStateBackend
from headrace.stream.schema import ORIGIN, Schema

S = 1_000_000
"""A second, in µs."""

Row = tuple[Any, ...]


def source(schema: Schema, time: str | None = "ts", name: str = "events") -> physical.Read:
    event_time = None if time is None else plan.EventTime(time)
    return physical.Read(plan.MemorySource(name, schema, (), event_time), schema, time)


def table(schema: Schema, rows: Iterable[Row], *, origin: bool = False) -> pa.Table:
    """Rows as a reader gives them; times are µs."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema.fields)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema.fields, strict=True)]
    found = pa.table(arrays, names=schema.names)
    return found.append_column(ORIGIN, pa.array(range(found.num_rows), pa.int32())) if origin else found


def rows_of(rows: pa.Table) -> list[Row]:
    """Rows as tuples; times are µs."""
    times = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns]
    return list(zip(*(column.to_pylist() for column in times), strict=True))


def ordered(rows: Iterable[Row]) -> list[Row]:
    """As a multiset, in an order of its own."""
    return sorted(rows, key=repr)


@dataclass
class Running:
    """An engine over a plan. `restart` makes it anew from what was committed."""

    operators: Sequence[physical.Operator]
    shards: int = 2
    memory_bytes: int = 2**20
    stored: dict[bytes, bytes] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = self._made()

    def step(
        self, inputs: Mapping[str, pa.Table] | pa.Table, watermarks: Mapping[str, int] | int | None = None
    ) -> Step:
        """A step of the source `events`, or of several by name, and its commit."""
        given = {"events": inputs} if isinstance(inputs, pa.Table) else inputs
        reached = {"events": watermarks} if isinstance(watermarks, int) else watermarks or {}
        found = self.engine.step(given, reached)
        self.reached.update(reached)
        for key, value in self.store.take_changes().items():
            if value is None:
                del self.stored[key]
            else:
                self.stored[key] = value
        return found

    def end(self) -> Step:
        return self.step({}, END)

    def restart(self) -> None:
        self.engine.close()
        self.engine = self._made()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.engine.close()

    def _made(self) -> Engine:
        self.store = DurableStateBackend(self._fetch, shards=self.shards, memory_bytes=self.memory_bytes)
        return Engine(physical.PhysicalPlan(tuple(self.operators)), self.store, watermarks=self.reached, threads=1)

    def _fetch(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return sorted(item for item in self.stored.items() if item[0].startswith(prefix))
