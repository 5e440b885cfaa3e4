"""Topics while a commit is on its way to a slow disk, or is refused: no gap, no duplicate, nothing counted that was not done."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import StoreFull
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import topic_arn_of
from headrace.queue.store.local.topic import LocalTopic
from headrace.testing import entry
from tests.queue.local.hands import Hands

TOPIC = topic_arn_of("t")


def shown(hands: Hands, queue: str) -> list[str]:
    return [one.message.body.decode() for one in hands.peek(queue)]


def create(hands: Hands, **settings: Any) -> None:
    hands.run(ops.CreateTopic(TOPIC, {"retention_ms": limits.HOUR_MS, **settings}))


@pytest.mark.parametrize("slice_", [2, 3, 100])
def test_queue_that_catches_up_misses_nothing_that_is_on_its_way(
    hands: Hands, slice_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CATCH_UP_SLICE", slice_)
    create(hands)
    queue = hands.create("q")
    hands.send_all(TOPIC, [entry(str(number)) for number in range(5)])
    hands.hold_commits()
    hands.ask(ops.Send(TOPIC, [entry("5")]))
    hands.ask(ops.Send(TOPIC, [entry("6")]), ops.Subscribe(TOPIC, queue, after=0), ops.Send(TOPIC, [entry("7")]))
    for number in range(8, 20):
        hands.store.advance()
        hands.ask(ops.Send(TOPIC, [entry(str(number))]))
        hands.let_go()
        hands.store.advance()
    for _ in range(10):
        hands.let_go()
        hands.store.advance()
    hands.let_go()
    assert shown(hands, queue) == [str(number) for number in range(20)]


def test_lag_falls_to_nothing_with_each_slice(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATCH_UP_SLICE", 2)
    create(hands)
    queue = hands.create("q")
    hands.send_all(TOPIC, [entry(str(number)) for number in range(5)])
    hands.hold_commits()
    hands.ask(ops.Subscribe(TOPIC, queue, after=0), ops.Send(TOPIC, [entry("5")]))
    lags = []
    for _ in range(4):
        (told,) = hands.ask(ops.GetTopic(TOPIC))
        lags.append(told.subscriptions[0].lag)
        hands.let_go()
        hands.store.advance()
    assert lags == [4, 2, 0, 0]


def test_refused_publishing_leaves_no_trace(hands: Hands) -> None:
    create(hands)
    queue = hands.create("q")
    hands.run(ops.Subscribe(TOPIC, queue))
    hands.disk.refuses = StoreFull("here")
    assert isinstance(hands.outcome(ops.Send(TOPIC, [entry("x")])), StoreFull)
    counts = hands.run(ops.GetTopic(TOPIC)).counts
    assert (counts.published, counts.logged, counts.log_bytes) == (0, 0, 0)
    assert hands.counts(queue).visible == 0


def test_refused_subscription_is_none(hands: Hands) -> None:
    create(hands)
    queue = hands.create("q")
    hands.send(TOPIC, "1")
    hands.disk.refuses = StoreFull("here")
    assert isinstance(hands.outcome(ops.Subscribe(TOPIC, queue, after=0)), StoreFull)
    assert hands.run(ops.GetTopic(TOPIC)).subscriptions == []
    assert shown(hands, queue) == []


def test_refused_change_and_creation_and_deletion_are_taken_back(hands: Hands) -> None:
    inbox, other = hands.create("in"), hands.create("other")
    hands.disk.refuses = StoreFull("here")
    assert isinstance(hands.outcome(ops.CreateTopic(TOPIC, {"inbox": inbox})), StoreFull)
    hands.send(inbox, "kept")
    assert shown(hands, inbox) == ["kept"]
    create(hands, inbox=inbox)
    hands.disk.refuses = StoreFull("here")
    assert isinstance(hands.outcome(ops.ChangeTopic(TOPIC, {"inbox": other})), StoreFull)
    hands.send(other, "kept")
    assert shown(hands, other) == ["kept"]
    hands.send(inbox, "published")
    hands.disk.refuses = StoreFull("here")
    hands.outcome(ops.DeleteTopic(TOPIC))
    assert [m.body for m in hands.run(ops.ReadLog(TOPIC))] == [b"published"]
    hands.send(inbox, "published too")
    assert hands.run(ops.GetTopic(TOPIC)).counts.logged == 2


def test_idle_topics_cost_the_traffic_of_queues_nothing(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    create(hands)
    queue = hands.create("q")
    hands.run(ops.Subscribe(TOPIC, queue))
    hands.send(TOPIC, "logged")
    hands.pass_time(2_000)
    looks: list[LocalTopic] = []
    held = LocalTopic.held

    def seen(topic: LocalTopic) -> int | None:
        looks.append(topic)
        return held(topic)

    monkeypatch.setattr(LocalTopic, "held", seen)
    for _ in range(20):
        hands.send(queue, "x")
    assert looks == []
    hands.send(TOPIC, "more")
    assert looks
    hands.pass_time(2 * limits.HOUR_MS)  # retention is not forgotten over it
    assert hands.run(ops.ReadLog(TOPIC)) == []
