"""Transactions of several nodes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from headrace.errors import CallerError, Fenced, StateChanged
from headrace.queue import operations as ops
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.nodes import ask

ROUNDS = 25


def put(key: bytes, value: bytes | None, expected: bytes | None, epoch: int | None = None) -> ops.Transact:
    return ops.Transact(state=[(key, value)], expect=[(key, expected)], name="job", epoch=epoch)


def test_one_of_all_nodes_gets_what_is_absent(nodes: list[PostgresStore]) -> None:
    def claim(number: int) -> list[object]:
        return [ask(nodes[number], put(b"%d" % at, b"%d" % number, None))[0] for at in range(ROUNDS)]

    with ThreadPoolExecutor(len(nodes)) as pool:
        answers = list(pool.map(claim, range(len(nodes))))
    for one_round in zip(*answers, strict=True):
        assert sum(isinstance(one, ops.TransactOutcome) for one in one_round) == 1
        assert sum(isinstance(one, StateChanged) for one in one_round) == len(nodes) - 1


def test_no_count_of_many_nodes_is_lost(nodes: list[PostgresStore]) -> None:
    """A counter that is taken away at every third step: absent and present take turns."""

    def count(store: PostgresStore) -> int:
        done = 0
        while done < ROUNDS:
            found = dict(ask(store, ops.GetState("job", b"n"))[0]).get(b"n")
            number = int(found or b"0")
            following = b"%d" % (number + 1) if number < 2 else None
            done += not isinstance(ask(store, put(b"n", following, found))[0], CallerError)
        return done

    with ThreadPoolExecutor(len(nodes)) as pool:
        done = sum(pool.map(count, nodes))
    left = done % 3
    assert ask(nodes[0], ops.GetState("job")) == [[(b"n", b"%d" % left)] if left else []]


def test_expected_absence_leaves_nothing(nodes: list[PostgresStore]) -> None:
    unmet = ops.Transact(name="job", expect=[(b"a", None), (b"b", b"x")])
    met = ops.Transact(name="job", expect=[(b"a", None)])
    outcomes = ask(nodes[0], unmet, met)
    assert [type(one) for one in outcomes] == [StateChanged, ops.TransactOutcome]
    assert ask(nodes[1], ops.GetState("job")) == [[]]


def test_fence_of_one_node_holds_on_the_others(nodes: list[PostgresStore]) -> None:
    (old,) = ask(nodes[0], ops.Fence("job"))
    (new,) = ask(nodes[1], ops.Fence("job"))
    assert isinstance(ask(nodes[0], put(b"k", b"v", None, old))[0], Fenced)
    assert ask(nodes[2], put(b"k", b"v", None, new)) == [ops.TransactOutcome([])]
