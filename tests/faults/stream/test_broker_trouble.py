"""A network that cuts connections at random, and a broker whose disk is full: pipelines wait and go on, and every window
comes once."""

from __future__ import annotations

import errno
import os
import random
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import headrace
import headrace.stream as hs
from headrace.errors import HeadraceError, StoreFull
from headrace.queue.store import files, folder, journal, sqlite, wal
from headrace.stream.runner import state_keys, store
from headrace.stream.runner.progress import Progress, decode_progress
from tests.broker_process import wait_until
from tests.faults.recording import recorded
from tests.faults.stream import test_chain_kills
from tests.faults.stream.cluster import assert_same, cluster, left, messages_of
from tests.faults.stream.events import columns, events, slices, windows, windows_of_windows
from tests.faults.stream.lossy import lossy
from tests.faults.test_disk_errors import Capacity

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
ROWS = int(os.environ.get("HEADRACE_STREAM_ROWS", "1000"))

pytestmark = pytest.mark.timeout(3_600)


def test_cut_connections_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    rows = events(ROWS, chance)
    with cluster(tmp_path, test_chain_kills.FILE, chance) as one:
        test_chain_kills.sent(one, rows)
        with lossy(one.broker.port, chance, bytes_mean=40_000) as proxy:
            one.target = proxy.url
            for name in ("first", "second"):
                one.start(name, "--batch-rows", "100")
            with headrace.connect(one.broker.url) as client:
                wait_until(lambda: left(client, "events") == 0, within_s=300)
            for name in ("first", "second"):
                one.kill_last(name)
            one.finish("first", "end", "--batch-rows", "100")
            one.finish("second", "end", "--batch-rows", "100")
        assert proxy.cut > 3, "hardly any connection was cut: this run proves little"
        print(f"seed {SEED}: {ROWS} messages, {proxy.cut} connections cut")
        with headrace.connect(one.broker.url) as client:
            found = columns(
                (message.body for message in messages_of(client, "out")), "window_start", "k", "w", "n", "s"
            )
            assert_same(found, windows_of_windows(rows, 10, 60), "windows of windows")
            for queue in ("late", "dead", "events", "windows"):
                assert not list(messages_of(client, queue)), queue
            first, second = progress_of(client, "first"), progress_of(client, "second")
            assert first.rows_in == ROWS
            assert (second.rows_in, second.rows_out) == (first.rows_out, len(found))


def progress_of(client: headrace.Client, pipeline: str) -> Progress:
    """What is told of a pipeline that one process has run."""
    (written,) = client.state(state_keys.state_name(pipeline), state_keys.PROGRESS).values()
    return decode_progress(written)


PIPELINE = hs.pipeline(
    "counts",
    hs.sql(
        "SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events GROUP BY tumble(ts, '10 seconds'), k",
        events=hs.queue("events", schema="k string, v bigint, ts timestamp").with_watermark("ts", delay="30 seconds"),
    ),
    sink=hs.queue("out"),
    late_queue="late",
    dead_letter_queue="dead",
)


def filled(client: headrace.Client) -> None:
    """Send until nothing is taken any more."""
    ballast = client.queue("ballast", create=True)
    with suppress(StoreFull):
        while True:
            ballast.send_many([b"x" * 8_000] * 10)


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[StoreFull]:
    """What pipelines were refused for want of room."""
    seen: list[StoreFull] = []
    waits = store.RetryPolicy._wait

    def wait(retry: store.RetryPolicy, error: HeadraceError, pause_s: float, waited_s: float) -> None:
        if isinstance(error, StoreFull):
            seen.append(error)
        waits(retry, error, pause_s, waited_s)

    monkeypatch.setattr(store.RetryPolicy, "_wait", wait)
    return seen


def test_full_disk_is_waited_for(memory_path: Path, refusals: list[StoreFull]) -> None:
    rows = events(900, random.Random(SEED))
    with recorded(files, folder, journal, wal, sqlite) as log:
        log.errno_ = errno.ENOSPC
        with headrace.connect(memory_path / "store") as client:
            capacity = Capacity(memory_path / "store", 1 << 40)
            log.fails = capacity
            for some in slices(rows, 3):
                client.queue("events", create=True).send_many(row.body() for row in some)
                capacity.size_bytes = capacity.used() + 600_000
                filled(client)
                running = threading.Thread(
                    target=PIPELINE.run, args=(client,), kwargs={"until": "idle", "batch_rows": 100}
                )
                running.start()
                refusals.clear()
                wait_until(lambda: len(refusals) >= 3)
                capacity.size_bytes = 1 << 40
                running.join()
            PIPELINE.run(client, until="end")
            found = columns((message.body for message in messages_of(client, "out")), "window_start", "k", "n", "s")
            assert_same(found, windows(rows, 10), "windows")
            for queue in ("late", "dead", "events"):
                assert not list(messages_of(client, queue)), queue
