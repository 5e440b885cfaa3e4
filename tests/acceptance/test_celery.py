"""Celery, unchanged: a worker over `sqs://` that retries and acknowledges."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import client_of
from tests.broker_process import wait_until
from tests.patience import PATIENCE_S

APP = """
import os

from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    broker_transport_options={"is_secure": False, "region": "us-east-1", "wait_time_seconds": 1, "polling_interval": 0.1},
    broker_connection_retry_on_startup=False,
    task_acks_late=True,
    task_acks_on_failure_or_timeout=True,
)


def note(line):
    # One write of one line: whole, whichever process writes it.
    with open(os.environ["NOTES"], "a") as file:
        file.write(line + "\\n")


@app.task
def add(x, y):
    note(f"add {x + y}")


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def flaky(self, name):
    note(f"flaky {name} try {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=0)


@app.task
def later(name):
    note(f"later {name}")
"""


class Project:
    """A Celery project in a folder."""

    def __init__(self, folder: Path, endpoint: str, queue: str) -> None:
        (folder / "tasks.py").write_text(APP)
        self.folder, self.queue, self._notes = folder, queue, folder / "notes"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "BROKER": endpoint.replace("http://", "sqs://test:test@"),
            "QUEUE": queue,
            "NOTES": str(self._notes),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def notes(self) -> Counter[str]:
        """What the tasks have noted so far, and how often."""
        return Counter(self._notes.read_text().splitlines()) if self._notes.exists() else Counter()

    def send(self, script: str) -> None:
        """Run Python in the project, as an application would."""
        done = subprocess.run(
            [sys.executable, "-c", f"from tasks import *\n{script}"],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker of two processes; ended as a supervisor does, and expected to end well."""
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "2", "--loglevel", "INFO"]
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, "--without-gossip", "--without-mingle"],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield
                process.terminate()
                assert process.wait(PATIENCE_S) == 0, (self.folder / "log").read_text()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()


@pytest.fixture
def project(tmp_path: Path, endpoint: str, name: str) -> Project:
    return Project(tmp_path, endpoint, name)


def test_worker_runs_retries_and_acknowledges(project: Project, endpoint: str) -> None:
    project.send("for n in range(20): add.delay(n, n)")
    project.send("flaky.delay('a'); later.apply_async(('b',), countdown=1)")
    wanted = Counter(f"add {2 * n}" for n in range(20))
    wanted.update(f"flaky a try {n}" for n in range(3))
    wanted["later b"] = 1
    sqs = client_of(endpoint)
    url = sqs.get_queue_url(QueueName=project.queue)["QueueUrl"]
    with project.worker():
        wait_until(lambda: not wanted - project.notes())
        wait_until(lambda: _counts(sqs, url) == {"0"})  # acknowledged: nothing waits or is in flight
    assert project.notes() == wanted
    sqs.close()


def _counts(sqs: Any, url: str) -> set[str]:
    names = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
    return set(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values())
