"""A pipeline with every kind of sink dies at each place where a batch can be half on its way. Queue, folder and table have
every row once; the HTTP server every row at least once, each repeat under the same key with the same rows."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import headrace
from tests.faults.stream.cluster import assert_same, cluster, messages_of
from tests.faults.stream.events import columns, events, windows
from tests.faults.stream.nursery import Fault, When
from tests.faults.stream.receiver import Receiver, receiver

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
ROUNDS = int(os.environ.get("HEADRACE_STREAM_SINK_ROUNDS", "0"))
"""How often every place is visited; 0: the worst ones, once."""

pytestmark = pytest.mark.timeout(3_600)

FILE = """
import headrace.stream as hs

events = hs.queue("events", schema="k string, v bigint, ts timestamp").with_watermark("ts", delay="30 seconds")
counts = hs.sql('''SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events
                   GROUP BY tumble(ts, '10 seconds'), k''')
sinks = [
    hs.queue("out"),
    hs.parquet("FOLDER/parquet", partition_by=["k"]),
    hs.sql_table("sqlite:///FOLDER/out.db", "windows"),
    hs.http("URL", allow=["127.0.0.1"], rows_max=40),
]
sunk = hs.pipeline("sunk", counts, sink=sinks, late_queue="late", dead_letter_queue="dead")
"""

RUNNER, SINKS = "headrace.stream.runner", "headrace.stream.sinks"
WORST: list[tuple[str, When]] = [
    (f"{RUNNER}.commit:Committer.commit", "after"),  # committed, and nothing delivered
    (f"{SINKS}.parquet:_write", "after"),  # one file of several, not committed
    ("pathlib:Path.rename", "after"),  # one file of several is seen
    ("headrace.stream.databases:Sqlite.run_many", "after"),  # within the transaction
    (f"{SINKS}.table:TableOutbox.deliver", "after"),  # delivered, and not noted
    (f"{SINKS}.http:HttpOutbox._post", "after"),
]
OTHERS: list[tuple[str, When]] = [
    (f"{RUNNER}.commit:Committer.commit", "before"),
    (f"{RUNNER}.sink_set:SinkSet.stage", "before"),
    (f"{RUNNER}.sink_set:SinkSet.stage", "after"),
    (f"{RUNNER}.sink_set:SinkSet.committed", "after"),
    (f"{RUNNER}.sink_set:SinkSet.forget", "after"),
    (f"{SINKS}.parquet:_write", "before"),
    (f"{SINKS}.parquet:ParquetOutbox.deliver", "before"),
    (f"{SINKS}.parquet:ParquetOutbox.deliver", "after"),
    (f"{SINKS}.parquet:_sync", "before"),
    ("pathlib:Path.rename", "before"),
    (f"{SINKS}.table:TableOutbox.deliver", "before"),
    ("headrace.stream.databases:Sqlite.run_many", "before"),
    (f"{SINKS}.http:HttpOutbox.deliver", "before"),
    (f"{SINKS}.http:HttpOutbox.deliver", "after"),
    (f"{SINKS}.http:HttpOutbox._post", "before"),
]
PLACES = (WORST + OTHERS) * ROUNDS if ROUNDS else WORST
TRANSACTION = f"{RUNNER}.store:BrokerStore.transact"
"""Between any two of them nothing may be half done: an acknowledgement without its output, say."""
ROWS = 300 * len(PLACES) + 1_000


def rows_of_folder(folder: Path) -> Counter[tuple[Any, ...]]:
    table = pq.read_table(folder)
    starts = [f"{one:%Y-%m-%dT%H:%M:%S.%f}Z" for one in table.column("window_start").to_pylist()]
    return Counter(zip(starts, *(table.column(name).to_pylist() for name in ("k", "n", "s")), strict=True))


def rows_of_table(path: Path) -> Counter[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return Counter(connection.execute("SELECT window_start, k, n, s FROM windows").fetchall())
    finally:
        connection.close()


def rows_of_posts(server: Receiver) -> Counter[tuple[Any, ...]]:
    assert all(len(set(bodies)) == 1 for bodies in server.posts.values()), "a key with different rows"
    return Counter(
        (row["window_start"], row["k"], row["n"], row["s"])
        for bodies in server.posts.values()
        for row in json.loads(bodies[0])
    )


def test_every_sink_has_every_row(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    rows = events(ROWS, chance)
    with receiver(chance) as server, cluster(tmp_path, FILE.replace("URL", server.url), chance) as one:
        with headrace.connect(one.target) as client:
            client.queue("events", create=True).send_many(row.body() for row in rows)
        for place, when in PLACES:
            one.die("sunk", Fault(place, when, chance.randint(1, 3)), "--batch-rows", "60")
        for number in range(3, 12 if ROUNDS else 6):
            one.die("sunk", Fault(TRANSACTION, "after", number), "--batch-rows", "60")
        one.finish("sunk", "end")
        expected = windows(rows, 10)
        with headrace.connect(one.target) as client:
            found = columns((message.body for message in messages_of(client, "out")), "window_start", "k", "n", "s")
            assert_same(found, expected, "queue")
            for queue in ("late", "dead", "events"):
                assert not list(messages_of(client, queue)), queue
        assert_same(rows_of_folder(tmp_path / "parquet"), expected, "folder")
        assert not list((tmp_path / "parquet").rglob("*.tmp")), "files that were staged and never committed"
        assert_same(rows_of_table(tmp_path / "out.db"), expected, "table")
        assert_same(rows_of_posts(server), expected, "HTTP")
        repeats = sum(len(bodies) - 1 for bodies in server.posts.values())
        assert repeats, "no post was repeated: this run proves little"
        print(f"seed {SEED}: {one.kills['sunk']} deaths, {found.total()} rows; {repeats} posts again")
