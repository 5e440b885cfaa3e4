"""What a topic's log promises: order, retention, bodies that outlive it, queues that catch up without a gap or a duplicate."""

from __future__ import annotations

from headrace.errors import InvalidParameter, SubscriptionRefused, TopicNotFound
from headrace.queue import operations as ops
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import DAY, HOUR, MINUTE, SECOND, SuitePart
from headrace.testing.suite.topics import LONG, create, describe, logged, shown, subscribed, with_kind


class TestLogs(SuitePart):
    def test_log_is_read_in_order_and_page_by_page(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        seqs = [driver.send(topic, f"{number}{LONG}").seq for number in range(5)]
        assert logged(driver, topic) == ["0", "1", "2", "3", "4"]
        assert [m.seq for m in driver.run(ops.ReadLog(topic, limit=2))] == seqs[:2]
        assert [m.seq for m in driver.run(ops.ReadLog(topic, after=seqs[1], limit=2))] == seqs[2:4]
        assert [m.seq for m in driver.run(ops.ReadLog(topic, bytes_max=1))] == seqs[:1]
        assert logged(driver, topic, seqs[-1]) == []

    def test_age_ends_in_the_log(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        driver.send(topic, "1")
        driver.pass_time(HOUR // 2)
        driver.send(topic, "2")
        driver.pass_time(HOUR // 2 + SECOND)
        assert logged(driver, topic) == ["2"]
        counts = describe(driver, topic).counts
        assert (counts.logged, counts.log_bytes, counts.oldest_ms) == (1, 1, driver.clock() - HOUR // 2 - SECOND)
        driver.pass_time(HOUR)
        assert logged(driver, topic) == []
        assert describe(driver, topic).counts.logged == 0

    def test_bytes_bound_the_log_oldest_first(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_bytes=2_500)
        for number in range(5):
            driver.send(topic, f"{number}{LONG}")
        driver.pass_time(2 * SECOND)
        assert logged(driver, topic) == ["3", "4"]
        assert describe(driver, topic).counts.log_bytes == 2_002

    def test_retention_is_changed(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        driver.send(topic, "1")
        driver.run(ops.ChangeTopic(topic, {"retention_ms": 0}))
        driver.pass_time(2 * SECOND)
        assert logged(driver, topic) == []
        driver.send(topic, "2")
        assert logged(driver, topic) == []
        driver.run(ops.ChangeTopic(topic, {"retention_ms": HOUR}))
        driver.send(topic, "3")
        assert logged(driver, topic) == ["3"]

    def test_queue_keeps_what_has_left_the_log(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=MINUTE)
        queue, other = subscribed(driver, topic, "q"), subscribed(driver, topic, "other")
        driver.send(topic, f"1{LONG}")
        driver.run(ops.Purge(other))
        driver.pass_time(HOUR)
        assert logged(driver, topic) == []
        assert bodies(driver.receive(queue)) == [f"1{LONG}"]

    def test_queue_keeps_what_a_deleted_topic_published(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        queue = subscribed(driver, topic, "q")
        driver.send(topic, f"1{LONG}")
        driver.run(ops.DeleteTopic(topic))
        driver.pass_time(MINUTE)
        assert isinstance(driver.outcome(ops.GetTopic(topic)), TopicNotFound)
        create(driver)
        assert logged(driver, topic) == []
        assert bodies(driver.receive(queue)) == [f"1{LONG}"]

    def test_queue_keeps_it_across_crashes(self, crashable: StoreDriver) -> None:
        topic = create(crashable)
        queue, other = subscribed(crashable, topic, "q"), subscribed(crashable, topic, "other")
        for number in range(3):
            crashable.send(topic, f"{number}{LONG}")
        crashable.run(ops.DeleteTopic(topic))
        crashable.crash()
        crashable.run(ops.Purge(other))
        crashable.pass_time(MINUTE)
        crashable.crash()
        create(crashable)
        assert bodies(crashable.receive(queue)) == [f"{number}{LONG}" for number in range(3)]


class TestCatchingUp(SuitePart):
    def test_from_the_beginning_and_then_live(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        for number in range(3):
            driver.send(topic, f"{number}{LONG}")
        queue = subscribed(driver, topic, "q", after=0)
        driver.send(topic, "3")
        assert shown(driver, queue) == ["0", "1", "2", "3"]
        (one,) = describe(driver, topic).subscriptions
        assert (one.subscription.position, one.lag, one.waiting) == (None, 0, 4)

    def test_what_is_published_in_the_same_commit_comes_once(self, driver: StoreDriver) -> None:
        topic, queue = create(driver, retention_ms=HOUR), driver.create("q")
        driver.send(topic, "0")
        driver.outcomes(
            [ops.Send(topic, [entry("1")]), ops.Subscribe(topic, queue, after=0), ops.Send(topic, [entry("2")])]
        )
        driver.send(topic, "3")
        assert shown(driver, queue) == ["0", "1", "2", "3"]

    def test_many_slices_and_what_comes_meanwhile(self, driver: StoreDriver) -> None:
        topic, queue = create(driver, retention_ms=HOUR), driver.create("q")
        driver.send_all(topic, [entry(str(number)) for number in range(5_000)])
        driver.outcomes([ops.Subscribe(topic, queue, after=0), ops.Send(topic, [entry("5000")])])
        driver.send(topic, "5001")
        assert shown(driver, queue) == [str(number) for number in range(5_002)]

    def test_from_a_time(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=DAY)
        for number in range(10):
            driver.send(topic, str(number))
            driver.pass_time(MINUTE)
        since_ms = driver.clock() - 3 * MINUTE
        assert shown(driver, subscribed(driver, topic, "q", since_ms=since_ms)) == ["7", "8", "9"]
        assert shown(driver, subscribed(driver, topic, "late", since_ms=driver.clock() + HOUR)) == []
        assert len(shown(driver, subscribed(driver, topic, "early", since_ms=0))) == 10

    def test_from_a_number_and_from_before_the_log(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        driver.send(topic, "0")
        driver.pass_time(HOUR + SECOND)
        seqs = [driver.send(topic, str(number)).seq for number in (1, 2, 3)]
        assert shown(driver, subscribed(driver, topic, "q", after=seqs[0])) == ["2", "3"]
        assert shown(driver, subscribed(driver, topic, "old", after=0)) == ["1", "2", "3"]

    def test_replay_gives_the_log_once_more_through_the_filter(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        queue = subscribed(driver, topic, "q", filter={"kind": ["a"]})
        for number, kind in enumerate("aba"):
            driver.send(topic, str(number), attributes=with_kind(kind))
        driver.run(ops.Subscribe(topic, queue, after=0))
        assert shown(driver, queue) == ["0", "2", "0", "2"]

    def test_subscribing_if_absent_gives_the_log_once(self, driver: StoreDriver) -> None:
        topic, queue = create(driver, retention_ms=HOUR), driver.create("q")
        driver.send(topic, "0")
        subscribe = ops.Subscribe(topic, queue, after=0, if_absent=True)
        first, second = driver.outcomes([subscribe, subscribe])
        assert first == second
        driver.run(ops.Subscribe(topic, queue, {"kind": ["a"]}, after=0, purge=True, if_absent=True))
        assert shown(driver, queue) == ["0"]
        assert describe(driver, topic).subscriptions[0].subscription.filter is None

    def test_purge_comes_first_in_the_same_commit(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=HOUR)
        queue = subscribed(driver, topic, "q")
        driver.send(topic, "0")
        driver.send(queue, "a stranger")
        driver.run(ops.Subscribe(topic, queue, after=0, purge=True))
        assert shown(driver, queue) == ["0"]

    def test_replayed_messages_have_their_whole_retention_in_the_queue(self, driver: StoreDriver) -> None:
        topic = create(driver, retention_ms=30 * DAY)
        driver.send(topic, "0")
        driver.pass_time(20 * DAY)
        queue = driver.create("q", retention_ms=HOUR)
        driver.run(ops.Subscribe(topic, queue, after=0))
        driver.pass_time(HOUR // 2)
        assert shown(driver, queue) == ["0"]

    def test_without_a_log_it_is_refused(self, driver: StoreDriver) -> None:
        topic, queue = create(driver), driver.create("q")
        assert isinstance(driver.outcome(ops.Subscribe(topic, queue, after=0)), SubscriptionRefused)

    def test_bad_start_is_refused(self, driver: StoreDriver) -> None:
        topic, queue = create(driver, retention_ms=HOUR), driver.create("q")
        assert isinstance(driver.outcome(ops.Subscribe(topic, queue, after=-1)), InvalidParameter)
        assert isinstance(driver.outcome(ops.Subscribe(topic, queue, after=0, since_ms=0)), InvalidParameter)

    def test_it_goes_on_after_a_crash(self, crashable: StoreDriver) -> None:
        topic, queue = create(crashable, retention_ms=HOUR), crashable.create("q")
        crashable.send_all(topic, [entry(f"{number}{LONG}") for number in range(3_000)])
        crashable.run(ops.Subscribe(topic, queue, after=0))
        crashable.crash()
        crashable.send(topic, "3000")
        assert shown(crashable, queue) == [str(number) for number in range(3_001)]
