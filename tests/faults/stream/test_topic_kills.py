"""`kill -9` around a topic with three subscribers: a consumer like a task, a pipeline, and a pipeline that joins late and
reads the log from its beginning, while the log is trimmed. Each has every message once."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import headrace
from headrace.errors import OutcomeUnknown, ReceiptExpired, StateChanged, Unavailable
from headrace.queue import operations as ops
from headrace.queue.model import Entry, topic_arn_of
from tests.broker_process import wait_until
from tests.faults.stream.cluster import Cluster, assert_same, cluster, left, messages_of
from tests.faults.stream.events import Event, columns, events, slices, windows
from tests.faults.stream.nursery import Process

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
KILLS = int(os.environ.get("HEADRACE_STREAM_KILLS", "4"))
ROWS = int(os.environ.get("HEADRACE_STREAM_ROWS", "2000"))

pytestmark = pytest.mark.timeout(3_600)

FILE = """
import headrace.stream as hs

SQL = '''SELECT window_start, k, count(*) AS n, sum(v) AS s FROM flights GROUP BY tumble(ts, '10 seconds'), k'''
SCHEMA = "k string, v bigint, ts timestamp"

flights = hs.topic("flights", schema=SCHEMA).with_watermark("ts", delay="30 seconds")
live = hs.pipeline("live", hs.sql(SQL, flights=flights), sink=hs.queue("live-out"), late_queue="late", dead_letter_queue="dead")

flights_again = hs.topic("flights", schema=SCHEMA, start="beginning").with_watermark("ts", delay="30 seconds")
joined = hs.pipeline("joined", hs.sql(SQL, flights=flights_again), sink=hs.queue("joined-out"), late_queue="late", dead_letter_queue="dead")
"""


def consume(target: str) -> None:
    """What a task does: each message's effect and its acknowledgement are one transaction."""
    with headrace.connect(target, patience=60) as client:
        while True:
            try:
                messages = client.queue("tasks").receive(max=40, wait=5)
                with client.transact() as tx:
                    tx.acknowledge(*messages)
                    for message in messages:
                        tx.send("tasks-out", message.body)
            except (OutcomeUnknown, ReceiptExpired, Unavailable):
                continue  # it was done, or they come again


class Publisher:
    """Publishes each slice once, whatever happens to the broker: the commit counts slices, and expects the count before."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._published = 0

    def publish(self, rows: list[Event]) -> None:
        before = b"%d" % self._published if self._published else None
        self._published += 1
        operation = ops.Transact(
            sends=[(topic_arn_of("flights"), [Entry(row.body()) for row in rows])],
            state=[(b"slices", b"%d" % self._published)],
            expect=[(b"slices", before)],
            name="publisher",
        )
        with headrace.connect(self._target, patience=60) as client:
            self._surely(client, operation)

    def _surely(self, client: headrace.Client, operation: ops.Transact) -> None:
        while True:
            try:
                client.call(operation)
            except OutcomeUnknown:
                continue
            except StateChanged:  # it was done, only the answer was lost
                assert client.state("publisher")[b"slices"] == operation.state[0][1]
            return


def subscribed(client: headrace.Client, count: int) -> bool:
    return len(client.topic("flights").describe().subscriptions) == count


def joins_late(one: Cluster) -> None:
    """From the beginning of the log, which is cut short as soon as the place is known."""
    one.start("joined")
    with headrace.connect(one.target) as client:
        wait_until(lambda: subscribed(client, 3))
        client.topic("flights").change(retention_bytes=1_000)


def prepared(one: Cluster) -> None:
    with headrace.connect(one.target) as client:
        client.topic("flights", create=True, retention="7 days")
        client.queue("tasks", create=True, visibility_timeout=2)
        client.queue("tasks-out", create=True)
        client.topic("flights").subscribe("tasks")
        for _ in range(2):
            one.start("live")
            one.add("tasks", lambda: Process(consume, one.target, log=one.folder / "tasks.log"))
        wait_until(lambda: subscribed(client, 2))


def publish_and_kill(one: Cluster, rows: list[Event], chance: random.Random) -> None:
    publisher = Publisher(one.target)
    for number, some in enumerate(slices(rows, KILLS)):
        if number == KILLS // 2:
            joins_late(one)
        publishing = threading.Thread(target=publisher.publish, args=(some,))
        publishing.start()
        time.sleep(chance.random() * 0.05)
        one.kill_any()
        publishing.join()
        with headrace.connect(one.target) as client:
            wait_until(lambda: left(client, "live--flights") <= 2 * len(rows) // KILLS, within_s=300)


def ends(one: Cluster) -> None:
    with headrace.connect(one.target) as client:
        wait_until(lambda: not list(messages_of(client, "tasks")), within_s=300)
        wait_until(lambda: not client.topic("flights").describe().subscriptions[-1].catching_up)
    one.kill_last("tasks")
    one.stop()
    for name in ("live", "joined"):
        one.finish(name, "end")


def test_every_subscriber_has_every_message_once(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    rows = events(ROWS, chance)
    with cluster(tmp_path, FILE, chance) as one:
        prepared(one)
        publish_and_kill(one, rows, chance)
        ends(one)
        with headrace.connect(one.target) as client:
            tasks = columns((message.body for message in messages_of(client, "tasks-out")), "n")
            assert_same(tasks, Counter((row.number,) for row in rows), "tasks")
            for queue in ("live-out", "joined-out"):
                found = columns((message.body for message in messages_of(client, queue)), "window_start", "k", "n", "s")
                assert_same(found, windows(rows, 10), queue)
            print(f"seed {SEED}: {ROWS} messages to three subscribers, kills {dict(one.kills)}: each once")
            assert client.topic("flights").describe().counts.logged < ROWS, "the log was not trimmed"
            for queue in ("late", "dead", "tasks", "live--flights", "joined--flights"):
                assert not list(messages_of(client, queue)), queue
