"""Power cuts: whatever of the unsynced writes is lost, torn or reordered, no promise is broken."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from headrace.clock import ManualClock
from headrace.errors import StoreError
from headrace.queue.store import files, folder, journal, sqlite, wal
from headrace.queue.store.base import Store
from headrace.testing.driver import StoreDriver, StoreKind
from headrace.testing.stores import SQLITE
from tests.faults.crash_states import CrashState, crash_state
from tests.faults.promises import Promises, Workload, broken
from tests.faults.recording import Event, recorded

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
RUNS = int(os.environ.get("HEADRACE_POWER_CUT_RUNS", "4"))
STATES_A_RUN = int(os.environ.get("HEADRACE_POWER_CUT_STATES", "100"))


@dataclass
class Tally:
    """What was seen over many crash states."""

    states: int = 0
    loose: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, state: CrashState, found: list[str]) -> None:
        self.states += 1
        self.loose += state.loose > 0
        for one in found:
            self.violations[one.partition(" ")[0]] += 1
            self.examples.append(f"{where}: {one}")


def _open_with_long_wal(place: Path, clock: ManualClock, cooldowns: bool) -> Store:
    return sqlite.open_store(place, cooldowns=cooldowns, clock=clock, wal_bytes=300_000)[0]


LONG_WAL = StoreKind("sqlite with a WAL made beforehand", _open_with_long_wal, durable=True, in_files=True)
"""As it is in use, only shorter: commits write over zeros first, and grow the file later in the run."""


def kind_of(seed: int) -> StoreKind:
    return LONG_WAL if seed % 2 else SQLITE


def record_run(root: Path, seed: int, *, steps: int = 60) -> list[Event]:
    """A random workload's disk log, its promises marked."""
    with recorded(files, folder, journal, wal, sqlite) as log:
        driver = StoreDriver(kind_of(seed), root)
        workload = Workload(driver, log, random.Random(seed))
        workload.set_up()
        workload.run(steps)
        driver.close()
    return log.events


def cut_and_check(events: list[Event], root: Path, seed: int, *, states: int, strict: bool) -> Tally:
    tally = Tally()
    for number in range(states):
        chance = random.Random(f"{seed}-{strict}-{number}")
        cut = chance.randint(1, len(events))
        state = crash_state(events, cut, chance, strict=strict)
        where = f"seed {seed} strict {strict} state {number} cut {cut} of {len(events)} loose changes: {state.how}"
        place = root / f"{seed}-{strict}-{number}"
        place.mkdir()
        tally.add(where, state, judge(events[:cut], state, place, kind_of(seed)))
        shutil.rmtree(place)  # 8 MiB of memory a state: a long run has thousands
    return tally


def judge(before: list[Event], state: CrashState, place: Path, kind: StoreKind) -> list[str]:
    """Open the store that the power cut left and count broken promises."""
    promises = next((event.data for event in reversed(before) if event.kind == "mark"), Promises())
    now_ms = promises.now_ms or None
    try:
        driver = StoreDriver(kind, place, now_ms=now_ms, prepare=state.write_to)
    except StoreError as error:
        return [f"unopened: {error}"]
    try:
        return broken(promises, driver)
    except StoreError as error:
        return [f"failed: {error}"]
    finally:
        driver.close()


def run_all(root: Path, *, runs: int, states: int, seed: int = SEED) -> Tally:
    total = Tally()
    for run in range(runs):
        place = root / f"run-{run}"
        place.mkdir()
        events = record_run(place, seed + run)
        for strict in (False, True):
            tally = cut_and_check(events, place, seed + run, states=states, strict=strict)
            total.states += tally.states
            total.loose += tally.loose
            total.violations += tally.violations
            total.examples += tally.examples
    return total


@pytest.mark.timeout(900)  # on a machine busy with other tests
def test_power_cut_breaks_no_promise(memory_path: Path) -> None:
    tally = run_all(memory_path, runs=RUNS, states=STATES_A_RUN)
    print(f"{tally.states} crash states, {tally.loose} with loose writes, violations {dict(tally.violations)}")
    assert tally.loose > tally.states / 4, "too few states with loose writes: this run proves little"
    assert not tally.violations, "\n".join(tally.examples[:20])


def test_weaker_sync_is_caught(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test must fail with synchronous=NORMAL, or it could not see a lost commit."""
    connect = sqlite.SqliteDisk._connect

    def weaker(self: sqlite.SqliteDisk, vfs: str | None) -> apsw.Connection:
        connection = connect(self, vfs)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    monkeypatch.setattr(sqlite.SqliteDisk, "_connect", weaker)
    tally = run_all(memory_path, runs=1, states=40)
    assert tally.violations.keys() & {"lost", "unopened:", "failed:"}


def test_unsynced_fifo_lease_is_caught(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test must fail when FIFO leases are only written, or it could not see two owners of a group."""
    monkeypatch.setattr(journal.LeaseJournal, "sync", lambda self: None)
    tally = run_all(memory_path, runs=2, states=40)
    assert tally.violations["group"] > 0
