"""Deduplication: a dedup id is stored once in five minutes, whatever happens to its message."""

from __future__ import annotations

from headrace.queue import attributes, limits
from headrace.queue import operations as ops
from headrace.queue.model import Sent
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.suite.base import SuitePart
from headrace.testing.suite.fifo import create_fifo

WINDOW = limits.DEDUP_MS


def _is_duplicate_of(answer: Sent, original: Sent) -> bool:
    return answer.duplicate and (answer.id, answer.seq) == (original.id, original.seq)


class TestDeduplication(SuitePart):
    def test_duplicate_is_answered_like_the_original_and_not_stored(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        first = driver.send(queue, "1", group="g", dedup_id="d")
        assert _is_duplicate_of(driver.send(queue, "2", group="g", dedup_id="d"), first)
        assert not first.duplicate
        assert bodies(driver.receive(queue)) == ["1"]
        assert driver.counts(queue).duplicates == 1

    def test_window_is_five_minutes_from_the_first_send(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        first = driver.send(queue, "1", group="g", dedup_id="d")
        driver.pass_time(WINDOW - 1)
        assert _is_duplicate_of(driver.send(queue, "2", group="g", dedup_id="d"), first)
        driver.pass_time(1)
        again = driver.send(queue, "3", group="g", dedup_id="d")
        assert not again.duplicate and again.id != first.id
        assert bodies(driver.receive(queue)) == ["1", "3"]

    def test_window_goes_on_after_the_message_is_deleted(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        first = driver.send(queue, "1", group="g", dedup_id="d")
        driver.delete(queue, driver.receive_one(queue).receipt)
        assert _is_duplicate_of(driver.send(queue, "2", group="g", dedup_id="d"), first)
        assert driver.receive(queue) == []

    def test_window_goes_on_after_a_restart(self, durable: StoreDriver) -> None:
        queue = durable.create("q.fifo")
        first = durable.send(queue, "1", group="g", dedup_id="d")
        durable.delete(queue, durable.receive_one(queue).receipt)
        durable.reopen()
        assert _is_duplicate_of(durable.send(queue, "2", group="g", dedup_id="d"), first)
        durable.pass_time(WINDOW)
        assert not durable.send(queue, "3", group="g", dedup_id="d").duplicate

    def test_window_goes_on_after_a_crash(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q.fifo")
        first = crashable.send(queue, "1", group="g", dedup_id="d")
        crashable.delete(queue, crashable.receive_one(queue).receipt)
        crashable.crash()
        assert _is_duplicate_of(crashable.send(queue, "2", group="g", dedup_id="d"), first)

    def test_one_batch_may_hold_duplicates(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        first, second, other = driver.send_all(
            queue,
            [entry(body, group="g", dedup_id=dedup) for body, dedup in (("1", "d"), ("2", "d"), ("3", "e"))],
        )
        assert _is_duplicate_of(second, first)
        assert not other.duplicate
        assert bodies(driver.receive(queue)) == ["1", "3"]

    def test_requests_committed_together_are_deduplicated(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        one, two = driver.outcomes([ops.Send(queue, [entry("1", group="g", dedup_id="d")]) for _ in range(2)])
        assert _is_duplicate_of(two[0], one[0])
        assert bodies(driver.receive(queue)) == ["1"]

    def test_queue_scope_spans_groups(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", dedup_scope="queue")
        first = driver.send(queue, "1", group="a", dedup_id="d")
        assert _is_duplicate_of(driver.send(queue, "2", group="b", dedup_id="d"), first)

    def test_group_scope_keeps_groups_apart(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", dedup_scope="messageGroup", throughput_limit="perMessageGroupId")
        first = driver.send(queue, "1", group="a", dedup_id="d")
        assert not driver.send(queue, "2", group="b", dedup_id="d").duplicate
        assert _is_duplicate_of(driver.send(queue, "3", group="a", dedup_id="d"), first)
        assert sorted(bodies(driver.receive(queue))) == ["1", "2"]

    def test_scopes_do_not_mix_up_ids_with_separators(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", dedup_scope="messageGroup")
        driver.send(queue, "1", group="a", dedup_id="b-c")
        assert not driver.send(queue, "2", group="a-b", dedup_id="c").duplicate

    def test_queues_do_not_share_ids(self, driver: StoreDriver) -> None:
        one, two = driver.create("one.fifo"), driver.create("two.fifo")
        driver.send(one, "1", group="g", dedup_id="d")
        assert not driver.send(two, "1", group="g", dedup_id="d").duplicate

    def test_purge_forgets_ids(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        driver.send(queue, "1", group="g", dedup_id="d")
        driver.run(ops.Purge(queue))
        second = driver.send(queue, "2", group="g", dedup_id="d")
        assert not second.duplicate
        assert _is_duplicate_of(driver.send(queue, "3", group="g", dedup_id="d"), second)
        assert bodies(driver.receive(queue)) == ["2"]

    def test_ids_sent_beside_a_purge_are_forgotten_before_it_and_known_after_it(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        sends = [ops.Send(queue, [entry(body, group="g", dedup_id="d")]) for body in "123"]
        first, _, second, third = driver.outcomes([sends[0], ops.Purge(queue), sends[1], sends[2]])
        assert not first[0].duplicate
        assert not second[0].duplicate
        assert _is_duplicate_of(third[0], second[0])
        assert bodies(driver.receive(queue)) == ["2"]

    def test_ids_that_a_purge_forgot_stay_forgotten_after_a_crash(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q.fifo")
        crashable.send(queue, "1", group="g", dedup_id="d")
        crashable.send(queue, "2", group="g", dedup_id="e")
        crashable.run(ops.Purge(queue))
        kept = crashable.send(queue, "3", group="g", dedup_id="e")
        crashable.crash()
        assert not crashable.send(queue, "4", group="g", dedup_id="d").duplicate
        assert _is_duplicate_of(crashable.send(queue, "5", group="g", dedup_id="e"), kept)

    def test_new_queue_of_an_old_name_knows_no_ids(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo")
        driver.send(queue, "1", group="g", dedup_id="d")
        driver.run(ops.DeleteQueue(queue))
        driver.create("q.fifo")
        assert not driver.send(queue, "2", group="g", dedup_id="d").duplicate

    def test_refused_send_does_not_take_its_id(self, driver: StoreDriver) -> None:
        queue = driver.create("q.fifo", max_message_bytes=1_024)
        driver.send_all(queue, [entry(b"x" * 2_000, group="g", dedup_id="d")])
        assert not driver.send(queue, "1", group="g", dedup_id="d").duplicate


class TestContentDeduplication(SuitePart):
    def test_same_body_is_a_duplicate(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        first = driver.send(queue, "same", group="g")
        assert _is_duplicate_of(driver.send(queue, "same", group="g"), first)
        assert not driver.send(queue, "other", group="g").duplicate

    def test_attributes_do_not_matter(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        first = driver.send(queue, "same", group="g", attributes=attributes.encode({"a": ("String", "1")}))
        again = driver.send(queue, "same", group="g", attributes=attributes.encode({"a": ("String", "2")}))
        assert _is_duplicate_of(again, first)

    def test_explicit_id_goes_before_the_content(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        driver.send(queue, "same", group="g")
        assert not driver.send(queue, "same", group="g", dedup_id="mine").duplicate
        assert bodies(driver.receive(queue)) == ["same", "same"]

    def test_explicit_id_may_equal_a_generated_one(self, driver: StoreDriver) -> None:
        queue = create_fifo(driver)
        first = driver.send(queue, "hello", group="g")
        generated = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # SHA-256 of hello
        assert _is_duplicate_of(driver.send(queue, "other", group="g", dedup_id=generated), first)
