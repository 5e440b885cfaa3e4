"""Streams: SQL and Python pipelines over queues, exactly once. `import headrace.stream as hs`.

A pipeline is written with `api.py`, which makes the records of `plan.py`. `sql` checks and compiles them to the operators of
`physical.py`; `runner` reads `sources`, runs the operators of `engine` and commits input, state and output for `sinks` at
once; `spark` runs the same plan on Apache Spark. `formats` decodes and encodes rows.

Open `plan.py` first, then `api.py`, `physical.py`, `engine/engine.py`, `runner/runner.py`. Needs the extra:
`pip install 'headrace[stream]'`.
"""

from __future__ import annotations

from headrace.stream.errors import ExtraMissing

try:
    from headrace.stream.api import (
        Function,
        QueueEndpoint,
        Sink,
        Stream,
        Table,
        callback,
        console,
        files,
        function,
        http,
        memory,
        parquet,
        queue,
        sql_table,
        table,
        topic,
    )
    from headrace.stream.api import sql_ as sql
    from headrace.stream.errors import DefinitionChanged, SchemaInvalid, SinkFailed, TooManyFailures, UnsupportedQuery
    from headrace.stream.pipelines import Pipeline, pipeline
    from headrace.stream.schema import Schema
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in ("duckdb", "numpy", "pyarrow", "sqlglot"):
        raise ExtraMissing(str(error.name), "stream") from None
    raise

__all__ = [
    "DefinitionChanged",
    "ExtraMissing",
    "Function",
    "Pipeline",
    "QueueEndpoint",
    "Schema",
    "SchemaInvalid",
    "Sink",
    "SinkFailed",
    "Stream",
    "Table",
    "TooManyFailures",
    "UnsupportedQuery",
    "callback",
    "console",
    "files",
    "function",
    "http",
    "memory",
    "parquet",
    "pipeline",
    "queue",
    "sql",
    "sql_table",
    "table",
    "topic",
]  # fmt: skip
