"""The driver is killed while it publishes, and another one goes on: as people start them, from the command line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyspark
import pytest

import headrace
from tests.broker_process import wait_until
from tests.native.served import ServedBroker
from tests.patience import PATIENCE_S
from tests.stream.spark.lean import LEAN

MESSAGES = 9_000
"""More than one transaction takes: so there is a middle of the publication."""
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(900)

PIPELINE = """
import os
import shlex
import headrace.stream as hs

numbers = hs.queue("in", schema="id bigint")
doubled = hs.sql("SELECT id, 2 * id AS twice FROM numbers", numbers=numbers)
pipeline = hs.pipeline("doubled", doubled, sink=hs.queue("out"))

if __name__ == "__main__":
    result = pipeline.run(os.environ["HEADRACE_BROKER"], until="idle", checkpoint=os.environ["CHECKPOINT"])
    print("rows in:", result.rows_in)
"""


@pytest.mark.usefixtures("java")
def test_a_killed_driver_is_gone_on_with_by_spark_submit(
    served: ServedBroker, client: headrace.Client, tmp_path: Path
) -> None:
    file, checkpoint = tmp_path / "doubled.py", str(tmp_path / "checkpoint")
    file.write_text(PIPELINE)
    source, out = client.queue("in", create=True), client.queue("out", create=True)
    source.send_many({"id": number} for number in range(MESSAGES))
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYSPARK_SUBMIT_ARGS": LEAN,
        "HEADRACE_BROKER": served.url, "CHECKPOINT": checkpoint, "PYSPARK_PYTHON": sys.executable,
    }  # fmt: skip

    run = [sys.executable, "-m", "headrace", "stream", "run", str(file), "--engine", "spark", "--master", "local[2]"]
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(
            [*run, "--checkpoint", checkpoint], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: out.counts().visible > 0 or first.poll() is not None, within_s=400)
    finally:
        os.killpg(first.pid, signal.SIGKILL)  # Java, too
        first.wait(PATIENCE_S)
    assert first.returncode == -signal.SIGKILL, (tmp_path / "first.log").read_text()[-3_000:]
    source.send_many({"id": number} for number in range(MESSAGES, MESSAGES + 100))

    submit = Path(pyspark.__file__).parent / "bin/spark-submit"
    environment.pop("PYSPARK_SUBMIT_ARGS")  # spark-submit's own arguments
    second = subprocess.run(
        [submit, *shlex.split(LEAN)[:-1], "--master", "local[2]", file],
        env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert second.returncode == 0, (second.stdout + second.stderr)[-3_000:]
    assert "rows in:" in second.stdout
    messages = out.peek(10_000)
    messages += out.peek(10_000, after=messages[-1].sequence)
    found = Counter((message.json()["id"], message.json()["twice"]) for message in messages)
    assert found == Counter((number, 2 * number) for number in range(MESSAGES + 100))
    assert source.counts().in_flight == source.counts().visible == 0
