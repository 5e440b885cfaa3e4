"""A pipeline in a test: rows in by hand, rows out at once, no broker, no clock.

def test_delays_are_averaged() -> None:
    with Harness(pipeline.plan) as harness:
        harness.send("flights", [{"origin": "JFK", "dep_delay": 4.0, "ts": "2013-01-01T05:17"}])
        assert harness.end() == [...]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa

from headrace.errors import InvalidParameter
from headrace.queue.model import Message
from headrace.stream import plan
from headrace.stream.engine.engine import Engine, Step
from headrace.stream.engine.operator import END, NEVER
from headrace.stream.engine.part_store import MemoryPartStore
from headrace.stream.formats.decoding import numbered
from headrace.stream.runner import watermarks
from headrace.stream.runner.job import Job, Settings
from headrace.stream.runner.refused import without_origin
from headrace.stream.runner.tables import Tables
from headrace.stream.sources.messages import MessageDecoder
from headrace.stream.sql import compile as compile_plan


class Harness:
    """A running pipeline whose sources are calls. `rows`, `late`, `dead`: all that has come out so far, as dicts.

    A row is given as a dict, with what JSON can hold (timestamps as text); or rows as an Arrow table.
    """

    def __init__(self, pipeline: plan.Pipeline) -> None:
        self._job = Job(pipeline, compile_plan(pipeline), Settings())
        self._sources = {source.name: source for source in self._job.sources}
        self._reached = dict.fromkeys(self._sources, NEVER)
        self._closing = ExitStack()
        self._engine = self._closing.enter_context(closing(Engine(self._job.physical, MemoryPartStore())))
        Tables(self._job.physical, self._engine).load(0)
        self.rows: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []
        self.dead: list[dict[str, Any]] = []

    def send(self, source: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> list[dict[str, Any]]:
        """Give rows of a source, as one batch. Returns what comes out of it."""
        found = self._source(source)
        table = rows if isinstance(rows, pa.Table) else self._decoded(found, rows)
        self._reached[source] = watermarks.of_rows(table, found.time, self._reached[source])
        return self._step({source: table})

    def advance(self, source: str, watermark_us: int) -> list[dict[str, Any]]:
        """Move the watermark of a source, as an idle timeout does. Returns what comes out."""
        self._reached[self._source(source).name] = max(self._reached[source], watermark_us)
        return self._step({})

    def end(self) -> list[dict[str, Any]]:
        """All sources end: every window closes. Returns what comes out."""
        self._reached = dict.fromkeys(self._sources, END)
        return self._step({})

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _source(self, name: str) -> plan.Source:
        if name not in self._sources:
            raise InvalidParameter("source", repr(name), f"the pipeline's sources are {', '.join(self._sources)}")
        return self._sources[name]

    def _decoded(self, source: plan.Source, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """As messages with these bodies would be."""
        queue = plan.QueueSource(source.name, source.name, source.schema, source.time, "json")
        messages = [Message(number, bytes(16), msgspec.json.encode(row), b"", 0) for number, row in enumerate(rows)]
        table, dead = MessageDecoder(queue).decode(messages)
        self.dead += [{"body": one.body.decode(), "reason": one.reason, "step": one.step} for one in dead]
        return table

    def _step(self, inputs: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
        given = {name: rows if "_origin" in rows.column_names else numbered(rows) for name, rows in inputs.items()}
        step = self._engine.step(given, self._reached)
        self._keep_refused(step)
        rows: list[dict[str, Any]] = step.output.to_pylist()
        self.rows += rows
        return rows

    def _keep_refused(self, step: Step) -> None:
        for kept, groups in ((self.late, step.late), (self.dead, step.dead)):
            for group in groups:
                kept += [
                    {**row, "reason": group.reason, "step": group.step}
                    for row in without_origin(group.rows).to_pylist()
                ]
