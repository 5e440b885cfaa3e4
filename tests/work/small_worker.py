"""A worker of ten lines, for tests of what the rules come to: what the pool does, one batch at a time, in this thread."""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import StateChanged
from headrace.work import execution, names, preflight, settling
from headrace.work.app import App
from headrace.work.cancelling import CancelRequests
from headrace.work.context import Context
from headrace.work.job import Job
from headrace.work.outcome import Outcome
from headrace.work.preflight import Ready, Sent


class SmallWorker:
    """Runs what is ready. `ran`: the tasks that were run, in order. `meanwhile`: what happens between the reads of its next
    commit and the commit, once."""

    def __init__(self, app: App, batch: int = 10) -> None:
        self.app = app
        self.cancel_requests = CancelRequests(app.backend)
        self.batch = batch
        self.ran: list[str] = []
        self.conflicts = 0
        self.meanwhile: Callable[[], None] = _nothing

    def run_ready(self) -> int:
        """Everything that is ready, and what that sends. Returns how many deliveries it took."""
        taken = 0
        while count := self.run_batch():
            taken += count
        return taken

    def run_batch(self) -> int:
        taken, ended = self.take_batch()
        self.settle(ended)
        return taken

    def take_batch(self) -> tuple[int, list[tuple[Job, Outcome, preflight.HeldSlot | None]]]:
        """(how many it took, those that have ended and are to be settled)."""
        queues = [sibling for queue in self.app.queues for sibling in names.in_order(queue)]
        received = self.app.backend.receive(queues, self.batch, visibility_ms=60_000, wait_s=0)
        jobs = [self.app.open_job(queue, delivery) for queue, deliveries in received for delivery in deliveries]
        self.cancel_requests.refresh()
        begun = preflight.begin(jobs, self.app.backend, self.cancel_requests, now_ms=self.app.clock())
        return len(jobs), [self.run(one) for one in begun if not isinstance(one, Sent)]

    def run(self, begun: Ready | tuple[Job, Outcome]) -> tuple[Job, Outcome, preflight.HeldSlot | None]:
        if isinstance(begun, tuple):
            return begun[0], begun[1], None
        target = begun.job.target
        assert target is not None
        self.ran.append(target.name)
        outcome = execution.run(self.app, self.app.tasks[target.name], Context(begun.job, worker="small"))
        return begun.job, outcome, begun.slot

    def settle(self, ended: list[tuple[Job, Outcome, preflight.HeldSlot | None]]) -> None:
        if not ended:
            return
        while True:
            batch = settling.Batch(self.app.backend.read)
            now_ms = self.app.clock()
            for job, outcome, slot in ended:
                settlement = settling.settle(job, outcome, now_ms=now_ms, read=batch.read)
                if slot is not None:
                    puts, expects = preflight.release(slot, batch.read, now_ms=now_ms)
                    settlement.puts |= dict(puts)
                    settlement.expects |= dict(expects)
                batch.add(settlement)
            meanwhile, self.meanwhile = self.meanwhile, _nothing
            meanwhile()
            try:
                self.app.backend.transact(batch.operation())
            except StateChanged:
                self.conflicts += 1
                continue
            for queue, changes in batch.releases.items():
                self.app.backend.change_visibility(queue, changes)
            return


def _nothing() -> None:
    pass
