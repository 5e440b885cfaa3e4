"""The logical plan: the definition of a pipeline, independent of the engine. Plain frozen records.

A plan is a graph of nodes: sources, steps, and a pipeline with its sinks at the end. `api.py` makes it,
`sql/` checks and compiles it, `engine/` and `spark/` run it. Times are microseconds (`_us`); a point in time is
microseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from headrace.stream import limits
from headrace.stream.schema import Schema

Format: TypeAlias = Literal["json", "arrow", "auto"]
"""What a message's body is: JSON (an object, or an array of objects), an Arrow IPC stream, or by its attribute
`content-type` (`application/vnd.apache.arrow.stream`; anything else is JSON)."""

FileFormat: TypeAlias = Literal["parquet", "csv", "jsonl", "access_log"]

Mode: TypeAlias = Literal["append", "update"]
"""`append`: a result is final, and comes when its window has closed. `update`: results come as they change."""


@dataclass(frozen=True, slots=True)
class EventTime:
    """The event time of a source. The watermark of a source is the greatest event time seen, less `delay_us`.

    Attributes:
        column: a timestamp column of the source's schema.
        delay_us: how far behind the greatest event time a row may be and still count.
        idle_us: the source's windows close after this (steady) time without input; None: they stay open.
    """

    column: str
    delay_us: int = 0
    idle_us: int | None = None


# --- sources: rows from outside. Each has a `name`, which SQL uses, a `schema`, and perhaps an event time. ---


@dataclass(frozen=True, slots=True)
class QueueSource:
    """The messages of a queue. They are claimed, and deleted when their results are committed.

    `metadata`: columns that are not in the body, in front of `schema`'s: message_id string, sent_at timestamp,
    message_group string, sequence bigint. `create`: whether a missing queue is created.
    """

    name: str
    queue: str
    schema: Schema
    time: EventTime | None = None
    format: Format = "auto"
    metadata: tuple[str, ...] = ()
    create: bool = False


@dataclass(frozen=True, slots=True)
class TopicSource:
    """Every message of a topic: the pipeline subscribes a queue of its own. Attributes as QueueSource.

    `start`: where a new pipeline starts: with messages that are published from now on, or with the topic's log from its beginning.
    """

    name: str
    topic: str
    schema: Schema
    time: EventTime | None = None
    format: Format = "auto"
    metadata: tuple[str, ...] = ()
    start: Literal["now", "beginning"] = "now"


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files: one, a folder, or a glob; in the order of their names, each read once.

    `follow`: continue with new files and appended lines (JSONL, CSV); otherwise the source ends.
    """

    name: str
    path: str
    format: FileFormat
    schema: Schema
    time: EventTime | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Rows given by the program: for tests and notebooks. `batches` are read in order, then the source ends."""

    name: str
    schema: Schema
    batches: tuple[pa.Table, ...]
    time: EventTime | None = None


Source: TypeAlias = QueueSource | TopicSource | FileSource | MemorySource


@dataclass(frozen=True, slots=True)
class TableRef:
    """A static table, joined by SQL under its `name`.

    Attributes:
        url: a path (`.parquet`, `.csv`, `.jsonl`), `sqlite:///PATH?table=T`, `postgresql://…?table=T`; empty for `data`.
        data: the rows, given by the program.
        reload_us: how often to read it again, between two batches; None: once, at the start.
    """

    name: str
    schema: Schema
    url: str = ""
    data: pa.Table | None = None
    reload_us: int | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function of scalars that SQL may call by `name`. Called with one value at a time, None included."""

    name: str
    call: Callable[..., Any]
    arguments: tuple[pa.DataType, ...]
    returns: pa.DataType


# --- steps ---


@dataclass(frozen=True, slots=True)
class SqlStep:
    """A SELECT in Spark's dialect over other nodes. `inputs`: the node or table of each table name in it.

    `sql.analyse` determines its schema and event time.
    """

    name: str
    text: str
    inputs: tuple[tuple[str, Node | TableRef], ...]
    functions: tuple[Function, ...] = ()


