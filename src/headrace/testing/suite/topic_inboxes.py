"""What a topic's inbox promises: a queue whose messages are published instead of stored."""

from __future__ import annotations

from headrace.errors import CallerError, SubscriptionRefused
from headrace.queue import operations as ops
from headrace.queue.model import topic_arn_of
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import HOUR, SECOND, SuitePart
from headrace.testing.suite.topics import LONG, create, describe, shown, subscribed


class TestInboxes(SuitePart):
    def test_what_is_sent_to_the_inbox_is_published(self, driver: StoreDriver) -> None:
        inbox = driver.create("in")
        topic = create(driver, inbox=inbox, retention_ms=HOUR)
        queue = subscribed(driver, topic, "q")
        sent = driver.send(inbox, LONG)
        assert driver.peek(inbox) == []
        assert driver.receive_one(queue).message.id == sent.id
        assert [message.id for message in driver.run(ops.ReadLog(topic))] == [sent.id]

    def test_inbox_checks_and_delays_as_it_is_set(self, driver: StoreDriver) -> None:
        inbox = driver.create("in", delay_ms=10 * SECOND, max_message_bytes=1_024)
        queue = subscribed(driver, create(driver, inbox=inbox), "q")
        driver.send(inbox, "1")
        (outcome,) = driver.send_all(inbox, [entry("x" * 1_025)])
        assert isinstance(outcome, CallerError)
        assert driver.receive(queue) == []
        driver.pass_time(10 * SECOND)
        assert bodies(driver.receive(queue)) == ["1"]

    def test_fifo_inbox_keeps_groups_and_finds_duplicates(self, driver: StoreDriver) -> None:
        inbox = driver.create("in.fifo", content_dedup=True)
        queue = subscribed(driver, create(driver, "t.fifo", inbox=inbox), "q.fifo")
        first = driver.send(inbox, "1", group="g")
        assert driver.send(inbox, "1", group="g") == (first.__class__)(first.id, first.seq, True)
        driver.send(inbox, "2", group="g")
        assert shown(driver, queue) == ["1", "2"]

    def test_transaction_sends_through_an_inbox(self, driver: StoreDriver) -> None:
        inbox = driver.create("in")
        queue = subscribed(driver, create(driver, inbox=inbox), "q")
        driver.run(ops.Transact(sends=[(inbox, [entry("1")])]))
        assert shown(driver, queue) == ["1"]

    def test_inbox_survives_a_restart_and_ends_with_the_topic(self, durable: StoreDriver) -> None:
        inbox = durable.create("in")
        topic = create(durable, inbox=inbox)
        queue = subscribed(durable, topic, "q")
        durable.reopen()
        durable.send(inbox, "1")
        durable.run(ops.DeleteTopic(topic))
        durable.send(inbox, "2")
        assert (shown(durable, queue), shown(durable, inbox)) == (["1"], ["2"])

    def test_deleted_inbox_is_forgotten(self, driver: StoreDriver) -> None:
        inbox = driver.create("in")
        topic = create(driver, inbox=inbox)
        driver.run(ops.DeleteQueue(inbox))
        assert describe(driver, topic).info.settings.inbox is None
        driver.create("in")
        driver.send(inbox, "1")
        assert shown(driver, inbox) == ["1"]

    def test_inbox_and_subscriber_exclude_each_other(self, driver: StoreDriver) -> None:
        inbox = driver.create("in")
        topic = create(driver, inbox=inbox)
        assert isinstance(driver.outcome(ops.Subscribe(topic, inbox)), SubscriptionRefused)
        queue = subscribed(driver, topic, "q")
        for taken in (inbox, queue):
            outcome = driver.outcome(ops.CreateTopic(topic_arn_of("other"), {"inbox": taken}))
            assert isinstance(outcome, SubscriptionRefused)

    def test_inbox_is_of_the_topics_kind(self, driver: StoreDriver) -> None:
        fifo = driver.create("in.fifo")
        assert isinstance(driver.outcome(ops.CreateTopic(topic_arn_of("t"), {"inbox": fifo})), SubscriptionRefused)
