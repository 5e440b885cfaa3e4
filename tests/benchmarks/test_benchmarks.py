"""The benchmarks stay alive: each runs once with tiny amounts, and its parts do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from benchmarks import machine, servers
from benchmarks.http_load import percentile_ms
from benchmarks.plan import PLANS
from benchmarks.report import HTTP_TARGETS
from benchmarks.sqs_http import Sample, _summarise
from benchmarks.sqs_wire import RECEIPTS, BadAnswer, Requests, split_answer
from headrace.queue.store.local import store

ROOT = Path(__file__).parent.parent.parent
QUEUE_PARTS = [word for part in ("http", "store", "native", "others") for word in ("--only", part)]


def test_answer_is_split_once_it_is_complete() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert [split_answer(answer[:end]) for end in range(len(answer))] == [None] * len(answer)
    assert split_answer(answer) == (200, b"{}", True)


def test_answer_tells_that_the_server_closes() -> None:
    assert split_answer(b"HTTP/1.1 503 X\r\nconnection: Close\r\ncontent-length:0\r\n\r\n") == (503, b"", False)


def test_answer_without_a_length_is_refused() -> None:
    with pytest.raises(BadAnswer):
        split_answer(b"HTTP/1.1 200 OK\r\n\r\n{}")


def test_receipts_are_found_with_and_without_blanks() -> None:
    assert RECEIPTS.findall(b'{"ReceiptHandle":"a==","x":1},{"ReceiptHandle" : "b"}') == [b"a==", b"b"]


def test_requests_announce_their_length() -> None:
    requests = Requests("h:1", "http://h:1/0/q", 256)
    for request in (requests.sends[0], requests.batches[0], requests.receive, requests.delete([b"r1", b"r2"])):
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body)["QueueUrl"] == "http://h:1/0/q"


def test_percentile_is_of_the_sorted_values() -> None:
    assert percentile_ms(array("d", [0.003, 0.001, 0.002, 0.004]), 0.5) == 3.0
    assert percentile_ms(array("d"), 0.99) == 0.0


def test_cpu_time_of_a_process_tree_includes_children() -> None:
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert machine.cpu_s(process.pid) >= 0.25
        process.communicate(b"\n")


def test_machine_is_described(tmp_path: Path) -> None:
    facts = machine.describe(tmp_path)
    assert facts["cores"] == os.cpu_count()
    assert facts["sync_p50_ms"] > 0
    assert list(tmp_path.iterdir()) == []


def test_summary_takes_medians_and_headraces_ratio() -> None:
    def sample(server: str, rate: float) -> Sample:
        return Sample(server, "memory only", "send", 16, rate, 1.0, 1.0, 2.0, 0.5, 10.0)

    rows = {row.server: row for row in _summarise(
        [sample("headrace", 100.0), sample("headrace", 300.0), sample("headrace", 200.0), sample("other", 50.0)]
    )}  # fmt: skip
    assert (rows["headrace"].messages_per_s, rows["headrace"].spread, rows["headrace"].rounds) == (200.0, 1.0, 3)
    assert rows["other"].ratio == 4.0


def test_targets_are_of_cases_that_are_measured() -> None:
    assert {connections for _, _, connections in HTTP_TARGETS} <= set(PLANS["quick"].connections)


def test_variants_set_a_threshold_that_exists() -> None:
    assert "store.SLOW_SYNC_S = 3600;" in servers.headrace_loop().command(Path(), Path(), 1)[2]
    assert store.SLOW_SYNC_S > 0


def test_every_benchmark_runs(tmp_path: Path) -> None:
    folders = ["--cache", str(tmp_path / "cache"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--mode", "smoke", "--peers", "", *QUEUE_PARTS, *folders],
        cwd=ROOT, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert [remark for remark in results["remarks"] if not remark.endswith("it is not installed")] == []
    assert {row["case"] for row in results["http"]} == {"send", "send_batch", "cycle", "drain"}
    assert {row["shape"] for row in results["store"]} == {"single", "batch"}
    assert all(row["messages_per_s"] > 0 for part in ("http", "store", "native", "others") for row in results[part])
