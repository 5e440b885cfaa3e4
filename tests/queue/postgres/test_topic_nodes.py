"""Topics of several nodes at the same time: no gap, no duplicate, and the order of each group."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Entry, TopicDescription, arn_of, topic_arn_of
from headrace.queue.store.postgres import log
from headrace.queue.store.postgres.store import PostgresStore
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask, kill

TOPIC = topic_arn_of("t")
ROUNDS = 15
LONG = "x" * limits.REFERENCE_BYTES_MIN


NODES = 4


@pytest.fixture
def nodes(nodes: list[PostgresStore]) -> list[PostgresStore]:
    """With the topic `t`, which keeps a log."""
    done(nodes[0], ops.CreateTopic(TOPIC, {"retention_ms": limits.HOUR_MS}))
    return nodes


def done(store: PostgresStore, operation: ops.Operation) -> Any:
    """The outcome of an operation; raises it when it is an error."""
    (outcome,) = ask(store, operation)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def subscribed(store: PostgresStore, name: str, topic: str = TOPIC, **how: Any) -> str:
    done(store, ops.CreateQueue(arn_of(name), {"fifo": name.endswith(".fifo")}))
    done(store, ops.Subscribe(topic, arn_of(name), **how))
    return arn_of(name)


def publish(store: PostgresStore, publisher: int, topic: str = TOPIC) -> list[str]:
    """Publish in small lots, transacted ones among them; every other body is long. Returns what was published."""
    published = []
    for number in range(ROUNDS):
        texts = [f"{publisher}/{number}/{part}/{LONG if part else ''}" for part in range(3)]
        fifo = topic.endswith(".fifo")
        entries = [Entry(one.encode(), group=f"g{publisher % 2}", dedup_id=one[:20] if fifo else None) for one in texts]
        if number % 3:
            sent = done(store, ops.Send(topic, entries))
        else:
            (sent,) = done(store, ops.Transact(sends=[(topic, entries)])).sent
        assert [one.duplicate for one in sent] == [False] * 3
        published += texts
    return published


def held(store: PostgresStore, queue: str) -> list[str]:
    found: list[str] = []
    after = 0
    while page := done(store, ops.Peek(queue, 10_000, after)):
        found += [one.message.body.decode() for one in page]
        after = page[-1].message.seq
    return found


def catch_up(store: PostgresStore, topic: str = TOPIC) -> None:
    """Let upkeep run until every queue is live."""
    while any(one.subscription.position is not None for one in describe(store, topic).subscriptions):
        store.advance()


def describe(store: PostgresStore, topic: str = TOPIC) -> TopicDescription:
    description: TopicDescription = done(store, ops.GetTopic(topic))
    return description


def assert_in_turn(found: list[str]) -> None:
    """What each publisher has published is in its order."""
    latest: dict[str, tuple[int, int]] = {}
    for text in found:
        publisher, number, part, _ = text.split("/")
        place = int(number), int(part)
        assert latest.get(publisher, (-1, -1)) < place
        latest[publisher] = place


@pytest.mark.parametrize("topic", [TOPIC, topic_arn_of("t.fifo")])
def test_queues_that_join_while_nodes_publish_have_each_message_once(nodes: list[PostgresStore], topic: str) -> None:
    """From the beginning, at random moments, the upkeep of all nodes at work; one node dies in the middle."""
    suffix = ".fifo" if topic.endswith(".fifo") else ""
    if suffix:
        done(nodes[0], ops.CreateTopic(topic, {"fifo": True, "retention_ms": limits.HOUR_MS}))
    first = subscribed(nodes[0], "first" + suffix, topic)

    def join(number: int) -> str:
        queue = subscribed(nodes[3], f"late-{number}" + suffix, topic, after=0)
        nodes[3].advance()
        return queue

    with ThreadPoolExecutor(4) as pool:
        publishing = [pool.submit(publish, one, number, topic) for number, one in enumerate(nodes[:3])]
        joined = [pool.submit(join, 0).result(), pool.submit(join, 1).result(), pool.submit(join, 2).result()]
        published = [text for one in publishing for text in one.result()]
    kill(nodes[3])
    catch_up(nodes[1], topic)
    log = [message.body.decode() for message in done(nodes[1], ops.ReadLog(topic))]
    for found in (log, *[held(nodes[1], queue) for queue in (first, *joined)]):
        assert Counter(found) == Counter(published)
        assert found == log  # numbers rise in the order of the commits, everywhere
    assert_in_turn(log)
    counts = describe(nodes[2], topic).counts
    assert (counts.logged, counts.log_bytes) == (len(log), sum(len(text) for text in log))


def test_long_log_is_caught_up_with_while_nodes_publish(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In slices of ten, by whichever node has the time."""
    monkeypatch.setattr(limits, "CATCH_UP_SLICE", 10)
    published = publish(nodes[0], 9)
    queue = subscribed(nodes[0], "q", after=0)
    with ThreadPoolExecutor(4) as pool:
        publishing = [pool.submit(publish, one, number) for number, one in enumerate(nodes[:2])]
        upkeep = [pool.submit(catch_up, one) for one in nodes[2:]]
        published += [text for one in publishing for text in one.result()]
        for one in upkeep:
            one.result()
    assert Counter(held(nodes[3], queue)) == Counter(published)
    assert held(nodes[3], queue) == [message.body.decode() for message in done(nodes[3], ops.ReadLog(TOPIC))]


