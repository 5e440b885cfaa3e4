"""`kill -9` of two pipelines in a row and of their broker: windows over windows, each once, with every row in it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import headrace
from tests.broker_process import wait_until
from tests.faults.stream.cluster import Cluster, assert_same, cluster, left, messages_of
from tests.faults.stream.events import Event, columns, events, windows_of_windows

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
KILLS = int(os.environ.get("HEADRACE_STREAM_KILLS", "5"))
ROWS = int(os.environ.get("HEADRACE_STREAM_ROWS", "2500"))

pytestmark = pytest.mark.timeout(3_600)

FILE = """
import headrace.stream as hs

events = hs.queue("events", schema="k string, v bigint, ts timestamp").with_watermark("ts", delay="30 seconds")
counts = hs.sql('''SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events
                   GROUP BY tumble(ts, '10 seconds'), k''')
first = hs.pipeline("first", counts, sink=hs.queue("windows"), late_queue="late", dead_letter_queue="dead")

windows = hs.queue("windows", schema="window_start timestamp, k string, n bigint, s bigint").with_watermark(
    "window_start", delay="3 days")  # windows come in order of each process of `first`, not across them
minutes = hs.sql('''SELECT window_start, k, count(*) AS w, sum(n) AS n, sum(s) AS s FROM windows
                    GROUP BY tumble(window_start, '1 minute'), k''')
second = hs.pipeline("second", minutes, sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")
"""


def kill_as_it_goes(one: Cluster, kills: int, rows: int, chance: random.Random, kill: Callable[[], None]) -> None:
    """Spread over the rows: a kill is due when so many were taken, and comes some ms later."""
    for number in range(kills):
        with headrace.connect(one.target) as client:
            wait_until(lambda: left(client, "events") <= rows - number * rows // kills, within_s=300)  # noqa: B023
        time.sleep(chance.random() * 0.05)
        kill()


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)


def sent(one: Cluster, rows: list[Event]) -> None:
    with headrace.connect(one.target) as client:
        for queue in ("events", "windows"):
            client.queue(queue, create=True)
        client.queue("events").send_many(event.body() for event in rows)


def test_kills_lose_nothing_and_double_nothing(tmp_path: Path, chance: random.Random) -> None:
    rows = events(ROWS, chance)
    with cluster(tmp_path, FILE, chance) as one:
        sent(one, rows)
        for name in ("first", "second", "first", "second"):
            one.start(name)
        kill_as_it_goes(one, KILLS, ROWS, chance, one.kill_any)
        one.stop()
        one.finish("first", "end")
        one.finish("second", "end")
        with headrace.connect(one.target) as client:
            found = columns(
                (message.body for message in messages_of(client, "out")), "window_start", "k", "w", "n", "s"
            )
            assert_same(found, windows_of_windows(rows, 10, 60), "windows of windows")
            print(f"seed {SEED}: {ROWS} messages, kills {dict(one.kills)}, {found.total()} windows equal")
            for queue in ("late", "dead", "events", "windows"):
                assert not list(messages_of(client, queue)), queue
