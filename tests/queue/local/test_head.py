"""The head of a queue in memory, and its cursor into the rest: small here, so that every edge is met."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.store.disk import key_of
from headrace.queue.store.local.head import OBJECT_BYTES, BodyCache
from headrace.testing import StoreDriver, bodies, entry
from headrace.testing.machine import machine_for
from headrace.testing.stores import MEMORY, SQLITE
from tests.queue.local.hands import Hands
from tests.queue.rules.messages import message


@pytest.fixture(autouse=True)
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_MESSAGES_MAX", 4)
    monkeypatch.setattr(limits, "HEAD_REFILL", 2)
    monkeypatch.setattr(limits, "BODY_CACHE_BYTES_MAX", 2_000)
    monkeypatch.setattr(limits, "TIMERS_KEPT", 2)
    monkeypatch.setattr(limits, "TAKEN_AT_ONCE", 2)
    monkeypatch.setattr(limits, "DUE_AT_ONCE", 3)


FOCUS = st.sampled_from([("plain",), ("retried", "dead"), ("plain", "retried", "dead")])


class SmallMemory(machine_for(MEMORY)):  # type: ignore[misc]  # made at run time
    @initialize(focus=FOCUS)
    def keep_to(self, focus: tuple[str, ...]) -> None:
        """Standard queues: a small head may end a FIFO receive before its group is empty, which SQS allows."""
        self.focus = focus


class SmallSqlite(machine_for(SQLITE)):  # type: ignore[misc]  # made at run time
    @initialize(focus=FOCUS)
    def keep_to(self, focus: tuple[str, ...]) -> None:
        self.focus = focus


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
TestSmallMemory = SmallMemory.TestCase
TestSmallMemory.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, print_blob=True, suppress_health_check=CHECKS
)
TestSmallSqlite = SmallSqlite.TestCase
TestSmallSqlite.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, print_blob=True, suppress_health_check=CHECKS
)


class TestBacklog:
    def test_messages_beyond_the_head_come_in_their_order(self, memory: StoreDriver) -> None:
        queue = memory.create("q")
        for number in range(20):
            memory.send(queue, str(number))
        assert bodies(memory.receive(queue, 7) + memory.receive(queue, 20)) == [str(number) for number in range(20)]

    def test_delayed_messages_that_are_due_together_all_come(self, memory: StoreDriver) -> None:
        queue = memory.create("q", delay_ms=1_000)
        memory.send_all(queue, [entry(str(number), group="ab"[number % 2]) for number in range(20)])
        memory.pass_time(1_000)
        assert memory.counts(queue).visible == 20
        received = [*memory.receive(queue, 7), *memory.receive(queue, 20)]
        assert sorted(bodies(received), key=int) == [str(number) for number in range(20)]

    def test_purge_takes_what_is_due_and_not_shown_yet(self, memory: StoreDriver) -> None:
        queue = memory.create("q", delay_ms=1_000)
        memory.send_all(queue, [entry("x")] * 20)
        memory.pass_time(1_000)
        memory.run(ops.Purge(queue))
        assert memory.receive(queue, 20) == []

    @pytest.mark.parametrize("fate", ["expired", "dead"])
    def test_receive_finds_what_lies_behind_many_that_fall_out(self, memory: StoreDriver, fate: str) -> None:
        dead = memory.create("dead")
        queue = memory.create("q", redrive={"target": dead, "receives_max": 1}, retention_ms=60_000)
        memory.send_all(queue, [entry("out")] * 30)
        if fate == "dead":
            memory.receive(queue, 30, visibility_ms=0)
        memory.jump(60_000 if fate == "expired" else 0)
        memory.send_all(queue, [entry(str(number)) for number in range(5)])
        found: list[str] = []
        for _ in range(40):
            found += bodies(memory.receive(queue, 2, visibility_ms=1_000_000))
        assert found == [str(number) for number in range(5)]
        assert memory.counts(dead).visible == (30 if fate == "dead" else 0)

    def test_order_of_a_group_holds_across_refills(self, memory: StoreDriver) -> None:
        queue = memory.create("q.fifo", content_dedup=True)
        memory.send_all(queue, [entry(f"{group}{number}", group=group) for number in range(12) for group in "abc"])
        seen: dict[str, list[str]] = {"a": [], "b": [], "c": []}
        while deliveries := memory.receive(queue, 5):
            for body in bodies(deliveries):
                seen[body[0]].append(body)
            memory.delete(queue, *[one.receipt for one in deliveries])
        assert seen == {group: [f"{group}{number}" for number in range(12)] for group in "abc"}

    def test_free_group_behind_a_locked_one_is_found_in_the_end(
        self, memory: StoreDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "HEAD_LOOK_AHEAD", 4)
        queue = memory.create("q.fifo", content_dedup=True)
        for body in [*[f"a{number}" for number in range(30)], "b"]:
            memory.send(queue, body, group=body[0])
        memory.receive(queue, 1)
        memory.store.take_ready()
        receives = 0
        while not (deliveries := memory.receive(queue, 1)):
            receives += 1
            assert queue in memory.store.take_ready(), "those who wait must go on looking"
        assert bodies(deliveries) == ["b"] and receives > 1
        memory.receive(queue, 1)
        memory.store.take_ready()
        assert memory.receive(queue, 1) == []
        assert queue not in memory.store.take_ready(), "all has been looked at"


class TestWatching:
    """The store looks only at queues in which time may change something."""

    def test_idle_queues_cost_nothing(self, hands: Hands) -> None:
        for number in range(10):
            hands.create(f"q{number}")
        hands.settle()
        assert hands.local.state.watched == {}

    def test_queue_is_watched_while_it_has_a_deadline_or_a_memory(self, hands: Hands) -> None:
        queue = hands.create("q.fifo", content_dedup=True, visibility_ms=1_000, retention_ms=60_000)
        hands.send(queue, "x", group="g")
        (delivery,) = hands.receive(queue, attempt_id="a")
        hands.delete(queue, delivery.receipt)
        assert len(hands.local.state.watched) == 1
        hands.pass_time(limits.ATTEMPT_MS + 2 * limits.MINUTE_MS)
        state = hands.queue(queue)
        assert not state.attempts and not len(state.dedup)
        hands.store.advance()
        assert hands.local.state.watched == {}

    def test_deadlines_of_deleted_messages_are_forgotten(self, hands: Hands) -> None:
        queue = hands.create("q", visibility_ms=limits.VISIBILITY_MAX_MS)
        for _ in range(20):
            hands.send(queue, "x")
            hands.delete(queue, hands.receive_one(queue).receipt)
        assert len(hands.queue(queue).order.leases.timers) <= 3


class TestBodyCache:
    @given(st.lists(st.tuples(st.sampled_from(["add", "pop", "drop"]), st.integers(1, 12)), max_size=60))
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
    def test_bytes_are_those_of_what_is_kept_and_bounded(self, steps: list[tuple[str, int]]) -> None:
        cache, kept, seq = BodyCache(), set[int](), 0
        for step, number in steps:
            if step == "add":
                messages = [message(seq + place) for place in range(1, number + 1)]
                seq += number
                cache.add(7, messages)
                kept |= {one.seq for one in messages if key_of(7, one.seq) in cache._messages}
            elif step == "pop":
                found = cache.pop([key_of(7, number)])
                assert (found[0] is not None) == (number in kept)
                kept.discard(number)
            else:
                cache.drop(key_of(7, 0), key_of(7, number))
                kept = {one for one in kept if one > number}
            assert {key_of(7, one) for one in kept} == set(cache._messages)
            assert cache._bytes == len(kept) * (len(b"body") + OBJECT_BYTES) <= limits.BODY_CACHE_BYTES_MAX

    def test_drop_leaves_other_queues_alone(self) -> None:
        cache = BodyCache()
        cache.add(1, [message(1)])
        cache.add(2, [message(1)])
        cache.drop(key_of(1, 0), key_of(1, 9))
        assert cache.pop([key_of(1, 1), key_of(2, 1)]) == [None, message(1)]
