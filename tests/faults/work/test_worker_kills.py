"""SIGKILL of children, of the parent, of the broker, while tasks run: none is lost, and what was not in hand is run once."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.broker_process import broker, wait_until
from tests.patience import PATIENCE_S
from tests.work.worker_process import WorkerProcess, runs, sender, working

pytestmark = pytest.mark.serial

TASKS = 1_500
IN_HAND_MAX = 2 * (4 + 20)
"""What two children may have in hand: running, and fetched ahead at the 1 ms that these tasks run."""


def test_no_task_is_lost_when_children_and_broker_are_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    with working(tmp_path, "--processes", "2", "--threads", "4") as worker, sender(tmp_path) as tasks:
        tasks.note.send_many([(n, 0.005) for n in range(TASKS)])
        for kill in range(1, 7):
            worker.ledger.wait("ended", TASKS * kill // 8, within_s=5 * PATIENCE_S)
            wait_until(worker.children)
            victims = worker.brokers() if kill % 3 == 0 else worker.children()
            os.kill(chance.choice(victims), signal.SIGKILL)
        worker.ledger.wait("ended", TASKS, within_s=5 * PATIENCE_S)
        repeated = worker.ledger.counts("began").total() - TASKS
        assert repeated <= 6 * IN_HAND_MAX
        wait_until(lambda: tasks.app.backend.client.queue("tasks").counts().visible == 0)
        assert worker.stop() == 0


def test_children_of_a_killed_parent_finish_what_runs_and_nothing_is_lost_or_repeated(tmp_path: Path) -> None:
    with broker(tmp_path / "data") as server:
        address = ("--broker", server.url)
        with working(tmp_path, *address, "--processes", "2") as first:
            with sender(tmp_path) as tasks:
                tasks.note.send_many([(n, 0.005) for n in range(TASKS)])
            first.ledger.wait("ended", 100)
            first.process.kill()
            first.wait_end()
            assert first.ledger.counts("began") == first.ledger.counts("ended")
        with working(tmp_path, *address) as second:
            second.ledger.wait("ended", TASKS, within_s=5 * PATIENCE_S)
            assert set(second.ledger.counts("began").values()) == {1}


def test_broker_that_restarts_is_found_again_and_nothing_runs_twice(tmp_path: Path) -> None:
    """The workers live on: what runs meanwhile is committed afterwards."""
    data = tmp_path / "data"
    address = f"unix://{data}/headrace.sock"
    with broker(data) as first, working(tmp_path, "--broker", address, "--threads", "2") as worker:
        with sender(tmp_path) as tasks:
            go = tmp_path / "go"
            tasks.until.send_many([(n, str(go)) for n in range(20)])
        worker.ledger.wait("began", 2)
        first.process.kill()
        first.wait_end()
        go.touch()
        worker.ledger.wait("ended", 2)
        _seen(worker, "work.broker.away")
        with broker(data):
            worker.ledger.wait("ended", 20)
            with sender(tmp_path) as tasks:
                wait_until(lambda: len([run for run in runs(tasks.app) if run.status == "succeeded"]) == 20)
            assert set(worker.ledger.counts("began").values()) == {1}
            assert worker.stop() == 0


def _seen(worker: WorkerProcess, action: str) -> None:
    wait_until(lambda: action in worker.actions())
