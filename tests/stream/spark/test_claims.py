from __future__ import annotations

from typing import Any

import pytest

import headrace
from headrace.native.client import Client
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import Claim, GetState
from headrace.stream.spark.claims import Claims, dead_state, stage_dead
from headrace.stream.spark.errors import CheckpointBehind
from tests.stream.spark.brokers import lossy

QUEUE = arn_of("in")
READER = "r"


@pytest.fixture
def queue(client: headrace.Client) -> headrace.Queue:
    client.queue("dead", create=True)
    return client.queue("in", create=True)


def claims(client: Client, **given: Any) -> Claims:
    settings = {"dead": arn_of("dead"), "batch_messages": 20, "claim_messages": 10, **given}
    return Claims(client, QUEUE, READER, **settings)


def read(client: Client, number: int) -> list[bytes]:
    return [message.body for message in client.call(Claim(QUEUE, READER, number))]


def test_batch_is_cut_into_claims(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send_many(range(25))
    assert claims(client).next(0) == 2
    assert [len(read(client, number)) for number in (1, 2)] == [10, 10]
    assert claims(client).next(2) == 3
    assert read(client, 3) == [b"20", b"21", b"22", b"23", b"24"]


def test_nothing_to_read_leaves_the_offset_where_it_is(client: headrace.Client, queue: headrace.Queue) -> None:
    assert claims(client).next(0) == 0
    queue.send(b"1")
    assert claims(client).next(0) == 1
    assert claims(client).next(1) == 1


def test_claims_bound_by_a_driver_that_died_are_the_next_batch(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send_many(range(25))
    assert claims(client).next(0) == 2
    assert claims(client, batch_messages=1).next(0) == 2


def test_batch_is_deleted_when_the_one_behind_it_is_asked_for(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send_many(range(5))
    reader = claims(client)
    last = reader.next(0)
    assert queue.counts().in_flight == 5
    assert reader.next(last) == last
    assert queue.counts().in_flight == 0
    assert reader.state().acknowledged == last


def test_available_now_binds_what_was_there_and_no_more(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send_many(range(25))
    reader = claims(client)
    reader.bound_to_now()
    queue.send_many(range(25, 50))
    ends = [0]
    while not ends[1:] or ends[-1] != ends[-2]:
        ends.append(reader.next(ends[-1]))
    assert ends == [0, 2, 3, 3]
    assert queue.counts().visible == 25


def test_checkpoint_that_is_behind_is_refused(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send_many(range(25))
    claims(client).acknowledge(claims(client).next(0))
    with pytest.raises(CheckpointBehind, match="ends at claim 0, but claims up to 2"):
        claims(client).next(0)


@pytest.mark.parametrize("fault", ["", "before", "after"])
def test_dead_letters_go_with_the_acknowledgement_once(
    client: headrace.Client, queue: headrace.Queue, fault: str
) -> None:
    queue.send_many(range(5))
    last = claims(client).next(0)
    for _ in range(2):  # a task may run twice
        stage_dead(client, QUEUE, READER, last, [Entry(b"letter 1"), Entry(b"letter 2")])
    dead = client.queue("dead")
    assert dead.peek() == []
    faulty = lossy(client, lambda number: fault if number == 1 else "")
    for _ in range(2):
        claims(faulty).acknowledge(last)
    assert [message.body for message in dead.peek()] == [b"letter 1", b"letter 2"]
    assert queue.counts().in_flight == 0
    assert client.state(dead_state(QUEUE, READER)) == {}


def test_letters_of_a_late_task_are_forgotten(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send_many(range(5))
    reader = claims(client)
    last = reader.next(0)
    reader.acknowledge(last)
    stage_dead(client, QUEUE, READER, last, [Entry(b"late")])
    queue.send(b"5")
    stage_dead(client, QUEUE, READER, reader.next(last), [Entry(b"in time")])
    reader.forget_stale()
    assert len(client.call(GetState(dead_state(QUEUE, READER)))) == 1
    reader.acknowledge(last + 1)
    assert [message.body for message in client.queue("dead").peek()] == [b"in time"]
