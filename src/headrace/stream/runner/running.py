"""`run`: a pipeline on the embedded engine, from a program, a notebook or the command line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from headrace.native.client import Client, connect
from headrace.stream import limits, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import Physical
from headrace.stream.result import Report, Result
from headrace.stream.runner import keys
from headrace.stream.runner.backfill import TOPIC, source_to_backfill
from headrace.stream.runner.job import Job, Settings, Until
from headrace.stream.runner.progress import decode
from headrace.stream.runner.queues import backfill_topic, prepare_queues
from headrace.stream.runner.reset import reset as drop_state
from headrace.stream.runner.runner import Runner
from headrace.stream.runner.store import BrokerStore, MemoryStore, RetryPolicy, Store
from headrace.stream.sql import compile as compile_plan


def run(
    pipeline: plan.Pipeline,
    broker: str | Path | Client | None = None,
    *,
    until: Until | None = None,
    batch_rows: int = limits.BATCH_ROWS_DEFAULT,
    batch_ms: int = 0,
    memory_bytes: int = limits.ENGINE_MEMORY_BYTES_DEFAULT,
    threads: int = limits.ENGINE_THREADS_DEFAULT,
    state_memory_bytes: int = limits.STATE_MEMORY_BYTES_DEFAULT,
    retry_timeout_s: float | None = None,
    reset: bool = False,
    backfill: str | Path | None = None,
    on_progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
    text: str = "",
    compiled: Physical | None = None,
) -> Result:
    """Run a pipeline: input acknowledged, state and output written in one commit a batch.

    If other processes run it already, this one shares the work; where the plan or `until` does not allow it, it stands by
    and takes over when they leave or die.

    Args:
        pipeline: what runs.
        broker: where its queues and its state are: a URL, a folder, or a client, which stays open. None: for pipelines
            without queues; their state lives as long as the run.
        until: when to return. None: when all sources have ended, which queues never do. `idle`: when everything that is
            there is processed and delivered. `end`: then, and every window is closed.
        batch_rows: rows of a batch, about, at most.
        batch_ms: how long to wait for more rows after the first of a batch.
        memory_bytes, threads: of DuckDB.
        state_memory_bytes: parts of state that are kept in memory.
        retry_timeout_s: how long to go on trying while the broker or a sink is away. None: for ever, or RETRY_TIMEOUT_S with
            `until`.
        reset: drop the pipeline's state first, and give back what it has claimed.
        backfill: files that are read before the one source that is a queue or topic; or "topic": that topic's log from
            its beginning. At the pipeline's first start.
        on_progress: called with a Report, at most twice a second and at the end, by the thread that runs.
        stop: set it to end the run: the batch that is being processed is finished.
        text: the plan in words, kept with the state for `headrace stream show`.
        compiled: what `sql.compile` has made of it; None: that is done here, in some 10 ms.

    Returns:
        What the run came to.

    Raises:
        UnsupportedQuery: the SQL, a source or a sink cannot be run.
        QueueNotFound: a source's queue.
        DefinitionChanged: the state is of another definition, which this one cannot go on from.
        TooManyFailures: more rows could not be processed than the pipeline allows. What was committed stands.
        PipelineBusy: with `until`: another process runs it, and goes on.
        SinkFailed: a sink did not take a batch for `retry_timeout_s`.
        Unavailable: the broker was away for as long.
    """
    if retry_timeout_s is None and until is not None:
        retry_timeout_s = limits.RETRY_TIMEOUT_S
    settings = Settings(until, batch_rows, batch_ms, memory_bytes, threads, state_memory_bytes, retry_timeout_s)
    job = Job(pipeline, compiled or compile_plan(pipeline), settings)
    return run_job(job, broker, reset=reset, backfill=backfill, on_progress=on_progress, stop=stop, text=text)


def run_job(
    job: Job,
    broker: str | Path | Client | None,
    *,
    reset: bool = False,
    backfill: str | Path | None = None,
    on_progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
    text: str = "",
) -> Result:
    """`run` for a pipeline that is compiled."""
    stop = stop or threading.Event()
    retry = RetryPolicy(job.settings.retry_timeout_s, stop)
    with ExitStack() as closing:
        client = _client(job, broker, closing)
        store = _store(job, client, retry)
        if reset:
            retry.call(lambda: drop_state(store, client, job.pipeline.name))
        _check_backfill(job, store, backfill)
        before = str(backfill) if backfill is not None else None
        if client is not None:
            retry.call(lambda: prepare_queues(job, client))
            if before == TOPIC:
                retry.call(lambda: backfill_topic(job, client, job.pipeline.name))
        runner = Runner(
            job, store, client,
            stop=stop, retry=retry, text=text, backfill=before, on_progress=on_progress,
        )  # fmt: skip
        return runner.run()


def _client(job: Job, broker: str | Path | Client | None, closing: ExitStack) -> Client | None:
    if broker is None:
        if job.needs_broker:
            raise UnsupportedQuery(
                "pipeline " + repr(job.pipeline.name), "it has queues, and no broker is named", "run(broker)"
            )
        return None
    return broker if isinstance(broker, Client) else closing.enter_context(connect(broker))


def _store(job: Job, client: Client | None, retry: RetryPolicy) -> Store:
    return MemoryStore() if client is None else BrokerStore(client, keys.state_name(job.pipeline.name), retry)


def _check_backfill(job: Job, store: Store, backfill: str | Path | None) -> None:
    """At the first start; started again with the same, as whoever supervises it does, it goes on."""
    if backfill is None:
        return
    source_to_backfill(job.sources)
    begun = [decode(value) for value in store.read(keys.PROGRESS).values()]
    known = {source.backfill for progress in begun for source in progress.sources.values()}
    if begun and str(backfill) not in known:
        raise UnsupportedQuery(
            "backfill", f"pipeline {job.pipeline.name!r} has begun already", "reset it, too: --reset"
        )
