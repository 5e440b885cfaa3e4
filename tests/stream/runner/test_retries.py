"""A broker whose answers are lost, and one that goes away and comes back."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

import headrace
import headrace.stream as hs
from headrace.errors import HeadraceError, OutcomeUnknown, StoreFull, Unavailable
from headrace.native.protocol import BrokerStatistics
from headrace.native.transport import Transport
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.runner.store import RetryPolicy
from tests.stream.runner.pipelines import SCHEMA, counted, counts, event, expected_counts, send, taken


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


class FirstCallsFail(headrace.Client):
    """The first call of each kind of operation fails."""

    def __init__(self, inner: headrace.Client, error: HeadraceError) -> None:
        super().__init__(FirstCallsFailTransport(inner._transport, error))


class FirstCallsFailTransport:
    def __init__(self, inner: Transport, error: HeadraceError) -> None:
        self._inner = inner
        self._error = error
        self.failed: set[type[ops.Operation]] = set()

    def call(self, operation: ops.Operation, wait_ms: int = 0) -> Any:
        if type(operation) not in self.failed:
            self.failed.add(type(operation))
            if isinstance(self._error, OutcomeUnknown):
                self._inner.call(operation, wait_ms)  # it is done, only the answer is lost
            raise self._error
        return self._inner.call(operation, wait_ms)

    def statistics(self) -> BrokerStatistics:
        return self._inner.statistics()

    def close(self) -> None:
        """The inner one stays open."""


@pytest.mark.parametrize("error", [Unavailable("away"), OutcomeUnknown("cut"), StoreFull("disk")])
def test_run_starts_while_the_broker_is_away(client: headrace.Client, error: HeadraceError) -> None:
    rows = [event(number) for number in range(300)]
    client.topic("events", create=True, retention="7 days").publish_many(json.dumps(row).encode() for row in rows)
    source = hs.topic("events", schema=SCHEMA, start="beginning").with_watermark("ts", delay="2 seconds")
    counts = hs.sql(
        "SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events GROUP BY tumble(ts, '10 seconds'), k",
        events=source,
    )
    pipeline = hs.pipeline("counts", counts, sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")
    for _ in range(2):
        pipeline.run(FirstCallsFail(client, error), until="end", reset=True)
    assert counted(taken(client, "out")) == expected_counts(rows) + expected_counts(rows)


def test_patience_ends_with_the_error() -> None:
    def away() -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        RetryPolicy(0.1, threading.Event()).call(away)


def test_patience_without_end_ends_when_it_is_to_stop() -> None:
    stop = threading.Event()
    tries: list[int] = []

    def away() -> None:
        tries.append(1)
        if len(tries) == 3:
            stop.set()
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        RetryPolicy(None, stop).call(away)
    assert len(tries) == 3


def test_error_that_does_not_pass_is_raised_at_once() -> None:
    def wrong() -> None:
        raise headrace.QueueNotFound("q")

    with pytest.raises(headrace.QueueNotFound):
        RetryPolicy(None, threading.Event()).call(wrong)


def test_folder_is_given_up_after_the_run(tmp_path: Path) -> None:
    with headrace.connect(tmp_path / "store") as client:
        send(client, [event(number) for number in range(100)])
    counts().run(tmp_path / "store", until="idle")
    with headrace.connect(tmp_path / "store") as client:
        assert client.queue("events").counts().visible == 0


def test_who_waits_for_the_broker_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AWAY_TOLD_S", 0.0)
    monkeypatch.setattr(limits, "RETRY_FIRST_S", 0.0)
    failures = iter([Unavailable("no broker at x"), Unavailable("no broker at x"), None])

    def call() -> str:
        error = next(failures)
        if error is not None:
            raise error
        return "answer"

    assert RetryPolicy(None, threading.Event()).call(call) == "answer"
    assert [record.getMessage() for record in caplog.records] == ["waiting: no broker at x"]
