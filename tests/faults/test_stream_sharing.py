"""Processes that share a pipeline: one is killed, one is stopped until the others have given it up, one comes late."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path

import headrace
from headrace.stream.runner import state_keys
from headrace.stream.runner.membership import read_owners
from tests.broker_process import BrokerProcess, ServerProcess, run_command, wait_until
from tests.patience import PATIENCE_S
from tests.stream.runner.pipelines import counted, event, expected_counts, send, taken

FILE = """
import headrace.stream as hs

events = hs.queue("events", schema="k string, v bigint, ts timestamp").with_watermark("ts", delay="2 seconds")
pipeline = hs.pipeline("counts", hs.sql('''
    SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events GROUP BY tumble(ts, '10 seconds'), k''', events=events),
    sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")
"""
ROWS = [event(number) for number in range(3_000)]


def command(folder: Path, target: str, *more: str) -> list[str]:
    run = [sys.executable, "-m", "headrace", "stream", "run", str(folder / "counts.py"), "--broker", target]
    return [*run, "--batch-rows", "20", *more]


def end(process: ServerProcess, number: signal.Signals) -> int:
    process.signal(number)
    code = process.process.wait(PATIENCE_S)
    assert process.process.stderr is not None
    process.process.stderr.close()
    return code


def shared_by(client: headrace.Client, processes: int) -> bool:
    return len(read_owners(client.state(state_keys.state_name("counts")).get(state_keys.OWNERS)).slots) == processes


def has_read(client: headrace.Client, rows: int) -> bool:
    return client.queue("events").counts().deleted >= rows


def test_killed_stopped_and_late_processes_change_nothing_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "counts.py").write_text(FILE)
    broker = BrokerProcess(tmp_path / "data")
    broker.wait_ready()
    target = f"unix://{tmp_path}/data/headrace.sock"
    running: list[ServerProcess] = []

    def start() -> ServerProcess:
        running.append(ServerProcess(command(tmp_path, target), cwd=tmp_path, env=None))
        return running[-1]

    try:
        with headrace.connect(target) as client:
            send(client, [])
            killed, stopped, _ = start(), start(), start()
            wait_until(partial(shared_by, client, 3))
            send(client, ROWS[:1_000])
            wait_until(partial(has_read, client, 300))
            end(killed, signal.SIGKILL)
            running.remove(killed)
            stopped.signal(signal.SIGSTOP)
            wait_until(partial(shared_by, client, 1))
            send(client, ROWS[1_000:2_000])
            stopped.signal(signal.SIGCONT)
            start()
            send(client, ROWS[2_000:])
            wait_until(partial(shared_by, client, 3))
            wait_until(partial(has_read, client, len(ROWS)), within_s=120)
            assert [end(process, signal.SIGTERM) for process in running] == [0] * 3
            running.clear()
            done = run_command(command(tmp_path, target, "--until", "end"), cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert counted(taken(client, "out")) == expected_counts(ROWS)
            assert [taken(client, queue) for queue in ("late", "dead", "events")] == [[], [], []]
            assert client.state(state_keys.state_name("counts"), state_keys.SHUFFLE) == {}
    finally:
        for process in running:
            process.signal(signal.SIGCONT)
            end(process, signal.SIGKILL)
        end(broker, signal.SIGKILL)
