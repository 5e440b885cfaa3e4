"""Claims of several nodes: what one has bound, all read; and of those who want the same number, one binds it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import ClaimRefused, Fenced
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, Entry, Message, arn_of
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask

QUEUE = arn_of("q")


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the queue `q`."""
    ask(nodes[0], ops.CreateQueue(QUEUE))
    return nodes


def fill(store: PostgresStore, *bodies: bytes) -> None:
    ask(store, ops.Send(QUEUE, [Entry(body) for body in bodies]))


def claim(store: PostgresStore, number: int, *, queue: str = QUEUE, reader: str = "r", **bounds: int) -> list[bytes]:
    (found,) = ask(store, ops.Claim(queue, reader, number, **bounds))
    assert isinstance(found, list), found
    return [message.body for message in found]


def test_claim_of_a_node_that_died_is_read_on_another(nodes: list[PostgresStore]) -> None:
    fill(nodes[0], b"1", b"2", b"3")
    assert claim(nodes[0], 1, limit=2) == [b"1", b"2"]
    assert claim(nodes[1], 1) == [b"1", b"2"]
    assert claim(nodes[2], 2) == [b"3"]
    assert ask(nodes[1], ops.AcknowledgeClaims(QUEUE, "r", 1)) == [ClaimState(1, 2)]
    assert isinstance(ask(nodes[0], ops.Claim(QUEUE, "r", 1))[0], ClaimRefused)


def test_all_who_claim_a_number_at_once_are_given_the_same(nodes: list[PostgresStore]) -> None:
    fill(nodes[0], *(b"%d" % number for number in range(60)))
    with ThreadPoolExecutor(len(nodes)) as pool:
        for number in range(1, 21):
            found = list(pool.map(lambda one, number=number: claim(one, number, limit=3), nodes))
            assert found == [[b"%d" % at for at in range(3 * number - 3, 3 * number)]] * len(nodes)


def test_readers_on_several_nodes_share_the_messages(nodes: list[PostgresStore]) -> None:
    fill(nodes[0], *(b"%d" % number for number in range(90)))

    def read(reader: int) -> list[bytes]:
        return [body for number in range(1, 7) for body in claim(nodes[reader], number, reader=f"r{reader}", limit=5)]

    with ThreadPoolExecutor(len(nodes)) as pool:
        found = list(pool.map(read, range(len(nodes))))
    assert sorted(int(body) for bodies in found for body in bodies) == list(range(90))


def test_next_claim_does_not_wait_for_the_commit_of_the_one_before(nodes: list[PostgresStore], tmp_path: Path) -> None:
    fill(nodes[0], b"1", b"2")
    assert claim(nodes[0], 1, limit=1) == [b"1"]
    with psycopg.connect(databases().of(tmp_path)) as commit:
        commit.execute("UPDATE headrace.reader SET acknowledged = 1")
        assert claim(nodes[1], 2) == [b"2"]
        commit.rollback()


def test_claim_and_release_at_once_leave_whole_numbers(nodes: list[PostgresStore]) -> None:
    """After a release numbers begin at 1 again: no claim of before may stay behind it."""
    fill(nodes[0], *(b"%d" % number for number in range(20)))

    def claim_on(store: PostgresStore) -> None:
        for _ in range(40):
            (state,) = ask(store, ops.GetClaims(QUEUE, "r"))
            ask(store, ops.Claim(QUEUE, "r", state.last + 1, 1))

    def release(store: PostgresStore) -> None:
        for _ in range(20):
            ask(store, ops.ReleaseClaims(QUEUE, "r"))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(claim_on, nodes[0]), pool.submit(claim_on, nodes[1]), pool.submit(release, nodes[2])]:
            done.result()
    (state,) = ask(nodes[0], ops.GetClaims(QUEUE, "r"))
    bound = [claim(nodes[0], number) for number in range(1, state.last + 1)]
    assert [len(bodies) for bodies in bound] == [1] * state.last
    assert len({peeked.state for peeked in ask(nodes[0], ops.Peek(QUEUE, 20))[0]} - {"visible", "claimed"}) == 0
    assert sum(peeked.state == "claimed" for peeked in ask(nodes[0], ops.Peek(QUEUE, 20))[0]) == state.last


def test_fenced_transaction_acknowledges_nothing(nodes: list[PostgresStore]) -> None:
    fill(nodes[0], b"1")
    (old,) = ask(nodes[0], ops.Fence("job"))
    claim(nodes[0], 1)
    (new,) = ask(nodes[1], ops.Fence("job"))
    acknowledge = [(QUEUE, "r", 1)]
    (late, early) = ask(
        nodes[2],
        ops.Transact(claims=acknowledge, name="job", epoch=old),
        ops.Transact(claims=acknowledge, name="job", epoch=new),
    )
    assert isinstance(late, Fenced)
    assert early == ops.TransactOutcome([])
    assert ask(nodes[0], ops.Peek(QUEUE)) == [[]]


