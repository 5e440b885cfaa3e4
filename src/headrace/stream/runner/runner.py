"""Runs a pipeline on the embedded engine: `run` checks it, prepares its queues and starts a `Runner`, which takes the pipeline
over or stands by, runs one session after the other and reports progress.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias

from headrace.errors import QueueNotFound, StateChanged
from headrace.native.client import Client, connect
from headrace.queue import operations as ops
from headrace.stream import limits, plan
from headrace.stream.engine.operator import NEVER
from headrace.stream.errors import DefinitionChanged, PipelineBusy, UnsupportedQuery
from headrace.stream.physical import PhysicalPlan
from headrace.stream.result import Collector, Report, Result
from headrace.stream.runner import definition as definitions
from headrace.stream.runner import sharing, state_keys
from headrace.stream.runner.admin import reset as drop_state
from headrace.stream.runner.commit import Committer, TakenOver
from headrace.stream.runner.job import Job, Settings, Until
from headrace.stream.runner.membership import Membership
from headrace.stream.runner.progress import BACKFILL_TOPIC, Progress, decode_progress
from headrace.stream.runner.session import Session
from headrace.stream.runner.source_set import Wakeup, source_to_backfill
from headrace.stream.runner.store import BrokerStore, Control, MemoryStore, RetryPolicy, Store, read_control
from headrace.stream.sources.queue import inbox_name, subscribe
from headrace.stream.sql import compile as compile_plan

_MEMORY_S = 5.0


class Rate:
    """A mean of the growth a second in which what is 5 s old weighs a third."""

    def __init__(self, now_s: float) -> None:
        self._at_s = now_s
        self._count: int | None = None
        self._rate = 0.0

    def of(self, count: int, now_s: float) -> float:
        """The rate, the total being `count` now."""
        if self._count is None:
            self._at_s, self._count = now_s, count
            return 0.0
        passed_s = now_s - self._at_s
        if passed_s > 0:
            weight = 1 - math.exp(-passed_s / _MEMORY_S)
            self._rate += weight * ((count - self._count) / passed_s - self._rate)
            self._at_s, self._count = now_s, count
        return self._rate


# --- The queues that a pipeline names: what it reads must be there, what it writes is made ---


def prepare_queues(job: Job, client: Client) -> None:
    """Check sources; make the queues of sinks, late and dead rows, with the default settings, if they are not there.

    A source is made only if it says so: with a slip in its name a pipeline would wait for ever for rows that go elsewhere.

    Raises:
        QueueNotFound: a source.
        UnsupportedQuery: a FIFO queue for late or dead rows, which have no group.
    """
    for source in job.sources:
        if isinstance(source, plan.QueueSource):
            if source.create:
                make_queue(client, source.queue)
            else:
                client.queue(source.queue)
    for queue in (job.pipeline.late_queue, job.pipeline.dead_letter_queue):
        if queue is not None:
            _check_standard(queue)
            client.queue(queue, create=True)
    for sink in job.pipeline.sinks:
        if isinstance(sink, plan.QueueSink) and not sink.topic:
            make_queue(client, sink.queue)


def backfill_topic(job: Job, client: Client, pipeline: str) -> None:
    """Let the pipeline's only topic be read from the beginning of its log; it is subscribed here, before it is read.

    Raises:
        UnsupportedQuery: its only live source is not a topic.
        SubscriptionRefused: the topic keeps no log.
    """
    source = source_to_backfill(job.sources)
    if not isinstance(source, plan.TopicSource):
        raise UnsupportedQuery(
            "backfill 'topic'", f"source {source.name!r} is a queue, which keeps no log", "the name of files"
        )
    subscribe(client, source.topic, inbox_name(pipeline, source.topic), start="beginning")


def make_queue(client: Client, name: str) -> None:
    """Create the queue if it does not exist, whatever its settings are."""
    try:
        client.queue(name)
    except QueueNotFound:
        if name.endswith(".fifo"):
            client.queue(name, create=True, fifo=True)
        else:
            client.queue(name, create=True)


def _check_standard(queue: str) -> None:
    if queue.endswith(".fifo"):
        raise UnsupportedQuery(
            f"queue {queue!r}", "late and dead rows have no group, which a FIFO queue asks for", "a standard queue"
        )


# --- The runner ---


_log = logging.getLogger("headrace.stream")

OnProgress: TypeAlias = Callable[[Report], None]


class Runner:
    """One run of a pipeline. `run` returns at its end: see `Settings.until` and `stop`."""

    def __init__(
        self,
        job: Job,
        store: Store,
        client: Client | None,
        *,
        stop: threading.Event,
        retry: RetryPolicy,
        text: str = "",
        backfill: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._job = job
        self._store = store
        self._client = client
        self._stop = stop
        self._retry = retry
        self._text = text
        self._backfill = backfill
        self._on_progress = on_progress
        self._wakeup = Wakeup()
        self._membership = Membership(store, job.pipeline.name)
        self._collector = Collector(job.physical.output.schema.arrow(), everything=not job.pipeline.sinks)
        self._first: Progress | None = None
        self._last = Progress()
        self._control = Control()
        self._kept_ms = 0  # at once: commands apply from the first batch on
        self._told_s = 0.0
        self._says_standby = True  # once
        self._rate = Rate(time.monotonic())

    def run(self) -> Result:
        """Raises TooManyFailures, DefinitionChanged, PipelineBusy, and what sources, steps and sinks fail with."""
        started_s = time.monotonic()
        try:
            with self._membership.beating():
                while not self._stop.is_set():
                    if self._stood_by() and self._served():
                        break
        finally:
            self._leave()
        return self._result(time.monotonic() - started_s)

    # --- takeover and standby ---

    def _stood_by(self) -> bool:
        """Wait until this process has a slot; False: it was stopped before that."""
        waited_ms = self._store.now_ms()
        alone = self._why_alone()
        while not self._membership.take(shards=self._job.shards, alone=alone is not None):
            self._say_standby(alone)
            self._membership.beat(always=True)
            if self._job.settings.until is not None and self._store.now_ms() - waited_ms > 2 * limits.MEMBER_LOST_MS:
                raise PipelineBusy(self._job.pipeline.name)
            self._tell(None, standby=True)
            if self._stop.wait(limits.MEMBER_LOOK_S):
                return False
        return True

    def _why_alone(self) -> str | None:
        """Why this run cannot share the pipeline; None: it can."""
        if self._job.settings.until is not None:
            return "it runs with --until"
        records = [decode_progress(value) for value in self._store.read(state_keys.PROGRESS).values()]
        sources = [source for record in records for source in record.sources.values()]
        if self._backfill not in (None, BACKFILL_TOPIC) or any(source.files is not None for source in sources):
            return "files of a backfill come first, and no other rows may overtake them"
        return sharing.unshareable_reason(self._job.pipeline, self._job.physical)

    def _say_standby(self, alone: str | None) -> None:
        if self._says_standby:
            self._says_standby = False
            why = alone or "there are as many processes as shards, or one that cannot share"
            _log.info(
                "pipeline %s is run by others, this process stands by: %s", self._job.pipeline.name, why,
                extra={"action": "stream.standby", "pipeline": self._job.pipeline.name},
            )  # fmt: skip

    def _served(self) -> bool:
        """Run it to the end, or until another process has taken it over (False)."""
        try:
            self._check_definition()
            committer = Committer(self._store, self._job.pipeline.name, self._membership.slot, self._membership.owners)
            session = Session(
                self._job, self._store, self._client, committer,
                wakeup=self._wakeup, retry=self._retry, backfill=self._backfill,
            )  # fmt: skip
            with closing(session):
                session.open()
                self._first = self._first or session.progress
                self._last = session.progress
                self._turns(session)
            return True
        except TakenOver:
            _log.info(
                "pipeline %s is run by others, or with others, now", self._job.pipeline.name,
                extra={"action": "stream.lost", "pipeline": self._job.pipeline.name},
            )  # fmt: skip
            return False

    def _leave(self) -> None:
        """Leave at once, so that a process that stands by need not wait."""
        try:
            self._membership.leave()
        except Exception as error:  # noqa: BLE001 - the error that ended the run matters more; the others detect the loss by timeout
            _log.warning(
                "pipeline %s: could not leave the membership: %s", self._job.pipeline.name, error,
                extra={"action": "stream.leave_failed", "pipeline": self._job.pipeline.name},
            )  # fmt: skip

    # --- turns ---

    def _turns(self, session: Session) -> None:
        while not self._stop.is_set():
            self._prepare(session)
            rows = None if self._control.paused else session.turn()
            if rows is not None:
                self._collector.add(rows)
            self._last = session.progress
            self._tell(session)
            if rows is None:
                if self._over(session):
                    break
                session.wait(limits.LOOK_S)
        self._settle(session)
        self._tell(session, now=True)

    def _settle(self, session: Session) -> None:
        self._collector.add(session.wait_for_commit())
        self._last = session.progress

    def _over(self, session: Session) -> bool:
        """Whether a turn without work is the end of the run."""
        if self._control.paused:
            return False
        return session.ended or (self._job.settings.until is not None and session.rested)

    def _prepare(self, session: Session) -> None:
        """Every MEMBER_BEAT_MS: synchronise the clock, read the control commands and the other members."""
        now_ms = self._store.now_ms()
        if now_ms - self._kept_ms < limits.MEMBER_BEAT_MS:
            return
        self._kept_ms = now_ms
        self._store.synchronise()
        self._control = read_control(self._store)
        changed = self._store.read(state_keys.OWNERS).get(state_keys.OWNERS) != self._membership.owners
        if changed or self._membership.drop_lost():
            self._settle(session)
            raise TakenOver

    def _check_definition(self) -> None:
        """Check that this definition can continue from the stored state, and store it."""
        given = definitions.define(self._job, text=self._text)
        found = self._store.read(state_keys.DEFINITION).get(state_keys.DEFINITION)
        if found is not None:
            stored = definitions.decode_definition(found)
            changes = definitions.changes(stored, given)
            if changes:
                raise DefinitionChanged(self._job.pipeline.name, changes)
            if given == stored:
                return
        name = self._job.pipeline.name
        self._store.transact(ops.Transact(name=state_keys.DIRECTORY, state=[(name.encode(), b"{}")]))
        state = [(state_keys.DEFINITION, definitions.encode_definition(given))]
        try:
            self._store.transact(
                ops.Transact(
                    name=state_keys.state_name(name),
                    state=list(state),
                    expect=[(state_keys.OWNERS, self._membership.owners)],
                )
            )
        except StateChanged as error:
            raise TakenOver from error

    # --- reports ---

    def _tell(self, session: Session | None, *, standby: bool = False, now: bool = False) -> None:
        if self._on_progress is None or (not now and time.monotonic() - self._told_s < limits.TELL_S):
            return
        self._told_s = time.monotonic()
        self._on_progress(self._report(session, standby=standby))

    def _report(self, session: Session | None, *, standby: bool) -> Report:
        first, last = self._first or Progress(), self._last
        return Report(
            self._job.pipeline.name,
            batches=last.batch - first.batch,
            rows_in=last.rows_in - first.rows_in,
            rows_out=last.rows_out - first.rows_out,
            late=last.late - first.late,
            dead=last.dead - first.dead,
            rows_in_s=self._rate.of(last.rows_in, time.monotonic()),
            watermark=self._watermark(),
            state_bytes=session.state_bytes if session is not None else 0,
            sources=session.source_progress() if session is not None else {},
            undelivered=session.undelivered if session is not None else 0,
            standby=standby,
            paused=self._control.paused,
        )

    def _watermark(self) -> int:
        timed = [source.name for source in self._job.sources if source.time is not None]
        sources = self._last.sources
        return min((sources[name].watermark for name in timed if name in sources), default=NEVER)

    def _result(self, seconds: float) -> Result:
        first, last = self._first or Progress(), self._last
        return Result(
            self._job.pipeline.name,
            batches=last.batch - first.batch,
            rows_in=last.rows_in - first.rows_in,
            rows_out=last.rows_out - first.rows_out,
            late=last.late - first.late,
            dead=last.dead - first.dead,
            watermark=self._watermark(),
            seconds=seconds,
            rows=self._collector.table(),
            complete=self._collector.complete,
        )


# --- `run`: a pipeline on the embedded engine, from a program, a notebook or the command line ---


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
    compiled: PhysicalPlan | None = None,
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
        retry_timeout_s: how long to retry while the broker or a sink is unavailable. None: without limit, or RETRY_TIMEOUT_S with
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
            if before == BACKFILL_TOPIC:
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
    return MemoryStore() if client is None else BrokerStore(client, state_keys.state_name(job.pipeline.name), retry)


def _check_backfill(job: Job, store: Store, backfill: str | Path | None) -> None:
    """Applies to the first start; a restart with the same option continues."""
    if backfill is None:
        return
    source_to_backfill(job.sources)
    begun = [decode_progress(value) for value in store.read(state_keys.PROGRESS).values()]
    known = {source.backfill for progress in begun for source in progress.sources.values()}
    if begun and str(backfill) not in known:
        raise UnsupportedQuery(
            "backfill", f"pipeline {job.pipeline.name!r} has begun already", "reset it, too: --reset"
        )
