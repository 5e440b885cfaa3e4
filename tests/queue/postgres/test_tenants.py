"""Fair queues on several nodes: what is noisy is what all nodes have leased."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.clock import ManualClock
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Redrive, arn_of
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.nodes import ask

QUEUE, DEAD = arn_of("q"), arn_of("dead")


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q`."""
    ask(nodes[0], ops.CreateQueue(DEAD), ops.CreateQueue(QUEUE))
    return nodes


def send(store: PostgresStore, group: str | None, count: int) -> None:
    ask(store, ops.Send(QUEUE, [Entry(f"{group}{number}".encode(), group=group) for number in range(count)]))


def receive(store: PostgresStore, limit: int) -> list[Delivery]:
    deliveries: list[Delivery] = ask(store, ops.Receive(QUEUE, limit))[0]
    return deliveries


def groups(deliveries: list[Delivery]) -> list[str | None]:
    return [one.message.group for one in deliveries]


def test_tenant_is_noisy_by_what_other_nodes_have_leased(nodes: list[PostgresStore]) -> None:
    send(nodes[0], "noisy", 100)
    receive(nodes[0], 20)
    receive(nodes[1], 20)
    send(nodes[1], "quiet", 2)
    send(nodes[2], None, 1)
    assert groups(receive(nodes[2], 4)) == ["quiet", "quiet", None, "noisy"]


def test_tenant_is_quiet_again_when_another_node_has_deleted(nodes: list[PostgresStore]) -> None:
    send(nodes[0], "busy", 100)
    leased = receive(nodes[0], 40)
    send(nodes[0], "other", 1)
    ask(nodes[1], ops.Delete(QUEUE, [one.receipt for one in leased[:20]]))
    assert groups(receive(nodes[0], 1)) == ["busy"]


@pytest.mark.parametrize("transacts", [False, True])
def test_tenant_that_takes_most_of_the_time_is_noisy(
    nodes: list[PostgresStore], clock: ManualClock, transacts: bool
) -> None:
    for group, busy_ms in (("slow", 5_000), ("fast", 10)):
        send(nodes[0], group, limits.NOISY_IN_FLIGHT_MIN)
        leased = [receive(nodes[0], 10) for _ in range(3)]
        clock.advance(busy_ms)
        for lot in leased:
            receipts = [one.receipt for one in lot]
            ask(nodes[0], ops.Transact([(QUEUE, receipts)]) if transacts else ops.Delete(QUEUE, receipts))
    send(nodes[0], "slow", 5)
    send(nodes[0], "fast", 2)
    assert groups(receive(nodes[0], 4)) == ["fast", "fast", "slow", "slow"]


def test_node_that_has_looked_past_noisy_messages_finds_the_quiet_one_behind(
    nodes: list[PostgresStore], clock: ManualClock
) -> None:
    send(nodes[0], "noisy", 300)
    receive(nodes[0], 60)
    for number in range(3):
        assert groups(receive(nodes[0], 2)) == ["noisy", "noisy"]
        send(nodes[1], f"quiet{number}", 1)
        assert groups(receive(nodes[0], 2)) == [f"quiet{number}", "noisy"]
    clock.advance(2_000)
    send(nodes[1], None, 1)
    assert groups(receive(nodes[0], 1)) == [None]


def test_large_receive_takes_what_comes_again_first_and_all_there_is(
    nodes: list[PostgresStore], clock: ManualClock
) -> None:
    for group, count in (("a", 300), (None, 100), ("b", 300), ("c", 40)):
        send(nodes[0], group, count)
    again = receive(nodes[0], 200)
    ask(nodes[0], ops.ChangeVisibility(QUEUE, [(one.receipt, 0) for one in again]))
    received = receive(nodes[1], 700)
    assert len({one.message.seq for one in received}) == len(received) == 700
    first = {one.message.seq for one in again}
    assert all(one.message.seq in first for one in received[:30])
    assert Counter(groups(received))[None] == 100
    assert len(receive(nodes[2], 100)) == 40


def test_queue_whose_messages_have_no_group_is_not_looked_into(nodes: list[PostgresStore], clock: ManualClock) -> None:
    send(nodes[0], None, 50)
    receive(nodes[0], 40)
    assert nodes[0]._shared.known.tenants == {}
    send(nodes[0], "tenant", 1)
    receive(nodes[0], 20)
    assert len(nodes[0]._shared.known.tenants) == 1
    clock.advance(2 * limits.FAIR_IDLE_MS)
    ask(nodes[1], ops.Purge(QUEUE))
    receive(nodes[0], 1)
    assert nodes[0]._shared.known.tenants == {}


def test_dead_letters_of_tenants_go_where_they_belong(nodes: list[PostgresStore], clock: ManualClock) -> None:
    ask(nodes[0], ops.ChangeSettings(QUEUE, {"redrive": Redrive(DEAD, 1), "visibility_ms": 1_000}))
    send(nodes[0], "noisy", 40)
    receive(nodes[0], 40)
    clock.advance(1_000)
    send(nodes[0], "noisy", 40)
    receive(nodes[0], 35)
    send(nodes[0], "quiet", 1)
    assert groups(receive(nodes[1], 2)) == ["quiet", "noisy"]
    assert Counter(one.message.group for one in ask(nodes[0], ops.Peek(DEAD, 100))[0]) == {"noisy": 40}


def test_no_message_of_a_tenant_is_lost_or_doubled(nodes: list[PostgresStore]) -> None:
    for number in range(6):
        send(nodes[number % 3], f"t{number % 3 * number}", 60)

    def consume(store: PostgresStore) -> list[bytes]:
        bodies = []
        while deliveries := receive(store, 17):
            bodies += [one.message.body for one in deliveries]
            ask(store, ops.Delete(QUEUE, [one.receipt for one in deliveries[::2]]))
        return bodies

    with ThreadPoolExecutor(len(nodes)) as pool:
        received = [body for lot in pool.map(consume, nodes) for body in lot]
    received += [one.message.body for one in receive(nodes[0], 400)]
    assert Counter(received) == Counter(
        f"t{number % 3 * number}{at}".encode() for number in range(6) for at in range(60)
    )
