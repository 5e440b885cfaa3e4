"""What topics promise: one commit for all queues, filters, order, nothing lost. Their logs: `topic_logs`; inboxes:
`topic_inboxes`."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import (
    CallerError,
    InvalidFilter,
    InvalidParameter,
    InvalidSetting,
    QueueNotFound,
    SubscriptionRefused,
    TopicExists,
    TopicNotFound,
    UnknownSetting,
)
from headrace.queue import attributes
from headrace.queue import operations as ops
from headrace.queue.model import TopicDescription, arn_of, topic_arn_of
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import DAY, HOUR, MINUTE, SECOND, SuitePart

LONG = "x" * 1_000
"""A body that is stored once and referred to."""


def create(driver: StoreDriver, name: str = "t", **settings: Any) -> str:
    """Create a topic; a name in `.fifo` makes it a FIFO topic."""
    if name.endswith(".fifo"):
        settings.setdefault("fifo", True)
    driver.run(ops.CreateTopic(topic_arn_of(name), settings))
    return topic_arn_of(name)


def subscribed(driver: StoreDriver, topic: str, name: str, **how: Any) -> str:
    queue = driver.create(name)
    driver.run(ops.Subscribe(topic, queue, **how))
    return queue


def shown(driver: StoreDriver, queue: str) -> list[str]:
    """The bodies in the queue, in order, an `x` tail cut off."""
    return [one.message.body.decode().rstrip("x") for one in driver.peek(queue)]


def logged(driver: StoreDriver, topic: str, after: int = 0) -> list[str]:
    return [message.body.decode().rstrip("x") for message in driver.run(ops.ReadLog(topic, after))]


def describe(driver: StoreDriver, topic: str) -> TopicDescription:
    description: TopicDescription = driver.run(ops.GetTopic(topic))
    return description


def with_kind(kind: str) -> bytes:
    return attributes.encode({"kind": ("String", kind)})


class TestTopicDirectory(SuitePart):
    def test_create_is_idempotent_and_names_what_differs(self, driver: StoreDriver) -> None:
        first = driver.run(ops.CreateTopic(topic_arn_of("t"), {"retention_ms": HOUR}))
        assert driver.run(ops.CreateTopic(topic_arn_of("t"), {})) == first
        outcome = driver.outcome(ops.CreateTopic(topic_arn_of("t"), {"retention_ms": MINUTE}))
        assert isinstance(outcome, TopicExists) and outcome.setting == "retention_ms"

    @pytest.mark.parametrize(
        ("name", "settings", "error"),
        [
            ("bad name", {}, InvalidParameter),
            ("t.fifo", {}, InvalidParameter),
            ("t", {"fifo": True}, InvalidParameter),
            ("t", {"nonsense": 1}, UnknownSetting),
            ("t", {"retention_ms": -1}, InvalidSetting),
            ("t", {"retention_ms": "long"}, InvalidSetting),
            ("t", {"content_dedup": True}, InvalidSetting),
            ("t", {"inbox": arn_of("none")}, QueueNotFound),
        ],
    )
    def test_bad_settings_are_refused(
        self, driver: StoreDriver, name: str, settings: dict[str, Any], error: type[CallerError]
    ) -> None:
        assert isinstance(driver.outcome(ops.CreateTopic(topic_arn_of(name), settings)), error)

    def test_queue_arn_is_no_topic(self, driver: StoreDriver) -> None:
        assert isinstance(driver.outcome(ops.CreateTopic(arn_of("t"))), InvalidParameter)

    def test_topics_are_listed_by_prefix_and_page(self, driver: StoreDriver) -> None:
        for name in ("b", "a2", "a1"):
            create(driver, name)
        a1, a2, b = (topic_arn_of(name) for name in ("a1", "a2", "b"))
        assert [one.info.arn for one in driver.run(ops.ListTopics())] == [a1, a2, b]
        assert [one.info.arn for one in driver.run(ops.ListTopics(prefix=topic_arn_of("a")))] == [a1, a2]
        assert [one.info.arn for one in driver.run(ops.ListTopics(after=a1, limit=1))] == [a2]

    def test_unknown_topic_is_named(self, driver: StoreDriver) -> None:
        none, queue = topic_arn_of("none"), driver.create("q")
        for operation in (
            ops.Send(none, [entry("x")]), ops.GetTopic(none), ops.ChangeTopic(none), ops.DeleteTopic(none),
            ops.Subscribe(none, queue), ops.Unsubscribe(none, queue), ops.ReadLog(none),
        ):  # fmt: skip
            outcome = driver.outcome(operation)
            assert isinstance(outcome, TopicNotFound) and outcome.topic == none

    def test_fifo_is_fixed(self, driver: StoreDriver) -> None:
        assert isinstance(driver.outcome(ops.ChangeTopic(create(driver), {"fifo": True})), InvalidSetting)

    def test_topics_survive_a_restart(self, durable: StoreDriver) -> None:
        topic = create(durable, retention_ms=DAY)
        queue = subscribed(durable, topic, "q", filter={"kind": ["a"]})
        durable.send(topic, "1")
        durable.reopen()
        told = describe(durable, topic)
        assert (told.info.settings.retention_ms, told.counts.logged, told.counts.log_bytes) == (DAY, 1, 1)
        assert [(one.subscription.queue, one.subscription.filter) for one in told.subscriptions] == [
            (queue, {"kind": ["a"]})
        ]


class TestPublishing(SuitePart):
    def test_message_reaches_every_queue_with_one_id(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queues = [subscribed(driver, topic, name) for name in ("a", "b", "c")]
        sent = driver.send(topic, LONG, attributes=with_kind("k"), group="tenant", trace="Root=1", sender="me")
        for queue in queues:
            message = driver.receive_one(queue).message
            assert (message.id, message.body, message.attributes) == (sent.id, LONG.encode(), with_kind("k"))
            assert (message.group, message.trace, message.sender) == ("tenant", "Root=1", "me")

    def test_without_subscribers_or_log_nothing_is_kept(self, driver: StoreDriver) -> None:
        topic = create(driver)
        driver.send(topic, LONG)
        assert logged(driver, topic) == []
        assert describe(driver, topic).counts.published == 1

    def test_sequence_numbers_rise(self, driver: StoreDriver) -> None:
        topic = create(driver)
        seqs = [driver.send(topic, str(number)).seq for number in range(5)]
        assert seqs == sorted(set(seqs))

    def test_entry_that_is_refused_does_not_touch_the_others(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queue = subscribed(driver, topic, "q")
        outcomes = driver.send_all(topic, [entry("1"), entry(""), entry("2", dedup_id="no"), entry("3")])
        assert [isinstance(outcome, CallerError) for outcome in outcomes] == [False, True, True, False]
        assert shown(driver, queue) == ["1", "3"]

    def test_transaction_publishes_with_the_rest_or_not_at_all(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queue = subscribed(driver, topic, "q")
        driver.run(ops.Transact(sends=[(topic, [entry("1")])], state=[(b"k", b"v")], name="job"))
        outcome = driver.outcome(ops.Transact(sends=[(topic, [entry("2"), entry("")])], name="job"))
        assert isinstance(outcome, CallerError)
        assert shown(driver, queue) == ["1"]

    def test_delay_of_the_message_or_else_of_the_queue(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        plain = subscribed(driver, topic, "plain")
        slow = driver.create("slow", delay_ms=20 * SECOND)
        driver.run(ops.Subscribe(topic, slow))
        driver.send(topic, "own", delay_ms=10 * SECOND)
        driver.send(topic, "queue's")
        assert bodies(driver.receive(plain)) == ["queue's"]
        assert bodies(driver.receive(slow)) == []
        driver.pass_time(10 * SECOND)
        assert (bodies(driver.receive(plain)), bodies(driver.receive(slow))) == (["own"], ["own"])
        driver.pass_time(10 * SECOND)
        assert bodies(driver.receive(slow)) == ["queue's"]

    def test_unsubscribed_queue_gets_nothing_new_and_keeps_the_old(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queue = subscribed(driver, topic, "q")
        driver.send(topic, "1")
        driver.run(ops.Unsubscribe(topic, queue))
        driver.run(ops.Unsubscribe(topic, queue))
        driver.send(topic, "2")
        assert shown(driver, queue) == ["1"]

    def test_deleted_queue_leaves_its_topics(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queue = subscribed(driver, topic, "q")
        driver.run(ops.DeleteQueue(queue))
        assert describe(driver, topic).subscriptions == []
        driver.create("q")
        driver.send(topic, "1")
        assert shown(driver, queue) == []

    def test_what_was_published_survives_a_crash(self, crashable: StoreDriver) -> None:
        topic = create(crashable)
        queues = [subscribed(crashable, topic, name) for name in ("a", "b")]
        for number in range(3):
            crashable.send(topic, f"{number}{LONG}")
        crashable.crash()
        for queue in queues:
            assert shown(crashable, queue) == ["0", "1", "2"]
            assert bodies(crashable.receive(queue))[0] == f"0{LONG}"
        crashable.send(topic, "3")
        assert shown(crashable, queues[0]) == ["0", "1", "2", "3"]

    def test_dead_letter_keeps_its_body_when_the_topic_is_gone(self, driver: StoreDriver) -> None:
        topic, dead = create(driver), driver.create("dead")
        queue = driver.create("q", redrive={"target": dead, "receives_max": 1}, visibility_ms=0)
        driver.run(ops.Subscribe(topic, queue))
        subscribed(driver, topic, "other")
        driver.send(topic, LONG)
        driver.receive(queue)
        driver.receive(queue)
        driver.run(ops.DeleteTopic(topic))
        driver.pass_time(MINUTE)
        assert bodies(driver.receive(dead)) == [LONG]


class TestFilters(SuitePart):
    def test_filter_lets_in_what_matches(self, driver: StoreDriver) -> None:
        topic = create(driver)
        some = subscribed(driver, topic, "some", filter={"kind": ["a", {"prefix": "b"}]})
        every = subscribed(driver, topic, "every")
        for number, kind in enumerate(["a", "bc", "c", "a"]):
            driver.send(topic, f"{number}{LONG}", attributes=with_kind(kind))
        driver.send(topic, "none")
        assert shown(driver, some) == ["0", "1", "3"]
        assert shown(driver, every) == ["0", "1", "2", "3", "none"]

    def test_filter_of_the_body(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queue = subscribed(driver, topic, "q", filter={"price": {"usd": [{"numeric": [">", 5]}]}}, scope="MessageBody")
        for body in ('{"price": {"usd": 6}}', '{"price": {"usd": 5}}', "no json"):
            driver.send(topic, body)
        assert shown(driver, queue) == ['{"price": {"usd": 6}}']

    def test_filter_is_changed_and_removed(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queue = subscribed(driver, topic, "q", filter={"kind": ["a"]})
        driver.run(ops.Subscribe(topic, queue))
        driver.send(topic, "1")
        driver.run(ops.Subscribe(topic, queue, filter={}))
        driver.send(topic, "2")
        assert shown(driver, queue) == ["2"]

    def test_bad_filter_is_refused_and_changes_nothing(self, driver: StoreDriver) -> None:
        topic = create(driver)
        queue = subscribed(driver, topic, "q")
        outcome = driver.outcome(ops.Subscribe(topic, queue, {"a": []}))
        assert isinstance(outcome, InvalidFilter) and outcome.place == "a"
        assert describe(driver, topic).subscriptions[0].subscription.filter is None


class TestFifoTopics(SuitePart):
    def test_order_is_kept_per_group(self, driver: StoreDriver) -> None:
        topic = create(driver, "t.fifo")
        queue = subscribed(driver, topic, "q.fifo")
        for number in range(6):
            driver.send(topic, f"{number}{LONG}", group="ab"[number % 2], dedup_id=str(number))
        found = [(one.message.group, one.message.body[:1]) for one in driver.receive(queue, 10)]
        assert [body for group, body in found if group == "a"] == [b"0", b"2", b"4"]
        assert [body for group, body in found if group == "b"] == [b"1", b"3", b"5"]

    def test_duplicates_are_found_at_the_topic_for_five_minutes(self, driver: StoreDriver) -> None:
        topic = create(driver, "t.fifo")
        queue = subscribed(driver, topic, "q.fifo")
        first = driver.send(topic, "1", group="g", dedup_id="d")
        again = driver.send(topic, "2", group="g", dedup_id="d")
        assert (again.id, again.seq, again.duplicate) == (first.id, first.seq, True)
        driver.pass_time(5 * MINUTE)
        driver.send(topic, "3", group="g", dedup_id="d")
        assert shown(driver, queue) == ["1", "3"]
        assert describe(driver, topic).counts.duplicates == 1

    def test_duplicates_are_found_after_a_restart(self, durable: StoreDriver) -> None:
        topic = create(durable, "t.fifo", content_dedup=True)
        first = durable.send(topic, "1", group="g")
        durable.reopen()
        again = durable.send(topic, "1", group="g")
        assert (again.id, again.duplicate) == (first.id, True)

    def test_message_without_a_group_is_refused(self, driver: StoreDriver) -> None:
        (outcome,) = driver.send_all(create(driver, "t.fifo"), [entry("1", dedup_id="d")])
        assert isinstance(outcome, CallerError)

    def test_fifo_queue_on_a_standard_topic_is_refused(self, driver: StoreDriver) -> None:
        topic, queue = create(driver), driver.create("q.fifo")
        assert isinstance(driver.outcome(ops.Subscribe(topic, queue)), SubscriptionRefused)

    def test_standard_queue_on_a_fifo_topic_is_allowed(self, driver: StoreDriver) -> None:
        topic = create(driver, "t.fifo")
        queue = subscribed(driver, topic, "q")
        driver.send(topic, "1", group="g", dedup_id="d")
        message = driver.receive_one(queue).message
        assert (message.body, message.group, message.dedup_id) == (b"1", "g", None)

    def test_replay_is_no_duplicate(self, driver: StoreDriver) -> None:
        topic = create(driver, "t.fifo", retention_ms=HOUR)
        queue = subscribed(driver, topic, "q.fifo")
        driver.send(topic, "1", group="g", dedup_id="d")
        driver.run(ops.Subscribe(topic, queue, after=0))
        assert shown(driver, queue) == ["1", "1"]
