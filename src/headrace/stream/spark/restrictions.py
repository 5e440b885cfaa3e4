"""What only the embedded engine can do: refused before Spark is started."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.stream.errors import UnsupportedQuery
from headrace.stream.plan import (
    DedupStep,
    FileSource,
    HttpSink,
    Node,
    ParquetSink,
    Pipeline,
    Source,
    sources_of,
    walk,
)
from headrace.stream.sql import compile as compile_plan
from headrace.stream.sql.restrictions import spark_restrictions_of


def restrictions_of(pipeline: Pipeline) -> list[UnsupportedQuery]:
    """All of them; empty if Spark can run the pipeline."""
    nodes = walk(pipeline.output)
    return [
        *spark_restrictions_of(pipeline, compile_plan(pipeline)),
        *(refusal for source in sources_of(pipeline.output) for refusal in _of_source(source)),
        *(refusal for node in nodes for refusal in _of_node(node)),
    ]


def notes(pipeline: Pipeline) -> list[str]:
    """What is different on Spark and yet runs, a sentence each."""
    found = []
    if pipeline.late_queue is not None:
        found.append(f"late rows are only counted: Spark drops them, so the queue {pipeline.late_queue!r} gets none")
    if any(isinstance(sink, HttpSink | ParquetSink) for sink in pipeline.sinks):
        found.append("what goes to files, tables and HTTP goes through the driver: a batch must fit into its memory")
    return found


def _of_source(source: Source) -> Iterator[UnsupportedQuery]:
    if source.time is not None and source.time.idle_us is not None:
        yield _embedded_only("idle", source.name, "closes windows by event time alone", "leave `idle` out")
    if isinstance(source, FileSource) and source.format == "access_log":
        yield _embedded_only("access_log", source.name, "cannot read access logs", "write them as JSON lines")


def _of_node(node: Node) -> Iterator[UnsupportedQuery]:
    if isinstance(node, DedupStep):
        delays = {source.time.delay_us for source in sources_of(node) if source.time is not None}
        if delays != {node.within_us}:
            reason = "remembers a key for as long as the watermark's delay"
            yield _embedded_only("dedup", node.name, reason, "give `within` and the source's `delay` the same duration")


def _embedded_only(construct: str, step: str, what: str, instead: str) -> UnsupportedQuery:
    return UnsupportedQuery(
        construct, f"Spark {what}; only the embedded engine can do it", f"{instead}, or run it embedded", step=step
    )
