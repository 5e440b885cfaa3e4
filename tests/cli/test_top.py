from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import msgspec
import pytest

import headrace
from headrace.cli.top import Sample, compare
from headrace.native.protocol import BrokerStatistics
from headrace.native.settings import from_stored
from headrace.native.summary import QueueSummary
from headrace.queue.model import QueueCounts, QueueSettings
from headrace.queue.store.base import StoreStatistics
from tests.cli.conftest import CommandLine
from tests.native.served import ServedBroker
from tests.patience import PATIENCE_S


def at(now_ms: int, counts: QueueCounts | None, *, commits: int = 0, seconds: float = 0.0) -> Sample:
    store = StoreStatistics(commits, commits * 10, seconds, 0.0, (), (), 4_096, 0, None, full=False)
    summary = QueueSummary("q", "arn:q", from_stored(QueueSettings()), {}, counts or QueueCounts(), 0)
    return Sample({"arn:q": summary} if counts else {}, BrokerStatistics(now_ms, store))


def test_rates_are_differences_a_second() -> None:
    before = at(10_000, QueueCounts(sent=100, deleted=50), commits=10, seconds=1.0)
    now = at(12_000, QueueCounts(visible=7, oldest_ms=2_000, sent=300, deleted=60), commits=30, seconds=1.04)

    report = compare(before, now)

    [row] = report["queues"]
    assert (row["in_rate"], row["out_rate"], row["visible"], row["oldest_seconds"]) == (100, 5, 7, 10)
    assert report["commits"] == {"rate": 10, "operations_each": 10, "latency_ms": 2, "store_bytes": 4_096}


def test_new_queue_and_restarted_broker_count_from_zero() -> None:
    new = compare(at(0, None), at(1_000, QueueCounts(sent=5)))
    restarted = compare(
        at(0, QueueCounts(sent=100, deleted=100), commits=50, seconds=9),
        at(1_000, QueueCounts(sent=5), commits=2, seconds=0.01),
    )

    assert new["queues"][0]["in_rate"] == 5
    assert (restarted["queues"][0]["in_rate"], restarted["queues"][0]["out_rate"]) == (5, 0)
    assert restarted["commits"] == {"rate": 2, "operations_each": 10, "latency_ms": 5, "store_bytes": 4_096}


def test_once_prints_one_report(run: CommandLine, client: headrace.Client) -> None:
    client.queue("orders", create=True).send("x")

    report = run("top", "--once", "--every", "100ms", "-o", "json").json

    assert [row["queue"] for row in report["queues"]] == ["orders"]
    assert report["commits"]["store_bytes"] >= 0
    assert "orders" in run("top", "--once", "--every", "100ms", "-o", "table").out


def test_interval_has_a_bound(run: CommandLine) -> None:
    assert run("top", "--every", "1ms").code == 2


@pytest.mark.parametrize(("arguments", "shown"), [(["top"], b"orders"), (["stream", "ls", "--watch"], b"0 pipelines")])
def test_live_view_on_a_terminal_until_interrupted(
    served: ServedBroker, client: headrace.Client, arguments: list[str], shown: bytes
) -> None:
    client.queue("orders", create=True)
    master, terminal = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TERM": "xterm",
        "COLUMNS": "160",
        "LINES": "40",
    }
    command = [sys.executable, "-m", "headrace", *arguments, "--every", "100ms", "--broker", served.url]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    try:
        _read_until(master, shown)
        process.send_signal(signal.SIGINT)
        _read_until(master, b"\x1b[?1049l")  # back from the alternate screen
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _read_until(master: int, wanted: bytes) -> None:
    seen = b""
    deadline = time.monotonic() + PATIENCE_S
    while wanted not in seen:
        ready, _, _ = select.select([master], [], [], max(0, deadline - time.monotonic()))
        assert ready, seen
        seen += os.read(master, 65_536)


def test_statistics_are_what_the_wire_carries() -> None:
    statistics = at(5, None).broker

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(statistics), type=BrokerStatistics) == statistics
