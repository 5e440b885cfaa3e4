"""While a commit is on its way to a slow disk: what it deletes is gone for all, what it sends is there for none."""

from __future__ import annotations

import pytest

from headrace.errors import StoreFailed
from headrace.queue import operations as ops
from headrace.testing import bodies, entry
from tests.queue.local.hands import Hands


def test_message_deleted_twice_is_deleted_once_and_both_are_answered(hands: Hands) -> None:
    queue = hands.create("q")
    hands.send(queue, "x")
    receipt = hands.receive_one(queue).receipt
    hands.hold_commits()
    first = hands.ask(ops.Delete(queue, [receipt]))
    second = hands.ask(ops.Delete(queue, [receipt, receipt]))
    assert first == second == []
    hands.let_go()
    assert (first, second) == ([[None]], [[None, None]])
    assert (hands.counts(queue).visible, hands.counts(queue).deleted) == (0, 1)


def test_message_being_deleted_does_not_come_back_at_its_timeout(hands: Hands) -> None:
    queue = hands.create("q", visibility_ms=1_000)
    hands.send(queue, "x")
    receipt = hands.receive_one(queue).receipt
    hands.hold_commits()
    hands.ask(ops.Delete(queue, [receipt]))
    hands.jump(1_000)
    hands.store.advance()
    assert hands.ask(ops.Receive(queue)) == [[]]
    hands.let_go()
    assert hands.receive(queue) == []


def test_successor_in_a_group_waits_for_the_delete_to_be_durable(hands: Hands) -> None:
    queue = hands.create("q.fifo", content_dedup=True)
    hands.send_all(queue, [entry("1", group="g"), entry("2", group="g")])
    (first,) = hands.receive(queue, 1)
    hands.hold_commits()
    hands.ask(ops.Delete(queue, [first.receipt]))
    assert hands.ask(ops.Receive(queue)) == [[]]
    hands.let_go()
    assert queue in hands.store.take_ready()
    received = hands.ask(ops.Receive(queue))
    hands.let_go()
    assert [bodies(deliveries) for deliveries in received] == [["2"]]


def test_duplicate_of_a_message_on_its_way_waits_for_it(hands: Hands) -> None:
    queue = hands.create("q.fifo", content_dedup=True)
    hands.hold_commits()
    first = hands.ask(ops.Send(queue, [entry("x", group="g")]))
    second = hands.ask(ops.Send(queue, [entry("x", group="g")]))
    assert first == second == []
    hands.let_go()
    assert [one.duplicate for one in first[0] + second[0]] == [False, True]
    assert first[0][0].id == second[0][0].id


class TestPurge:
    def test_messages_sent_before_are_gone_and_those_sent_after_stay(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.send(queue, "before")
        hands.hold_commits()
        hands.ask(ops.Send(queue, [entry("on its way")]))
        hands.ask(ops.Send(queue, [entry("planned")]), ops.Purge(queue), ops.Send(queue, [entry("after")]))
        hands.let_go()
        assert hands.counts(queue).visible == 1
        assert bodies(hands.receive(queue)) == ["after"]

    @pytest.mark.parametrize("name", ["q", "q.fifo"])
    def test_count_is_exact_whatever_is_removed_meanwhile(self, hands: Hands, name: str) -> None:
        fifo = {"group": "g"} if "." in name else {}
        queue = hands.create(name, **({"content_dedup": True} if fifo else {}))
        hands.send_all(queue, [entry(str(number), **fifo) for number in range(4)])
        hands.run(ops.Claim(queue, "r", 1, limit=1))
        deliveries = hands.receive(queue, 2)
        hands.hold_commits()
        hands.ask(ops.Purge(queue))
        hands.ask(ops.Delete(queue, [one.receipt for one in deliveries] or [b"x"]))
        hands.ask(ops.AcknowledgeClaims(queue, "r", 1))
        hands.let_go()
        assert hands.queue(queue).messages == 0
        sending = hands.ask(ops.Send(queue, [entry("new", **fifo)]))
        hands.let_go()
        assert len(sending) == 1
        assert hands.counts(queue).visible == 1

    def test_receipt_of_a_purged_message_has_no_effect(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.send(queue, "x")
        receipt = hands.receive_one(queue).receipt
        hands.hold_commits()
        hands.ask(ops.Purge(queue))
        hands.let_go()
        assert hands.ask(ops.Delete(queue, [receipt])) == [[None]]
        assert hands.queue(queue).messages == 0


class TestOwnWork:
    """Move tasks and expiry wait their turn: one slice a commit."""

    def test_move_task_plans_nothing_meanwhile(self, hands: Hands) -> None:
        dead = hands.create("dead")
        queue = hands.create("q", redrive={"target": dead, "receives_max": 1})
        hands.send_all(dead, [entry("x")] * 1_200)
        before = len(hands.disk.batches)
        hands.ask(ops.StartMove(dead, queue))
        hands.hold_commits()
        for _ in range(10):
            hands.store.advance()
        assert len(hands.local.state.plan.batch.inserts) == 0
        hands.let_go()
        hands.store.attach(None)
        hands.settle()
        assert hands.counts(queue).visible == 1_200
        assert max(len(batch.inserts) for batch in hands.disk.batches[before:]) <= 500

    def test_expiry_plans_nothing_meanwhile(self, hands: Hands) -> None:
        queue = hands.create("q", retention_ms=60_000)
        hands.send_all(queue, [entry("x")] * 3_000)
        hands.hold_commits()
        hands.jump(60_000)
        for _ in range(5):
            hands.store.advance()
        assert not hands.local.state.plan.batch
        hands.let_go()
        hands.store.attach(None)
        hands.settle()
        assert hands.counts(queue).expired == 3_000


class TestFailure:
    def test_everything_behind_a_failed_commit_fails(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.hold_commits()
        hands.disk.refuses = StoreFailed("the disk is gone")
        first = hands.ask(ops.Send(queue, [entry("1")]))
        second = hands.ask(ops.Send(queue, [entry("2")]))
        hands.let_go()
        assert [type(one) for one in first + second] == [StoreFailed] * 2
        assert hands.store.failed() is not None
        assert hands.store.advance() is None
