"""The run log: what is written with which commit, what is dropped when, and how it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.queue.operations import Transact
from headrace.work import keys, run_log
from headrace.work.broker_backend import BrokerBackend
from headrace.work.run_log import CHUNK_RUNS, RUNS_AGE_MS, RUNS_MAX, Run, RunLog, overdue, read_runs


def run(number: int) -> Run:
    return Run(f"{number:032x}", "tasks.note", "tasks", "worker-1", number, number, number + 1, 1, "succeeded")


class Store:
    """What was put."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def commit(self, log: RunLog, runs: list[Run], now_ms: int) -> None:
        for key, value in log.write(runs, now_ms=now_ms).items():
            if value is None:
                del self.rows[key]
            else:
                self.rows[key] = value
        log.written()

    def runs(self) -> int:
        return sum(len(run_log.unpack(value)) for value in self.rows.values())


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[BrokerBackend]:
    made = BrokerBackend(tmp_path)
    yield made
    made.close()


def test_small_chunks_are_written_again_with_the_next_runs() -> None:
    log, store = RunLog("worker-1"), Store()
    for number in range(CHUNK_RUNS + 1):
        store.commit(log, [run(number)], now_ms=number)
    assert sorted(len(run_log.unpack(value)) for value in store.rows.values()) == [1, CHUNK_RUNS]


def test_chunks_of_one_millisecond_are_kept_apart_and_in_order() -> None:
    log, store = RunLog("worker-1"), Store()
    for start in range(0, 3 * CHUNK_RUNS, CHUNK_RUNS):
        store.commit(log, [run(start + number) for number in range(CHUNK_RUNS)], now_ms=7)
    assert [run_log.unpack(store.rows[key])[0].started_ms for key in sorted(store.rows)] == [
        0,
        CHUNK_RUNS,
        2 * CHUNK_RUNS,
    ]


def test_writer_drops_its_oldest_chunks_beyond_its_share() -> None:
    log, store = RunLog("worker-1", share=500), Store()
    for start in range(0, 5_000, 100):
        store.commit(log, [run(start + number) for number in range(100)], now_ms=start)
    assert 500 <= store.runs() <= 600
    assert run_log.unpack(store.rows[max(store.rows)])[-1] == run(4_999)


def test_commit_that_was_refused_is_written_anew() -> None:
    log, store = RunLog("worker-1"), Store()
    log.write([run(1)], now_ms=1)
    store.commit(log, [run(2)], now_ms=2)
    assert store.runs() == 1


@pytest.mark.parametrize("done", [True, False])
def test_chunk_of_a_commit_in_doubt_is_touched_no_more(done: bool) -> None:
    log, store = RunLog("worker-1"), Store()
    store.commit(log, [run(1)], now_ms=1)
    doubtful = log.write([run(2)], now_ms=2)
    log.doubt()
    if done:
        store.rows |= {key: value for key, value in doubtful.items() if value is not None}
    store.commit(log, [run(3)], now_ms=3)
    store.commit(log, [run(4)], now_ms=4)
    assert store.runs() == 3 + done
    assert len(store.rows) == 2


def test_chunks_beyond_the_newest_runs_and_the_age_are_swept() -> None:
    now_ms = 10 * RUNS_AGE_MS
    old = keys.runs(now_ms - RUNS_AGE_MS - 1, "a")
    many = [(keys.runs(now_ms - 10 + number, "a"), RUNS_MAX // 2) for number in range(3)]
    assert overdue([(old, 1), *many], now_ms=now_ms) == [old, many[0][0]]
    assert overdue(many[:2], now_ms=now_ms) == []


def test_runs_are_read_newest_first_over_all_workers(backend: BrokerBackend) -> None:
    for worker, numbers in (("worker-1", range(0, 400, 2)), ("worker-2", range(1, 400, 2))):
        log = RunLog(worker)
        for number in numbers:
            puts = log.write([run(number)], now_ms=number)
            backend.transact(Transact(state=list(puts.items()), name=keys.NAME))
            log.written()
    found = read_runs(backend, limit=300)
    assert [one.started_ms for one in found] == list(range(399, 99, -1))
    assert read_runs(backend, since_ms=10**13) == []
