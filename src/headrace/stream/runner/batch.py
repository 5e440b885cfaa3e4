"""A batch of the engine: the chunks of all sources, the limit on its dead rows, its span and its metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace import metering, tracing
from headrace.stream import plan
from headrace.stream.errors import TooManyFailures
from headrace.stream.runner.progress import Progress
from headrace.stream.sources.base import Chunk, CombinedOrigins, Dead

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@dataclass(slots=True)
class Batch:
    """Chunks by source. ORIGIN is numbered over the whole batch, not over its chunk.

    `left`: by slot, those of `chunks` that were claimed by a slot whose process has ended.
    """

    chunks: dict[str, list[Chunk]] = field(default_factory=dict)
    left: dict[int, dict[str, list[Chunk]]] = field(default_factory=dict)
    rows: int = 0
    size_bytes: int = 0
    _inputs: dict[str, list[pa.Table]] = field(default_factory=dict)
    _origins: CombinedOrigins = field(default_factory=CombinedOrigins)

    def add(self, source: str, chunk: Chunk, left_by: int | None = None) -> None:
        if left_by is not None:
            self.left.setdefault(left_by, {}).setdefault(source, []).append(chunk)
        self.chunks.setdefault(source, []).append(chunk)
        self._inputs.setdefault(source, []).append(self._origins.add(chunk.rows, chunk.origins))
        self.rows += chunk.rows.num_rows
        self.size_bytes += chunk.size_bytes

    def own(self, source: str) -> list[Chunk]:
        """The chunks that this slot claimed itself."""
        left = {id(chunk) for chunks in self.left.values() for chunk in chunks.get(source, [])}
        return [chunk for chunk in self.chunks.get(source, []) if id(chunk) not in left]

    def inputs(self) -> dict[str, pa.Table]:
        """The rows, by source."""
        return {
            name: tables[0] if len(tables) == 1 else pa.concat_tables(tables) for name, tables in self._inputs.items()
        }

    def dead(self) -> list[Dead]:
        """Messages and lines that could not be decoded."""
        return [dead for chunks in self.chunks.values() for chunk in chunks for dead in chunk.dead]

    def dead_of(self, origin: int, reason: str, step: str) -> Dead:
        """The dead letter of a row's message or line."""
        return self._origins.dead(origin, reason, step)

    def claims(self) -> list[tuple[str, str, int]]:
        return [claim for chunks in self.chunks.values() for chunk in chunks for claim in chunk.claims]


# --- When a pipeline has met too many rows that cannot be processed. Pure ---


def check_failures(pipeline: plan.Pipeline, progress: Progress, dead: Sequence[Dead]) -> None:
    """Raises TooManyFailures if a commit that makes `progress` is one too many.

    Args:
        dead: what is new. A pipeline without a queue for dead rows does not bear one.
    """
    if not dead:
        return
    many = progress.dead > pipeline.failures_max and progress.dead > pipeline.failures_share * progress.rows_in
    if pipeline.dead_letter_queue is None or many:
        raise TooManyFailures(
            pipeline.name, progress.dead, progress.rows_in, _dead_text(dead[-1]), pipeline.dead_letter_queue is not None
        )


def _dead_text(dead: Dead) -> str:
    places = [
        f"source {dead.source!r}" if dead.source else "",
        dead.message_id,
        f"step {dead.step!r}" if dead.step else "",
    ]
    return f"{dead.reason} ({', '.join(place for place in places if place)})"


# A batch of a pipeline as a span, CONSUMER, linked to the messages' traces; and in the metrics.
#
# It is not part of any of these traces: a batch has many messages, and what it sends is made of all of them.


@contextmanager
def batch_span(pipeline: str, batch: Batch) -> Iterator[None]:
    """The batch is processed in this block, and its commit at least begun; nothing without rows, or without a provider."""
    tracer = tracing.tracer() if batch.chunks else None
    with _metered(pipeline, batch):
        if tracer is None:
            yield
        else:
            with _span(tracer, pipeline, batch):
                yield


@contextmanager
def _span(tracer: Tracer, pipeline: str, batch: Batch) -> Iterator[None]:
    facts = tracing.messaging("process", "process", ",".join(sorted(batch.chunks)))
    facts |= {"messaging.batch.message_count": _message_count(batch), "headrace.pipeline": pipeline}
    traces = (trace for chunks in batch.chunks.values() for chunk in chunks for trace in chunk.traces)
    span = tracing.start(tracer, f"process {pipeline}", "CONSUMER", facts, links=traces)
    token = tracing.enter(span)
    try:
        yield
    except BaseException as error:
        tracing.failed(span, type(error).__qualname__, str(error))
        raise
    finally:
        tracing.leave(token)
        span.end()


@contextmanager
def _metered(pipeline: str, batch: Batch) -> Iterator[None]:
    instruments = metering.instruments() if batch.chunks else None
    began_s, error = time.perf_counter(), None
    try:
        yield
    except BaseException as raised:
        error = type(raised).__qualname__
        raise
    finally:
        if instruments is not None:
            queues = ",".join(sorted(batch.chunks))
            seconds, named = time.perf_counter() - began_s, {"headrace.pipeline": pipeline}
            instruments.processed(queues, seconds, named, messages=_message_count(batch), error=error)


def _message_count(batch: Batch) -> int:
    """Rows, where a source has no messages, or several rows in one."""
    return batch.rows + len(batch.dead())
