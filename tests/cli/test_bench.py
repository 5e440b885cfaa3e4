"""`headrace bench` measures real processes and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.bench import http, queue, running
from headrace.bench.running import cpu_s, measured, term_ends_in_order
from headrace.native.aio_queue import AsyncQueue
from tests.cli.conftest import CommandLine

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # a short path: the broker's socket is in there
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def is_of_calls(row: dict[str, Any]) -> bool:
    return bool(row["a_second"] > 0 and 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"])


def test_queue_is_measured_and_nothing_is_left(run: CommandLine, folder: Path) -> None:
    rows = run("bench", "queue", "--folder", str(folder), "--time", "200ms", "--clients", "4", "-o", "json").json
    assert [row["what"] for row in rows] == ["sync 4 KiB", "send", "send 100", "send, receive, delete"]
    assert all(is_of_calls(row) for row in rows)


def test_folder_may_be_named_from_here(run: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADRACE_BENCH_TIME", "50ms")
    assert len(run("bench", "queue", "--clients", "1", "-o", "json").json) == 4


@LINUX
def test_http_is_measured_with_its_cost(run: CommandLine, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(http, "CASES", {name: http.CASES[name] for name in ("WSGI", "ASGI, direct")})
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    rows = run("bench", "http", "--time", "300ms", "--clients", "4", "--processes", "2", "-o", "json").json
    assert [(row["what"], row["clients"]) for row in rows] == [("WSGI", 4), ("ASGI, direct", 4)]
    assert all(is_of_calls(row) and row["cpu_us"] > 0 for row in rows)


@LINUX
def test_tasks_are_measured_with_their_cost(run: CommandLine, folder: Path) -> None:
    rows = run("bench", "task", "--folder", str(folder), "--tasks", "500", "--time", "100ms", "-o", "json").json
    assert [row["what"] for row in rows] == ["run", "send to done"]
    assert rows[0]["a_second"] > 0
    assert is_of_calls(rows[1])


def test_stream_is_measured(run: CommandLine, folder: Path) -> None:
    rows = run("bench", "stream", "--folder", str(folder), "--rows", "20000", "--time", "300ms", "-o", "json").json
    assert [row["what"] for row in rows] == ["count in memory", "count from a queue", "window at 50 rows/s"]
    assert all(row["a_second"] > 0 and row["cpu_us"] > 0 for row in rows[:2])
    assert is_of_calls(rows[2])


def test_stream_says_what_to_install(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("headrace.stream")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run("bench", "stream")
    assert done.code == 1
    assert "pip install 'headrace[stream]'" in done.err


def test_one_call_is_measured_however_short_the_time() -> None:
    async def step(_: AsyncQueue) -> int:
        return 1

    row = asyncio.run(queue._run("x", step, cast("AsyncQueue", None), 0.0, 3))
    assert row.a_second > 0 and row.max_ms is not None


def test_connections_are_shared_evenly() -> None:
    assert http._shares(7, 3) == [3, 2, 2]


def test_row_has_percentiles_of_calls_and_the_cost_of_one() -> None:
    row = measured("x", 1, 4, [0.004, 0.001, 0.002, 0.003], 2.0, cpu_s=0.001)
    assert (row.a_second, row.max_ms, row.cpu_us) == (2.0, 4.0, 250.0)
    assert measured("x", 1, 4, [], 2.0).p50_ms is None


def test_cost_is_unknown_of_a_process_that_is_gone() -> None:
    assert cpu_s(2**30) is None
    assert running.cpu_since([2**30], [1.0]) is None


def test_term_ends_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)), term_ends_in_order():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
