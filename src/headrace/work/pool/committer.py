"""The committer: settles what has run, as many as have ended while the last commit was on its way.

No timer: a commit that is under way is the time in which the next one grows. A commit whose outcome is unknown is tried
again: every settlement ends a lease, so what was done cannot be done twice, it is refused. Whether it was done, or the lease
was lost, the log of runs tells then, which was written in the same commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.errors import (
    IN_DOUBT,
    CallerError,
    HeadraceError,
    QueueNotFound,
    ReceiptExpired,
    StateChanged,
    TopicNotFound,
)
from headrace.queue.operations import Transact
from headrace.work import dead_letters
from headrace.work.backend import Backend
from headrace.work.execution import describe
from headrace.work.outcome import Failed, Outcome
from headrace.work.pool.in_flight import ENDED, InFlightTask, wall_ms
from headrace.work.pool.limits import COMMIT_RUNS_MAX, SETTLE_TRIES_MAX
from headrace.work.pool.reconnect_backoff import AWAY, ReconnectBackoff
from headrace.work.run_log import ERROR_CHARACTERS_MAX, Run, RunLog
from headrace.work.settling import Batch, Settlement

_log: Final = logging.getLogger("headrace.work")

LAST_RESORT: Final = 2
"""So many refusals, and a job is a dead letter as it came: the first is of what it came to, the second of its failure."""

Settle = Callable[[InFlightTask, Batch], Settlement]
"""What an ended job comes to; reads through the batch."""


class _AbandonedError(Exception):
    """The process ends: what is not committed comes again."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A job whose end is committed."""

    held: InFlightTask
    settlement: Settlement


def last_resort(held: InFlightTask) -> Settlement:
    """The message as it came, in the dead letters: nothing that its envelope says is relied on."""
    job = held.job
    assert isinstance(held.outcome, Failed)
    letter = dead_letters.last_resort(job, held.outcome.error)
    return Settlement(job.queue, job.delivery.receipt, "dead", sends=[letter], error=held.outcome.error)