@dataclass(frozen=True, slots=True)
class PythonStep:
    """A Python function over rows or batches.

    `kind`: `map` (row → row), `flat_map` (row → rows), `filter` (row → bool), `batches` (Arrow table → Arrow table; all
    of a batch at once). A row is a dict; timestamps are datetimes without zone, UTC. A row whose call raises is dead; a
    batch whose call raises is repeated row by row.
    """

    name: str
    kind: Literal["map", "flat_map", "filter", "batches"]
    call: Callable[[Any], Any]
    schema: Schema
    input: Node


@dataclass(frozen=True, slots=True)
class DedupStep:
    """Only the first row of each key, for `within_us` of event time after it (Spark: dropDuplicatesWithinWatermark)."""

    name: str
    keys: tuple[str, ...]
    within_us: int
    input: Node


Node: TypeAlias = Source | SqlStep | PythonStep | DedupStep


# --- sinks ---


@dataclass(frozen=True, slots=True)
class QueueSink:
    """Rows as messages of a queue or topic, in the pipeline's own commit: exactly once.

    `format` json: a row a message; arrow: up to `rows_max` rows a message. `group`: a column for MessageGroupId (a FIFO
    queue needs it).
    """

    queue: str
    topic: bool = False
    format: Literal["json", "arrow"] = "json"
    group: str | None = None
    rows_max: int = 10_000


@dataclass(frozen=True, slots=True)
class ParquetSink:
    """Files in a folder, `column=value/` for each partition column. A file appears whole, once."""

    path: Path
    partition_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableSink:
    """Rows of an SQL table: `sqlite:///PATH`, `postgresql://…`. With `key` a row replaces that of the same key. A missing
    table is created. Each batch is one transaction, with its number: exactly once."""

    url: str
    table: str
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpSink:
    """Rows POSTed as a JSON array, at most `rows_max`, at least once (a repeated post has the same
    Idempotency-Key). `allow`: the allowed host names; addresses are checked after resolution."""

    url: str
    allow: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()
    rows_max: int = 1_000


@dataclass(frozen=True, slots=True)
class ConsoleSink:
    """A table in the terminal, of at most `rows_max` rows a batch."""

    rows_max: int = 20


@dataclass(frozen=True, slots=True)
class CallbackSink:
    """`call(batch number, Arrow table)`, at least once a batch; a repeat has the same number and the same rows."""

    call: Callable[[int, pa.Table], None]


Sink: TypeAlias = QueueSink | ParquetSink | TableSink | HttpSink | ConsoleSink | CallbackSink


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline: the rows of a node, written to sinks.

    Attributes:
        name: 1 to 40 characters of a-z, A-Z, 0-9, `-`, `_`; also the name of the state.
        output: the node.
        sinks: each gets every row.
        late_queue: the queue for late rows; without one they are only counted.
        dead_letter_queue: the queue for rows that cannot be processed; without one, the first of them stops the pipeline.
        mode: the output mode.
        failures_max, failures_share: the limits of dead rows since the start: it stops when they exceed this number and
            this share of all rows.
        shards: the number of parts of the state, 1 to 256, and of processes that can share the work. Fixed for the pipeline's life.
    """

    name: str
    output: Node
    sinks: tuple[Sink, ...]
    late_queue: str | None = None
    dead_letter_queue: str | None = None
    mode: Mode = "append"
    failures_max: int = limits.FAILURES_MAX_DEFAULT
    failures_share: float = limits.FAILURES_SHARE_DEFAULT
    shards: int = limits.SHARDS_DEFAULT


def inputs_of(node: Node) -> tuple[Node, ...]:
    """The nodes that a node reads, tables left out."""
    if isinstance(node, SqlStep):
        return tuple(item for _, item in node.inputs if not isinstance(item, TableRef))
    if isinstance(node, PythonStep | DedupStep):
        return (node.input,)
    return ()


def sources_of(node: Node) -> list[Source]:
    """The sources that a node depends on, each once, in the order of traversal."""
    kinds = QueueSource | TopicSource | FileSource | MemorySource
    return [node_ for node_ in walk(node) if isinstance(node_, kinds)]


def walk(node: Node) -> list[Node]:
    """The node and all that it depends on, each once, inputs first. Nodes are the same if they are one object."""
    ordered: list[Node] = []
    seen: set[int] = set()

    def visit(node_: Node) -> None:
        if id(node_) not in seen:
            seen.add(id(node_))
            for input_ in inputs_of(node_):
                visit(input_)
            ordered.append(node_)

    visit(node)
    return ordered
