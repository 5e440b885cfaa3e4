"""`kill -9` of pipelines and of the broker, again and again: every window comes out once, with every row in it."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import headrace
from tests.broker_process import BrokerProcess, ServerProcess, run_command, wait_until
from tests.stream.runner.pipelines import counted, event, expected_counts, send

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
KILLS = int(os.environ.get("HEADRACE_STREAM_KILLS", "8"))
ROWS = 500 * KILLS

pytestmark = pytest.mark.serial

FILE = """
import headrace.stream as hs

events = hs.queue("events", schema="k string, v bigint, ts timestamp").event_time("ts", delay="2 seconds")
counts = hs.sql('''SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events
                   GROUP BY tumble(ts, '10 seconds'), k''')
first = hs.pipeline("first", counts, sink=hs.queue("windows"), late="late", dead="dead")

windows = hs.queue("windows", schema="window_start timestamp, k string, n bigint, s bigint")
second = hs.pipeline("second", hs.sql("SELECT * FROM windows WHERE n > 0"), sink=hs.queue("out"), dead="dead")
"""


def command(file: Path, name: str, target: str, *more: str) -> list[str]:
    run = [sys.executable, "-m", "headrace", "stream", "run", f"{file}:{name}", "--broker", target]
    return [*run, "--log-format", "json", "--batch-rows", "10", *more]


def end(one: ServerProcess, number: signal.Signals) -> int:
    one.signal(number)
    code = one.process.wait(30)
    assert one.process.stderr is not None
    one.process.stderr.close()
    return code


class Cluster:
    """A broker, and both pipelines in two processes each: one runs it, the other stands by."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.file = folder / "pipelines.py"
        self.file.write_text(FILE)
        self.data = folder / "data"
        self.target = f"unix://{self.data}/headrace.sock"
        self._chance = chance
        self.broker = self._start_broker()
        self.pipelines: list[tuple[str, ServerProcess]] = []

    def start(self) -> None:
        self.pipelines = [(name, self._start(name)) for name in ("first", "second", "first", "second")]

    def kill_broker(self) -> None:
        end(self.broker, signal.SIGKILL)
        self.broker = self._start_broker()

    def kill_pipeline(self) -> None:
        """And start another in its place, which stands by."""
        name, victim = self.pipelines.pop(self._chance.randrange(len(self.pipelines)))
        end(victim, signal.SIGKILL)
        self.pipelines.append((name, self._start(name)))

    def stop_pipelines(self) -> list[int]:
        return [end(one, signal.SIGTERM) for _, one in self._taken()]

    def close(self) -> None:
        for _, one in self._taken():
            end(one, signal.SIGKILL)
        end(self.broker, signal.SIGKILL)

    def finish(self, name: str, until: str) -> None:
        done = run_command(command(self.file, name, self.target, "--until", until), cwd=self.file.parent, within_s=120)
        assert done.returncode == 0, done.stderr

    def _taken(self) -> list[tuple[str, ServerProcess]]:
        taken, self.pipelines = self.pipelines, []
        return taken

    def _start(self, name: str) -> ServerProcess:
        return ServerProcess(command(self.file, name, self.target), cwd=self.file.parent, env=None)

    def _start_broker(self) -> BrokerProcess:
        one = BrokerProcess(self.data)
        one.wait_ready()
        return one


def has_done(target: str, rows: int) -> bool:
    """Whether so many rows were processed."""
    with headrace.connect(target) as client:
        return client.queue("events").counts().visible <= ROWS - rows


def all_of(client: headrace.Client, queue: str) -> list[dict[str, Any]]:
    return [message.json() for message in client.queue(queue).peek(10_000)]


@pytest.mark.timeout(900)
def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    rows = [event(number, step_ms=500) for number in range(ROWS)]
    cluster = Cluster(tmp_path, chance)
    try:
        with headrace.connect(cluster.target) as client:
            client.queue("windows", create=True)
            send(client, rows)
        cluster.start()
        for number in range(KILLS):
            wait_until(partial(has_done, cluster.target, number * ROWS // KILLS), within_s=120)
            time.sleep(chance.random() * 0.05)
            if number % 4 == 3:
                cluster.kill_broker()
            else:
                cluster.kill_pipeline()
        assert cluster.stop_pipelines() == [0] * 4
        cluster.finish("first", "end")
        cluster.finish("second", "idle")
        with headrace.connect(cluster.target) as client:
            assert counted(all_of(client, "out")) == expected_counts(rows)
            assert [all_of(client, queue) for queue in ("late", "dead", "events", "windows")] == [[], [], [], []]
    finally:
        cluster.close()
