"""The keeper: what has to be looked at again and again while tasks run.

Every tick: threads for what waits behind a long task, time limits, jobs that wait here and should not. Every second:
leases, cancel_requests to cancel, and whether this process should be replaced. It never waits for the broker longer than a call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from headrace.errors import CallerError, HeadraceError
from headrace.work import preflight
from headrace.work.backend import Backend
from headrace.work.cancelling import CancelRequests
from headrace.work.errors import Cancelled, TimeLimitExceeded
from headrace.work.outcome import Deferred, Outcome
from headrace.work.pool.in_flight import ENDED, RUNNING, InFlightTask, InFlightTasks
from headrace.work.pool.inbox import Inbox
from headrace.work.pool.limits import DEFAULT_VISIBILITY_MS, RECALL_S, RENEW_PART, TICK_S
from headrace.work.pool.reconnect_backoff import ReconnectBackoff
from headrace.work.pool.runners import Loop, Threads

_log: Final = logging.getLogger("headrace.work")
_SECOND_S: Final = 1.0


class ControlThread:
    """A thread that ticks and never waits for the broker."""

    def __init__(
        self,
        hand: InFlightTasks,
        inbox: Inbox,
        threads: Threads,
        loop: Loop,
        *,
        give_back: Callable[[InFlightTask, Outcome], None],
        grace_s: float,
        on_stuck: Callable[[str], None],
        on_second: Callable[[], None],
    ) -> None:
        """Args:
        on_stuck: a function goes on `grace_s` beyond its limit: called again and again, with the reason.
        on_second: called each second.
        """
        self._in_flight = hand
        self._inbox = inbox
        self._threads = threads
        self._loop = loop
        self._give_back = give_back
        self._grace_s = grace_s
        self._on_stuck = on_stuck
        self._on_second = on_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        second_s = time.monotonic()
        while not self._over.wait(TICK_S):
            self._sleep_while_idle()
            now_s = time.monotonic()
            self.tick(now_s)
            if now_s - second_s >= _SECOND_S:
                second_s = now_s
                self._on_second()

    def _sleep_while_idle(self) -> None:
        """Ticks cost an idle process 1 % of a core."""
        self._inbox.filled.clear()
        if not self._inbox.open and not self._loop.open:
            self._inbox.filled.wait(_SECOND_S)

    def tick(self, now_s: float) -> None:
        """Everything that is due at this moment."""
        if self._inbox.waiting:
            self._inbox.hurry()
            for held in self._inbox.recall(RECALL_S):
                for each in held.run:
                    self._give_back(each, Deferred(0))
        if self._inbox.open or self._loop.open:
            for held in self._in_flight.running():
                self._limit(held, now_s)

    def _limit(self, held: InFlightTask, now_s: float) -> None:
        """A function that runs too long. The loop interrupts async ones, unless one of them keeps it busy."""
        if held.deadline_s is None or now_s < held.deadline_s:
            return
        if held.thread and held.stopped is None:
            self._threads.interrupt(held, TimeLimitExceeded)
        elif now_s > held.deadline_s + self._grace_s:
            held.stopped = held.stopped or TimeLimitExceeded
            self._on_stuck(f"{held.label} does not end, {now_s - held.deadline_s:.1f} s beyond its time limit")


class Renewer:
    """A thread that keeps leases and slots, and ends what is wished to end."""

    def __init__(
        self,
        backend: Backend,
        hand: InFlightTasks,
        cancel_requests: CancelRequests,
        threads: Threads,
        loop: Loop,
        *,
        holder: str,
    ) -> None:
        """`holder`: whose leases they are."""
        self._backend = backend
        self._holder = holder if backend.capabilities.holders else None
        self._in_flight = hand
        self._cancel_requests = cancel_requests
        self._threads = threads
        self._loop = loop
        self._all_due = threading.Event()
        self._away = ReconnectBackoff("renewing leases")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace renewer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        pause_s = _SECOND_S
        while not self._over.wait(pause_s):
            try:
                self.renew(time.monotonic())
                self.cancel()
            except HeadraceError as error:
                self._all_due.set()  # it may be another broker that answers next
                pause_s = self._away.failed(error)
            else:
                pause_s = _SECOND_S
                self._away.back()

    def renew_all(self) -> None:
        """All leases, with the next look: the broker does not know whose they are."""
        self._all_due.set()

    def renew(self, now_s: float) -> None:
        """Leases that have used up a third of their time, or all."""
        all_due = self._all_due.is_set()
        self._all_due.clear()
        due_s = now_s - (0 if all_due else DEFAULT_VISIBILITY_MS / 1_000 / RENEW_PART)
        due: dict[str, list[InFlightTask]] = defaultdict(list)
        for held in self._in_flight.all():
            if held.renewed_s <= due_s:
                due[held.job.queue].append(held)
        for queue, jobs in due.items():
            answers = self._backend.change_visibility(
                queue, [(held.job.delivery.receipt, DEFAULT_VISIBILITY_MS) for held in jobs], holder=self._holder
            )
            self._renewed(jobs, answers, now_s)
        slots = [held.limit_slot for jobs in due.values() for held in jobs if held.limit_slot is not None]
        if slots:
            preflight.renew(slots, self._backend, now_ms=time.time_ns() // 1_000_000)

    def _renewed(self, jobs: Sequence[InFlightTask], answers: Sequence[CallerError | None], now_s: float) -> None:
        for held, answer in zip(jobs, answers, strict=True):
            held.renewed_s = now_s
            if answer is not None and held.stage is not ENDED:
                ids = {"action": "work.lease.lost", "task": held.job.envelope.task, "task_id": held.job.envelope.id}
                _log.warning(
                    "the lease of %s was lost while it runs; it may run twice: %s", held.label, answer, extra=ids
                )

    def cancel(self) -> None:
        """What is wished to end."""
        if not self._cancel_requests.refresh():
            return
        for held in self._in_flight.running():
            context = held.context
            if (
                held.stage is RUNNING
                and context is not None
                and not context.cancelled
                and self._cancel_requests.wanted(context.id)
            ):
                context.cancel()
                if held.thread:
                    self._threads.interrupt(held, Cancelled)
                else:
                    self._loop.cancel(held)
