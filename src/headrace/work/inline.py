"""Running what waits, here and now: for tests, and for scripts that empty a queue and end.

Nothing is simulated: messages are received, admitted, run and settled by the rules that the workers' pool goes by. One task
at a time, in this thread; time limits of sync tasks are the pool's, they do not hold here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from headrace.errors import StateChanged
from headrace.queue.model import Delivery
from headrace.work import execution, limits, names, settling
from headrace.work.cancelling import CancelRequests
from headrace.work.context import Context
from headrace.work.job import Job
from headrace.work.outcome import ErrorInfo, Outcome
from headrace.work.preflight import Ready, begin, release
from headrace.work.settling import Disposition, Settlement
from headrace.work.task import Consumer, Target

if TYPE_CHECKING:
    from headrace.work.app import App
    from headrace.work.preflight import HeldSlot

T = TypeVar("T")

WORKER: Final = f"{socket.gethostname()}/here"
"""What the history calls who ran it."""
TRIES_MAX: Final = 50
"""Of a commit that others were faster than."""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt that was made, or one task that ended without.

    Attributes:
        task: its name.
        id: its id.
        attempt: which attempt, from 1.
        disposition: done, retried, dead, cancelled, expired or deferred.
        error: why it was retried or is dead.
        delay_ms: until the next attempt.
    """

    task: str
    id: str
    attempt: int
    disposition: Disposition
    error: ErrorInfo | None = None
    delay_ms: int = 0


def run_pending(app: App, *, queues: Iterable[str] | None = None, runs_max: int = 10_000) -> list[Run]:
    """Run what is due in the app's queues, and what that sends, until nothing is. See App.run_pending."""
    wanted = [sibling for queue in (app.queues if queues is None else queues) for sibling in names.in_order(queue)]
    runs: list[Run] = []
    while wanted and len(runs) < runs_max:
        received = app.backend.receive(wanted, 1, visibility_ms=limits.VISIBILITY_MS, wait_s=0)
        if not received:
            break
        [(queue, [delivery])] = received
        consumer = app.consumers.get(queue)
        if consumer is not None and consumer.batch is not None:
            runs += _run_batch(app, consumer, queue, [delivery])
        else:
            runs += _run_one(app, app.open_job(queue, delivery))
    return runs


def _run_one(app: App, job: Job) -> Iterator[Run]:
    cancel_requests = CancelRequests(app.backend)
    cancel_requests.refresh()
    [begun] = begin([job], app.backend, cancel_requests, now_ms=app.clock())
    if isinstance(begun, Ready):
        job, outcome = begun.job, _attempt(app, begun.job)
        yield _settled(app, job, outcome, begun.slot)
    elif isinstance(begun, tuple):
        yield _settled(app, *begun, None)


def _run_batch(app: App, consumer: Consumer, queue: str, deliveries: list[Delivery]) -> Iterator[Run]:
    assert consumer.batch is not None
    if consumer.batch > 1:
        more = app.backend.receive([queue], consumer.batch - 1, visibility_ms=limits.VISIBILITY_MS, wait_s=0)
        deliveries += [delivery for _, several in more for delivery in several]
    jobs = [app.open_job(queue, delivery) for delivery in deliveries]
    begun = begin(jobs, app.backend, CancelRequests(app.backend), now_ms=app.clock())
    for one in begun:
        if isinstance(one, tuple):
            yield _settled(app, *one, None)
    ready = [one.job for one in begun if isinstance(one, Ready)]
    for job, outcome in zip(ready, _attempt_batch(app, consumer, ready), strict=True):
        yield _settled(app, job, outcome, None)


def _attempt_batch(app: App, consumer: Consumer, jobs: list[Job]) -> list[Outcome]:
    contexts = [Context(job, worker=WORKER) for job in jobs]
    if not contexts:
        return []
    if not consumer.is_async:
        return execution.run_batch(app, consumer, contexts)
    return _await(execution.run_batch_async(app, consumer, contexts))


def _attempt(app: App, job: Job) -> Outcome:
    _begin(app, job)
    target = cast("Target", job.target)  # admitted: it has one
    context = Context(job, worker=WORKER)
    if not target.is_async:
        return execution.run(app, target, context)
    return _await(execution.run_async(app, target, context))


def _begin(app: App, job: Job) -> None:
    for _ in range(TRIES_MAX):
        operation = settling.begun(job, read=app.backend.read)
        try:
            if operation is not None:
                app.backend.transact(operation)
            return
        except StateChanged:
            continue
    raise StateChanged("work", "unique")


def _settled(app: App, job: Job, outcome: Outcome, slot: HeldSlot | None) -> Run:
    settlement = _commit(app, job, outcome, slot)
    if settlement.disposition == "retried":
        app.hooks.on_retry(job, settlement.error, settlement.delay_ms)
    if settlement.disposition == "dead":
        app.hooks.on_dead(job, settlement.error)
    envelope = job.envelope
    counted = settlement.disposition == "dead" and getattr(outcome, "counted", False)
    attempt = envelope.attempt + (0 if counted else 1)
    return Run(envelope.task, envelope.id, attempt, settlement.disposition, settlement.error, settlement.delay_ms)


def _commit(app: App, job: Job, outcome: Outcome, slot: HeldSlot | None) -> Settlement:
    """Raises ReceiptExpired: the lease has ended, another runs it."""
    backend = app.backend
    for _ in range(TRIES_MAX):
        batch = settling.Batch(backend.read)
        settlement = settling.settle(job, outcome, now_ms=app.clock(), read=batch.read, worker=WORKER)
        if slot is not None:
            puts, expects = release(slot, batch.read, now_ms=app.clock())
            settlement.puts |= dict(puts)
            settlement.expects |= dict(expects)
        batch.add(settlement)
        try:
            backend.transact(batch.operation())
        except StateChanged:
            continue
        for queue, changes in batch.releases.items():
            backend.change_visibility(queue, changes)
        return settlement
    raise StateChanged("work", job.envelope.id)


def _await(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result; where a loop runs in this thread already, on another thread's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, coroutine).result()
