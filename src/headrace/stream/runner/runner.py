"""Runs a pipeline: takes it over or stands by, turn after turn, and tells what happens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypeAlias

from headrace.errors import StateChanged
from headrace.native.client import Client
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.engine.operator import NEVER
from headrace.stream.errors import DefinitionChanged, PipelineBusy
from headrace.stream.result import Collector, Report, Result
from headrace.stream.runner import definition as definitions
from headrace.stream.runner import keys, sharing
from headrace.stream.runner.backfill import TOPIC
from headrace.stream.runner.commit import Ledger, TakenOver
from headrace.stream.runner.control import Control, read_control
from headrace.stream.runner.feeds import News
from headrace.stream.runner.job import Job
from headrace.stream.runner.membership import Membership
from headrace.stream.runner.progress import Progress, decode
from headrace.stream.runner.rates import Rate
from headrace.stream.runner.session import Session
from headrace.stream.runner.store import RetryPolicy, Store

_log = logging.getLogger("headrace.stream")

OnProgress: TypeAlias = Callable[[Report], None]


class Runner:
    """One run. `run` returns when it is over: see `Settings.until`, and `stop`."""

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
        self._news = News()
        self._membership = Membership(store, job.pipeline.name)
        self._collector = Collector(job.physical.output.schema.arrow(), everything=not job.pipeline.sinks)
        self._first: Progress | None = None
        self._last = Progress()
        self._control = Control()
        self._kept_ms = 0  # at once: what is asked for holds from the first batch on
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

    # --- who runs it ---

    def _stood_by(self) -> bool:
        """Wait until the pipeline is this process's; False: it is to end before that."""
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
        """Why this run can share with nobody; None: it can."""
        if self._job.settings.until is not None:
            return "it is to end by itself"
        records = [decode(value) for value in self._store.read(keys.PROGRESS).values()]
        sources = [source for record in records for source in record.sources.values()]
        if self._backfill not in (None, TOPIC) or any(source.files is not None for source in sources):
            return "old files come first, and nobody's rows may overtake them"
        return sharing.why_alone(self._job.pipeline, self._job.physical)

    def _say_standby(self, alone: str | None) -> None:
        if self._says_standby:
            self._says_standby = False
            why = alone or "there are as many processes as shards, or one that shares with nobody"
            _log.info(
                "pipeline %s is run by others, this process stands by: %s", self._job.pipeline.name, why,
                extra={"action": "stream.standby", "pipeline": self._job.pipeline.name},
            )  # fmt: skip

    def _served(self) -> bool:
        """Run it until it is over, or was taken over by somebody else (False)."""
        try:
            self._check_definition()
            ledger = Ledger(self._store, self._job.pipeline.name, self._membership.slot, self._membership.owners)
            session = Session(
                self._job, self._store, self._client, ledger,
                news=self._news, retry=self._retry, backfill=self._backfill,
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
        """At once, so that somebody who stands by need not wait."""
        try:
            self._membership.leave()
        except Exception as error:  # noqa: BLE001 - what ended the run matters more; the others find out by the time
            _log.warning(
                "pipeline %s: could not say that this process leaves: %s", self._job.pipeline.name, error,
                extra={"action": "stream.leave_failed", "pipeline": self._job.pipeline.name},
            )  # fmt: skip

    # --- what it does ---

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
        self._collector.add(session.settled())
        self._last = session.progress

    def _over(self, session: Session) -> bool:
        """Nothing was done in a turn: whether that is the end."""
        if self._control.paused:
            return False
        return session.ended or (self._job.settings.until is not None and session.rested)

    def _prepare(self, session: Session) -> None:
        """Every MEMBER_BEAT_MS: the clock, what people ask for, who else is there."""
        now_ms = self._store.now_ms()
        if now_ms - self._kept_ms < limits.MEMBER_BEAT_MS:
            return
        self._kept_ms = now_ms
        self._store.synchronise()
        self._control = read_control(self._store)
        changed = self._store.read(keys.OWNERS).get(keys.OWNERS) != self._membership.owners
        if changed or self._membership.drop_lost():
            self._settle(session)
            raise TakenOver

    def _check_definition(self) -> None:
        """Whether this definition can go on from the state that is there; it is noted, for the next."""
        given = definitions.define(self._job, text=self._text)
        found = self._store.read(keys.DEFINITION).get(keys.DEFINITION)
        if found is not None:
            stored = definitions.decode(found)
            changes = definitions.changes(stored, given)
            if changes:
                raise DefinitionChanged(self._job.pipeline.name, changes)
            if given == stored:
                return
        name = self._job.pipeline.name
        self._store.transact(ops.Transact(name=keys.DIRECTORY, state=[(name.encode(), b"{}")]))
        state = [(keys.DEFINITION, definitions.encode(given))]
        try:
            self._store.transact(
                ops.Transact(
                    name=keys.state_name(name),
                    state=list(state),
                    expect=[(keys.OWNERS, self._membership.owners)],
                )
            )
        except StateChanged as error:
            raise TakenOver from error

    # --- what it tells ---

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
