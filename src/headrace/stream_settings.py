"""What `headrace stream run` can be told; the section `stream` of headrace.toml.

Not in `headrace.stream`, which needs an extra and takes a second to load: the command line shows its help without. A test
checks that the numbers are those of `stream/limits.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headrace.settings import Duration, Size, setting


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The section `stream`."""

    file: Annotated[str, setting("The pipeline: FILE.py or FILE.py:NAME; the command's argument.", relative=True)] = ""
    name: Annotated[str, setting("Run it under another name: with state of its own.")] = ""
    broker: Annotated[
        str,
        setting(
            "The broker: http://HOST:PORT, unix:///PATH, or a data folder; none: files and tables only, state in memory."
            " Without it, HEADRACE_BROKER, then http://127.0.0.1:9324."
        ),
    ] = ""
    backfill: Annotated[
        str,
        setting("Read these files (a file, folder or glob) before the queue or topic; topic: the topic's log first."),
    ] = ""
    batch_rows: Annotated[int, setting("Rows of one batch, about, at most.", ge=1, le=10_000_000)] = 100_000
    batch_ms: Annotated[
        int,
        setting(
            "Milliseconds to wait for more rows after a batch's first: fewer commits, later results.",
            ge=0,
            le=60_000,
        ),
    ] = 0
    memory: Annotated[Size, setting("Memory of the SQL engine; beyond it, it spills to disk.", ge=64 * 1_048_576)] = (
        Size(512 * 1_048_576)
    )
    state_memory: Annotated[
        Size, setting("State kept in memory; the rest is read again when it is needed.", ge=1_048_576)
    ] = Size(256 * 1_048_576)
    threads: Annotated[int, setting("Threads of the SQL engine.", ge=1, le=256)] = 2
    retry_timeout: Annotated[
        Duration | None,
        setting("How long to retry while the broker or a sink is unavailable. Default: no limit; 60 s with --until."),
    ] = None
    engine: Annotated[Literal["embedded", "spark"], setting("What runs it: this process, or Apache Spark.")] = (
        "embedded"
    )
    master: Annotated[str | None, setting("Spark: the cluster, `local[2]` or `spark://HOST:PORT`.")] = None
    checkpoint: Annotated[str | None, setting("Spark: the folder of its checkpoints.", relative=True)] = None
    log_format: Annotated[Literal["auto", "text", "json"], setting("auto: text on a terminal, else json.")] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], setting("Least severe line to log.")] = "info"
