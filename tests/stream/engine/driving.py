"""Drives one operator as the engine does: rows, then watermarks; and makes it anew from the store in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import duckdb
import pyarrow as pa
from hypothesis import strategies as st

from headrace.stream.engine.operator import END, NEVER, Context, Operator
from headrace.stream.engine.queries import Queries
from headrace.stream.engine.state_backend import DurableStateBackend
from headrace.stream.schema import Schema

S = 1_000_000
"""A second, in µs."""

Make = Callable[[Context], Operator]
Row = tuple[Any, ...]


def table(schema: Schema, rows: Iterable[Row]) -> pa.Table:
    """Rows as the engine gives them; times are µs."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema.fields)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema.fields, strict=True)]
    return pa.table(arrays, names=schema.names)


def rows_of(rows: pa.Table | None) -> list[Row]:
    """Rows as tuples; times are µs."""
    if rows is None:
        return []
    times = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns]
    return list(zip(*(column.to_pylist() for column in times), strict=True))


def ordered(rows: Iterable[Row]) -> list[Row]:
    """As a multiset: in an order that does not depend on how they came; NULLs last."""
    return sorted(rows, key=lambda row: [(value is None, "" if value is None else value) for value in row])


@dataclass
class Driver:
    """One operator over a store in memory. `restart` makes it anew from what was committed."""

    make: Make
    shards: int = 2
    stored: dict[bytes, bytes] = field(default_factory=dict)
    watermark: int = NEVER
    late: list[tuple[list[Row], str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.sql("SET TimeZone = 'UTC'")
        self.restart()

    def restart(self) -> None:
        self.store = DurableStateBackend(self._fetch, shards=self.shards)
        self.context = Context(Queries(lambda: self.connection), self.store)
        self.operator = self.make(self.context)

    def step(self, rows: Mapping[int, pa.Table], watermark: int | None = None) -> list[Row]:
        found = [self.operator.process(port, given, self.watermark) for port, given in sorted(rows.items())]
        if watermark is not None and watermark > self.watermark:
            found.append(self.operator.advance(watermark))
            self.watermark = watermark
        self._commit()
        return [row for given in found for row in rows_of(given)]

    def end(self) -> list[Row]:
        return self.step({}, END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.connection.close()

    def _commit(self) -> None:
        for key, value in self.store.take_changes().items():
            if value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = value
        for refused in self.context.late:
            self.late.append((rows_of(refused.rows), refused.reason))
        self.context.late.clear()

    def _fetch(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return sorted(item for item in self.stored.items() if item[0].startswith(prefix))


DELAY = 3 * S
"""How far rows of `arrivals` are out of order at most."""


@st.composite
def arrivals(draw: st.DrawFn, ports: int = 1, size: int = 40) -> list[tuple[list[Row], ...]]:
    """Steps; each has for every port rows (key, µs, id), in an order in which none is late.

    Ports do not keep step with each other: one may be read to its end before the other begins.
    """
    sides = [draw(_side(port, size)) for port in range(ports)]
    steps: list[tuple[list[Row], ...]] = []
    while any(sides):
        taken = [draw(st.integers(0, len(side))) if side else 0 for side in sides]
        if not any(taken):
            taken = [len(side) for side in sides]
        steps.append(tuple(side[:count] for side, count in zip(sides, taken, strict=True)))
        sides = [side[count:] for side, count in zip(sides, taken, strict=True)]
    return steps


@st.composite
def _side(draw: st.DrawFn, port: int, size: int) -> list[Row]:
    keys, times = st.sampled_from([None, 1, 2, 3]), st.integers(-2 * S, 40 * S)
    coarse = times.map(lambda time: time // S * S)  # so that bounds are met exactly, too
    drawn = draw(st.lists(st.tuples(keys, times | coarse, st.integers(0, DELAY)), max_size=size))
    drawn.sort(key=lambda row: row[1] + row[2])
    return [(key, time, f"{port}-{place}") for place, (key, time, _) in enumerate(drawn)]


def drive(
    driver: Driver, schemas: Sequence[Schema], steps: Sequence[tuple[list[Row], ...]], restarts: int = 0
) -> list[Row]:
    """All that comes out of the steps and the end. `restarts`: a bit for each step before which the operator is made
    anew."""
    greatest = [NEVER] * len(schemas)
    found: list[Row] = []
    for place, step in enumerate(steps):
        if restarts >> place & 1:
            driver.restart()
        for port, rows in enumerate(step):
            greatest[port] = max([greatest[port], *(row[1] - DELAY for row in rows)])
        found += driver.step(
            {port: table(schemas[port], rows) for port, rows in enumerate(step) if rows}, min(greatest)
        )
    return found + driver.end()