class Committer:
    """A thread. `give` from any thread; `on_settled` is called on its own."""

    def __init__(
        self,
        backend: Backend,
        settle: Settle,
        *,
        log: RunLog | None,
        worker: str,
        on_settled: Callable[[Sequence[Settled]], None],
        on_gone: Callable[[InFlightTask], None],
    ) -> None:
        """Args:
        on_settled: of each commit.
        on_gone: for a job whose lease had ended: another has it, nothing of this run was kept.
        """
        self._backend = backend
        self._settle = settle
        self._run_log = log
        self._worker = worker
        self._on_settled = on_settled
        self._on_gone = on_gone
        self.progress_s = time.monotonic()
        """When a try last ended, well or not."""
        self._ended: deque[InFlightTask] = deque()
        self._something = threading.Event()
        self._closing = False
        self._abandoned = threading.Event()
        self._away = ReconnectBackoff("commits")
        self._doubtful = False
        self._thread = threading.Thread(target=self._run, name="headrace committer", daemon=True)
        self.uncommitted = 0
        """Jobs that have been given and are not committed."""

    def start(self) -> None:
        self._thread.start()

    def give(self, held: InFlightTask, outcome: Outcome) -> None:
        """The job has ended so. Once: what a drain has cut may end after all."""
        if held.stage is ENDED:
            return
        held.outcome = outcome
        held.stage = ENDED
        self._ended.append(held)
        if not self._something.is_set():
            self._something.set()

    def finish(self, timeout_s: float) -> bool:
        """Commit what was given, and end. Returns whether all was."""
        self._closing = True
        self._something.set()
        self._thread.join(timeout_s)
        self._abandoned.set()
        return not self._thread.is_alive()

    # On its thread

    def _run(self) -> None:
        with suppress(_AbandonedError):
            self._commit_again_and_again()

    def _commit_again_and_again(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            while jobs := self._take():
                self._commit(jobs)
            if self._closing and not self._ended:
                return

    def _take(self) -> list[InFlightTask]:
        ended = self._ended
        jobs = [ended.popleft() for _ in range(min(len(ended), COMMIT_RUNS_MAX))]
        self.uncommitted = len(jobs) + len(ended)
        return jobs

    def _commit(self, jobs: list[InFlightTask], *, doubtful: bool = False) -> None:
        """All of them; those that are refused alone are found by halving.

        Args:
            doubtful: they may have been committed: a try's outcome was unknown.
        """
        self._doubtful = doubtful
        try:
            settled = self._transact(jobs)
        except _AbandonedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one job brings about, the others are committed
            doubtful = self._doubtful
            if len(jobs) == 1:
                self._refused(jobs[0], error, doubtful=doubtful)
                return
            middle = len(jobs) // 2
            self._commit(jobs[:middle], doubtful=doubtful)
            self._commit(jobs[middle:], doubtful=doubtful)
        else:
            self.uncommitted = len(self._ended)
            if settled:
                self._on_settled(settled)

    def _transact(self, jobs: Sequence[InFlightTask]) -> list[Settled]:
        """Until it is done, or refused. Raises CallerError; or anything, if a job's envelope or state is not what it must be."""
        for _ in range(SETTLE_TRIES_MAX):
            batch, settled = self._settled(jobs)
            if not self._tried(batch, settled):
                continue  # somebody else was faster with a row of theirs: look again
            return settled
        if len(jobs) > 1:
            raise StateChanged("work", f"{len(jobs)} tasks")
        raise StateChanged("work", jobs[0].label)

    def _settled(self, jobs: Sequence[InFlightTask]) -> tuple[Batch, list[Settled]]:
        while True:
            batch = Batch(self._backend.read)
            try:
                return batch, [self._one(held, batch) for held in jobs]
            except AWAY as error:
                self._wait(error)

    def _one(self, held: InFlightTask, batch: Batch) -> Settled:
        settlement = self._settle(held, batch) if held.refused < LAST_RESORT else last_resort(held)
        batch.add(settlement)
        return Settled(held, settlement)

    def _tried(self, batch: Batch, settled: Sequence[Settled]) -> bool:
        """Whether it was committed; False: state has changed."""
        operation = batch.operation()
        if self._run_log is not None:
            runs = [self._run_of(each) for each in settled]
            puts = self._run_log.write(runs, now_ms=int(time.time() * 1_000))
            operation = msgspec.structs.replace(operation, state=[*operation.state, *puts.items()])
        if not self._put(operation):
            return False
        self._away.back()
        self.progress_s = time.monotonic()
        if self._run_log is not None:
            self._run_log.written()
        for queue, changes in batch.releases.items():
            self._release(queue, changes)
        return True

    def _put(self, operation: Transact) -> bool:
        """As `_tried`: again and again, while the broker is away."""
        while True:
            try:
                self._backend.transact(operation)
            except AWAY as error:
                if isinstance(error, IN_DOUBT):
                    self._doubt()
                self._wait(error)
            except CallerError as error:
                if self._was_done():
                    return True
                if isinstance(error, StateChanged):
                    return False
                raise
            else:
                return True

    def _doubt(self) -> None:
        self._doubtful = True
        if self._run_log is not None:
            self._run_log.doubt()

    def _was_done(self) -> bool:
        """Whether this was refused because an earlier try, whose answer was lost, was done."""
        while self._run_log is not None:
            try:
                return self._run_log.is_there(self._backend.read)
            except AWAY as error:
                self._wait(error)
        return False

    def _release(self, queue: str, changes: Sequence[tuple[bytes, int]]) -> None:
        """Messages that are shown again later: if it fails, their lease ends by itself."""
        try:
            self._backend.change_visibility(queue, changes)
        except HeadraceError as error:
            ids = {"action": "work.release.failed", "queue": queue}
            _log.warning("%d messages come again when their lease ends: %s", len(changes), error, extra=ids)

    def _wait(self, error: HeadraceError) -> None:
        self.progress_s = time.monotonic()
        self._abandoned.wait(self._away.failed(error))
        if self._abandoned.is_set():
            raise _AbandonedError

    def _refused(self, held: InFlightTask, error: Exception, *, doubtful: bool) -> None:
        """Its lease has ended; or what it would send or keep cannot be: to run it again would not change that. If its failure
        cannot be committed either, it goes to the dead letters as it came."""
        lost = isinstance(error, ReceiptExpired | QueueNotFound)
        if not lost and held.refused < LAST_RESORT:
            held.refused += 1
            held.outcome = Failed(describe(error), final=not isinstance(error, StateChanged | TopicNotFound))
            self._commit([held], doubtful=doubtful)
            return
        ids = {"action": "work.lease.lost", "task": held.job.envelope.task, "task_id": held.job.envelope.id}
        if not lost:
            _log.error("%s has ended, and nothing of it can be committed: %s", held.label, error, extra=ids)
        elif doubtful:
            _log.info("the commit of %s was done, or its lease was lost: %s", held.label, error, extra=ids)
        else:
            _log.warning("%s has run and could not be committed; it may run again: %s", held.label, error, extra=ids)
        self._on_gone(held)

    def _run_of(self, settled: Settled) -> Run:
        job, settlement = settled.held.job, settled.settlement
        message = job.delivery.message
        error = settlement.error
        return Run(
            job.envelope.id,
            job.envelope.task,
            job.queue,
            self._worker,
            message.visible_ms or message.sent_ms,
            wall_ms(settled.held.began_s),
            wall_ms(settled.held.ended_s),
            job.envelope.attempt + 1,
            settlement.disposition,
            error.line[:ERROR_CHARACTERS_MAX] if error is not None else "",
        )
