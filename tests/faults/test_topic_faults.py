"""Topics through power cuts and failing disks: published everywhere or nowhere, no gap, no duplicate, no body lost."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from headrace.errors import StoreError
from headrace.queue import limits
from headrace.queue.store import deleting, files, folder, journal, sqlite, wal
from headrace.queue.store.disk import PutFence, Trimmed, key_of
from headrace.queue.store.local import log_work
from headrace.testing.driver import StoreDriver
from headrace.testing.stores import SQLITE
from tests.faults.crash_states import crash_state
from tests.faults.recording import Event, never, recorded
from tests.faults.test_disk_errors import NthCall
from tests.faults.topic_promises import TopicPromises, TopicWorkload, topic_broken

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
RUNS = max(1, int(os.environ.get("HEADRACE_POWER_CUT_RUNS", "4")) // 2)
STATES_A_RUN = int(os.environ.get("HEADRACE_POWER_CUT_STATES", "100")) // 2
EVERY = 3 * int(os.environ.get("HEADRACE_DISK_ERROR_EVERY", "7"))


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is done in slices is cut between them."""
    monkeypatch.setattr(limits, "CATCH_UP_SLICE", 3)
    monkeypatch.setattr(limits, "LOG_SLICE", 4)


def record_run(root: Path, seed: int) -> list[Event]:
    root.mkdir()
    with recorded(files, folder, journal, wal, sqlite) as log:
        driver = StoreDriver(SQLITE, root)
        workload = TopicWorkload(driver, log, random.Random(seed))
        workload.set_up()
        workload.run(50)
        driver.close()
    return log.events


def cut_and_check(events: list[Event], root: Path, seed: int, *, states: int) -> list[str]:
    found = []
    for number in range(states):
        chance = random.Random(f"{seed}-{number}")
        cut = chance.randint(1, len(events))
        state = crash_state(events, cut, chance, strict=number % 2 > 0)
        promises = next((event.data for event in reversed(events[:cut]) if event.kind == "mark"), TopicPromises())
        place = root / str(number)
        place.mkdir()
        found += [
            f"seed {seed} state {number} cut {cut} of {len(events)} loose changes: {state.how}: {one}"
            for one in broken_after(promises, place, state.write_to)
        ]
    return found


def broken_after(promises: TopicPromises, place: Path, prepare: Callable[[Path], None]) -> list[str]:
    try:
        driver = StoreDriver(SQLITE, place, now_ms=promises.now_ms or None, prepare=prepare)
    except StoreError as error:
        return [f"unopened: {error}"]
    try:
        return topic_broken(promises, driver)
    except StoreError as error:
        return [f"failed: {error}"]
    finally:
        driver.close()
        shutil.rmtree(place)


def run_all(root: Path, *, runs: int) -> list[str]:
    found: list[str] = []
    for run in range(runs):
        events = record_run(root / f"run-{run}", SEED + run)
        found += cut_and_check(events, root / f"run-{run}", SEED + run, states=STATES_A_RUN)
    return found


def test_power_cut_breaks_no_promise_of_topics(memory_path: Path) -> None:
    found = run_all(memory_path, runs=RUNS)
    assert not found, "\n".join(found[:20])


@pytest.mark.parametrize(("call", "every"), [("write", EVERY), ("sync", 2)])
def test_failed_call_breaks_no_promise_of_topics(memory_path: Path, call: str, every: int) -> None:
    seen: Counter[bool] = Counter()
    found: list[str] = []
    for number in range(1, 10_000, every):
        place = memory_path / str(number)
        place.mkdir()
        with recorded(files, folder, journal, wal, sqlite) as log:
            driver = StoreDriver(SQLITE, place)
            workload = TopicWorkload(driver, log, random.Random(SEED))
            workload.set_up()
            log.fails = fault = NthCall(call, number, driver)
            failed = False
            try:
                workload.run(25)
            except StoreError:
                failed = True
            log.fails = never
            driver.close()
        seen[failed] += 1
        found += [
            f"{call} {number}: {one}" for one in _after_restart(workload.promises, driver.folder, place / "again")
        ]
        if fault.owner is None:
            break
    assert seen[True] > 5, "hardly a call failed: this run proves little"
    assert not found, "\n".join(found[:20])


def _after_restart(promises: TopicPromises, left: Path, place: Path) -> list[str]:
    def prepare(target: Path) -> None:
        shutil.copytree(left, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("reserve"))

    place.mkdir()
    return broken_after(promises, place, prepare)


def test_position_that_is_not_kept_is_caught(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test must fail when a slice of the log is given without its position, or it could not see a replay doubled."""
    monkeypatch.setattr(log_work, "PutSubscription", lambda *_: PutFence("planted", 1))
    assert any("duplicate" in one for one in run_all(memory_path, runs=1))


def test_body_deleted_too_early_is_caught(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test must fail when bodies go that queues refer to."""

    def trim(db: apsw.Connection, topic: int, *, after: int, before: int, limit: int) -> Trimmed:
        db.execute("DELETE FROM message WHERE key BETWEEN ? AND ?", (key_of(topic, after), key_of(topic, before) - 1))
        return Trimmed(0, 1, after, more=False)

    monkeypatch.setattr(deleting, "trim", trim)
    assert any("lost" in one or "taken" in one for one in run_all(memory_path, runs=1))
