"""Queues and topics as sources."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest
from msgspec.structs import replace

import headrace
from headrace.errors import OutcomeUnknown, QueueNotFound, Unavailable
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.formats.encoding import arrow_stream
from headrace.stream.plan import QueueSource, TopicSource
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sources.base import Chunk, Reader
from headrace.stream.sources.open import inbox_name, open_reader
from headrace.stream.sources.queue import wait_until_live
from tests.patience import PATIENCE_S

NUMBERS = QueueSource("numbers", "numbers", Schema.of("n bigint"))


def opened(client: headrace.Client, source: QueueSource | TopicSource = NUMBERS, slot: int = 0) -> Reader:
    reader = open_reader(source, client, pipeline="p", slot=slot)
    reader.open(None)
    return reader


def read(reader: Reader, rows_max: int = 1_000, wait_s: float = 0) -> Chunk:
    chunk = reader.read(rows_max, wait_s)
    assert chunk is not None
    return chunk


def acknowledge(client: headrace.Client, chunk: Chunk) -> None:
    with client.transact() as tx:
        for claim in chunk.claims:
            tx.acknowledge_claims(*claim)


def values(chunk: Chunk) -> list[Any]:
    found: list[Any] = chunk.rows.column("n").to_pylist()
    return found


def test_what_is_not_acknowledged_comes_again_the_same(client: headrace.Client) -> None:
    queue = client.queue("numbers", create=True)
    queue.send_many([{"n": number} for number in range(25)])
    reader = opened(client)
    first, second = read(reader, 10), read(reader, 10)
    assert values(first) + values(second) == list(range(20))
    acknowledge(client, first)
    again = opened(client)
    assert values(read(again)) == list(range(10, 25))
    assert again.read(10, 0) is None


def test_the_acknowledgement_of_a_chunk_is_that_of_all_its_claims(client: headrace.Client) -> None:
    queue = client.queue("numbers", create=True)
    reader = opened(client)
    for number in range(3):
        queue.send({"n": number})
        read(reader)
    chunk = read(opened(client))
    assert values(chunk) == [0, 1, 2]
    acknowledge(client, chunk)
    assert queue.counts().in_flight == 0 and opened(client).read(10, 0) is None


class Away(headrace.Client):
    """Another client, whose claims fail when their number is in `failing`, once each: before they are made, or `after`."""

    def __init__(self, inner: headrace.Client, *failing: int, after: bool = False) -> None:
        super().__init__(inner._transport)
        self._failing = set(failing)
        self._after = after

    def call(self, operation: ops.Operation, *, wait: float = 0) -> Any:
        if isinstance(operation, ops.Claim) and operation.number in self._failing:
            self._failing.remove(operation.number)
            if self._after:
                super().call(operation, wait=wait)
                raise OutcomeUnknown("the answer was lost")
            raise Unavailable("away")
        return super().call(operation, wait=wait)


def test_claim_that_fails_does_not_leave_those_before_it_behind(client: headrace.Client) -> None:
    """They would be acknowledged with the next, and nobody would have seen them."""
    queue = client.queue("numbers", create=True)
    for number in range(3):
        queue.send({"n": number})
        read(opened(client))  # a claim of its own
    reader = opened(Away(client, 2))
    with pytest.raises(Unavailable):
        reader.read(1_000, 0)
    assert values(read(reader)) == [0, 1, 2]


def test_claim_whose_answer_was_lost_is_passed_though_its_messages_were_purged(client: headrace.Client) -> None:
    """Asked for again and again, it would be empty for ever: nothing new would be claimed."""
    queue = client.queue("numbers", create=True)
    queue.send({"n": 1})
    reader = opened(Away(client, 1, after=True))
    with pytest.raises(OutcomeUnknown):
        reader.read(1_000, 0)
    queue.purge()
    queue.send({"n": 2})
    assert values(read(reader)) == [2]


def test_open_claims_of_a_purged_queue_are_passed(client: headrace.Client) -> None:
    queue = client.queue("numbers", create=True)
    queue.send({"n": 1})
    read(opened(client))
    queue.purge()
    queue.send({"n": 2})
    assert values(read(opened(client))) == [2]


def test_slots_share_a_queue(client: headrace.Client) -> None:
    queue = client.queue("numbers", create=True)
    queue.send_many([{"n": number} for number in range(4)])
    first, second = opened(client, slot=0), opened(client, slot=1)
    assert values(read(first, 2)) + values(read(second, 2)) == [0, 1, 2, 3]


def test_bad_bodies_are_dead_with_their_message(client: headrace.Client) -> None:
    queue = client.queue("numbers", create=True)
    sent = queue.send_many([{"n": 1}, "x", {"n": "1"}])
    chunk = read(opened(client))
    assert [(dead.body, dead.message_id, dead.source, dead.step) for dead in chunk.dead] == [
        (b"x", sent[1].id, "numbers", ""),
        (b'{"n":"1"}', sent[2].id, "numbers", ""),
    ]
    later = chunk.origins.dead(0, "why", "step")
    assert (later.body, later.reason, later.message_id, later.step) == (b'{"n":1}', "why", sent[0].id, "step")


def test_metadata_stands_in_front_of_the_body_s_columns(client: headrace.Client) -> None:
    queue = client.queue("numbers.fifo", create=True, fifo=True)
    sent = queue.send(arrow_stream(pa.table({"n": [1, 2]})), group="g", dedup_id="d")
    columns = ("message_id", "sent_at", "message_group", "sequence")
    source = QueueSource("numbers", "numbers.fifo", Schema.of("n bigint"), format="arrow", metadata=columns)
    chunk = read(opened(client, source))
    assert chunk.rows.column_names == [*columns, "n", ORIGIN]
    assert [(row["message_id"], row["message_group"], row["sequence"], row["n"]) for row in chunk.rows.to_pylist()] == [
        (sent.id, "g", sent.sequence, 1),
        (sent.id, "g", sent.sequence, 2),
    ]
    stored = queue.peek()[0].sent_at.replace(tzinfo=None)
    assert chunk.rows.column("sent_at").to_pylist() == [stored, stored]


def test_fewer_messages_are_claimed_when_each_has_many_rows(client: headrace.Client) -> None:
    queue = client.queue("numbers", create=True)
    body = arrow_stream(pa.table({"n": list(range(100))}))
    reader = opened(client, QueueSource("numbers", "numbers", Schema.of("n bigint"), format="arrow"))
    queue.send(body)
    read(reader)
    queue.send_many([body] * 10)
    assert len(read(reader, 300).rows) == 300


def test_the_first_chunk_is_small_since_a_body_may_have_thousands_of_rows(client: headrace.Client) -> None:
    client.queue("numbers", create=True).send_many([{"n": number} for number in range(500)])
    reader = opened(client)
    assert [len(read(reader, 1_000).rows) for _ in range(2)] == [limits.FIRST_MESSAGES, 500 - limits.FIRST_MESSAGES]


def test_a_read_waits_for_the_first_message(client: headrace.Client) -> None:
    queue = client.queue("numbers", create=True)
    reader = opened(client)
    found: list[Chunk | None] = []
    thread = threading.Thread(target=lambda: found.append(reader.read(10, 20)))
    thread.start()
    queue.send({"n": 1})
    thread.join(PATIENCE_S)
    assert found and found[0] is not None and values(found[0]) == [1]


def test_a_closed_reader_reads_no_more(client: headrace.Client) -> None:
    client.queue("numbers", create=True).send({"n": 1})
    reader = opened(client)
    reader.close()
    assert reader.read(10, 20) is None


def test_progress_counts_messages(client: headrace.Client) -> None:
    client.queue("numbers", create=True).send_many([{"n": 1}] * 5)
    reader = opened(client)
    read(reader, 2)
    progress = reader.progress()
    assert (progress.done, progress.lag, progress.unit, reader.finished) == (2, 3, "messages", False)


def test_a_queue_that_is_not_there_is_an_error(client: headrace.Client) -> None:
    with pytest.raises(QueueNotFound):
        opened(client)
    with pytest.raises(UnsupportedQuery, match="broker"):
        open_reader(NUMBERS, None, pipeline="p", slot=0)


def test_a_topic_is_read_by_a_queue_of_the_pipeline_s_own(client: headrace.Client) -> None:
    topic = client.topic("events", create=True, retention="1h")
    topic.publish({"n": 0})
    source = TopicSource("events", "events", Schema.of("n bigint"))
    reader = opened(client, source)
    other = open_reader(source, client, pipeline="q", slot=0)
    other.open(None)
    topic.publish({"n": 1})
    again = opened(client, source)
    assert (values(read(reader)), values(read(other))) == ([1], [1])
    assert values(read(again)) == [1]
    assert {queue.name for queue in client.queues()} == {"p--events", "q--events"}


class Behind(headrace.Client):
    """Another client, to which subscriptions look as if they were catching up, the next `times`."""

    times = 0

    def __init__(self, inner: headrace.Client) -> None:
        super().__init__(inner._transport)

    def call(self, operation: ops.Operation, *, wait: float = 0) -> Any:
        answer = super().call(operation, wait=wait)
        if isinstance(operation, ops.GetTopic) and self.times:
            self.times -= 1
            states = [
                replace(state, subscription=replace(state.subscription, position=7)) for state in answer.subscriptions
            ]
            return replace(answer, subscriptions=states)
        return answer


def test_a_topic_is_behind_until_the_queue_has_been_given_its_log(client: headrace.Client) -> None:
    client.topic("sums", create=True, retention=3600).publish({"n": 1})
    looking = Behind(client)
    reader = opened(looking, TopicSource("sums", "sums", Schema.of("n bigint"), start="beginning"))
    looking.times = 2
    assert [reader.behind for _ in range(3)] == [True, True, False]
    looking.times = 2
    assert not reader.behind, "live once, it stays so"
    wait_until_live(looking, "sums", inbox_name("p", "sums"))
    assert not looking.times


def test_a_fifo_topic_has_a_fifo_inbox(client: headrace.Client) -> None:
    topic = client.topic("events.fifo", create=True, fifo=True)
    reader = opened(client, TopicSource("events", "events.fifo", Schema.of("n bigint")))
    topic.publish({"n": 1}, group="g", dedup_id="d")
    assert values(read(reader)) == [1]
    with pytest.raises(UnsupportedQuery, match="80 characters"):
        inbox_name("p", "x" * 80)
