"""A store made of several: each name is in one, lists are of all, nothing goes across."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.errors import InvalidParameter, QueueNotFound, StateChanged
from headrace.queue.model import Entry
from headrace.queue.operations import (
    CancelMove,
    CreateQueue,
    CreateTopic,
    Delete,
    GetState,
    ListQueues,
    ListTopics,
    Operation,
    Receive,
    ReceiveAny,
    Send,
    StartMove,
    Subscribe,
    Transact,
)
from headrace.queue.store.base import Request
from headrace.queue.store.divided import DividedStore, Part
from headrace.queue.store.local.store import LocalStore
from headrace.queue.store.memory import open_memory_store

ARN = "arn:aws:sqs:eu-west-1:000000000000:"
ORDERS, ORDERS_2, MAILS = ARN + "orders", ARN + "orders-2", ARN + "mails"
TOPIC = "arn:aws:sns:eu-west-1:000000000000:orders-topic"


@pytest.fixture
def parts() -> tuple[LocalStore, LocalStore]:
    clock = ManualClock(1_700_000_000_000)
    return open_memory_store(clock), open_memory_store(clock)


@pytest.fixture
def store(parts: tuple[LocalStore, LocalStore]) -> DividedStore:
    made = DividedStore([Part("orders*", "first", parts[0]), Part("*", "second", parts[1])])
    ask(made, *[CreateQueue(arn, {}) for arn in (ORDERS, ORDERS_2, MAILS)])
    return made


def ask(store: DividedStore | LocalStore, *operations: Operation) -> list[Any]:
    answers: dict[int, Any] = {}
    requests = [
        Request(operation, lambda outcome, at=at: answers.__setitem__(at, outcome))  # type: ignore[misc]
        for at, operation in enumerate(operations)
    ]
    store.execute(requests)
    return [answers[at] for at in range(len(operations))]


def send(store: DividedStore, queue: str, *bodies: bytes) -> None:
    ask(store, Send(queue, [Entry(body) for body in bodies]))


def names(found: Any) -> list[str]:
    return [one.info.arn for one in found]


def test_queue_is_in_the_first_store_whose_pattern_fits(
    store: DividedStore, parts: tuple[LocalStore, LocalStore]
) -> None:
    assert [[arn for arn in (ORDERS, ORDERS_2, MAILS) if part.find(arn)] for part in parts] == [
        [ORDERS, ORDERS_2],
        [MAILS],
    ]
    assert store.find(MAILS) is not None


def test_messages_live_and_go_in_their_queues_store(store: DividedStore) -> None:
    for queue in (ORDERS, MAILS):
        send(store, queue, b"one")
        ((delivery,),) = ask(store, Receive(queue))
        assert ask(store, Delete(queue, [delivery.receipt])) == [[None]]
    assert ORDERS in store.take_ready()


def test_list_is_sorted_over_all_stores_and_cut_at_its_limit(store: DividedStore) -> None:
    assert [names(found) for found in ask(store, ListQueues())] == [[MAILS, ORDERS, ORDERS_2]]
    assert [names(found) for found in ask(store, ListQueues(limit=2))] == [[MAILS, ORDERS]]
    assert [names(found) for found in ask(store, ListQueues(after=MAILS, limit=1))] == [[ORDERS]]


def test_list_of_which_a_store_refuses_its_part_is_refused(store: DividedStore) -> None:
    (outcome,) = ask(store, ListQueues(limit=0))
    assert isinstance(outcome, InvalidParameter)


def test_topics_are_listed_and_subscribed_within_a_store(store: DividedStore) -> None:
    ask(store, CreateTopic(TOPIC, {}))
    assert names(ask(store, ListTopics())[0]) == [TOPIC]
    inside, across = ask(store, Subscribe(TOPIC, ORDERS), Subscribe(TOPIC, MAILS))
    assert inside.queue == ORDERS
    assert isinstance(across, InvalidParameter)


def test_transaction_across_stores_is_refused_and_names_both(store: DividedStore) -> None:
    (outcome,) = ask(store, Transact(sends=[(ORDERS, [Entry(b"a")]), (MAILS, [Entry(b"b")])]))
    assert isinstance(outcome, InvalidParameter)
    assert all(part in str(outcome) for part in ("first", "second", ORDERS, MAILS))
    assert ask(store, Receive(ORDERS), Receive(MAILS)) == [[], []]


def test_transaction_is_in_the_store_of_its_queues_and_of_its_name(store: DividedStore) -> None:
    inside = Transact(sends=[(ORDERS, [Entry(b"a")])], state=[(b"k", b"v")], name="orders-by-minute")
    ask(store, inside)
    assert ask(store, GetState("orders-by-minute")) == [[(b"k", b"v")]]
    nameless = Transact(sends=[(ORDERS, [Entry(b"b")])], name="other")
    across = Transact(sends=[(ORDERS, [Entry(b"c")])], name="other", expect=[(b"k", None)])
    allowed, refused = ask(store, nameless, across)
    assert len(allowed.sent) == 1
    assert isinstance(refused, InvalidParameter)
    (changed,) = ask(store, Transact(name="orders-by-minute", expect=[(b"k", b"w")]))
    assert isinstance(changed, StateChanged)


def test_queues_of_several_stores_are_received_from_in_the_order_asked(store: DividedStore) -> None:
    send(store, ORDERS, b"2", b"3")
    send(store, MAILS, b"1")
    send(store, ORDERS_2, b"4")
    (found,) = ask(store, ReceiveAny([MAILS, ORDERS, ORDERS_2], limit=3))
    assert [(arn, [one.message.body for one in ones]) for arn, ones in found] == [
        (MAILS, [b"1"]),
        (ORDERS, [b"2", b"3"]),
    ]
    assert [arn for arn, _ in ask(store, ReceiveAny([MAILS, ORDERS_2], limit=9))[0]] == [ORDERS_2]
    assert ask(store, ReceiveAny([MAILS, ORDERS], limit=9)) == [[]]


def test_receive_from_a_queue_that_is_nowhere_leases_nothing(store: DividedStore) -> None:
    send(store, MAILS, b"1")
    (outcome,) = ask(store, ReceiveAny([MAILS, ARN + "orders-none"], limit=3))
    assert isinstance(outcome, QueueNotFound)
    assert len(ask(store, Receive(MAILS))[0]) == 1


def test_move_task_is_cancelled_in_whichever_store_it_is(store: DividedStore) -> None:
    (outcome,) = ask(store, CancelMove("nobody's"))
    assert isinstance(outcome, Exception)
    (across,) = ask(store, StartMove(ORDERS, MAILS))
    assert "different stores" in str(across)


def test_statistics_are_sums_and_what_is_wrong_with_one_is_wrong_with_all(store: DividedStore) -> None:
    send(store, ORDERS, b"1")
    send(store, MAILS, b"1")
    statistics = store.statistics()
    assert statistics.commits == sum(statistics.commit_buckets)
    assert (store.failed(), store.away(), store.busy(), store.durable, store.shared) == (
        None,
        None,
        False,
        False,
        False,
    )
    store.advance()
    store.close()


def test_names_that_fit_nothing_must_be_in_a_store() -> None:
    with pytest.raises(ValueError, match=r"the pattern \*"):
        DividedStore([])
