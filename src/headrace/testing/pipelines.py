"""Pipelines in a test: rows in, rows out, a clock that is moved by hand; no broker, no files, no threads.

    def test_delays_are_averaged() -> None:
        with Harness(pipeline) as delays:
            delays.send("flights", [{"origin": "JFK", "dep_delay": 4.0, "ts": "2013-01-01T05:17:00"}])
            delays.wait(30)                     # the source is silent: its windows close
            delays.restart()                    # nothing is lost
            assert delays.end() == [...]        # the sources end: what is open closes

`headrace stream test FILE.py` gives one to each function `test_…` of the file. What comes out is what sinks would be given;
they are not written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import msgspec
import pyarrow as pa

from headrace.errors import InvalidParameter
from headrace.queue.model import Message
from headrace.stream import physical, plan
from headrace.stream.engine.engine import Engine
from headrace.stream.engine.operator import END, RejectedRows
from headrace.stream.engine.state_backend import DurableStateBackend
from headrace.stream.formats.decoding import numbered
from headrace.stream.pipelines import Pipeline
from headrace.stream.runner import watermarks
from headrace.stream.runner.progress import SourceProgress
from headrace.stream.runner.sink_set import without_origin
from headrace.stream.schema import Schema
from headrace.stream.sources.queue import MessageDecoder
from headrace.stream.sources.tables import load_table
from headrace.stream.sql import compile as compile_plan

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = "pa.Table | Sequence[Mapping[str, Any]]"
"""Dicts, read as the JSON of messages would be (times as text or datetime), or an Arrow table."""


class Harness:
    """A pipeline whose every step is the test's.

    Attributes:
        rows: all that has come out so far.
        late: rows that came too late: their columns, `_reason` and `_step`.
        dead: what could not be processed: the row's columns, or `body` where it could not be read; `_reason` and `_step`.
        now_ms: steady time; only `wait` moves it.
    """

    def __init__(self, pipeline: Pipeline | plan.Pipeline, *, tables: Mapping[str, Rows] | None = None) -> None:
        """Args:
        pipeline: what runs.
        tables: rows of static tables, by name; others are loaded from where the pipeline says.
        """
        self._plan = pipeline.plan if isinstance(pipeline, Pipeline) else pipeline
        self._physical = compile_plan(self._plan)
        self._sources = {node.source.name: node for node in self._physical.operators if isinstance(node, physical.Read)}
        self._times = {name: node.source.time for name, node in self._sources.items()}
        self._progress = dict.fromkeys(self._sources, SourceProgress())
        self._tables = _tables(self._physical, tables or {})
        self._stored: dict[bytes, bytes] = {}
        self.now_ms = 0
        self.rows: list[Row] = []
        self.late: list[Row] = []
        self.dead: list[Row] = []
        self._engine, self._store = self._started()

    @property
    def sources(self) -> list[str]:
        """The names that rows can be given under."""
        return list(self._sources)

    def send(self, source: str, rows: Rows) -> list[Row]:
        """Give rows of one source, as one batch. Returns what comes out.

        Raises InvalidParameter for a source that the pipeline does not have.
        """
        return self._kept(self.step({source: rows}))

    def wait(self, seconds: float) -> list[Row]:
        """Let time pass: sources that were silent for their idle timeout close their windows. Returns what comes out."""
        self.now_ms += round(seconds * 1_000)
        idle = watermarks.idle_sources(self._progress, self._times, self.now_ms)
        moved = watermarks.idle_watermarks(self._progress, self._times, idle, self._engine.pending())
        for name, watermark in moved.items():
            self._set(name, watermark=watermark)
        return self._kept(self._step({}))

    def end(self) -> list[Row]:
        """All sources end: everything closes. Returns what comes out."""
        return self._kept(self.step({}, last=True))

    def step(self, batch: Mapping[str, Rows], *, last: bool = False) -> pa.Table:
        """Give rows of several sources, as one batch, and take what comes out as Arrow: for many rows.

        It is not added to `rows`.

        Args:
            batch: source name → rows.
            last: the sources end with it.
        """
        inputs = {name: self._read(name, rows) for name, rows in batch.items()}
        for name, rows in inputs.items():
            self._heard(name, rows)
        if last:
            for name in self._sources:
                self._set(name, watermark=END)
        return self._step({name: rows for name, rows in inputs.items() if rows.num_rows})

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

    def _started(self) -> tuple[Engine, DurableStateBackend]:
        store = DurableStateBackend(self._fetch, shards=self._plan.shards)
        reached = {name: progress.watermark for name, progress in self._progress.items()}
        return Engine(self._physical, store, watermarks=reached, tables=self._tables), store

    def _step(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        step = self._engine.step(inputs, {name: progress.watermark for name, progress in self._progress.items()})
        for key, value in self._store.take_changes().items():
            if value is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = value
        self.late += _refused(step.late)
        self.dead += _refused(step.dead)
        return step.output

    def _kept(self, output: pa.Table) -> list[Row]:
        rows: list[Row] = output.to_pylist()
        self.rows += rows
        return rows

    def _read(self, source: str, rows: Rows) -> pa.Table:
        """The rows with ORIGIN: each is a message of its own. Those that cannot be read are dead."""
        if source not in self._sources:
            raise InvalidParameter("source", repr(source), f"the pipeline's sources are {', '.join(self._sources)}")
        schema = self._sources[source].schema
        if isinstance(rows, pa.Table):
            return numbered(_table(rows, schema))
        return self._decoded(source, schema, rows)

    def _decoded(self, source: str, schema: Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        messages = [Message(number, bytes(16), msgspec.json.encode(row), b"", 0) for number, row in enumerate(rows)]
        table, dead = MessageDecoder(plan.QueueSource(source, source, schema, format="json")).decode(messages)
        self.dead += [{"body": one.body.decode(), "_reason": one.reason, "_step": one.step} for one in dead]
        return table

    def _heard(self, name: str, rows: pa.Table) -> None:
        watermark = watermarks.of_rows(rows, self._times[name], self._progress[name].watermark)
        self._set(name, watermark=watermark, heard_ms=self.now_ms)

    def _set(self, name: str, **changes: int) -> None:
        self._progress[name] = msgspec.structs.replace(self._progress[name], **changes)

    def _fetch(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return sorted(item for item in self._stored.items() if item[0].startswith(prefix))


def run_in_memory(
    pipeline: Pipeline | plan.Pipeline,
    batches: Iterable[Mapping[str, Rows]],
    *,
    tables: Mapping[str, Rows] | None = None,
) -> pa.Table:
    """All rows that come out of a pipeline for these batches and the end of its sources.

    Args:
        pipeline: what runs.
        batches: source name → rows.
        tables: see Harness.
    """
    with Harness(pipeline, tables=tables) as harness:
        return pa.concat_tables([*(harness.step(batch) for batch in batches), harness.step({}, last=True)])


def _tables(compiled: physical.PhysicalPlan, given: Mapping[str, Rows]) -> dict[str, pa.Table]:
    refs = {ref.name: ref for node in compiled.operators if isinstance(node, physical.Project) for ref in node.tables}
    for name in given:
        if name not in refs:
            raise InvalidParameter("tables", repr(name), f"the pipeline's tables are {', '.join(refs) or 'none'}")
    return {name: _table(given[name], ref.schema) if name in given else load_table(ref) for name, ref in refs.items()}


def _table(rows: Rows, schema: Schema) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows.select(schema.names).cast(schema.arrow())
    return pa.Table.from_pylist(list(rows), schema.arrow())


def _refused(groups: Iterable[RejectedRows]) -> list[Row]:
    return [
        {**row, "_reason": group.reason, "_step": group.step}
        for group in groups
        for row in without_origin(group.rows).to_pylist()
    ]
