"""The job of a run: the pipeline, its compiled plan and its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from headrace.errors import InvalidParameter
from headrace.stream import limits, plan
from headrace.stream.physical import PhysicalPlan
from headrace.stream.runner import sharing

Until: TypeAlias = Literal["idle", "end"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run.

    Attributes:
        until: when to return. `idle`: when all available input is processed and delivered; `end`: the same, and every window is
            closed: finite sources have ended, others count as idle. None: never by itself.
        batch_rows: the maximum number of rows of a batch, approximately.
        batch_ms: how long to wait for more rows after the first of a batch: more rows per commit, later results.
        memory_bytes: memory of the engine; beyond it DuckDB spills to disk.
        threads: threads of the engine.
        state_memory_bytes: memory for cached parts of state.
        retry_timeout_s: how long to retry while the broker or a sink is unavailable. None: without limit.
    """

    until: Until | None = None
    batch_rows: int = limits.BATCH_ROWS_DEFAULT
    batch_ms: int = 0
    memory_bytes: int = limits.ENGINE_MEMORY_BYTES_DEFAULT
    threads: int = limits.ENGINE_THREADS_DEFAULT
    state_memory_bytes: int = limits.STATE_MEMORY_BYTES_DEFAULT
    retry_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.until not in (None, "idle", "end"):
            raise InvalidParameter("until", repr(self.until), "it is 'idle', 'end' or None")
        if not 1 <= self.batch_rows <= limits.BATCH_ROWS_MAX:
            raise InvalidParameter("batch_rows", str(self.batch_rows), f"it must be from 1 to {limits.BATCH_ROWS_MAX}")
        if not 0 <= self.batch_ms <= limits.BATCH_WAIT_MAX_MS:
            raise InvalidParameter("batch_ms", str(self.batch_ms), f"it must be from 0 to {limits.BATCH_WAIT_MAX_MS}")


@dataclass(frozen=True, slots=True)
class Job:
    """A pipeline, compiled, and the settings of its run."""

    pipeline: plan.Pipeline
    physical: PhysicalPlan
    settings: Settings
    sources: tuple[plan.Source, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(plan.sources_of(self.pipeline.output)))

    @property
    def shards(self) -> int:
        """The number of parts of its state, and of processes that can share it: one, if it cannot be split by key."""
        return self.pipeline.shards if sharing.unsplittable_reason(self.physical) is None else 1

    @property
    def needs_broker(self) -> bool:
        """Whether queues or topics are named anywhere."""
        sources = any(isinstance(source, plan.QueueSource | plan.TopicSource) for source in self.sources)
        sinks = any(isinstance(sink, plan.QueueSink) for sink in self.pipeline.sinks)
        return sources or sinks or self.pipeline.late_queue is not None or self.pipeline.dead_letter_queue is not None