def test_change_of_a_subscription_waits_for_a_slice_that_is_on_its_way(
    nodes: list[PostgresStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from where that slice ends, so nothing is given twice."""
    monkeypatch.setattr(limits, "CATCH_UP_SLICE", 1)
    published = publish(nodes[0], 9)
    queue = subscribed(nodes[0], "q", after=0)
    reached = done(nodes[0], ops.ReadLog(TOPIC, limit=5))[-1].seq
    with psycopg.connect(databases().of(tmp_path)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("UPDATE headrace.subscription SET position = %s", (reached,))
        changing = pool.submit(done, nodes[1], ops.Subscribe(TOPIC, queue, {"kind": [{"exists": False}]}))
        wait_until_one_waits(tmp_path)
        other.commit()
        changing.result()
    catch_up(nodes[2])
    assert held(nodes[3], queue) == [published[0], *published[5:]]


def wait_until_one_waits(folder: Path) -> None:
    """Until a node waits for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(databases().of(folder), autocommit=True) as looking:
        while looking.execute(waiting).fetchone() == (0,):
            pass


def test_logs_are_shortened_and_given_in_turn(nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Never both in one transaction: who gives a slice has locked a subscription, and topics are locked before those."""
    monkeypatch.setattr(limits, "CATCH_UP_SLICE", 1)
    short = topic_arn_of("short")
    done(nodes[0], ops.CreateTopic(short, {"retention_bytes": 1}))
    publish(nodes[0], 1, short)
    publish(nodes[0], 2)
    subscribed(nodes[0], "q", after=0)
    turn, seen = log.Turn(), []
    for _ in range(2):
        nodes[0]._alone.run([], lambda tx, _: [log.tend(tx, turn)])
        seen.append((describe(nodes[0], short).counts.logged, describe(nodes[0]).subscriptions[0].lag))
    assert seen == [(0, 3 * ROUNDS - 1), (0, 3 * ROUNDS - 2)]


def test_duplicate_of_another_node_is_found_at_the_topic(nodes: list[PostgresStore]) -> None:
    topic = topic_arn_of("t.fifo")
    done(nodes[0], ops.CreateTopic(topic, {"fifo": True}))
    queue = subscribed(nodes[0], "q.fifo", topic)
    entry = Entry(b"x", group="g", dedup_id="d")
    with ThreadPoolExecutor(4) as pool:
        answers = [sent for (sent,) in pool.map(lambda one: done(one, ops.Send(topic, [entry])), nodes)]
    assert sorted(one.duplicate for one in answers) == [False, True, True, True]
    assert len({(one.id, one.seq) for one in answers}) == 1
    assert held(nodes[1], queue) == ["x"]


def test_filter_that_another_node_changed_holds_at_once(nodes: list[PostgresStore]) -> None:
    queue = subscribed(nodes[0], "q")
    done(nodes[1], ops.Send(TOPIC, [Entry(b'{"kind": "a"}')]))
    done(nodes[2], ops.Subscribe(TOPIC, queue, {"kind": ["b"]}, "MessageBody"))
    done(nodes[1], ops.Send(TOPIC, [Entry(b'{"kind": "a"}'), Entry(b'{"kind": "b"}')]))
    assert held(nodes[3], queue) == ['{"kind": "a"}', '{"kind": "b"}']
