"""Nexmark's queries on the embedded engine give what one query over all rows gives, however the rows are cut."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal

import pyarrow as pa
import pytest

from benchmarks.nexmark.generator import Events, batches, generate
from benchmarks.nexmark.queries import QUERIES, Query, pipeline
from benchmarks.nexmark.references import reference
from headrace.testing.pipelines import Harness

Row = tuple[Hashable, ...]

COUNT = 10_000
RATE = 200  # 50 s of event time: enough for windows to close, and for sessions to end
DISORDER_US = 2_000_000


@functools.cache
def events() -> Events:
    """With the time at which the broker was given each bid, for q12: in the order of arrival."""
    made = generate(COUNT, rate=RATE, disorder_us=DISORDER_US)
    sent_at = pa.array(sorted(made.bids["ts"].to_pylist()), pa.timestamp("us"))
    return Events(made.persons, made.auctions, made.bids.append_column("sent_at", sent_at))


CASES = [(name, 800) for name in QUERIES] + [(name, COUNT // 3) for name in ("q5", "q7", "q9", "q11")]


@pytest.mark.parametrize(("name", "rows"), CASES)
def test_a_query_gives_what_duckdb_gives_over_all_rows(name: str, rows: int) -> None:
    query = QUERIES[name]
    found = _run(name, query, rows)
    expected = _rows(reference(name, events().tables()))
    assert len(found) > 0
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def _run(name: str, query: Query, rows: int) -> list[Row]:
    """All rows that came out; of results that change, the last of each partition."""
    changing: dict[Row, list[Row]] = {}
    final: list[Row] = []
    with Harness(pipeline(name)) as harness:
        read = harness.sources
        steps = [{kind: table for kind, table in batch.items() if kind in read} for batch in batches(events(), rows)]
        for output in _outputs(harness, steps):
            if query.partition:
                changing.update(_partitions(output, query.partition))
            final += _rows(output)
        assert harness.late == harness.dead == []
    return [row for partition in changing.values() for row in partition] if query.partition else final


def _outputs(harness: Harness, steps: Iterable[Mapping[str, pa.Table]]) -> Iterable[pa.Table]:
    for number, step in enumerate(steps):
        if number == 2:
            harness.restart()
        yield harness.step(step)
    yield harness.step({}, last=True)


def _partitions(rows: pa.Table, columns: tuple[str, ...]) -> dict[Row, list[Row]]:
    found: dict[Row, list[Row]] = {}
    for key, row in zip(_rows(rows.select(columns)), _rows(rows), strict=True):
        found.setdefault(key, []).append(row)
    return found


def _rows(rows: pa.Table) -> list[Row]:
    """As tuples; numbers of whatever kind as floats, where they are no integers."""
    return [tuple(map(_plain, row)) for row in zip(*(column.to_pylist() for column in rows.columns), strict=True)]


def _plain(value: Hashable) -> Hashable:
    if isinstance(value, Decimal):
        value = float(value)
    return round(value, 6) if isinstance(value, float) else value
