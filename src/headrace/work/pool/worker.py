"""The worker: all of a child's threads together, from the first poll to the last commit.

fetcher ──▶ inbox ──▶ runner threads ──┐
        └─▶ loop (async tasks) ────────┴──▶ committer ──▶ one transaction
keeper: time limits, threads for what waits · renewer: leases, cancelling · presence: "I am here"
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from headrace import presence
from headrace.presence import RunningFacts, WorkerFacts, about_me
from headrace.process import rss_bytes
from headrace.work import names, preflight, settling
from headrace.work.backend import Backend
from headrace.work.cancelling import CancelRequests
from headrace.work.errors import TimeLimitExceeded
from headrace.work.execution import describe
from headrace.work.outcome import Deferred, Failed, Outcome
from headrace.work.pool import control
from headrace.work.pool.committer import Committer, Settled
from headrace.work.pool.control_thread import ControlThread, Renewer
from headrace.work.pool.fetcher import Fetcher, Routes
from headrace.work.pool.heartbeat import Heartbeat
from headrace.work.pool.in_flight import InFlightTask, InFlightTasks, wall_ms
from headrace.work.pool.inbox import Inbox
from headrace.work.pool.limits import SHOWN_MAX, UNCOMMITTED_MAX
from headrace.work.pool.prefetch import Kinds, PrefetchPolicy, Source, grouped
from headrace.work.pool.runners import Loop, Threads
from headrace.work.pool.shared_status import SharedStatus
from headrace.work.pool.task_stats import TaskStats
from headrace.work.run_log import RUNS_MAX, RunLog
from headrace.work.task import Consumer, Target
from headrace.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from headrace.work.app import App

_log: Final = logging.getLogger("headrace.work")
_LOOK_S: Final = 0.005


class Part(Protocol):
    """What a worker is made of."""

    def start(self) -> None: ...


class Worker:
    """`start`, then `drain`. Does not end the process."""

    def __init__(
        self,
        app: App,
        backend: Backend,
        board: SharedStatus,
        settings: WorkerSettings,
        *,
        on_leave: Callable[[str], None],
        on_report: Callable[[control.Report], None] | None = None,
    ) -> None:
        """Args:
        backend: for everything; safe for threads.
        on_leave: this process should be replaced, for this reason; may be called again and again.
        on_report: told each second, if given.
        """
        self._app = app
        self._backend = backend
        self._status = board
        self._settings = settings
        self._on_leave = on_leave
        self._on_report = on_report
        self.holder = presence.holder_name("worker")
        self.sources = sources_of(app, settings.queues)
        self.stats = TaskStats()
        self._in_flight = InFlightTasks()
        self._cancel_requests = CancelRequests(backend)
        self._draining = False
        pace = PrefetchPolicy()
        self._inbox = Inbox(settings.threads, pace, self._on_room)
        self._threads = Threads(
            app, settings.threads, self._inbox, pace, board, worker=self.holder, on_end=self._on_end
        )
        self._loop = Loop(
            app,
            board,
            first_slot=settings.threads,
            room=settings.async_tasks,
            worker=self.holder,
            on_end=self._on_end,
            on_room=self._on_room,
        )
        self._committer = Committer(
            backend,
            self._settle,
            log=RunLog(self.holder, share=RUNS_MAX // settings.processes)
            if settings.run_log and backend.capabilities.state
            else None,
            worker=self.holder,
            on_settled=self._on_settled,
            on_gone=self._in_flight.drop,
        )
        self._fetchers = [
            Fetcher(
                backend,
                self._in_flight,
                self._cancel_requests,
                source,
                holder=self.holder,
                tasks=app.tasks,
                consumers=app.consumers,
                routes=Routes(self._room, self._run, self._committer.give),
            )
            for source in self.sources
        ]
        self._keeper = ControlThread(
            self._in_flight,
            self._inbox,
            self._threads,
            self._loop,
            give_back=self._committer.give,
            grace_s=float(settings.grace),
            on_stuck=on_leave,
            on_second=self._on_second,
        )
        self._renewer = Renewer(
            backend, self._in_flight, self._cancel_requests, self._threads, self._loop, holder=self.holder
        )
        self._present = Heartbeat(backend, holder=self.holder, facts=self.facts, on_come=self._renewer.renew_all)

    @property
    def queues(self) -> list[str]:
        return [queue for source in self.sources for queue in source.queues]

    def prepare(self) -> None:
        """Make the queues that are missing. Raises HeadraceError: the broker cannot be used."""
        for queue in self.queues:
            self._backend.prepare(queue)

    def start(self) -> None:
        """Begin. From here on the watchdog counts: however long the app's import took."""
        self._status.fetched(progress_s=time.monotonic(), succeeded_s=0.0)
        self._app.hooks.on_start(self._app)
        parts: list[Part] = [self._present, self._committer, self._threads, self._loop, self._keeper, self._renewer]
        for part in [*parts, *self._fetchers]:
            part.start()

    def drain(self, drain_s: float) -> None:
        """Fetch nothing more, finish what runs within `drain_s`, give back the rest, commit everything."""
        self._draining = True
        deadline_s = time.monotonic() + drain_s
        for fetcher in self._fetchers:
            fetcher.stop()
        running = len(self._in_flight.running())
        _log.info("fetches no more, finishes %d tasks", running, extra={"action": "work.draining", "running": running})
        while time.monotonic() < deadline_s and self._busy():
            time.sleep(_LOOK_S)
        for held in self._inbox.recall(0):
            for each in held.run:
                self._committer.give(each, Deferred(0))
        for fetcher in self._fetchers:
            fetcher.join(2.0)
        for held in self._in_flight.running():
            self._cut(held, drain_s)
        self._keeper.stop()
        if not self._committer.finish(max(0.5, deadline_s - time.monotonic()) + 2.0):
            _log.error(
                "%d runs could not be committed: they come again",
                self._committer.uncommitted,
                extra={"action": "work.drain.uncommitted"},
            )
        self._renewer.stop()
        self._present.stop()
        self._app.hooks.on_stop(self._app)

    def _busy(self) -> bool:
        """Whether something runs, or may be on its way."""
        if not all(fetcher.over for fetcher in self._fetchers):
            return True
        running = self._in_flight.running()
        stuck = [held for held in running if held.stopped is TimeLimitExceeded and self._is_stuck(held)]
        return self._inbox.open + self._loop.open > len(stuck)

    def _is_stuck(self, held: InFlightTask) -> bool:
        return held.deadline_s is not None and time.monotonic() > held.deadline_s + float(self._settings.grace)

    def _cut(self, held: InFlightTask, drain_s: float) -> None:
        """It does not end in time. One beyond its limit has failed; any other begins anew elsewhere."""
        ids = {"action": "work.drain.cut", "task": held.job.envelope.task, "task_id": held.job.envelope.id}
        if held.stopped is TimeLimitExceeded:
            error = describe(
                TimeLimitExceeded(f"it ran longer than {held.job.timeout_s:g} s, and did not end when told to")
            )
            held.ended_s = time.monotonic()
            self._committer.give(held, Failed(error))
            return
        _log.warning("%s was not done after %.1f s: another worker begins it anew", held.label, drain_s, extra=ids)
        held.ended_s = time.monotonic()
        self._committer.give(held, Deferred(0))

    # What the parts ask and tell

    def _room(self, source: Source) -> int:
        if self._committer.uncommitted >= UNCOMMITTED_MAX:
            return 0
        return source.room(threaded=self._inbox.room, asynchronous=self._loop.room)

    def _run(self, jobs: Sequence[InFlightTask]) -> None:
        runs = batched(jobs)
        threaded = [held for held in runs if not target_of(held).is_async]
        asynchronous = [held for held in runs if target_of(held).is_async]
        if threaded:
            self._inbox.put(threaded)
        if asynchronous:
            self._loop.put(asynchronous)

    def _on_room(self) -> None:
        for fetcher in self._fetchers:
            fetcher.note_room()

    def _on_end(self, held: InFlightTask, outcome: Outcome) -> None:
        self._committer.give(held, outcome)

    def _settle(self, held: InFlightTask, batch: settling.Batch) -> settling.Settlement:
        now_ms = time.time_ns() // 1_000_000
        assert held.outcome is not None
        settlement = settling.settle(held.job, held.outcome, now_ms=now_ms, read=batch.read, worker=self.holder)
        if held.limit_slot is not None:
            puts, expects = preflight.release(held.limit_slot, batch.read, now_ms=now_ms)
            settlement.puts |= dict(puts)
            settlement.expects |= dict(expects)
        return settlement

    def _on_settled(self, settled: Sequence[Settled]) -> None:
        for each in settled:
            held, settlement = each.held, each.settlement
            self._in_flight.drop(held)
            message = held.job.delivery.message
            wait_s = max(0.0, (wall_ms(held.began_s) - (message.visible_ms or message.sent_ms)) / 1_000)
            self.stats.note(
                held.job.envelope.task,
                settlement.disposition,
                failed=isinstance(held.outcome, Failed),
                wait_s=wait_s,
                run_s=held.ended_s - held.began_s,
            )
            if settlement.disposition == "retried":
                self._app.hooks.on_retry(held.job, settlement.error, settlement.delay_ms)
            elif settlement.disposition == "dead":
                self._app.hooks.on_dead(held.job, settlement.error)
            if settlement.disposition in ("retried", "dead"):
                _tell_failure(settlement, held)
        self._on_room()

    def _on_second(self) -> None:
        """Tell the parent that fetching gets on, and ask to be replaced when it is time."""
        progress_s = min(fetcher.progress_s for fetcher in self._fetchers)
        if self._committer.uncommitted:  # then fetching may have to wait for it
            progress_s = max(progress_s, self._committer.progress_s)
        self._status.fetched(progress_s=progress_s, succeeded_s=min(fetcher.succeeded_s for fetcher in self._fetchers))
        self._recycle()
        if self._on_report is not None:
            self._on_report(self.report())

    def _recycle(self) -> None:
        settings = self._settings
        if 0 < settings.max_tasks <= self.stats.ended:
            self._on_leave(f"it has run {self.stats.ended} tasks")
        elif settings.max_rss is not None and (used := rss_bytes()) > settings.max_rss:
            self._on_leave(f"its memory is {used // 2**20} MiB")

    def report(self) -> control.Report:
        running = len(self._in_flight.running())
        return control.Report(dict(self.stats.tasks), running, len(self._in_flight), rss_bytes())

    def facts(self) -> dict[str, Any]:
        tasks, succeeded_s = self.stats.facts(time.monotonic())
        tasks.sort(key=lambda task: -(task.succeeded + task.failed))
        facts = WorkerFacts(
            **about_me(),
            rss_bytes=rss_bytes(),
            app=self._settings.app,
            queues=self.queues,
            slots=self._settings.threads
            + self._settings.async_tasks * any(source.kinds.asynchronous for source in self.sources),
            running=[_running(held) for held in self._in_flight.running()[:SHOWN_MAX]],
            tasks=tasks[:SHOWN_MAX],
            succeeded_s=succeeded_s,
            draining=self._draining,
        )
        return presence.write(facts)


