"""Executors of a cluster are killed while they work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from tests.broker_process import wait_until
from tests.native.served import ServedBroker
from tests.patience import PATIENCE_S
from tests.stream.spark.lean import LEAN

MESSAGES = 5_000
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(900)


def executors(driver: int) -> dict[int, str]:
    """pid → executor's id, of the executors below a process."""
    found = {}
    for pid in descendants(driver):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has just ended
            continue
        if "org.apache.spark.executor.CoarseGrainedExecutorBackend" in words:
            found[pid] = words[words.index("--executor-id") + 1]
    return found


def descendants(pid: int) -> Iterator[int]:
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield child
        yield from descendants(child)


@pytest.mark.usefixtures("java")
def test_executors_killed_in_turn_double_and_lose_nothing(
    served: ServedBroker, client: headrace.Client, tmp_path: Path
) -> None:
    """One after another is killed once some more has been published; Spark starts new ones, and runs their tasks again."""
    source, out = client.queue("in", create=True), client.queue("out", create=True)
    source.send_many({"id": number} for number in range(MESSAGES))
    with (tmp_path / "driver.log").open("wb") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.stream.spark.cluster_driver", served.url, str(tmp_path)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYSPARK_SUBMIT_ARGS": LEAN}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        killed: set[str] = set()
        for published in (1, 1_500):
            wait_until(lambda: out.counts().visible >= published or driver.poll() is not None, within_s=400)  # noqa: B023
            victims = {pid: name for pid, name in executors(driver.pid).items() if name not in killed}
            for pid, name in sorted(victims.items())[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.add(name)
        assert driver.wait(400) == 0, (tmp_path / "driver.log").read_text()[-3_000:]
    finally:
        driver.kill()
        driver.wait(PATIENCE_S)
    assert len(killed) >= 2
    assert Counter(message.json()["id"] for message in out.peek(10_000)) == Counter(range(MESSAGES))
    assert source.counts().in_flight == source.counts().visible == 0
