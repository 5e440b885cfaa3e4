"""Any interleaving of success, failure, crash, time and redrive: every task ends exactly once, after the right attempts."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.testing.tasks import Tasks, in_memory
from headrace.work import App, Backoff, keys, settling
from headrace.work.admission import admit
from headrace.work.job import Job
from headrace.work.outcome import Deferred, ErrorInfo, Failed, Outcome, Succeeded
from headrace.work.task import Task

RETRIES = 3
LOSSES = 2
VISIBILITY_MS = 60_000
QUEUES = {"plain": "tasks", "ordered": "tasks.fifo"}


class Lives(RuleBasedStateMachine):
    """Workers that take jobs and settle them, give them back, or die with them, on the real rules.

    The model: how many attempts of each task were made, how many of them died with their worker, and how each ended.
    """

    tasks = Bundle("tasks")

    @initialize()
    def open(self) -> None:
        self.stack = ExitStack()
        # Without jitter: it goes by the task's id, which is another when Hypothesis runs an example again.
        self.app = App(retries=RETRIES, max_worker_losses=LOSSES, result_ttl="14 days", backoff=Backoff(jitter=False))
        self.made: dict[str, Task[Any, Any]] = {
            "plain": self.app.task(name="plain")(lambda: None),
            "ordered": self.app.task(name="ordered", queue=QUEUES["ordered"], group="g")(lambda: None),
        }
        self.tests: Tasks = self.stack.enter_context(in_memory(self.app))
        self.in_hand: dict[str, Job] = {}
        self.attempts: dict[str, int] = {}
        self.losses: Counter[str] = Counter()
        self.ended: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self._finish()
            self.stack.close()

    @rule(kind=st.sampled_from(list(QUEUES)))
    def send(self, kind: str) -> None:
        self.attempts[self.made[kind].send().id] = 0

    @rule(queue=st.sampled_from(list(QUEUES.values())))
    def take(self, queue: str) -> None:
        """A worker receives one and admits it; that may end it at once."""
        received = self.app.backend.receive([queue], 1, visibility_ms=VISIBILITY_MS, wait_s=0)
        for name, [delivery] in received:
            opened = self.app.open_job(name, delivery)
            job, outcome = admit(opened, now_ms=self.app.clock(), read=self.app.backend.read)
            task_id = job.envelope.id
            assert task_id not in self.ended, "a task that has ended is given again"
            assert task_id not in self.in_hand, "a task is with two workers at a time"
            assert job.envelope.attempt == self.attempts[task_id]
            if outcome is None:
                assert self._failures(task_id) <= RETRIES
                assert self.losses[task_id] <= LOSSES
                self.in_hand[task_id] = job
            else:
                assert self.losses[task_id] == LOSSES + 1
                self._commit(job, outcome)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), how=st.sampled_from(["succeed", "fail", "give up", "give back"]))
    def end(self, data: st.DataObject, how: str) -> None:
        """A worker settles one that it has."""
        task_id = data.draw(st.sampled_from(list(self.in_hand)))  # as taken: ids differ when an example is run again
        job = self.in_hand.pop(task_id)
        error = ErrorInfo("ValueError", "no")
        if how in ("fail", "give up"):
            self.attempts[task_id] += 1
        outcomes: dict[str, Outcome] = {
            "succeed": Succeeded(),
            "fail": Failed(error),
            "give up": Failed(error, final=True),
            "give back": Deferred(0),
        }
        self._commit(job, outcomes[how])

    @precondition(lambda self: self.in_hand)
    @rule()
    def crash(self) -> None:
        """All workers die with what they have; the leases end."""
        for task_id in self.in_hand:
            self.attempts[task_id] += 1
            self.losses[task_id] += 1
        self.in_hand.clear()
        self.tests.advance(VISIBILITY_MS / 1_000 + 1)

    @precondition(lambda self: not self.in_hand)
    @rule(seconds=st.integers(1, 4_000))
    def wait(self, seconds: int) -> None:
        self.tests.advance(seconds)

    @precondition(lambda self: "dead" in self.ended.values())
    @rule()
    def redrive(self) -> None:
        """Dead letters go back: they have all their attempts again."""
        for queue in ("tasks-dead", "tasks-dead.fifo"):
            if self.tests.driver.run(ops.ListQueues(arn_of(queue))) and self.tests.driver.peek(arn_of(queue)):
                self.tests.driver.run(ops.StartMove(arn_of(queue)))
        self.tests.driver.pass_time(0)
        for task_id, disposition in list(self.ended.items()):
            if disposition == "dead":
                del self.ended[task_id]
                self.attempts[task_id] = self.losses[task_id] = 0

    @invariant()
    def every_task_is_somewhere(self) -> None:
        if hasattr(self, "tests"):
            waiting = {one.id for queue in ("tasks", "tasks.fifo") for one in self.tests.pending(queue)}
            dead = {one.envelope.id for queue in ("tasks", "tasks.fifo") for one in self.tests.dead(queue)}
            assert waiting == set(self.attempts) - set(self.ended)
            assert dead == {task_id for task_id, disposition in self.ended.items() if disposition == "dead"}

    def _commit(self, job: Job, outcome: Outcome) -> None:
        batch = settling.Batch(self.app.backend.read)
        settlement = settling.settle(job, outcome, now_ms=self.app.clock(), read=batch.read)
        batch.add(settlement)
        self.app.backend.transact(batch.operation())
        for queue, changes in batch.releases.items():
            assert self.app.backend.change_visibility(queue, changes) == [None] * len(changes)
        if settlement.disposition in ("succeeded", "dead"):
            assert self.ended.setdefault(job.envelope.id, settlement.disposition) == settlement.disposition
        if settlement.disposition == "dead":
            final = isinstance(outcome, Failed) and outcome.final and not outcome.counted
            given_up = self.losses[job.envelope.id] > LOSSES or self._failures(job.envelope.id) > RETRIES
            assert final or given_up

    def _failures(self, task_id: str) -> int:
        return self.attempts[task_id] - self.losses[task_id]

    def _finish(self) -> None:
        """Whatever happened: let all workers go on with success, and everything has ended, once."""
        self.in_hand.clear()
        self.tests.advance("1h")
        self.tests.run_until_idle()
        assert self.tests.pending() == []
        rows = {key.removeprefix(keys.RESULT).decode() for key, _ in self.app.backend.state(keys.RESULT)}
        assert rows == set(self.attempts)
        assert self.app.backend.state(keys.ATTEMPTS) == []


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
