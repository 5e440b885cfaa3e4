"""Pipelines in a test: rows in, rows out, a clock that is moved by hand; no broker, no files, no threads.

    with PipelineHarness(pipeline) as harness:
        harness.send("flights", [{"origin": "JFK", "dep_delay": 3.0, "ts": datetime(2026, 1, 1, 12)}])
        harness.wait(60)                    # the source is idle: its windows close
        harness.restart()                   # nothing is lost
        assert harness.end().to_pylist() == […]

What goes in and out is what the engine sees: bodies are decoded already, sinks are not written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from headrace.stream import physical, plan
from headrace.stream.engine.engine import Engine
from headrace.stream.engine.operator import END, Refused
from headrace.stream.engine.part_store import DurablePartStore
from headrace.stream.pipelines import Pipeline
from headrace.stream.runner import watermarks
from headrace.stream.runner.progress import SourceProgress
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sql import compile as compile_plan

Rows: TypeAlias = "pa.Table | Sequence[Mapping[str, Any]]"
"""An Arrow table with the source's columns, or dicts; times are UTC, without zone."""


class PipelineHarness:
    """A pipeline whose every step is the test's.

    Attributes:
        late, dead: what the pipeline has refused so far, with the reasons.
        now_ms: steady time; only `wait` moves it.
    """

    def __init__(self, pipeline: Pipeline | plan.Pipeline, *, tables: Mapping[str, pa.Table] | None = None) -> None:
        """Args:
        pipeline: what runs.
        tables: rows of static tables that are not in the plan, by name.
        """
        self._plan = pipeline.plan if isinstance(pipeline, Pipeline) else pipeline
        self._physical = compile_plan(self._plan)
        self._sources = {node.source.name: node for node in self._physical.operators if isinstance(node, physical.Read)}
        self._times = {name: node.source.time for name, node in self._sources.items()}
        self._progress = dict.fromkeys(self._sources, SourceProgress())
        self._tables = dict(tables or {})
        self._stored: dict[bytes, bytes] = {}
        self.now_ms = 0
        self.late: list[Refused] = []
        self.dead: list[Refused] = []
        self._engine, self._store = self._started()

    @property
    def sources(self) -> list[str]:
        """The names that rows can be given under."""
        return list(self._sources)

    def send(self, source: str, rows: Rows) -> pa.Table:
        """Give rows of one source, as one batch. Returns what comes out."""
        return self.step({source: rows})

    def step(self, batch: Mapping[str, Rows]) -> pa.Table:
        """Give rows of several sources, as one batch. Returns what comes out."""
        inputs = {name: _table(rows, self._sources[name].schema) for name, rows in batch.items()}
        for name, rows in inputs.items():
            self._heard(name, rows)
        return self._step({name: rows for name, rows in inputs.items() if rows.num_rows})

    def wait(self, seconds: float) -> pa.Table:
        """Let time pass: sources that were silent for their idle timeout close their windows. Returns what comes out."""
        self.now_ms += round(seconds * 1_000)
        idle = watermarks.silent(self._progress, self._times, self.now_ms)
        moved = watermarks.of_silence(self._progress, self._times, idle, self._engine.pending())
        for name, watermark in moved.items():
            self._set(name, watermark=watermark)
        return self._step({})

    def end(self) -> pa.Table:
        """All sources end: everything closes. Returns what comes out."""
        for name in self._sources:
            self._set(name, watermark=END)
        return self._step({})

    def restart(self) -> None:
        """The process ends between two steps, and another goes on from what was committed."""
        self._engine.close()
        self._engine, self._store = self._started()

    def close(self) -> None:
        """Give up the engine. Idempotent."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _started(self) -> tuple[Engine, DurablePartStore]:
        store = DurablePartStore(self._stored.items(), self._fetch, shards=self._plan.shards)
        reached = {name: progress.watermark for name, progress in self._progress.items()}
        return Engine(self._physical, store, watermarks=reached, tables=self._tables), store

    def _step(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        step = self._engine.step(inputs, {name: progress.watermark for name, progress in self._progress.items()})
        for key, value in self._store.take_changes().items():
            if value is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = value
        self.late += step.late
        self.dead += step.dead
        return step.output

    def _heard(self, name: str, rows: pa.Table) -> None:
        watermark = watermarks.of_rows(rows, self._times[name], self._progress[name].watermark)
        self._set(name, watermark=watermark, heard_ms=self.now_ms)

    def _set(self, name: str, **changes: int) -> None:
        self._progress[name] = msgspec.structs.replace(self._progress[name], **changes)

    def _fetch(self, prefix: bytes) -> dict[bytes, bytes]:
        return {key: value for key, value in self._stored.items() if key.startswith(prefix)}


def run_in_memory(
    pipeline: Pipeline | plan.Pipeline,
    batches: Iterable[Mapping[str, Rows]],
    *,
    tables: Mapping[str, pa.Table] | None = None,
) -> pa.Table:
    """All rows that come out of a pipeline for these batches and the end of its sources.

    Args:
        pipeline: what runs.
        batches: source name → rows.
        tables: see PipelineHarness.
    """
    with PipelineHarness(pipeline, tables=tables) as harness:
        return pa.concat_tables([*(harness.step(batch) for batch in batches), harness.end()])


def _table(rows: Rows, schema: Schema) -> pa.Table:
    """With ORIGIN: each row is a message of its own."""
    columns = schema.arrow()
    found = (
        rows.select(schema.names).cast(columns)
        if isinstance(rows, pa.Table)
        else pa.Table.from_pylist(list(rows), columns)
    )
    return found.append_column(ORIGIN, pa.array(np.arange(found.num_rows, dtype=np.int32)))
