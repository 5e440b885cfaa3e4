"""What the client promises, the same embedded, over TCP and over a Unix socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import headrace
from headrace import errors
from headrace.queue import limits
from tests.native.served import ServedBroker, eventually
from tests.patience import PATIENCE_S


@pytest.fixture(params=["embedded", "tcp", "unix", "folder of a running broker"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[headrace.Client]:
    if request.param == "embedded":
        with headrace.connect(tmp_path / "data", cooldowns=False) as client:
            yield client
        return
    served = request.getfixturevalue("served")
    assert isinstance(served, ServedBroker)
    target = {"tcp": served.url, "unix": f"unix://{served.unix_path}"}.get(request.param, served.unix_path.parent)
    with headrace.connect(target, patience=0) as client:
        yield client


@pytest.fixture
def queue(client: headrace.Client) -> headrace.Queue:
    return client.queue("orders", create=True)


@dataclass
class Order:
    book: int


def test_message_comes_as_it_was_sent(queue: headrace.Queue) -> None:
    sent = queue.send({"book": 7}, attributes={"kind": "order", "n": 3, "raw": b"\x00"})

    [message] = queue.receive(wait=0)

    assert (message.body, message.text, message.json()) == (b'{"book":7}', '{"book":7}', {"book": 7})
    assert message.json(Order) == Order(7)
    assert message.attributes == {"kind": "order", "n": 3, "raw": b"\x00"}
    assert (message.id, message.sequence, message.receives) == (sent.id, sent.sequence, 1)
    assert not sent.duplicate
    assert abs(message.sent_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert message.sent_at <= message.first_received_at
    assert (message.group, message.dedup_id, message.dead_letter_of) == (None, None, None)


def test_deleted_message_is_gone_and_released_one_is_back(queue: headrace.Queue) -> None:
    queue.send_many(["a", "b"])
    first, second = queue.receive(wait=0)

    first.delete()
    second.release()

    [again] = queue.receive(wait=0)
    assert (again.text, again.receives) == ("b", 2)
    assert (queue.counts().in_flight, queue.counts().deleted) == (1, 1)


def test_received_message_is_hidden_for_as_long_as_asked(queue: headrace.Queue) -> None:
    queue.send("x")
    queue.receive(wait=0, visibility_timeout=0)
    [message] = queue.receive(wait=0, visibility_timeout=60)
    assert message.receives == 2

    assert queue.receive(wait=0.2) == []
    message.extend(0)
    assert len(queue.receive(wait=0)) == 1


def test_receive_waits_for_a_message(queue: headrace.Queue) -> None:
    received: list[headrace.ReceivedMessage] = []
    consumer = threading.Thread(target=lambda: received.extend(queue.receive(wait=20)))
    consumer.start()
    queue.send("x")
    consumer.join(PATIENCE_S)

    assert [message.text for message in received] == ["x"]


def test_many_are_sent_received_and_deleted_in_one_call_each(queue: headrace.Queue) -> None:
    sent = queue.send_many(b"%d" % i for i in range(10_000))
    received = queue.receive(10_000, wait=0)
    queue.delete(received)

    assert [message.id for message in received] == [message.id for message in sent]
    assert [message.body for message in received] == [b"%d" % i for i in range(10_000)]
    assert queue.peek() == []


def test_more_than_a_call_takes_are_sent_in_several(queue: headrace.Queue) -> None:
    sent = queue.send_many(str(i) for i in range(10_001))

    assert [message.sequence for message in sent] == list(range(1, 10_002))


def test_refused_entries_are_told_and_the_others_are_stored(queue: headrace.Queue) -> None:
    queue.change(max_message_bytes=1_024)

    with pytest.raises(headrace.PartlyRefused, match="1 of 3") as raised:
        queue.send_many(["a", "b" * 2_000, "c"])

    refusal = raised.value
    assert list(refusal.errors) == [1]
    assert isinstance(refusal.errors[1], errors.MessageTooLong)
    assert [outcome is None for outcome in refusal.outcomes] == [False, True, False]
    assert refusal.outcomes[2].sequence == 2
    assert [message.text for message in queue.peek()] == ["a", "c"]


def test_refused_single_message_raises_its_own_error(queue: headrace.Queue) -> None:
    with pytest.raises(errors.MessageTooLong):
        queue.send(b"x" * (limits.MESSAGE_BYTES_MAX + 1))


def test_error_of_a_later_call_tells_what_is_stored(queue: headrace.Queue) -> None:
    def bodies() -> Iterator[object]:
        yield from ["x"] * 10_001
        yield object()

    with pytest.raises(errors.InvalidMessage) as raised:
        queue.send_many(bodies())

    assert raised.value.__notes__ == ["10000 messages were stored by the calls before this one"]
    assert queue.counts().visible == 10_000


def test_fifo_queue_keeps_order_in_groups_and_stores_a_dedup_id_once(client: headrace.Client) -> None:
    queue = client.queue("steps.fifo", create=True, fifo=True)
    first = queue.send("1", group="a", dedup_id="one")
    again = queue.send("1", group="a", dedup_id="one")
    queue.send_many(
        [headrace.Outgoing("2", group="a", dedup_id="two"), headrace.Outgoing("x", group="b", dedup_id="x")]
    )

    assert (again.duplicate, again.id) == (True, first.id)
    messages = queue.receive(1, wait=0)
    assert [(m.text, m.group, m.dedup_id) for m in messages] == [("1", "a", "one")]
    assert [m.text for m in queue.receive(wait=0)] == ["x"]
    messages[0].delete()
    assert [m.text for m in queue.receive(wait=0)] == ["2"]


def test_receive_with_an_attempt_id_gives_the_same_again(client: headrace.Client) -> None:
    queue = client.queue("steps.fifo", create=True, fifo=True)
    queue.send("1", group="a", dedup_id="one")
    first = queue.receive(wait=0, attempt_id="try-1")

    assert [m.receipt for m in queue.receive(wait=0, attempt_id="try-1")] == [first[0].receipt]
    assert queue.receive(wait=0) == []


def test_expired_receipt_of_a_fifo_queue_is_refused(client: headrace.Client) -> None:
    queue = client.queue("steps.fifo", create=True, fifo=True)
    queue.send("1", group="a", dedup_id="one")
    [message] = queue.receive(wait=0)
    message.release()

    with pytest.raises(errors.ReceiptExpired):
        message.delete()


def test_block_deletes_when_it_ends_well_and_releases_when_it_raises(queue: headrace.Queue) -> None:
    queue.send_many(["good", "bad"])
    good, bad = queue.receive(wait=0)
    with good:
        pass
    with pytest.raises(ZeroDivisionError), bad:
        1 / 0  # noqa: B018

    assert [(m.text, m.receives) for m in queue.receive(wait=0)] == [("bad", 2)]


def test_block_leaves_alone_what_was_settled_in_it(queue: headrace.Queue) -> None:
    queue.send("x")
    [message] = queue.receive(wait=0)
    with message:
        message.release()

    assert [m.text for m in queue.receive(wait=0)] == ["x"]


def test_consume_gives_each_message_once_and_ends_when_idle(queue: headrace.Queue) -> None:
    queue.send_many(str(i) for i in range(25))
    seen = []
    for message in queue.consume(prefetch=10, idle=0):
        with message:
            seen.append(message.text)

    assert seen == [str(i) for i in range(25)]
    counts = queue.counts()
    assert (counts.visible, counts.in_flight) == (0, 0)


def test_consumer_that_stops_gives_back_what_it_had_not_reached(queue: headrace.Queue) -> None:
    queue.send_many(["a", "b", "c"])
    messages = queue.consume(prefetch=3)
    with next(messages):
        pass
    messages.close()  # type: ignore[attr-defined]

    assert [m.text for m in queue.receive(wait=0)] == ["b", "c"]


def test_peek_shows_every_state_and_changes_nothing(queue: headrace.Queue) -> None:
    queue.send("flight")
    queue.receive(wait=0)
    queue.send("here")
    queue.send("later", delay=900)

    looked = queue.peek()

    assert [(m.text, m.state, m.receives) for m in looked] == [
        ("flight", "in_flight", 1),
        ("here", "visible", 0),
        ("later", "delayed", 0),
    ]
    assert [m.text for m in queue.peek(1, after=looked[0].sequence)] == ["here"]
    assert [m.receives for m in queue.receive(wait=0)] == [1]


def test_purge_tells_how_many_and_remove_ends_the_queue(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send_many(["a", "b"])
    queue.receive(1, wait=0)

    assert queue.purge() == 2
    assert queue.peek() == []
    queue.remove()
    with pytest.raises(headrace.QueueNotFound):
        client.queue("orders")
    with pytest.raises(headrace.QueueNotFound):
        queue.send("x")


def test_creating_again_is_idempotent_and_differing_settings_are_refused(client: headrace.Client) -> None:
    client.queue("q", create=True, visibility_timeout=60, tags={"team": "a"})
    client.queue("q", create=True, visibility_timeout=60)
    client.queue("q", create=True)

    with pytest.raises(errors.QueueExists):
        client.queue("q", create=True, visibility_timeout=61)
    with pytest.raises(errors.InvalidParameter, match="create=True"):
        client.queue("q", visibility_timeout=60)
    [summary] = client.queues()
    assert (summary.settings.visibility_timeout, summary.tags) == (60, {"team": "a"})


def test_settings_change_at_once(queue: headrace.Queue) -> None:
    changed = queue.change(delay=900, wait=5)

    assert (changed.delay, changed.wait) == (900, 5)
    assert queue.settings() == changed
    queue.send("x")
    assert queue.counts().delayed == 1


def test_queues_are_listed_by_prefix_with_their_counts(client: headrace.Client) -> None:
    for name in ("b2", "b1", "a"):
        client.queue(name, create=True).send("x")

    assert [(q.name, q.counts.visible) for q in client.queues()] == [("a", 1), ("b1", 1), ("b2", 1)]
    assert [q.name for q in client.queues("b")] == ["b1", "b2"]


def test_queue_of_another_region_is_named_by_arn(client: headrace.Client) -> None:
    arn = "arn:aws:sqs:eu-west-1:123456789012:far"
    queue = client.queue(arn, create=True)
    queue.send("x")

    assert (queue.name, queue.arn) == (arn, arn)
    assert [q.name for q in client.queues()] == [arn]


def test_dead_letters_are_found_and_moved_back(client: headrace.Client) -> None:
    dead = client.queue("dead", create=True)
    queue = client.queue("q", create=True, dead_letter="dead", max_receives=1)
    queue.send("poison")
    queue.receive(wait=0)[0].release()
    assert queue.receive(wait=0) == []
    [letter] = dead.receive(wait=20)
    assert (letter.text, letter.dead_letter_of) == ("poison", "q")
    letter.release()

    dead.redrive(rate=500)

    eventually(lambda: dead.moves()[0].status == "COMPLETED")
    assert dead.moves()[0].moved == 1
    assert [m.text for m in queue.peek()] == ["poison"]


def test_redrive_is_cancelled(client: headrace.Client) -> None:
    dead = client.queue("dead", create=True)
    client.queue("q", create=True, dead_letter="dead", max_receives=1)
    dead.send_many(["x"] * 1_000)
    task = dead.redrive("q", rate=1)

    client.cancel_move(task)

    eventually(lambda: dead.moves()[0].status == "CANCELLED")
    assert dead.counts().visible > 900


def test_transaction_is_whole(client: headrace.Client, queue: headrace.Queue) -> None:
    other = client.queue("invoices", create=True)
    queue.send("order")
    [order] = queue.receive(wait=0)

    with client.transact("billing") as tx:
        tx.acknowledge(order)
        tx.send(other, {"total": 5})
        tx.send("invoices", "second")
        tx.put("last", {"n": 1})
        tx.put(b"gone", "x")
        tx.remove("gone")

    assert [m.text for m in other.peek()] == ['{"total":5}', "second"]
    assert [message.sequence for message in tx.sent] == [1, 2]
    assert client.state("billing") == {b"last": b'{"n":1}'}
    assert client.state("billing", "x") == {}
    assert queue.counts().in_flight == 0


def test_transaction_whose_block_raises_does_nothing(client: headrace.Client, queue: headrace.Queue) -> None:
    tx = client.transact()
    tx.send(queue, "x")
    with pytest.raises(ZeroDivisionError), tx:
        1 / 0  # noqa: B018

    assert queue.peek() == []
    assert tx.sent == []


def test_transaction_that_is_refused_does_nothing(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send("order")
    [order] = queue.receive(wait=0)
    order.delete()

    tx = client.transact()
    tx.acknowledge(order)
    tx.send(queue, "must not appear")
    with pytest.raises(errors.ReceiptExpired), tx:
        pass

    assert queue.peek() == []


def test_empty_transaction_and_state_without_owner(client: headrace.Client) -> None:
    with client.transact():
        pass
    with pytest.raises(errors.InvalidParameter, match="transact"), client.transact() as tx:
        tx.put("k", "v")


def test_older_owner_is_fenced(client: headrace.Client) -> None:
    old = client.fence("job")
    new = client.fence("job")

    with client.transact("job", epoch=new) as tx:
        tx.put("k", "new")
    with pytest.raises(errors.Fenced), client.transact("job", epoch=old) as tx:
        tx.put("k", "old")

    assert client.state("job") == {b"k": b"new"}


def test_state_of_many_pages_comes_whole_and_sorted(client: headrace.Client) -> None:
    with client.transact("big") as tx:
        for i in range(2_500):
            tx.put(f"k{i:04}", str(i))

    state = client.state("big")

    assert list(state) == [b"k%04d" % i for i in range(2_500)]


def test_claims_read_the_same_again_until_acknowledged(queue: headrace.Queue) -> None:
    queue.send_many(["a", "b", "c"])
    first = queue.claim("reader", 1, max=2)

    assert [m.text for m in first] == ["a", "b"]
    assert [m.id for m in queue.claim("reader", 1)] == [m.id for m in first]
    assert [m.text for m in queue.claim("reader", 2)] == ["c"]
    with pytest.raises(errors.ClaimRefused):
        queue.claim("reader", 4)
    state = queue.acknowledge_claims("reader", 1)
    assert (state.acknowledged, state.last) == (1, 2)
    assert queue.claims("reader") == state
    queue.release_claims("reader")
    assert [m.text for m in queue.receive(wait=0)] == ["c"]


def test_claim_waits_for_the_first_message(queue: headrace.Queue) -> None:
    assert queue.claim("reader", 1, wait=0.01) == []
    with ThreadPoolExecutor(1) as pool:
        claim = pool.submit(queue.claim, "reader", 1, wait=20)
        queue.send("a")

        assert [m.text for m in claim.result(PATIENCE_S)] == ["a"]
    with pytest.raises(errors.InvalidParameter):
        queue.claim("reader", 2, wait=21)


def test_transaction_acknowledges_claims(client: headrace.Client, queue: headrace.Queue) -> None:
    queue.send("a")
    queue.claim("reader", 1)
    with client.transact() as tx:
        tx.acknowledge_claims(queue, "reader", 1)

    assert queue.claims("reader").acknowledged == 1
    assert queue.peek() == []


def test_many_threads_share_a_client(client: headrace.Client, queue: headrace.Queue) -> None:
    def work(number: int) -> None:
        handle = client.queue("orders")
        for i in range(50):
            handle.send(f"{number}-{i}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert {m.text for m in queue.peek(1_000)} == {f"{number}-{i}" for number in range(8) for i in range(50)}


def test_closed_client_refuses_calls(client: headrace.Client, queue: headrace.Queue) -> None:
    client.close()
    client.close()

    with pytest.raises(headrace.Unavailable, match="closed"):
        queue.send("x")


@pytest.mark.parametrize("wait", [-1, 20.001, 1e9])
def test_wait_out_of_range_is_refused(queue: headrace.Queue, wait: float) -> None:
    with pytest.raises(errors.InvalidParameter):
        queue.receive(wait=wait)


def test_public_names_are_there() -> None:
    assert all(getattr(headrace, name) is not None for name in headrace.__all__)
    assert set(headrace.__all__) == set(dir(headrace))
    with pytest.raises(AttributeError):
        headrace.nonsense  # noqa: B018
