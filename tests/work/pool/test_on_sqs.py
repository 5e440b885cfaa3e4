"""The pool on an SQS endpoint: no holders, no state, no transactions; tasks go through, and a drain gives back what it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker_process import broker, wait_until
from tests.work.worker_process import sender, working

pytestmark = pytest.mark.serial

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
TASKS = """
@app.task(retries=1, backoff=0)
def fails():
    raise ValueError("no")
"""


def test_tasks_run_once_and_failures_end_in_the_dead_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with broker(tmp_path / "data") as server, sender(tmp_path, TASKS) as tasks:
        address = f"sqs+{server.url}"
        tasks.app.connect(address)
        tasks.note.send_many([(n,) for n in range(40)])
        tasks.anote.send_many([(n,) for n in range(40, 60)])
        tasks.fails.send()
        with working(tmp_path, "--broker", address, "--processes", "2", env=KEYS) as worker:
            worker.ledger.wait("ended", 60)
            tasks.app.connect(server.url)
            dead = tasks.app.backend.client.queue("tasks-dead", create=True)
            wait_until(lambda: dead.counts().visible == 1)
            assert worker.stop() == 0
            assert set(worker.ledger.counts("began").values()) == {1}
        counts = tasks.app.backend.client.queue("tasks").counts()
        assert (counts.visible, counts.in_flight, counts.delayed) == (0, 0, 0)
