"""Commits that are made beside the next step: in their order, each once, and nothing of a batch before it is committed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import headrace
from headrace.errors import InvalidParameter
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.engine.engine import Engine, Step
from headrace.stream.runner import state_keys
from headrace.stream.runner.batch import Batch
from headrace.stream.runner.membership import Membership
from headrace.stream.runner.source_set import SourceSet
from headrace.stream.runner.store import BrokerStore, RetryPolicy
from tests.patience import PATIENCE_S
from tests.stream.runner.pipelines import copied, counted, counts, event, expected_counts, send, taken
from tests.stream.runner.test_retries import Lossy


@pytest.fixture(autouse=True)
def _beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BESIDE_ROWS_MIN", 1)


class Watched(headrace.Client):
    """Tells of commits that have claims, before they are sent."""

    def __init__(self, inner: headrace.Client, before: Callable[[int], None]) -> None:
        super().__init__(inner._transport)
        self._before = before
        self.commits = 0

    def call(self, operation: ops.Operation, *, wait: float = 0) -> Any:
        if isinstance(operation, ops.Transact) and operation.claims:
            self.commits += 1
            self._before(self.commits)
        return super().call(operation, wait=wait)


def watch_steps(monkeypatch: pytest.MonkeyPatch, told: Callable[[int], None]) -> None:
    """Tells of the engine's steps that have rows, when they are done."""
    step, count = Engine.step, 0

    def watched(self: Engine, inputs: Any, watermarks: Any) -> Step:
        nonlocal count
        done = step(self, inputs, watermarks)
        if inputs:
            count += 1
            told(count)
        return done

    monkeypatch.setattr(Engine, "step", watched)


def wait_for_batches(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A turn begins when its batch has been read ahead, until so many rows have come: then what a turn does is certain."""
    gather, left = SourceSet.gather, rows

    def gathered(self: SourceSet) -> Batch:
        nonlocal left
        batch = gather(self)
        while not batch.chunks and left:
            self._wakeup.wait(PATIENCE_S)
            batch = gather(self)
        left -= batch.rows
        return batch

    monkeypatch.setattr(SourceSet, "gather", gathered)


def test_next_step_is_made_while_a_commit_is_under_way_and_the_next_commit_waits_for_it(
    client: headrace.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [event(number) for number in range(400)]
    send(client, rows)
    second_step, seen = threading.Event(), []

    def stepped(number: int) -> None:
        seen.append(f"step {number}")
        if number == 2:
            second_step.set()

    def committing(number: int) -> None:
        if number == 1:
            assert second_step.wait(PATIENCE_S), "the second step waits for the first commit"
        seen.append(f"commit {number}")

    wait_for_batches(monkeypatch, len(rows))
    watch_steps(monkeypatch, stepped)
    counts().run(Watched(client, committing), until="end", batch_rows=100)
    assert seen.index("step 2") < seen.index("commit 1") < seen.index("commit 2")
    assert counted(taken(client, "out")) == expected_counts(rows)


@pytest.mark.parametrize("seed", range(3))
def test_lost_requests_and_answers_change_nothing(client: headrace.Client, seed: int) -> None:
    rows = [event(number) for number in range(600)]
    send(client, rows)
    lossy = Lossy(client, random.Random(seed))
    counts().run(lossy, until="end", batch_rows=60)
    assert lossy.lost > 3
    assert counted(taken(client, "out")) == expected_counts(rows)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_what_follows_a_commit_that_failed_is_not_committed(client: headrace.Client, failing: int) -> None:
    rows = [event(number) for number in range(400)]
    send(client, rows)

    def committing(number: int) -> None:
        if number == failing:
            raise InvalidParameter("commit", str(number), "it fails")

    watched = Watched(client, committing)
    with pytest.raises(InvalidParameter, match="it fails"):
        counts().run(watched, until="end", batch_rows=100)
    assert watched.commits == failing
    assert client.queue("events").counts().deleted == 100 * (failing - 1)
    counts().run(client, until="end")
    assert counted(taken(client, "out")) == expected_counts(rows)


def test_who_is_taken_over_with_a_commit_under_way_changes_nothing(client: headrace.Client) -> None:
    rows = [event(number) for number in range(400)]
    send(client, rows)
    store = BrokerStore(client, state_keys.state_name("counts"), RetryPolicy(5, threading.Event()))
    other = Membership(store, "counts", alive=lambda _: False)
    stop = threading.Event()

    def committing(number: int) -> None:
        if number == 2:
            assert other.take()
            stop.set()

    watched = Watched(client, committing)
    counts().run(watched, batch_rows=100, stop=stop)
    assert watched.commits == 2
    assert client.queue("events").counts().deleted == 100
    other.leave()
    counts().run(client, until="end")
    assert counted(taken(client, "out")) == expected_counts(rows)


def test_the_result_has_the_rows_of_every_commit(client: headrace.Client) -> None:
    send(client, [event(number) for number in range(450)])
    result = copied().run(client, until="idle", batch_rows=100)
    assert result.rows_out == result.rows.num_rows == 450
    assert sorted(result.rows["v"].to_pylist()) == list(range(450))


def test_state_that_memory_does_not_hold_is_read_after_the_commit_that_writes_it(client: headrace.Client) -> None:
    rows = [event(number, step_ms=5) for number in range(3_000)]  # a window has several batches
    send(client, rows)
    counts().run(client, until="end", batch_rows=100, state_memory_bytes=1)
    assert counted(taken(client, "out")) == expected_counts(rows)