def test_claims_of_any_sizes_bind_every_message_once_and_keep_their_bounds(nodes: list[PostgresStore]) -> None:
    chance = random.Random(7)
    sizes = [chance.choice((1, 50, 3_000)) for _ in range(300)]
    fill(nodes[0], *(b"%04d" % number + b"x" * size for number, size in enumerate(sizes)))
    first: list[list[Message]] = ask(nodes[0], ops.Claim(QUEUE, "other", 1, 100))
    assert len(first[0]) == 100
    fill(nodes[0], *(b"%04d" % number for number in range(300, 340)))
    ask(nodes[0], ops.Receive(QUEUE, 30, 0))  # these were seen before: they come first
    ask(nodes[0], ops.ReleaseClaims(QUEUE, "other"))
    found: list[bytes] = []
    number = 1
    while bodies := claim(nodes[0], number, limit=70, bytes_max=20_000):
        assert len(bodies) <= 70
        assert len(bodies) == 1 or sum(map(len, bodies)) <= 20_000
        found += bodies
        number += 1
    assert sorted(int(body[:4]) for body in found) == list(range(340))
    assert [int(body[:4]) for body in found[:30]] == list(range(100, 130))
    assert [int(body[:4]) for body in found[30:130]] == list(range(100))


FIFO = arn_of("f.fifo")


def send_to(store: PostgresStore, *groups: str, first: int = 0) -> None:
    """A message to each of these groups, numbered in this order."""
    entries = [
        Entry(b"%s %d" % (group.encode(), number), group=group, dedup_id=f"{group}{number}")
        for number, group in enumerate(groups, first)
    ]
    ask(store, ops.Send(FIFO, entries))


def test_reader_goes_on_in_its_groups_on_any_node_and_nobody_else_does(nodes: list[PostgresStore]) -> None:
    ask(nodes[0], ops.CreateQueue(FIFO, {"fifo": True}))
    send_to(nodes[0], "a", "a", "b")
    assert claim(nodes[0], 1, queue=FIFO, limit=1) == [b"a 0"]
    assert claim(nodes[1], 1, queue=FIFO, reader="other") == [b"b 2"]
    send_to(nodes[2], "a", "b", first=3)
    assert claim(nodes[1], 2, queue=FIFO) == [b"a 1", b"a 3"]
    assert ask(nodes[2], ops.Receive(FIFO, 10)) == [[]]
    ask(nodes[2], ops.Transact(claims=[(FIFO, "r", 2)]))
    ask(nodes[0], ops.ReleaseClaims(FIFO, "other"))
    assert claim(nodes[2], 3, queue=FIFO) == [b"b 2", b"b 4"]


def test_groups_that_two_readers_share_keep_their_order(nodes: list[PostgresStore]) -> None:
    """A reader notes what it has claimed before it acknowledges it: until then nobody else has more of the group."""
    ask(nodes[0], ops.CreateQueue(FIFO, {"fifo": True}))
    count = 240
    noted: list[bytes] = []

    def produce() -> None:
        for first in range(0, count, 8):
            send_to(nodes[2], *(f"g{number % 5}" for number in range(first, first + 8)), first=first)

    def read(reader: int) -> None:
        store, number = nodes[reader], 0
        while len(noted) < count:
            bodies = claim(store, number + 1, queue=FIFO, reader=f"r{reader}", limit=7)
            noted.extend(bodies)
            number += bool(bodies)
            if number % 2:
                ask(store, ops.Transact(claims=[(FIFO, f"r{reader}", number)]))
            else:
                ask(store, ops.AcknowledgeClaims(FIFO, f"r{reader}", number))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(produce), pool.submit(read, 0), pool.submit(read, 1)]:
            done.result()
    found = [(int(body[1:2]), int(body.split()[1])) for body in noted]
    assert sorted(number for _, number in found) == list(range(count))
    for group in range(5):
        numbers = [number for of, number in found if of == group]
        assert numbers == sorted(numbers)
    assert ask(nodes[0], ops.Peek(FIFO)) == [[]]


def test_nothing_of_a_deleted_queues_readers_is_left(
    nodes: list[PostgresStore], clock: ManualClock, tmp_path: Path
) -> None:
    fill(nodes[0], b"1")
    claim(nodes[0], 1)
    ask(nodes[0], ops.DeleteQueue(QUEUE))
    for _ in range(3):
        clock.advance(limits.MINUTE_MS)
        nodes[1].advance()
    with psycopg.connect(databases().of(tmp_path)) as look:
        left = look.execute("SELECT (SELECT count(*) FROM headrace.reader), (SELECT count(*) FROM headrace.claim)")
        assert left.fetchone() == (0, 0)
