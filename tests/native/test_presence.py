"""Being present, over clients that answer as a broker would."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, cast

import pytest

from headrace.errors import InvalidParameter, Unavailable
from headrace.native import presence
from headrace.native.aio import AsyncClient
from headrace.native.client import Client
from headrace.native.presence import Presence, be_present
from headrace.queue.operations import Hold
from tests.patience import PATIENCE_S


class Answers:
    """A broker's answers in turn; the last stays. Tells when all were given."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.holds: list[Hold] = []
        self.given = threading.Event()

    def call(self, operation: Hold, *, wait: float) -> None:
        assert 0 < wait <= 20
        self.holds.append(operation)
        if not self._answers:
            self.given.set()
            threading.Event().wait(0.01)
            return
        answer = self._answers.pop(0)
        if answer is not None:
            raise answer


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_PAUSE_FIRST_S", 0.001)
    monkeypatch.setattr(presence, "_PAUSE_MAX_S", 0.002)


def run(broker: Answers, facts: Any) -> list[Hold]:
    one = Presence(cast("Client", broker), holder="me", kind="web", facts=facts)
    one.start()
    assert broker.given.wait(PATIENCE_S)
    one.stop()
    return broker.holds


def test_each_hold_brings_newer_facts() -> None:
    numbers = iter(range(1_000))
    holds = run(Answers(None, None), lambda: {"n": next(numbers)})
    assert [(hold.holder, hold.kind, hold.facts) for hold in holds[:3]] == [("me", "web", {"n": n}) for n in range(3)]


def test_a_broker_that_is_away_is_tried_again_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    holds = run(Answers(Unavailable("away"), Unavailable("away")), lambda: {"n": 1})
    assert len(holds) >= 3
    assert caplog.records == []


def test_facts_that_are_refused_are_told_once_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    refusal = InvalidParameter("facts", "…", "at most 64 KiB")
    with caplog.at_level(logging.WARNING):
        holds = run(Answers(refusal, refusal), lambda: {"n": 1})
    assert [hold.facts for hold in holds[:3]] == [{"n": 1}, {}, {}]
    assert [getattr(record, "action", "") for record in caplog.records] == ["presence.refused"]


def test_facts_that_cannot_be_collected_are_logged_once_and_presence_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def facts() -> dict[str, Any]:
        raise KeyError("hung")

    holds = run(Answers(None, None), facts)
    assert [hold.facts for hold in holds[:3]] == [{}, {}, {}]
    assert [getattr(record, "action", "") for record in caplog.records] == ["presence.facts.failed"]


def test_on_a_loop_it_is_present_until_cancelled() -> None:
    class AsyncAnswers:
        def __init__(self) -> None:
            self.answers: list[Exception | None] = [Unavailable("away"), None]
            self.holds: list[Hold] = []
            self.given = asyncio.Event()

        async def call(self, operation: Hold, *, wait: float) -> None:
            self.holds.append(operation)
            if not self.answers:
                self.given.set()
                await asyncio.Event().wait()
            answer = self.answers.pop(0)
            if answer is not None:
                raise answer

    async def trial() -> list[Hold]:
        broker = AsyncAnswers()
        task = asyncio.create_task(be_present(cast("AsyncClient", broker), holder="me", kind="web", facts=dict))
        await asyncio.wait_for(broker.given.wait(), PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return broker.holds

    assert len(asyncio.run(trial())) == 3
