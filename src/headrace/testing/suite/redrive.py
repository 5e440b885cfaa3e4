"""Dead letters: the move after the last allowed receive, and who may be a dead-letter queue."""

from __future__ import annotations

import pytest

from headrace.errors import CallerError, InvalidSetting, RedriveRefused
from headrace.queue import attributes
from headrace.queue import operations as ops
from headrace.queue.model import Redrive, RedriveAllow, arn_of
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import DAY, HOUR, MINUTE, SECOND, SuitePart


def create_pair(driver: StoreDriver, receives_max: int, *, fifo: bool = False, **settings: object) -> tuple[str, str]:
    """A queue and its dead-letter queue."""
    suffix = ".fifo" if fifo else ""
    content: dict[str, object] = {"content_dedup": True} if fifo else {}
    dead = driver.create(f"dead{suffix}", **content)
    queue = driver.create(f"q{suffix}", redrive=Redrive(dead, receives_max), **content, **settings)
    return queue, dead


class TestDeadLetters(SuitePart):
    @pytest.mark.parametrize("receives_max", [1, 2, 5])
    def test_message_moves_when_a_receive_would_exceed_the_bound(self, driver: StoreDriver, receives_max: int) -> None:
        queue, dead = create_pair(driver, receives_max, visibility_ms=SECOND)
        driver.send(queue, "x")
        for count in range(1, receives_max + 1):
            assert driver.receive_one(queue).receives == count
            assert driver.receive(dead) == []
            driver.pass_time(SECOND)
        assert driver.receive(queue) == []
        assert bodies(driver.receive(dead)) == ["x"]
        assert driver.peek(queue) == []

    def test_message_is_in_one_place_only_at_any_time(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=SECOND)
        driver.send(queue, "x")
        driver.receive_one(queue)
        for step in range(5):
            assert len(driver.peek(queue)) + len(driver.peek(dead)) == 1, step
            driver.pass_time(SECOND)
            driver.receive(queue)
        assert driver.counts(queue).dead_lettered == 1

    def test_dead_letter_keeps_id_body_attributes_and_sent_time(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        blob = attributes.encode({"a": ("Number", "1")})
        sent = driver.send(queue, b"\x00body", attributes=blob, trace="Root=1", sender="AIDA")
        sent_ms = driver.clock()
        driver.receive_one(queue)
        driver.pass_time(MINUTE)
        driver.receive(queue)
        message = driver.receive_one(dead).message
        assert (message.id, message.body, message.attributes) == (sent.id, b"\x00body", blob)
        assert (message.trace, message.sender, message.sent_ms) == ("Root=1", "AIDA", sent_ms)
        assert message.source == queue

    def test_receive_count_goes_on_in_the_dead_letter_queue(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 2, visibility_ms=0)
        driver.send(queue, "x")
        first_ms = driver.clock()
        driver.receive_one(queue)
        driver.pass_time(SECOND)
        driver.receive_one(queue)
        driver.receive(queue)
        delivery = driver.receive_one(dead)
        assert delivery.receives == 3
        assert delivery.first_received_ms == first_ms

    def test_move_makes_the_dead_letter_queue_ready(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        driver.send(queue, "x")
        driver.receive_one(queue)
        driver.store.take_ready()
        driver.receive(queue)
        assert dead in driver.store.take_ready()

    def test_receive_goes_on_behind_dead_letters(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=SECOND)
        driver.send_all(queue, [entry("bad")] * 12)
        driver.receive(queue, 12)
        driver.send_all(queue, [entry("good")] * 3)
        driver.pass_time(SECOND)
        received = [body for _ in range(3) for body in bodies(driver.receive(queue, 10))]
        assert received == ["good"] * 3
        assert len(driver.receive(dead, 20)) == 12

    def test_retention_runs_from_the_first_send_on_a_standard_queue(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        driver.change_settings(dead, retention_ms=HOUR, visibility_ms=0)
        driver.send(queue, "x")
        driver.receive_one(queue)
        driver.pass_time(30 * MINUTE)
        driver.receive(queue)
        driver.pass_time(30 * MINUTE - 1)
        assert bodies(driver.receive(dead)) == ["x"]
        driver.pass_time(1)
        assert driver.receive(dead) == []

    def test_chain_of_dead_letter_queues_works(self, driver: StoreDriver) -> None:
        last = driver.create("last", visibility_ms=0)
        middle = driver.create("middle", visibility_ms=0, redrive=Redrive(last, 1))
        queue = driver.create("q", visibility_ms=0, redrive=Redrive(middle, 1))
        driver.send(queue, "x")
        driver.receive_one(queue)
        driver.receive(queue)
        driver.receive_one(middle)
        driver.receive(middle)
        delivery = driver.receive_one(last)
        assert delivery.message.source == middle

    def test_move_survives_a_restart(self, durable: StoreDriver) -> None:
        queue, dead = create_pair(durable, 1, visibility_ms=0)
        durable.send(queue, "x")
        durable.receive_one(queue)
        durable.receive(queue)
        durable.reopen()
        assert durable.receive(queue) == []
        delivery = durable.receive_one(dead)
        assert (delivery.receives, delivery.message.source) == (2, queue)

    def test_count_towards_the_bound_survives_a_restart(self, durable: StoreDriver) -> None:
        queue, dead = create_pair(durable, 3, visibility_ms=0)
        durable.send(queue, "x")
        for count in (1, 2, 3):
            assert durable.receive_one(queue).receives == count
            durable.reopen()
        assert durable.receive(queue) == []
        assert bodies(durable.receive(dead)) == ["x"]

    def test_count_towards_the_bound_survives_a_crash(self, crashable: StoreDriver) -> None:
        queue, dead = create_pair(crashable, 3, visibility_ms=SECOND)
        crashable.send(queue, "x")
        for count in (1, 2, 3):
            assert crashable.receive_one(queue).receives == count
            crashable.crash()
            crashable.pass_time(SECOND)
        assert crashable.receive(queue) == []
        assert bodies(crashable.receive(dead)) == ["x"]


class TestFifoDeadLetters(SuitePart):
    def test_move_lets_the_group_go_on(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, fifo=True, visibility_ms=SECOND)
        for body in ("1", "2", "3"):
            driver.send(queue, body, group="g")
        driver.receive_one(queue)
        driver.pass_time(SECOND)
        assert bodies(driver.receive(queue)) == ["2", "3"]
        assert bodies(driver.receive(dead)) == ["1"]

    def test_dead_letters_keep_group_and_order(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, fifo=True, visibility_ms=SECOND)
        for body in ("1", "2", "3"):
            driver.send(queue, body, group="g")
        driver.receive(queue)
        driver.pass_time(SECOND)
        assert driver.receive(queue) == []
        deliveries = driver.receive(dead)
        assert bodies(deliveries) == ["1", "2", "3"]
        assert {one.message.group for one in deliveries} == {"g"}

    def test_dedup_id_becomes_the_message_id(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, fifo=True, visibility_ms=0)
        for body in ("1", "2"):
            driver.send(queue, body, group=body, dedup_id="same")
            driver.receive(queue)
            driver.receive(queue)
            driver.pass_time(5 * MINUTE)
        letters = driver.peek(dead)
        assert [one.message.body for one in letters] == [b"1", b"2"]
        assert len({one.message.dedup_id for one in letters}) == 2

    def test_two_messages_with_one_dedup_id_both_survive(self, driver: StoreDriver) -> None:
        dead = driver.create("dead.fifo")
        sources = [driver.create(f"{name}.fifo", redrive=Redrive(dead, 1), visibility_ms=0) for name in ("a", "b")]
        for source in sources:
            driver.send(source, source, group="g", dedup_id="same")
            driver.receive(source)
            driver.receive(source)
        assert sorted(one.message.body.decode() for one in driver.peek(dead)) == sorted(sources)

    def test_retention_starts_again(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, fifo=True, visibility_ms=0)
        driver.change_settings(dead, retention_ms=HOUR, visibility_ms=0)
        driver.send(queue, "x", group="g")
        driver.receive_one(queue)
        driver.pass_time(30 * MINUTE)
        driver.receive(queue)
        driver.pass_time(HOUR - 1)
        assert bodies(driver.receive(dead)) == ["x"]
        driver.pass_time(1)
        assert driver.receive(dead) == []


class TestRedrivePolicies(SuitePart):
    def test_missing_target_is_refused(self, driver: StoreDriver) -> None:
        outcome = driver.outcome(ops.CreateQueue(arn_of("q"), {"redrive": Redrive(arn_of("none"), 1)}))
        assert isinstance(outcome, RedriveRefused)
        assert driver.store.find(arn_of("q")) is None

    def test_target_of_another_type_is_refused(self, driver: StoreDriver) -> None:
        dead, queue = driver.create("dead.fifo"), driver.create("q")
        with pytest.raises(RedriveRefused):
            driver.change_settings(queue, redrive=Redrive(dead, 1))

    @pytest.mark.parametrize("receives_max", [0, 1_001])
    def test_bound_out_of_range_is_refused(self, driver: StoreDriver, receives_max: int) -> None:
        dead, queue = driver.create("dead"), driver.create("q")
        with pytest.raises(InvalidSetting):
            driver.change_settings(queue, redrive=Redrive(dead, receives_max))

    def test_target_that_allows_nobody_is_refused(self, driver: StoreDriver) -> None:
        dead, queue = driver.create("dead", redrive_allow=RedriveAllow("denyAll")), driver.create("q")
        with pytest.raises(RedriveRefused):
            driver.change_settings(queue, redrive=Redrive(dead, 1))

    def test_target_may_name_its_sources(self, driver: StoreDriver) -> None:
        dead = driver.create("dead", redrive_allow=RedriveAllow("byQueue", (arn_of("good"),)))
        good, bad = driver.create("good"), driver.create("bad")
        driver.change_settings(good, redrive=Redrive(dead, 1))
        with pytest.raises(RedriveRefused):
            driver.change_settings(bad, redrive=Redrive(dead, 1))

    @pytest.mark.parametrize(
        "allow",
        [
            RedriveAllow("nonsense"),
            RedriveAllow("byQueue"),
            RedriveAllow("allowAll", (arn_of("q"),)),
            RedriveAllow("byQueue", tuple(arn_of(f"q{number}") for number in range(11))),
        ],
    )
    def test_nonsense_policy_is_refused(self, driver: StoreDriver, allow: RedriveAllow) -> None:
        assert isinstance(driver.outcome(ops.CreateQueue(arn_of("q"), {"redrive_allow": allow})), InvalidSetting)

    def test_redrive_can_be_switched_off(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        driver.send(queue, "x")
        driver.receive_one(queue)
        driver.change_settings(queue, redrive=None)
        assert driver.receive_one(queue).receives == 2
        assert driver.peek(dead) == []

    def test_sources_of_a_dead_letter_queue_are_listed(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1)
        driver.create("other")
        assert [one.info.arn for one in driver.run(ops.ListQueues(target=dead))] == [queue]
        assert driver.run(ops.ListQueues(target=queue)) == []

    def test_message_is_not_lost_when_its_dead_letter_queue_is_gone(self, driver: StoreDriver) -> None:
        queue, dead = create_pair(driver, 1, visibility_ms=0)
        driver.send(queue, "x")
        driver.receive_one(queue)
        outcome = driver.outcome(ops.DeleteQueue(dead))
        assert outcome is None or isinstance(outcome, CallerError)
        driver.receive(queue)
        driver.pass_time(DAY)
        places = [queue] if outcome is None else [queue, dead]
        assert sum(len(driver.peek(place)) for place in places) == 1
