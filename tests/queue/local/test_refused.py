"""A commit that is refused has changed nothing: memory is as before, and what was asked can be asked again."""

from __future__ import annotations

import pytest

from headrace.errors import QueueNotFound, Unavailable
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, arn_of
from headrace.queue.operations import Operation
from headrace.testing import bodies, entry
from tests.queue.local.hands import Hands


def refuse(hands: Hands, operation: Operation) -> None:
    """Ask for something while another program holds the database."""
    hands.disk.refuses = Unavailable("locked")
    (answer,) = hands.ask(operation)
    assert isinstance(answer, Unavailable)
    hands.store.take_ready()


class TestMessages:
    def test_send_can_be_repeated(self, hands: Hands) -> None:
        queue = hands.create("q")
        refuse(hands, ops.Send(queue, [entry("x")]))
        assert (hands.counts(queue).visible, hands.counts(queue).sent) == (0, 0)
        hands.send(queue, "x")
        assert bodies(hands.receive(queue)) == ["x"]

    def test_dedup_id_is_free_again(self, hands: Hands) -> None:
        queue = hands.create("q.fifo")
        refuse(hands, ops.Send(queue, [entry("x", group="g", dedup_id="1")]))
        assert not hands.send(queue, "x", group="g", dedup_id="1").duplicate

    @pytest.mark.parametrize("released", [True, False])
    def test_deleted_message_is_as_before(self, hands: Hands, released: bool) -> None:
        queue = hands.create("q")
        hands.send(queue, "x")
        receipt = hands.receive_one(queue, visibility_ms=0 if released else None).receipt
        refuse(hands, ops.Delete(queue, [receipt]))
        counts = hands.counts(queue)
        assert (counts.visible, counts.in_flight, counts.deleted) == (int(released), int(not released), 0)
        hands.pass_time(30_000)
        assert hands.receive_one(queue).receives == 2

    def test_delete_of_a_fifo_message_leaves_its_group_locked_and_can_be_repeated(self, hands: Hands) -> None:
        queue = hands.create("q.fifo", content_dedup=True)
        hands.send_all(queue, [entry("1", group="g"), entry("2", group="g")])
        (first,) = hands.receive(queue, 1)
        refuse(hands, ops.Delete(queue, [first.receipt]))
        assert hands.receive(queue) == []
        assert hands.delete(queue, first.receipt) == [None]
        assert bodies(hands.receive(queue)) == ["2"]

    def test_dead_letter_stays_and_its_queue_is_told_ready(self, hands: Hands) -> None:
        dead = hands.create("dead")
        queue = hands.create("q", redrive={"target": dead, "receives_max": 1})
        hands.send(queue, "x")
        hands.receive_one(queue, visibility_ms=0)
        hands.store.take_ready()
        hands.disk.refuses = Unavailable("locked")
        assert hands.ask(ops.Receive(queue)) == [[]]
        assert queue in hands.store.take_ready()
        assert (hands.counts(queue).visible, hands.counts(queue).dead_lettered) == (1, 0)
        assert (hands.counts(dead).visible, hands.counts(dead).sent) == (0, 0)
        assert hands.receive(queue) == []
        assert bodies(hands.receive(dead)) == ["x"]
        assert hands.counts(dead).sent == 0  # it was sent once, to the other queue

    def test_expired_messages_are_counted_once(self, hands: Hands) -> None:
        queue = hands.create("q", retention_ms=60_000)
        hands.send_all(queue, [entry("old")] * 5)
        hands.receive(queue, 2, visibility_ms=0)
        hands.jump(30_000)
        hands.send_all(queue, [entry("young")] * 3)
        hands.jump(30_000)
        hands.disk.refuses = Unavailable("locked")
        hands.store.advance()
        assert hands.disk.refuses is None
        hands.settle()
        assert (hands.counts(queue).visible, hands.counts(queue).expired) == (3, 5)
        assert bodies(hands.receive(queue)) == ["young"] * 3

    def test_transaction_is_whole_or_absent(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.send(queue, "in")
        receipt = hands.receive_one(queue).receipt
        both = ops.Transact([(queue, [receipt])], [(queue, [entry("out")])], [(b"k", b"v")], name="n")
        refuse(hands, both)
        assert hands.run(ops.GetState("n")) == []
        hands.run(both)
        assert hands.run(ops.GetState("n")) == [(b"k", b"v")]
        assert bodies(hands.receive(queue)) == ["out"]


class TestClaims:
    @pytest.mark.parametrize("name", ["q", "q.fifo"])
    def test_claim_is_not_made(self, hands: Hands, name: str) -> None:
        queue = hands.create(name)
        hands.send_all(queue, [entry(str(n), group="g", dedup_id=str(n) if "." in name else None) for n in range(3)])
        refuse(hands, ops.Claim(queue, "r", 1, limit=2))
        assert hands.run(ops.GetClaims(queue, "r")) == ClaimState(0, 0)
        assert hands.counts(queue).in_flight == 0
        assert bodies(hands.receive(queue, 10)) == ["0", "1", "2"]

    def test_acknowledged_claim_is_open_again(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.send(queue, "x")
        hands.run(ops.Claim(queue, "r", 1))
        refuse(hands, ops.AcknowledgeClaims(queue, "r", 1))
        assert hands.run(ops.GetClaims(queue, "r")) == ClaimState(0, 1)
        assert [one.body for one in hands.run(ops.Claim(queue, "r", 1))] == [b"x"]
        assert (hands.counts(queue).visible, hands.counts(queue).in_flight) == (0, 1)
        assert hands.run(ops.AcknowledgeClaims(queue, "r", 1)) == ClaimState(1, 1)

    def test_reader_that_was_released_is_there_again(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.send_all(queue, [entry("1"), entry("2")])
        hands.run(ops.Claim(queue, "r", 1, limit=1))
        hands.run(ops.AcknowledgeClaims(queue, "r", 1))
        hands.run(ops.Claim(queue, "r", 2))
        refuse(hands, ops.ReleaseClaims(queue, "r"))
        assert hands.run(ops.GetClaims(queue, "r")) == ClaimState(1, 2)
        assert hands.receive(queue) == []


class TestQueues:
    def test_queue_is_not_created(self, hands: Hands) -> None:
        refuse(hands, ops.CreateQueue(arn_of("q")))
        assert hands.store.find(arn_of("q")) is None
        assert isinstance(hands.outcome(ops.Receive(arn_of("q"))), QueueNotFound)
        hands.create("q")

    def test_queue_is_not_deleted(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.send(queue, "x")
        refuse(hands, ops.DeleteQueue(queue))
        assert bodies(hands.receive(queue)) == ["x"]

    def test_settings_and_tags_are_as_before(self, hands: Hands) -> None:
        queue = hands.create("q", delay_ms=1_000)
        before = hands.store.find(queue)
        refuse(hands, ops.ChangeSettings(queue, {"delay_ms": 0}))
        refuse(hands, ops.TagQueue(queue, {"a": "b"}))
        assert hands.store.find(queue) == before

    def test_purged_messages_are_there_in_every_state(self, hands: Hands) -> None:
        queue = hands.create("q")
        hands.send_all(queue, [entry("leased"), entry("ready"), entry("late", delay_ms=5_000)])
        hands.receive(queue, 1)
        refuse(hands, ops.Purge(queue))
        counts = hands.counts(queue)
        assert (counts.visible, counts.in_flight, counts.delayed) == (1, 1, 1)
        hands.pass_time(30_000)
        assert sorted(bodies(hands.receive(queue))) == ["late", "leased", "ready"]
        assert hands.run(ops.Purge(queue)) == 3

    def test_purge_behind_a_refused_delete_locks_no_group(self, hands: Hands) -> None:
        queue = hands.create("q.fifo", content_dedup=True, visibility_ms=1_000)
        hands.send(queue, "1", group="g")
        receipt = hands.receive_one(queue).receipt
        hands.disk.refuses = Unavailable("locked")
        assert all(isinstance(one, Unavailable) for one in hands.ask(ops.Delete(queue, [receipt]), ops.Purge(queue)))
        hands.pass_time(1_000)
        hands.send(queue, "2", group="g")
        assert bodies(hands.receive(queue)) == ["1", "2"]

    def test_fence_is_not_raised(self, hands: Hands) -> None:
        refuse(hands, ops.Fence("f"))
        assert hands.run(ops.Fence("f")) == 1


class TestMoves:
    def test_slice_is_moved_again_and_once(self, hands: Hands) -> None:
        dead = hands.create("dead")
        queue = hands.create("q", redrive={"target": dead, "receives_max": 1})
        hands.send_all(dead, [entry(str(number)) for number in range(5)])
        (task,) = hands.ask(ops.StartMove(dead, queue))
        hands.disk.refuses = Unavailable("locked")
        hands.store.advance()
        (told,) = hands.run(ops.ListMoves(dead))
        assert (told.moved, told.status) == (0, "RUNNING")
        hands.settle()
        (told,) = hands.run(ops.ListMoves(dead))
        assert (told.handle, told.moved, told.status) == (task.handle, 5, "COMPLETED")
        assert sorted(bodies(hands.receive(queue))) == [str(number) for number in range(5)]
        assert hands.counts(dead).visible == 0

    def test_task_is_not_started(self, hands: Hands) -> None:
        dead = hands.create("dead")
        hands.create("q", redrive={"target": dead, "receives_max": 1})
        refuse(hands, ops.StartMove(dead))
        assert hands.run(ops.ListMoves(dead)) == []
