"""Killed in the middle of what happens seldom: state being compacted, silence closing windows, a reset, a backfill."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import headrace
from tests.faults.stream.cluster import Cluster, assert_same, cluster, left, messages_of
from tests.faults.stream.events import columns, events, windows
from tests.faults.stream.nursery import Fault, When

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
EVERY = bool(os.environ.get("HEADRACE_STREAM_EVERY_STEP"))
"""Whether to die at every step of a reset, and more often elsewhere."""

pytestmark = pytest.mark.timeout(3_600)

FILE = """
import headrace.stream as hs

SCHEMA = "k string, v bigint, ts timestamp"


def counted(source, window):
    return hs.sql(f"SELECT window_start, k, count(*) AS n, sum(v) AS s FROM source GROUP BY tumble(ts, '{window}'), k",
                  source=source)


events = hs.queue("events", schema=SCHEMA).with_watermark("ts", delay="30 seconds")
wide = hs.pipeline("wide", counted(events, "10 minutes"), sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")
narrow = hs.pipeline("narrow", counted(events, "10 seconds"), sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")

silent = hs.queue("events", schema=SCHEMA).with_watermark("ts", delay="30 seconds", idle="1 second")
idle = hs.pipeline("idle", counted(silent, "10 seconds"), sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")

flights = hs.topic("flights", schema=SCHEMA, start="beginning").with_watermark("ts", delay="30 seconds")
topical = hs.pipeline("topical", counted(flights, "10 seconds"), sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")
"""
COMMIT = "headrace.stream.runner.commit:Committer.commit"


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)


def out(client: headrace.Client) -> Counter[tuple[Any, ...]]:
    return columns((message.body for message in messages_of(client, "out")), "window_start", "k", "n", "s")


def assert_nothing_left(client: headrace.Client, *queues: str) -> None:
    for queue in ("late", "dead", *queues):
        assert not list(messages_of(client, queue)), queue


def test_compaction(tmp_path: Path, chance: random.Random) -> None:
    """Windows are wide, batches small, parts are merged as soon as there are two: each commit removes parts."""
    rows = events(3_000, chance)
    parts = "headrace.stream.engine.state_backend:DurableOperatorState"
    places: list[tuple[str, When]] = [(f"{parts}.replace", "after"), (COMMIT, "after")]
    with cluster(tmp_path, FILE, chance, limits={"COMPACT_PARTS": 2}) as one:
        with headrace.connect(one.target) as client:
            client.queue("events", create=True).send_many(row.body() for row in rows)
        for place, when in places * (5 if EVERY else 1):
            one.die("wide", Fault(place, when, chance.randint(1, 4)), "--batch-rows", "30")
        one.finish("wide", "end")
        with headrace.connect(one.target) as client:
            assert_same(out(client), windows(rows, 600), "windows")
            assert_nothing_left(client, "events")


def test_idle_closing(tmp_path: Path, chance: random.Random) -> None:
    """Silence closes the last windows once, however often whoever notices it dies; later rows are not late."""
    rows = events(400, chance)
    early, later = [row for row in rows if row.at_s < 200], [row for row in rows if row.at_s >= 200]
    noticing = "headrace.stream.runner.watermarks:idle_watermarks"
    places: list[tuple[str, When]] = [(noticing, "after"), (COMMIT, "before"), (COMMIT, "after")]
    with cluster(tmp_path, FILE, chance) as one, headrace.connect(one.target) as client:
        client.queue("events", create=True)
        for number, some in enumerate((early, later)):
            client.queue("events").send_many(row.body() for row in some)
            one.finish("idle", "idle")
            for place, when in places if EVERY or number else places[-1:]:
                one.die("idle", Fault(place, when))
        assert_same(out(client), windows(rows, 10), "windows")
        assert_nothing_left(client, "events")


def reset_dying_at(one: Cluster, fault: Fault) -> bool:
    """Whether it died: False once the reset has no such step any more, and is done."""
    code = one.run("stream", "reset", "topical", "--yes", "--broker", one.target, log="reset", fault=fault).wait()
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def test_reset(tmp_path: Path, chance: random.Random) -> None:
    """Whatever step a reset dies at, the next one finishes it, and the whole log is processed again, once."""
    rows = events(600, chance)
    steps: list[tuple[int, When]] = [(number, when) for number in range(1, 40) for when in ("before", "after")]
    with cluster(tmp_path, FILE, chance) as one, headrace.connect(one.target) as client:
        client.topic("flights", create=True, retention="7 days").publish_many(row.body() for row in rows)
        one.finish("topical", "end")
        for number, when in steps if EVERY else chance.sample(steps[:20], 1):
            died = reset_dying_at(one, Fault("headrace.native.client:Client.call", when, number))
            if died:
                one.finish("topical", "end", "--reset")
            for _ in client.queue("out").consume(prefetch=10_000, idle=0):
                pass
            if not died:
                one.finish("topical", "end")
            assert_nothing_left(client, "topical--flights")


def test_backfill(tmp_path: Path, chance: random.Random) -> None:
    """Old rows from a file, new ones from the queue; whoever starts it again does so with the same command."""
    rows = events(2_000, chance)
    old, new = rows[:1_000], rows[1_000:]
    (tmp_path / "old.jsonl").write_bytes(b"\n".join(row.body() for row in old) + b"\n")
    more = ("--backfill", str(tmp_path / "old.jsonl"), "--batch-rows", "100")
    reading = "headrace.stream.runner.source_set:Backfill.read"
    places: list[tuple[str, When]] = [(COMMIT, "after"), (reading, "after"), (COMMIT, "before")]
    with cluster(tmp_path, FILE, chance) as one, headrace.connect(one.target) as client:
        client.queue("events", create=True).send_many(row.body() for row in new)
        for place, when in places * (2 if EVERY else 1):
            one.die("narrow", Fault(place, when, chance.randint(1, 4)), *more)
        one.finish("narrow", "end", *more)
        assert left(client, "events") == 0
        assert_same(out(client), windows(rows, 10), "windows")
        assert_nothing_left(client, "events")
