"""The logical plan: what a pipeline is, before anybody decides how it runs. Plain frozen records.

A plan is a graph of nodes: sources, steps, and a pipeline with its sinks at the end. `api.py` is how people write it,
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
    """When a row happened. The watermark of a source is the greatest event time seen, less `delay_us`.

    Attributes:
        column: a timestamp column of the source's schema.
        delay_us: how much later than a younger row a row may come and still count.
        idle_us: without input for so long (of steady time), the source's windows are closed; None: they wait.
    """

    column: str
    delay_us: int = 0
    idle_us: int | None = None


# --- sources: rows from outside. Each has a `name`, by which SQL calls it, a `schema`, and perhaps an event time. ---


@dataclass(frozen=True, slots=True)
class QueueSource:
    """The messages of a queue. They are claimed, and deleted when what became of them is committed.

    `metadata`: columns that are not in the body, in front of `schema`'s: message_id string, sent_at timestamp,
    message_group string, sequence bigint. `create`: whether the queue is made if it is not there.
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
    """Every message of a topic, for this pipeline alone: it subscribes a queue of its own. Attributes as QueueSource.

    `start`: what a pipeline that is new reads first: what is published from now on, or the topic's log from its beginning.
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

    `follow`: go on with files that come, and with lines that are appended (JSONL, CSV); else the source ends.
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
        reload_us: read again so often, between two batches; None: once, at the start.
    """

    name: str
    schema: Schema
    url: str = ""
    data: pa.Table | None = None
    reload_us: int | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function of scalars that SQL may call by `name`. Called a value at a time; None in, None out is its own."""

    name: str
    call: Callable[..., Any]
    arguments: tuple[pa.DataType, ...]
    returns: pa.DataType


# --- steps ---


@dataclass(frozen=True, slots=True)
class SqlStep:
    """A SELECT in Spark's dialect over other nodes. `inputs`: what each table name in it means.

    Its schema and its event time are found by `sql.analyse`.
    """

    name: str
    text: str
    inputs: tuple[tuple[str, Node | TableRef], ...]
    functions: tuple[Function, ...] = ()


@dataclass(frozen=True, slots=True)
class PythonStep:
    """Rows through a Python function.

    `kind`: `map` (row → row), `flat_map` (row → rows), `filter` (row → bool), `batches` (Arrow table → Arrow table; all
    of a batch at once). A row is a dict; timestamps are datetimes without zone, UTC. A row whose call raises is dead; a
    batch whose call raises is tried a row at a time.
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
    """Rows of an SQL table: `sqlite:///PATH`, `postgresql://…`. With `key` a row replaces that of the same key. The table
    is made if it is not there. Each batch is one transaction, with its number: exactly once."""

    url: str
    table: str
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpSink:
    """Rows POSTed as a JSON array, at most `rows_max`, at least once (each post has an Idempotency-Key that a repeat
    repeats). `allow`: host names that may be connected to; addresses are checked after resolution."""

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
    """What runs: a node's rows into sinks.

    Attributes:
        name: 1 to 40 characters of a-z, A-Z, 0-9, `-`, `_`; whose state it is.
        output: the node.
        sinks: each gets every row.
        late_queue: the queue for late rows; without one they are only counted.
        dead_letter_queue: the queue for rows that cannot be processed; without one, the first of them stops the pipeline.
        mode: when results come.
        failures_max, failures_share: the limits of dead rows since the start: it stops when they exceed this number and
            this share of all rows.
        shards: into how many parts the state is cut, 1 to 256: how many processes can share the work. Fixed for life.
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
    """The sources that a node depends on, each once, in the order in which they are met."""
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
