"""The API in which pipelines are written: `import headrace.stream as hs`. It checks its arguments and makes the records of `plan.py`.

    flights = hs.queue("flights", schema="origin string, dep_delay double, ts timestamp").with_watermark("ts", delay="10 minutes")
    delays = hs.sql("SELECT window_start, origin, avg(dep_delay) AS delay FROM flights GROUP BY tumble(ts, '1 hour'), origin")
    pipeline = hs.pipeline("delays", delays, sink=hs.queue("delays"))

Everything is checked where it is written: the traceback of an error ends at the line that is wrong.
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

import pyarrow as pa
from sqlglot import exp

from headrace.durations import Duration, duration_us
from headrace.stream import plan
from headrace.stream.errors import SchemaInvalid, UnsupportedQuery
from headrace.stream.plan import FileFormat
from headrace.stream.schema import Schema, SchemaLike
from headrace.stream.sources.file_listing import format_of
from headrace.stream.sql import analyse_node
from headrace.stream.sql.dialect import parse


class Table:
    """A static table, which SQL joins by its name. Made by `table`."""

    def __init__(self, ref: plan.TableRef) -> None:
        self.ref = ref

    def __repr__(self) -> str:
        return f"<table {self.ref.name}: {self.ref.schema}>"


class Sink:
    """A destination of rows. Made by `queue`, `topic`, `parquet`, `sql_table`, `http`, `console`, `callback`."""

    def __init__(self, record: plan.Sink) -> None:
        self.sink = record

    def __repr__(self) -> str:
        return f"<sink {self.sink}>"


class Stream:
    """An unbounded table: a source, or the result of a step. Immutable: each method returns a new stream."""

    def __init__(self, node: plan.Node) -> None:
        self._node = node
        self._analysis = analyse_node(node)

    @property
    def node(self) -> plan.Node:
        """The node of the plan."""
        return self._node

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self._analysis.schema

    @property
    def time(self) -> str | None:
        """The column that is its event time, or None."""
        return self._analysis.time

    def with_watermark(self, column: str, delay: Duration = 0, idle: Duration | None = None) -> Stream:
        """Set the event time and the watermark of this source (Spark's withWatermark).

        Args:
            column: a timestamp column.
            delay: how far behind the greatest event time a row may be and still count.
            idle: close the open windows after this time without input; None: they stay open.

        Raises:
            UnsupportedQuery: it is not a source, or has no such column.
        """
        node = self.node
        if isinstance(node, plan.SqlStep | plan.PythonStep | plan.DedupStep):
            raise UnsupportedQuery(
                "with_watermark", "it belongs to a source", ".with_watermark(…) directly behind hs.queue(…)"
            )
        found = self.schema.find(column)
        if found is None or not pa.types.is_timestamp(found.type):
            times = [field.name for field in self.schema.fields if pa.types.is_timestamp(field.type)]
            raise UnsupportedQuery(
                f"with_watermark({column!r})",
                "it is not a timestamp column",
                " or ".join(times) or "ts timestamp",
            )
        time = plan.EventTime(found.name, _positive("delay", delay), None if idle is None else _positive("idle", idle))
        return self._like(replace(node, time=time))

    def _like(self, node: plan.Node) -> Stream:
        return Stream(node)

    def sql(self, text: str, *, name: str = "sql", **streams: Stream | Table | Function) -> Stream:
        """A SELECT over this stream, called `input` in it, and over others as in `hs.sql`."""
        return _sql(text, name, {"input": self, **streams})

    def map(self, fn: Callable[[dict[str, Any]], Mapping[str, Any]], *, schema: SchemaLike, name: str = "") -> Stream:
        """Apply a function to each row: it takes a dict, and returns a dict with the columns of `schema`."""
        return self._python("map", fn, Schema.of(schema), name)

    def flat_map(
        self, fn: Callable[[dict[str, Any]], Iterable[Mapping[str, Any]]], *, schema: SchemaLike, name: str = ""
    ) -> Stream:
        """Apply a function that returns any number of rows to each row."""
        return self._python("flat_map", fn, Schema.of(schema), name)

    def filter(self, fn: Callable[[dict[str, Any]], bool], *, name: str = "") -> Stream:
        """Keep the rows for which the function returns true."""
        return self._python("filter", fn, self.schema, name)

    def map_batches(self, fn: Callable[[pa.Table], pa.Table], *, schema: SchemaLike, name: str = "") -> Stream:
        """Apply a function of Arrow tables to each batch. The division of rows into batches is not defined."""
        return self._python("batches", fn, Schema.of(schema), name)

    def _python(
        self, kind: Literal["map", "flat_map", "filter", "batches"], fn: Callable[[Any], Any], schema: Schema, name: str
    ) -> Stream:
        if not callable(fn):
            raise UnsupportedQuery(f"{kind}({fn!r})", "it takes a function")
        called = name or str(getattr(fn, "__name__", kind)).replace("<lambda>", kind)
        return Stream(plan.PythonStep(called, kind, fn, schema, self.node))

    def dedup(self, *keys: str, within: Duration, name: str = "dedup") -> Stream:
        """Keep the first row of each key, for `within` of event time after it."""
        if not keys:
            raise UnsupportedQuery(
                "dedup()", "it needs the columns that make rows equal", ".dedup('id', within='10 minutes')"
            )
        return Stream(plan.DedupStep(name, keys, _positive("within", within), self.node))

    def __repr__(self) -> str:
        return f"<stream {self.node.name}: {self.schema}>"


class QueueEndpoint(Stream, Sink):
    """A queue or a topic: a source if it has a schema, a sink in any case."""

    def __init__(self, node: plan.QueueSource | plan.TopicSource | None, sink: plan.Sink, label: str) -> None:
        Sink.__init__(self, sink)
        self.label = label
        if node is not None:
            Stream.__init__(self, node)

    @property
    def node(self) -> plan.Node:
        """The source. Raises UnsupportedQuery if no schema was given."""
        if getattr(self, "_node", None) is None:
            raise UnsupportedQuery(self.label, "as a source it needs the columns", 'schema="id bigint, ts timestamp"')
        return self._node

    def _like(self, node: plan.Node) -> Stream:
        return QueueEndpoint(cast("plan.QueueSource | plan.TopicSource", node), self.sink, self.label)

    def __repr__(self) -> str:
        return f"<{self.label}>"


class Function:
    """A Python function that SQL may call. Made by the decorator `function`."""

    def __init__(self, record: plan.Function) -> None:
        self.record = record

    def __call__(self, *arguments: Any) -> Any:
        return self.record.call(*arguments)


def queue(
    name: str, *, schema: SchemaLike | None = None, format: Literal["json", "arrow", "auto"] = "auto",  # noqa: A002 # Spark's word
    metadata: Sequence[str] = (), group: str | None = None, create: bool = False,
) -> QueueEndpoint:  # fmt: skip
    """A queue: with a schema a source; a sink in any case.

    Args:
        name: the name of the queue.
        schema: the columns of its messages' bodies.
        format: the format of the bodies; as a sink `auto` writes JSON.
        metadata: message_id, sent_at, message_group, sequence: added as columns in front of the others.
        group: as a sink, the column for MessageGroupId; a FIFO queue needs it.
        create: as a source, whether a run creates a missing queue with the default settings; otherwise such a run is
            refused. A missing queue of a sink is always created.
    """
    node = (
        plan.QueueSource(name, name, Schema.of(schema), None, format, tuple(metadata), create)
        if schema is not None
        else None
    )
    sink = plan.QueueSink(name, format="arrow" if format == "arrow" else "json", group=group)
    return QueueEndpoint(node, sink, f"queue {name}")


def topic(
    name: str, *, schema: SchemaLike | None = None, format: Literal["json", "arrow", "auto"] = "auto",  # noqa: A002 # Spark's word
    metadata: Sequence[str] = (), group: str | None = None, start: Literal["now", "beginning"] = "now",
) -> QueueEndpoint:  # fmt: skip
    """A topic: each pipeline receives every message. Arguments as for `queue`.

    Args:
        start: where a new pipeline starts: with messages that are published from now on, or with the topic's log from its
            beginning (the topic needs a retention), and then live without a gap or a duplicate.
    """
    node = (
        plan.TopicSource(name, name, Schema.of(schema), None, format, tuple(metadata), start)
        if schema is not None
        else None
    )
    sink = plan.QueueSink(name, topic=True, format="arrow" if format == "arrow" else "json", group=group)
    return QueueEndpoint(node, sink, f"topic {name}")


def files(
    path: str | Path, *, schema: SchemaLike | None = None, format: plan.FileFormat | None = None,  # noqa: A002 # Spark's word
    follow: bool = False, name: str = "",
) -> Stream:  # fmt: skip
    """Files: one, a folder or a glob, in the order of their names.

    Args:
        path: the path.
        schema: the columns; not needed for an existing Parquet file.
        format: by the suffix, if not given.
        follow: continue with new files and appended lines; otherwise the stream ends.
        name: the name in SQL; by default the last part of the path without suffix.
    """
    found = format or file_format(path)
    columns = Schema.of(schema) if schema is not None else file_schema(path, found)
    return Stream(
        plan.FileSource(name or Path(path).stem.strip("*") or "files", str(path), found, columns, None, follow)
    )


def memory(
    schema: SchemaLike, batches: Iterable[pa.Table | Sequence[Mapping[str, Any]]], *, name: str = "memory"
) -> Stream:
    """Rows that the program gives, as Arrow tables or lists of dicts; then the stream ends."""
    columns = Schema.of(schema)
    return Stream(plan.MemorySource(name, columns, tuple(_table(batch, columns) for batch in batches)))


def table(
    name: str, *, url: str = "", data: pa.Table | Sequence[Mapping[str, Any]] | None = None, schema: SchemaLike | None = None,
    reload: Duration | None = None,
) -> Table:  # fmt: skip
    """A static table, for SQL to join.

    Args:
        name: the name in SQL.
        url: a path (.parquet, .csv, .jsonl), `sqlite:///PATH?table=T`, `postgresql://…?table=T`.
        data: or the rows.
        schema: the columns; not needed for `data` in Arrow or a Parquet file.
        reload: how often to read the url again; None: once.
    """
    if bool(url) == (data is not None):
        raise UnsupportedQuery(f"table({name!r})", "a table has either a url or data")
    if schema is not None:
        columns = Schema.of(schema)
    elif isinstance(data, pa.Table):
        columns = Schema.of(data.schema)
    elif url.endswith((".parquet", ".pq")):
        columns = file_schema(url, "parquet")
    else:
        raise UnsupportedQuery(f"table({name!r})", "its columns are not known", 'schema="id bigint, name string"')
    rows = _table(data, columns) if data is not None else None
    return Table(plan.TableRef(name, columns, url, rows, None if reload is None else _positive("reload", reload)))


def sql_(text: str, *, name: str = "sql", **streams: Stream | Table | Function) -> Stream:
    """A SELECT in Spark's dialect. A table name is looked up in `streams`, then in the caller's variables: by the name of
    the variable, or of the stream.

    Raises:
        UnsupportedQuery: streams do not support the query; with line, column and the alternative.
    """
    return _sql(text, name, streams)


def function(
    *, returns: SchemaLike, name: str = "", arguments: Sequence[str] | None = None
) -> Callable[[Callable[..., Any]], Function]:
    """A decorator: a Python function of scalars that SQL may call by its name.

    Args:
        returns: the result's type, in Spark's words or Python's: "double", float.
        name: the name in SQL; by default the function's own.
        arguments: the types of the arguments; not needed where they are annotated.
    """

    def decorate(fn: Callable[..., Any]) -> Function:
        called = name or fn.__name__
        result = Schema.of({"x": returns}).fields[0].type
        return Function(plan.Function(called, fn, _argument_types(fn, called, arguments), result))

    return decorate


def parquet(path: str | Path, *, partition_by: Sequence[str] = ()) -> Sink:
    """Parquet files in a folder; `column=value/` for each of `partition_by`. A file appears whole, once."""
    return Sink(plan.ParquetSink(Path(path), _names(partition_by)))


def sql_table(url: str, table: str, *, key: Sequence[str] = ()) -> Sink:
    """Rows of an SQL table (`sqlite:///PATH`, `postgresql://…`). With `key`, a row replaces that of the same key."""
    return Sink(plan.TableSink(url, table, _names(key)))


def http(url: str, *, allow: Sequence[str], headers: Mapping[str, str] | None = None, rows_max: int = 1_000) -> Sink:
    """Rows POSTed as JSON arrays, to host names in `allow` only."""
    return Sink(plan.HttpSink(url, _names(allow), tuple((headers or {}).items()), rows_max))


def console(*, rows_max: int = 20) -> Sink:
    """A table in the terminal."""
    return Sink(plan.ConsoleSink(rows_max))


def callback(fn: Callable[[int, pa.Table], None]) -> Sink:
    """`fn(batch number, Arrow table)`, at least once a batch."""
    return Sink(plan.CallbackSink(fn))


def _sql(text: str, name: str, given: Mapping[str, Stream | Table | Function]) -> Stream:
    tables, functions = table_names(text, name)
    variables = {key.lower(): value for key, value in given.items()}
    around = caller_variables(Path(__file__).parent)
    inputs = [(wanted, _input(wanted, variables, around)) for wanted in tables]
    calls = [_function(called, variables, around) for called in functions]
    found = tuple((wanted, item) for wanted, item in inputs if item is not None)
    return Stream(plan.SqlStep(name, text, found, tuple(call for call in calls if call is not None)))


def _input(wanted: str, given: Mapping[str, object], around: Mapping[str, object]) -> plan.Node | plan.TableRef | None:
    candidates = [given.get(wanted.lower()), around.get(wanted)]
    candidates += [value for value in around.values() if _own_name(value) == wanted.lower()]
    for value in candidates:
        if isinstance(value, Stream):
            return value.node
        if isinstance(value, Table):
            return value.ref if value.ref.name == wanted else replace(value.ref, name=wanted)
    return None


def _own_name(value: object) -> str | None:
    if isinstance(value, Table):
        return value.ref.name.lower()
    if isinstance(value, Stream) and getattr(value, "_node", None) is not None:
        return value.node.name.lower()
    return None


def _function(wanted: str, given: Mapping[str, object], around: Mapping[str, object]) -> plan.Function | None:
    candidates = [given.get(wanted.lower()), *around.values()]
    for value in candidates:
        if isinstance(value, Function) and value.record.name.lower() == wanted.lower():
            return value.record
    return None


def _argument_types(fn: Callable[..., Any], called: str, arguments: Sequence[str] | None) -> tuple[pa.DataType, ...]:
    hints = {key: hint for key, hint in get_type_hints(fn).items() if key != "return"}
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    given = dict(zip(names, arguments, strict=True)) if arguments is not None else hints
    missing = [argument for argument in names if argument not in given]
    if missing:
        raise SchemaInvalid(
            called, f"the type of argument {missing[0]!r} is not known; annotate it, or give arguments=[…]"
        )
    return tuple(Schema.of({argument: given[argument]}).fields[0].type for argument in names)


def _positive(what: str, value: Duration) -> int:
    us = duration_us(value)
    if us < 0:
        raise UnsupportedQuery(f"{what}={value!r}", "it cannot be negative")
    return us


def _names(value: Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _table(rows: pa.Table | Sequence[Mapping[str, Any]], schema: Schema) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows.select(schema.names).cast(schema.arrow())
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema.arrow())


# --- Names that SQL may use, and the columns of files ---


def table_names(text: str, step: str) -> tuple[list[str], list[str]]:
    """(tables, functions) that a text names, each once, in order, without the names of WITH."""
    tree = parse(text, step)
    own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    tables = [node.name for node in tree.find_all(exp.Table) if node.name and node.name.lower() not in own]
    calls = [str(node.this) for node in tree.find_all(exp.Anonymous)]
    return list(dict.fromkeys(tables)), list(dict.fromkeys(calls))


def caller_variables(package: Path) -> dict[str, object]:
    """The variables of the caller of `package`: globals, and locals over them."""
    frame = sys._getframe(1)  # noqa: SLF001 # inspect.stack() reads every file of the stack
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(package):
        frame = frame.f_back
    return {**frame.f_globals, **frame.f_locals}


# --- The format of files by their suffix, the columns by the schema of Parquet ---


def file_format(path: str | Path) -> FileFormat:
    """The format of a file, or of the first in a folder, by its suffix. Raises UnsupportedQuery."""
    found = format_of(Path(path))
    if found is None:
        raise UnsupportedQuery(
            f"files({str(path)!r})",
            "the suffix does not show the format",
            "format='parquet', 'csv', 'jsonl' or 'access_log'",
        )
    return found


def file_schema(path: str | Path, found: FileFormat) -> Schema:
    """The columns that a Parquet file, or the first in a folder or of a glob, says it has. Raises UnsupportedQuery."""
    import pyarrow.parquet as pq  # noqa: PLC0415 # only where a file is read

    if found != "parquet":
        raise UnsupportedQuery(
            f"files({str(path)!r})",
            f"a {found} file has no column types",
            'schema="id bigint, ts timestamp"',
        )
    pattern = str(Path(path) / "**" / "*.parquet") if Path(path).is_dir() else str(path)
    first = next(iter(sorted(glob.glob(pattern, recursive=True))), None)  # noqa: PTH207 # an absolute pattern
    if first is None:
        raise UnsupportedQuery(f"files({str(path)!r})", "no such file, so the columns are unknown", "schema=…")
    return Schema.of(pq.read_schema(first))
