"""Limits, joins, schedules and cancel over three real worker processes, one of which is killed in between."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.work import group
from tests.broker_process import wait_until
from tests.patience import PATIENCE_S
from tests.work.worker_process import WorkerProcess, sender, working

APP = """
@app.task(rate="40/s")
def rated(n: int) -> None:
    write(f"rated {time.monotonic_ns()}")

@app.task(concurrency=3)
def slot(n: int, pause: float = 0.03) -> None:
    write(f"in {time.monotonic_ns()} {n} {os.getpid()}")
    time.sleep(pause)
    write(f"out {time.monotonic_ns()} {n} {os.getpid()}")

@app.task
def member(n: int) -> int:
    write(f"member {n} {os.getpid()}")
    return n

@app.task
def total(numbers: list[int]) -> int:
    write(f"total {len(numbers)}")
    return sum(numbers)

@app.task(timeout="60s", result_ttl="1m")
def endless() -> None:
    write(f"endless {os.getpid()}")
    while True:
        time.sleep(0.01)

@app.every("1s")
@app.task
def tick() -> None:
    write(f"tick {headrace.work.current().job.envelope.scheduled}")
"""

pytestmark = pytest.mark.serial


def lines(one: WorkerProcess, word: str) -> list[list[str]]:
    return [line.split()[1:] for line in one.ledger.lines() if line.split()[0] == word]


def most_at_once(one: WorkerProcess, killed: dict[int, int]) -> int:
    """The greatest number of slots that were held together; those of a killed process ended with it."""
    ended = {(n, pid): int(at) for at, n, pid in lines(one, "out")}
    events = []
    for at, n, pid in lines(one, "in"):
        end_ns = ended.get((n, pid), killed.get(int(pid), time.monotonic_ns()))
        events += [(int(at), 1), (end_ns, -1)]
    now = most = 0
    for _, step in sorted(events):
        now += step
        most = max(most, now)
    return most


def test_three_processes_keep_limits_joins_and_schedules_through_a_kill(tmp_path: Path) -> None:
    with working(tmp_path, "--processes", "3", "--threads", "4", app=APP) as one, sender(tmp_path, APP) as tasks:
        sent_ns = time.monotonic_ns()
        tasks.rated.send_many((n,) for n in range(60))
        tasks.slot.send_many((n,) for n in range(60))
        flow = group([tasks.member.s(n) for n in range(300)]).then(tasks.total.s()).send()
        wait_until(lambda: len(lines(one, "in")) >= 10)
        killed = kill_one(one)
        assert flow.result(5 * PATIENCE_S) == sum(range(300))
        wait_until(lambda: len({n for _, n, _ in lines(one, "out")}) == 60)
        wait_until(lambda: len(lines(one, "rated")) >= 60)
        wait_until(lambda: len(lines(one, "tick")) >= 3)
        assert most_at_once(one, killed) <= 3
        assert lines(one, "total") == [["300"]]
        starts = sorted(int(at) for (at,) in lines(one, "rated"))
        # Evenly spaced are the admissions; a busy machine may be late with a task's first line, and never is it early.
        assert all(at >= sent_ns + (count - 1) * 25_000_000 for count, at in enumerate(starts))
        ticks = [name for (name,) in lines(one, "tick")]
        assert len(ticks) - len(set(ticks)) <= 1  # one that was running when its process was killed
        cancelled_while_it_runs(one, tasks)


def kill_one(one: WorkerProcess) -> dict[int, int]:
    """Its process id → no later than it ended: its slots may be others' before this process is told of the time again."""
    pid, ends_ns = one.children()[0], time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return {pid: ends_ns}


def cancelled_while_it_runs(one: WorkerProcess, tasks: Any) -> None:
    handle = tasks.endless.send()
    wait_until(lambda: bool(lines(one, "endless")))
    assert handle.cancel() == "cancel_requested"
    wait_until(lambda: handle.status() == "cancelled")
