"""A pipeline object of the API: checked when it is made, printed, drawn, run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from headrace.stream import limits, physical, plan
from headrace.stream.api import QueueEndpoint, Sink, Stream
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.explain import explain, picture
from headrace.stream.sql import analyse_node
from headrace.stream.sql import compile as compile_plan

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.native.client import Client

_SUBMITTED: Final = "PYSPARK_GATEWAY_PORT"
"""Set in the programs that spark-submit starts."""
_NAME: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{limits.NAME_CHARACTERS_MAX}}}")


@dataclass(frozen=True, slots=True, repr=False)
class Pipeline:
    """A checked pipeline: the plan, and what it is compiled to."""

    plan: plan.Pipeline
    physical: physical.PhysicalPlan

    @property
    def name(self) -> str:
        """The name of the pipeline and of its state."""
        return self.plan.name

    def check(self) -> tuple[str, ...]:
        """Warnings about the plan, one sentence each. Errors were raised when it was made."""
        return self.physical.warnings

    def explain(self, *, sql: bool = False) -> str:
        """The plan and the operators with their state, as text; with `sql` also the SQL of both engines."""
        return explain(self.plan, sql=sql)

    def run(
        self,
        broker: str | Path | Client | None = None,
        *,
        until: Literal["idle", "end"] | None = None,
        engine: Literal["embedded", "spark"] | None = None,
        **settings: Any,
    ) -> Any:
        """Run it here, until it is stopped, idle, or at the end of finite sources.

        Args:
            engine: where. None: on Spark if spark-submit started this program, else embedded.
            settings: see runner.run and spark.run.run_on_spark.
        """
        if engine == "spark" or (engine is None and _SUBMITTED in os.environ):
            from headrace.stream.spark.run import run_on_spark  # noqa: PLC0415 # heavy, and an extra

            return run_on_spark(self.plan, broker, until=until, **settings)  # type: ignore[arg-type] # it refuses others than URLs
        from headrace.stream.runner import run  # type: ignore[attr-defined,unused-ignore] # noqa: PLC0415 # heavy

        return run(self.plan, broker, until=until, compiled=self.physical, **settings)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"

    def _repr_html_(self) -> str:
        return picture(self.plan)


def pipeline(
    name: str, stream: Stream, *, sink: Sink | Sequence[Sink] = (), late_queue: str | QueueEndpoint | None = None,
    dead_letter_queue: str | QueueEndpoint | None = None, mode: plan.Mode = "append", shards: int = limits.SHARDS_DEFAULT,
    failures_max: int = limits.FAILURES_MAX_DEFAULT, failures_share: float = limits.FAILURES_SHARE_DEFAULT,
) -> Pipeline:  # fmt: skip
    """Write a stream to sinks, under a name. Checks the whole plan.

    Args:
        name: 1 to 40 characters of a-z, A-Z, 0-9, `-`, `_`; also the name of the state.
        stream: the rows.
        sink: one, or several that each get every row; none in a notebook.
        late_queue: the queue for rows that arrive after their windows have closed; without one they are only counted.
        dead_letter_queue: the queue for rows that cannot be processed; without one the first such row stops the pipeline.
        mode: the output mode: `append`: closed windows; `update`: results as they change.
        shards: the number of parts of the state, and of processes that can share the work; fixed for the life of the pipeline.
        failures_max: it stops when more rows than this are dead …
        failures_share: … and more than this share of all rows.

    Raises:
        UnsupportedQuery: the plan is not supported.
    """
    sinks = (sink,) if isinstance(sink, Sink) else tuple(sink)
    found = plan.Pipeline(
        name, stream.node, tuple(item.sink for item in sinks), _queue(late_queue), _queue(dead_letter_queue), mode, failures_max, failures_share,
        shards,
    )  # fmt: skip
    check(found)
    return Pipeline(found, compile_plan(found))


def check(found: plan.Pipeline) -> None:
    """Raises UnsupportedQuery for an invalid setting."""
    if not _NAME.fullmatch(found.name):
        raise UnsupportedQuery(
            f"the name {found.name!r}",
            f"a name has 1 to {limits.NAME_CHARACTERS_MAX} characters of a-z, A-Z, 0-9, -, _",
        )
    if found.mode not in ("append", "update"):
        raise UnsupportedQuery(f"mode={found.mode!r}", "unknown output mode", "mode='append' or mode='update'")
    if not 1 <= found.shards <= limits.SHARDS_MAX:
        raise UnsupportedQuery(f"shards={found.shards}", f"a pipeline has 1 to {limits.SHARDS_MAX} shards")
    if found.failures_max < 0 or not 0 <= found.failures_share <= 1:
        raise UnsupportedQuery("failures_max, failures_share", "they are a number, and a share between 0 and 1")
    _check_sources(found)
    _check_columns(found)


def _check_sources(found: plan.Pipeline) -> None:
    sources = plan.sources_of(found.output)
    if len(sources) > limits.SOURCES_MAX:
        raise UnsupportedQuery(f"{len(sources)} sources", f"a pipeline has at most {limits.SOURCES_MAX}")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UnsupportedQuery(
                f"source {name!r}", "two sources have this name, and both would be read",
                "one variable, used twice; or another name for other data",
            )  # fmt: skip


def _check_columns(found: plan.Pipeline) -> None:
    """Columns that sinks name."""
    schema = analyse_node(found.output).schema
    for sink in found.sinks:
        for column in _columns(sink):
            if schema.find(column) is None:
                raise UnsupportedQuery(
                    f"{type(sink).__name__} column {column!r}",
                    "the pipeline has no such column",
                    ", ".join(schema.names),
                )


def _columns(sink: plan.Sink) -> tuple[str, ...]:
    if isinstance(sink, plan.QueueSink):
        return (sink.group,) if sink.group else ()
    if isinstance(sink, plan.ParquetSink):
        return sink.partition_by
    return sink.key if isinstance(sink, plan.TableSink) else ()


def _queue(given: str | QueueEndpoint | None) -> str | None:
    if isinstance(given, QueueEndpoint):
        assert isinstance(given.sink, plan.QueueSink)
        return given.sink.queue
    return given
