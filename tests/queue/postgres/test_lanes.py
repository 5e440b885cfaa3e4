"""Which operations share a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.errors import CallerError
from headrace.queue.model import Entry, topic_arn_of
from headrace.queue.operations import (
    ChangeVisibility,
    CreateQueue,
    Delete,
    GetQueue,
    Operation,
    Receive,
    Send,
    Transact,
)
from headrace.queue.store.base import Request
from headrace.queue.store.postgres.families import WITH_SENDS_MAX, LaneName, lane_of
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.nodes import Threads, ask, node

QUEUE = "arn:aws:sqs:eu-west-1:000000000000:jobs"
FIFO = "arn:aws:sqs:eu-west-1:000000000000:orders.fifo"


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[PostgresStore]:
    made = node(tmp_path, clock)
    ask(made, CreateQueue(QUEUE), CreateQueue(FIFO, {"fifo": True}))
    yield made
    made.close()


def submit(store: PostgresStore, *operations: Operation) -> list[Any]:
    """Hand operations over together; their outcomes will be in the list."""
    answers: list[Any] = []
    store.execute([Request(operation, answers.append) for operation in operations])
    return answers


@pytest.mark.parametrize(
    ("operation", "lane"),
    [
        (Delete(QUEUE, [b""] * WITH_SENDS_MAX), LaneName.SEND),
        (Delete(QUEUE, [b""] * (WITH_SENDS_MAX + 1)), LaneName.SETTLE),
        (Delete(FIFO, [b""]), LaneName.ORDER),
        (Send(QUEUE, []), LaneName.SEND),
        (Send(FIFO, []), LaneName.ORDER),
        (Send(topic_arn_of("news"), []), LaneName.ORDER),
        (Transact(), LaneName.TRANSACT),
        (ChangeVisibility(QUEUE, [(b"", 0)]), LaneName.SETTLE),
        (GetQueue(QUEUE), LaneName.DIRECTORY),
        (GetQueue(QUEUE, exact=True), LaneName.COUNT),
    ],
)
def test_deletes_of_a_few_messages_go_with_sends_and_what_may_wait_has_a_lane_of_its_own(
    operation: Operation, lane: LaneName
) -> None:
    assert lane_of(operation) is lane


def test_a_send_and_a_delete_are_one_transaction(store: PostgresStore) -> None:
    ask(store, Send(QUEUE, [Entry(b"old")]))
    ((old,),) = ask(store, Receive(QUEUE, 1))
    threads = Threads(store)
    answers = submit(store, Delete(QUEUE, [old.receipt]), Send(QUEUE, [Entry(b"new")]))
    threads.work("send")()
    (deleted, sent) = answers
    assert (deleted, len(sent)) == ([None], 1)
    store.attach(None)
    ((new,),) = ask(store, Receive(QUEUE, 10))
    assert new.message.body == b"new"


def test_a_delete_does_not_wait_for_who_holds_a_group(store: PostgresStore) -> None:
    ask(store, Send(QUEUE, [Entry(b"old")]))
    ((old,),) = ask(store, Receive(QUEUE, 1))
    threads = Threads(store)
    answers = submit(store, Send(FIFO, [Entry(b"1", group="g", dedup_id="1")]), Delete(QUEUE, [old.receipt]))
    threads.work("send")()
    assert answers == [[None]]
    threads.work("order")()
    assert len(answers) == 2
    store.attach(None)


def test_deletes_beside_sends_leave_groups_as_their_messages_say(
    store: PostgresStore, database: psycopg.Connection[Any]
) -> None:
    """Whatever is repeated, refused, gone or nobody's receipt: no group without a message stays, none with one is lacking."""
    first = Send(FIFO, [Entry(b"%d" % number, group=f"g{number}", dedup_id=str(number)) for number in range(3)])
    ask(store, first)
    (given,) = ask(store, Receive(FIFO, 10))
    ask(store, Delete(FIFO, [given[0].receipt]))
    threads = Threads(store)
    answers = submit(
        store,
        Delete(FIFO, [given[0].receipt, given[1].receipt, b"nobody's"]),
        Send(FIFO, [Entry(b"again", group="other", dedup_id="0"), Entry(b"no group")]),
        Send(FIFO, [Entry(b"3", group="g1", dedup_id="3")]),
    )
    threads.work("order")()
    store.attach(None)
    (deleted, refused, sent) = answers
    assert deleted[:2] == [None, None]
    assert isinstance(deleted[2], CallerError)
    assert refused[0].duplicate
    assert isinstance(refused[1], CallerError)
    assert not sent[0].duplicate
    assert database.execute("SELECT name, head FROM message_group ORDER BY name").fetchall() == [
        ("g1", sent[0].seq),
        ("g2", given[2].message.seq),
    ]
