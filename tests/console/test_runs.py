"""The run log as pages read it."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.console import limits
from headrace.console.runs import Runs, having
from headrace.work.run_log import Run, RunLog


def run(task: str, status: str = "succeeded", *, ended: int = 0, error: str = "", worker: str = "w") -> Run:
    return Run(f"id-{task}-{ended}", task, "tasks", worker, 0, 0, ended, 1, status, error)


class Client:
    """Answers with one chunk of the log; a look takes as long as it is told."""

    def __init__(self, runs: list[Run]) -> None:
        self.asked = 0
        self.now_s = 0.0
        self.took_s = 0.1
        self._rows = {key: value for key, value in RunLog("w").write(runs, now_ms=1).items() if value is not None}

    async def state(self, name: str, prefix: bytes) -> dict[bytes, bytes]:
        assert (name, prefix) == ("work", b"h/")
        self.asked += 1
        self.now_s += self.took_s
        return self._rows


def read(reader: Runs, client: Any) -> list[str]:
    return [one.id for one in asyncio.run(reader.read(client))]


def test_the_newest_comes_first() -> None:
    client = Client([run("a", ended=5), run("b", ended=9), run("c", ended=7)])
    assert read(Runs(lambda: client.now_s), client) == ["id-b-9", "id-c-7", "id-a-5"]


def test_reading_takes_a_small_part_of_the_time_however_many_look() -> None:
    client = Client([run("a")])
    reader = Runs(lambda: client.now_s)
    for _ in range(10):
        read(reader, client)
    assert client.asked == 1
    client.now_s += client.took_s * limits.RUNS_PAUSE
    read(reader, client)
    assert client.asked == 2


def test_filters_keep_what_fits_all_of_them() -> None:
    runs = [run("pay"), run("pay", "dead", error="ValueError: card"), run("ship", "dead", worker="host-7")]
    assert having(runs) == runs
    assert having(runs, task="pay", status="dead") == [runs[1]]
    assert having(runs, text="CARD") == [runs[1]]
    assert having(runs, text="host-7") == [runs[2]]
    assert having(runs, task="pay", text="host-7") == []
