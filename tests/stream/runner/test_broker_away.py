"""A broker whose answers are lost, and one that goes away and comes back."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.errors import OutcomeUnknown, Unavailable
from headrace.queue import operations as ops
from headrace.stream.runner.store import Patience
from tests.stream.runner.pipelines import counted, counts, event, expected_counts, send, taken


class Lossy(headrace.Client):
    """Loses requests and answers of transactions and claims."""

    def __init__(self, inner: headrace.Client, chance: random.Random) -> None:
        super().__init__(inner._transport)
        self._chance = chance
        self.lost = 0

    def call(self, operation: ops.Operation, *, wait: float = 0) -> Any:
        if not isinstance(operation, ops.Transact | ops.Claim):
            return super().call(operation, wait=wait)
        if self._chance.random() < 0.2:
            self.lost += 1
            raise Unavailable("the request was lost")
        answer = super().call(operation, wait=wait)
        if self._chance.random() < 0.2:
            self.lost += 1
            raise OutcomeUnknown("the answer was lost")
        return answer


@pytest.mark.parametrize("seed", range(3))
def test_lost_requests_and_answers_change_nothing(client: headrace.Client, seed: int) -> None:
    rows = [event(number) for number in range(600)]
    send(client, rows)
    lossy = Lossy(client, random.Random(seed))
    counts().run(lossy, until="end", batch_rows=60)
    assert lossy.lost > 3
    assert counted(taken(client, "out")) == expected_counts(rows)
    assert client.queue("events").counts().in_flight == 0


def test_patience_ends_with_the_error() -> None:
    def away() -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        Patience(0.1, threading.Event()).call(away)


def test_patience_without_end_ends_when_it_is_to_stop() -> None:
    stop = threading.Event()
    tries: list[int] = []

    def away() -> None:
        tries.append(1)
        if len(tries) == 3:
            stop.set()
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        Patience(None, stop).call(away)
    assert len(tries) == 3


def test_error_that_does_not_pass_is_raised_at_once() -> None:
    def wrong() -> None:
        raise headrace.QueueNotFound("q")

    with pytest.raises(headrace.QueueNotFound):
        Patience(None, threading.Event()).call(wrong)


def test_folder_is_given_up_after_the_run(tmp_path: Path) -> None:
    with headrace.connect(tmp_path / "store") as client:
        send(client, [event(number) for number in range(100)])
    counts().run(tmp_path / "store", until="idle")
    with headrace.connect(tmp_path / "store") as client:
        assert client.queue("events").counts().visible == 0
