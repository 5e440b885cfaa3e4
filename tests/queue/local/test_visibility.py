"""Visibility where a purge, the in-flight limit or a refused commit comes between."""

from __future__ import annotations

import pytest

from headrace.errors import InFlightLimit, MessageNotFound, Unavailable
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.testing import StoreDriver, bodies, entry
from tests.queue.local.hands import Hands


def test_no_more_is_hidden_again_than_may_be_in_flight(memory: StoreDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = memory.create("q", visibility_ms=1_000)
    memory.send_all(queue, [entry("1"), entry("2")])
    first, second = memory.receive(queue)
    memory.pass_time(1_000)
    monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 1)
    assert memory.change_visibility(queue, first.receipt, 60_000) is None
    assert isinstance(memory.change_visibility(queue, second.receipt, 60_000), InFlightLimit)
    assert memory.counts(queue).in_flight == 1


def test_expired_message_is_not_hidden_again(memory: StoreDriver) -> None:
    queue = memory.create("q", visibility_ms=1_000, retention_ms=60_000)
    memory.send(queue, "x")
    receipt = memory.receive_one(queue).receipt
    memory.jump(60_000)
    assert isinstance(memory.change_visibility(queue, receipt, 1_000), MessageNotFound)


def test_hidden_and_shown_again_and_again_takes_no_more_memory(
    memory: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STALE_KEPT", 5)
    queue = memory.create("q")
    memory.send_all(queue, [entry("1"), entry("2")])
    receipts = [one.receipt for one in memory.receive(queue, visibility_ms=0)]
    for _ in range(50):
        for receipt in receipts:
            assert memory.change_visibility(queue, receipt, 1_000) is None
        memory.pass_time(1_000)
    order = memory.store.state.queues[queue].order  # type: ignore[attr-defined]  # a local store
    assert len(order._recalled) <= 10
    assert bodies(memory.receive(queue)) == ["1", "2"]


@pytest.mark.parametrize("name", ["q", "q.fifo"])
def test_lease_whose_delete_is_refused_after_a_purge_stays_gone(hands: Hands, name: str) -> None:
    fifo = {"group": "g"} if "." in name else {}
    queue = hands.create(name, **({"content_dedup": True} if fifo else {}))
    hands.send_all(queue, [entry("1", **fifo), entry("2", **fifo)])
    first, _ = hands.receive(queue)
    hands.hold_commits()
    hands.ask(ops.Purge(queue))
    refused = hands.ask(ops.Delete(queue, [first.receipt]))
    hands.disk.refuses = Unavailable("busy")
    hands.let_go()
    assert [type(one) for one in refused] == [Unavailable]
    assert hands.counts(queue).in_flight == 0
    hands.pass_time(limits.HOUR_MS)
    assert hands.receive(queue) == []
