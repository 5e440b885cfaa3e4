"""What `headrace worker` can be told; the section `work` of headrace.toml.

Not in `headrace.work`: the command line shows its help without loading it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from headrace.settings import Duration, Size, setting


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The section `work`."""

    app: Annotated[str, setting("The app with the tasks: module:app.")] = ""
    app_dir: Annotated[Path, setting("The folder that modules are looked for in.")] = Path()
    broker: Annotated[
        str,
        setting(
            "The broker: http://HOST:PORT, unix:///PATH, or a data folder. Without it, the one that the app names, else "
            "HEADRACE_BROKER."
        ),
    ] = ""
    queues: Annotated[
        tuple[str, ...],
        setting(
            "Only these queues, the first one first; siblings -high and -low included. Without it, all of the app's."
        ),
    ] = ()
    processes: Annotated[int, setting("Worker processes.", ge=1, le=1_000)] = 1
    threads: Annotated[int, setting("Threads of each, for tasks that are plain functions.", ge=1, le=1_000)] = 8
    async_tasks: Annotated[int, setting("Async tasks that each process runs at a time.", ge=1, le=100_000)] = 100
    drain: Annotated[
        Duration,
        setting("How long tasks may go on once the worker is told to stop; then they are given to others.", ge=0),
    ] = Duration(25)
    grace: Annotated[
        Duration,
        setting("How long a plain function may go on beyond its time limit before its process is replaced.", ge=0.1),
    ] = Duration(5)
    max_rss: Annotated[Size | None, setting("Replace a process that uses more memory.", ge=16 * 1_048_576)] = None
    max_tasks: Annotated[int, setting("Replace a process that has run so many tasks. 0: never.", ge=0)] = 0
    watchdog: Annotated[
        Duration, setting("Replace a process that fetches nothing for so long although nothing runs in it.", ge=1)
    ] = Duration(60)
    schedules: Annotated[bool, setting("Fire schedules, too. Several workers may: each fires once.")] = True
    run_log: Annotated[bool, setting("Keep a log of the last 20,000 runs in the broker, for the console.")] = True
    heartbeat: Annotated[
        Path | None, setting("Touch this file every second while polls succeed: for liveness probes.")
    ] = None
    metrics_port: Annotated[
        int, setting("Serve Prometheus metrics on 127.0.0.1, at /metrics of this port. 0: not.", ge=0, le=65_535)
    ] = 0
    log_format: Annotated[Literal["auto", "text", "json"], setting("Auto is text on a terminal.")] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], setting("The least severe level.")] = "info"