def sources_of(app: App, wanted: Sequence[str]) -> list[Source]:
    """The queues to read, in order, siblings of priorities included.

    Args:
        wanted: only these, the first one first; empty: all of the app's.
    """
    found: list[tuple[str, Kinds]] = []
    for queue in wanted or app.queues:
        consumer = app.consumers.get(queue)
        if consumer is not None:
            kinds = Kinds(not consumer.is_async, consumer.is_async, consumer.batch or 1, fifo=queue.endswith(".fifo"))
            found.append((queue, kinds))
            continue
        own = [task.is_async for task in app.tasks.values() if task.defaults.queue == queue]
        # A task may be sent to any queue (`.options(queue=)`): one without tasks of its own may bring either kind.
        either = own or [task.is_async for task in app.tasks.values()]
        kinds = Kinds(not all(either), any(either), fifo=queue.endswith(".fifo"))
        found += [(name, kinds) for name in names.in_order(queue)]
    return grouped(found)


def target_of(held: InFlightTask) -> Target:
    target = held.job.target
    assert target is not None, "what has no target is not ready"
    return target  # type: ignore[return-value]  # an app's targets are all runnable


def batched(jobs: Sequence[InFlightTask]) -> list[InFlightTask]:
    """Messages for a consumer that takes lists become runs of its size: the first one, the others its mates."""
    runs: list[InFlightTask] = []
    lists: dict[str, list[InFlightTask]] = {}
    for held in jobs:
        target = held.job.target
        if isinstance(target, Consumer) and target.batch is not None:
            lists.setdefault(held.job.queue, []).append(held)
        else:
            runs.append(held)
    for same in lists.values():
        size = target_of(same[0]).batch  # type: ignore[attr-defined]  # as above: these are consumers
        for first, *mates in (same[start : start + size] for start in range(0, len(same), size)):
            first.mates = mates
            runs.append(first)
    return runs


def _running(held: InFlightTask) -> RunningFacts:
    envelope = held.job.envelope
    return RunningFacts(
        id=envelope.id,
        task=envelope.task,
        queue=held.job.queue,
        started_ms=wall_ms(held.began_s),
        attempt=envelope.attempt + 1,
    )


def _tell_failure(settlement: settling.Settlement, held: InFlightTask) -> None:
    error = settlement.error
    ids = {
        "action": f"work.task.{settlement.disposition}",
        "task": held.job.envelope.task,
        "task_id": held.job.envelope.id,
        "attempt": held.job.envelope.attempt + 1,
    }
    line = error.line if error is not None else ""
    if settlement.disposition == "dead":
        _log.error("%s has failed for good: %s", held.label, line, extra=ids)
    else:
        _log.warning("%s has failed, again in %.1f s: %s", held.label, settlement.delay_ms / 1_000, line, extra=ids)
