"""The committer, on a real store whose calls fail as a test wants it: nothing is lost, nothing is committed twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from headrace.errors import HeadraceError, OutcomeUnknown, StateChanged, StoreFailed, Unavailable, UnknownError
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import GetQueue, Transact, TransactOutcome
from headrace.work import group, settling
from headrace.work.app import App
from headrace.work.broker_backend import BrokerBackend
from headrace.work.outcome import ErrorInfo, Failed, Succeeded
from headrace.work.pool.committer import Committer, Settled
from headrace.work.pool.in_flight import InFlightTask
from headrace.work.run_log import RunLog, read_runs
from tests.broker_process import wait_until
from tests.patience import PATIENCE_S


class Faulty(BrokerBackend):
    """Its next transactions fail: before they are done, or after."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.before: list[HeadraceError] = []
        self.after: list[HeadraceError] = []
        self.committed: list[int] = []
        """Acknowledgements of each transaction that was done."""

    def transact(self, operation: Transact) -> TransactOutcome:
        if self.before:
            raise self.before.pop(0)
        outcome = super().transact(operation)
        self.committed.append(sum(len(receipts) for _, receipts in operation.acknowledge))
        if self.after:
            raise self.after.pop(0)
        return outcome


class Bench:
    """An app with tasks in hand, and a committer that has not begun."""

    def __init__(self, folder: Path) -> None:
        self.backend = Faulty(folder)
        self.app = App(backend=self.backend)
        self.note = self.app.task(name="note")(lambda n=0: None)
        self.settled: list[Settled] = []
        self.gone: list[InFlightTask] = []
        self.committer = Committer(
            self.backend,
            self._settle,
            log=RunLog("worker-1"),
            worker="worker-1",
            on_settled=self.settled.extend,
            on_gone=self.gone.append,
        )

    def in_hand(self, number: int) -> list[InFlightTask]:
        self.note.send_many([(n,) for n in range(number)])
        found = self.backend.receive(["tasks"], number, visibility_ms=60_000, wait_s=0)
        return [InFlightTask(self.app.open_job(queue, one), time.monotonic()) for queue, ones in found for one in ones]

    def commit(self, jobs: Sequence[InFlightTask]) -> None:
        """All at once, and wait."""
        for held in jobs:
            self.committer.give(held, Succeeded())
        self.committer.start()
        wait_until(lambda: len(self.settled) + len(self.gone) == len(jobs))
        assert self.committer.finish(PATIENCE_S)

    def left(self) -> tuple[int, int]:
        counts = self.backend.client.call(GetQueue(arn_of("tasks"))).counts
        return counts.visible, counts.in_flight

    @staticmethod
    def _settle(held: InFlightTask, batch: settling.Batch) -> settling.Settlement:
        assert held.outcome is not None
        return settling.settle(held.job, held.outcome, now_ms=time.time_ns() // 1_000_000, read=batch.read)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.app.close()


def test_what_has_ended_meanwhile_is_one_transaction_with_its_run_log(bench: Bench) -> None:
    bench.commit(bench.in_hand(100))
    assert bench.backend.committed == [100]
    assert bench.left() == (0, 0)
    assert len(read_runs(bench.backend)) == 100


@pytest.mark.parametrize("error", [Unavailable("away"), StateChanged("work", "x")])
def test_commit_that_was_not_done_is_tried_again(bench: Bench, error: HeadraceError) -> None:
    bench.backend.before = [error]
    bench.commit(bench.in_hand(10))
    assert bench.backend.committed == [10]
    assert len(bench.settled) == 10


DOUBTS = [OutcomeUnknown("the connection broke"), StoreFailed("the disk broke"), UnknownError("half an answer")]


@pytest.mark.parametrize("doubt", DOUBTS)
def test_commit_whose_outcome_is_unknown_is_not_done_twice(bench: Bench, doubt: HeadraceError) -> None:
    bench.backend.after = [doubt]
    bench.commit(bench.in_hand(5))
    assert bench.backend.committed == [5]
    assert bench.left() == (0, 0)
    assert len(bench.settled) == 5  # they are counted, and hooks are told
    assert len(read_runs(bench.backend)) == 5


def test_without_a_run_log_nobody_knows_whether_a_commit_was_done(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.committer._run_log = None
    bench.backend.after = [OutcomeUnknown("the connection broke")]
    bench.commit(bench.in_hand(5))
    assert bench.left() == (0, 0)
    assert len(bench.gone) == 5
    assert "could not be committed" not in caplog.text


def test_lease_that_was_lost_while_the_broker_was_away_is_no_commit(bench: Bench) -> None:
    jobs = bench.in_hand(2)
    bench.backend.before = [OutcomeUnknown("the connection broke")]
    bench.backend.change_visibility("tasks", [(jobs[0].job.delivery.receipt, 0)])
    bench.commit(jobs)
    assert [held is jobs[0] for held in bench.gone] == [True]
    assert [each.held is jobs[1] for each in bench.settled] == [True]
    assert [one.id for one in read_runs(bench.backend)] == [jobs[1].job.envelope.id]


def test_member_of_a_group_counts_once_though_its_commit_was_in_doubt(bench: Bench) -> None:
    """The second try expects what the first has changed."""
    flow = group([bench.note.s(n) for n in range(3)]).send()
    found = bench.backend.receive(["tasks"], 10, visibility_ms=60_000, wait_s=0)
    jobs = [InFlightTask(bench.app.open_job(queue, one), time.monotonic()) for queue, ones in found for one in ones]
    bench.backend.after = [OutcomeUnknown("the connection broke")]
    bench.commit(jobs)
    assert len(bench.settled) == 3
    assert flow.outcome() is not None
    assert len(read_runs(bench.backend)) == 3


def test_run_of_a_message_that_stays_is_in_the_log_once_though_its_commit_was_in_doubt(bench: Bench) -> None:
    """A retry in its place ends no lease: done twice, it is not refused."""

    @bench.app.consumer("orders", retries=3)
    def handle(body: bytes) -> None:
        del body

    bench.backend.send("orders", [Entry(b"{}")])
    bench.note.send(1)
    found = bench.backend.receive(["orders", "tasks"], 10, visibility_ms=60_000, wait_s=0)
    jobs = [InFlightTask(bench.app.open_job(queue, one), time.monotonic()) for queue, ones in found for one in ones]
    bench.backend.after = [OutcomeUnknown("the connection broke")]
    bench.committer.give(jobs[0], Failed(ErrorInfo("ValueError", "no")))
    bench.commit(jobs)
    assert sorted(each.settlement.disposition for each in bench.settled) == ["retried", "succeeded"]
    assert len(read_runs(bench.backend)) == 2


def test_runs_of_a_commit_whose_outcome_was_unknown_stay_in_the_log(bench: Bench) -> None:
    jobs = bench.in_hand(3)
    bench.committer.start()
    for place, held in enumerate(jobs, 1):
        if place == 2:  # its chunk is written again with the next runs
            bench.backend.after = [OutcomeUnknown("the connection broke")]
        bench.committer.give(held, Succeeded())
        wait_until(lambda: len(bench.settled) + len(bench.gone) == place)  # noqa: B023 - asked at once
    assert {one.id for one in read_runs(bench.backend)} == {held.job.envelope.id for held in jobs}


def test_one_lost_lease_does_not_keep_the_others(bench: Bench) -> None:
    jobs = bench.in_hand(9)
    bench.backend.change_visibility("tasks", [(jobs[4].job.delivery.receipt, 0)])
    bench.commit(jobs)
    assert [held is jobs[4] for held in bench.gone] == [True]
    assert sum(bench.backend.committed) == 8
    assert bench.left() == (1, 0)


def test_job_is_settled_once_whoever_gives_it_again(bench: Bench) -> None:
    jobs = bench.in_hand(2)
    bench.committer.give(jobs[0], Succeeded())
    bench.commit(jobs)
    assert bench.backend.committed == [2]


def test_what_is_not_committed_in_time_is_told(bench: Bench) -> None:
    bench.backend.before = [Unavailable("away")] * 1_000
    jobs = bench.in_hand(1)
    bench.committer.give(jobs[0], Succeeded())
    bench.committer.start()
    wait_until(lambda: len(bench.backend.before) < 1_000)
    assert not bench.committer.finish(0.01)
    assert bench.committer.uncommitted == 1


def test_what_cannot_be_sent_fails_its_task_alone(bench: Bench) -> None:
    """A result, a next task, … that the broker refuses: to run it again would not change that."""
    jobs = bench.in_hand(3)
    settle: Callable[[InFlightTask, settling.Batch], settling.Settlement] = bench.committer._settle

    def too_long(held: InFlightTask, batch: settling.Batch) -> settling.Settlement:
        settlement = settle(held, batch)
        if held is jobs[1] and isinstance(held.outcome, Succeeded):
            settlement.puts[b"x" * 2_000] = b""  # a key has 1,024 bytes at most
        return settlement

    bench.committer._settle = too_long
    bench.commit(jobs)
    assert sorted(each.settlement.disposition for each in bench.settled) == ["dead", "succeeded", "succeeded"]
    assert bench.gone == []


@pytest.mark.parametrize("broken", [ValueError, KeyError, RecursionError])
def test_what_cannot_be_settled_at_all_is_a_dead_letter_as_it_came(bench: Bench, broken: type[Exception]) -> None:
    jobs = bench.in_hand(3)
    settle: Callable[[InFlightTask, settling.Batch], settling.Settlement] = bench.committer._settle

    def failing(held: InFlightTask, batch: settling.Batch) -> settling.Settlement:
        if held is jobs[1]:
            raise broken("a row that is not what it must be")
        return settle(held, batch)

    bench.committer._settle = failing
    bench.commit(jobs)
    dispositions = {each.held: each.settlement for each in bench.settled}
    assert [dispositions[job].disposition for job in jobs] == ["succeeded", "dead", "succeeded"]
    [(queue, letter)] = dispositions[jobs[1]].sends
    assert (queue, letter.body) == ("tasks-dead", jobs[1].job.delivery.message.body)
    assert bench.gone == []
