"""A disk that fails: the first failed write or sync is the last; a full disk refuses sends and nothing else."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.errors import HeadraceError, StoreError, StoreFailed, StoreFull, StoreUnusable
from headrace.queue import operations as ops
from headrace.queue.model import Delivery
from headrace.queue.store import files, folder, journal, opening, sqlite, wal
from headrace.queue.store.base import Store
from headrace.testing.driver import StoreDriver, entry
from headrace.testing.stores import SQLITE
from tests.faults.promises import DEAD, FIFO, PLAIN, Promises, Workload, broken
from tests.faults.recording import DiskLog, never, recorded

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
EVERY = int(os.environ.get("HEADRACE_DISK_ERROR_EVERY", "7"))
"""The n-th write fails for n = 1, 1 + EVERY, …: 1 visits every write. Of the rarer calls every one is visited."""


@contextmanager
def disk() -> Iterator[DiskLog]:
    with recorded(files, folder, journal, wal, sqlite) as log:
        yield log


@dataclass
class NthCall:
    """Fails the `number`-th call of a kind, once: the disk works again afterwards, as disks do after a lost write."""

    call: str
    number: int
    driver: StoreDriver
    seen: int = 0
    owner: Store | None = None
    """The store that met the failure."""

    def __call__(self, call: str, _name: str, _growth: int) -> bool:
        if call != self.call:
            return False
        self.seen += 1
        if self.seen == self.number:
            self.owner = self.driver.store
        return self.seen == self.number


@dataclass
class Outcome:
    fired: bool
    broken: list[str] = field(default_factory=list)


def fail_once(root: Path, call: str, number: int) -> Outcome:
    """Run until the n-th call fails; nothing may be acknowledged afterwards, and a restart must keep every promise."""
    with disk() as log:
        driver = StoreDriver(SQLITE, root)
        workload = Workload(driver, log, random.Random(SEED))
        workload.set_up()
        log.fails = fault = NthCall(call, number, driver)
        stopped = _run_until_error(workload)
        # A failure while stopping or starting stops nothing that would have to be latched.
        running = fault.owner is driver.store and not isinstance(stopped, StoreUnusable)
        found = _not_latched(driver, stopped) if running else []
        log.fails = never
        driver.close()
    found += _broken_after_restart(root, driver.folder, workload.promises)
    return Outcome(fault.owner is not None, [f"{call} {number}: {one}" for one in found])


def _run_until_error(workload: Workload) -> StoreError | None:
    try:
        workload.run(40)
    except StoreError as error:
        return error
    return None


def _not_latched(driver: StoreDriver, stopped: StoreError | None) -> list[str]:
    """What the store still acknowledges though its disk has failed."""
    found = [] if stopped is None or isinstance(stopped, StoreFailed) else [f"answered {stopped!r}"]
    for operation in (
        ops.Send(PLAIN, [entry("late")]),
        ops.Receive(PLAIN),
        ops.Delete(PLAIN, [bytes(28)]),
        ops.Fence("job"),
        ops.Purge(DEAD),
        ops.Transact(state=[(b"k", b"v")], name="job"),
    ):
        outcome = driver.outcome(operation)
        if not isinstance(outcome, StoreFailed):
            found.append(f"after the failure {type(operation).__name__} was answered {outcome!r}")
    if driver.store.statistics().failed is None:
        found.append("the statistics do not tell of the failure")
    return found


def _broken_after_restart(root: Path, left: Path, promises: Promises) -> list[str]:
    again = root / "again"
    again.mkdir()
    driver = StoreDriver(SQLITE, again, now_ms=promises.now_ms, prepare=lambda place: _copy(left, place))
    try:
        return broken(promises, driver)
    finally:
        driver.close()


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*-shm"))


@pytest.mark.parametrize("call", ["sync", "write", "truncate"])
def test_failed_call_is_the_last(memory_path: Path, call: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="headrace")
    violations: list[str] = []
    visited = 0
    for number in range(1, 100_000, EVERY if call == "write" else 1):
        place = memory_path / str(number)
        place.mkdir()
        outcome = fail_once(place, call, number)
        violations += outcome.broken
        shutil.rmtree(place)
        if not outcome.fired:
            break
        visited += 1
    print(f"{visited} calls of {call} failed, {len(violations)} violations")
    assert visited
    assert not violations, "\n".join(violations[:20])


def test_carrying_on_after_a_failed_sync_is_caught(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same check must fail for a store that goes on after a failed sync, as SQLite itself does."""
    with disk() as log:
        driver = StoreDriver(SQLITE, memory_path)
        workload = Workload(driver, log, random.Random(SEED))
        workload.set_up()
        log.fails = NthCall("sync", 3, driver)
        stopped = _run_until_error(workload)
        monkeypatch.setattr(driver.store, "_failed", None)
        disk_of = driver.store._disk  # type: ignore[attr-defined]  # the planted bug reaches inside
        monkeypatch.setattr(disk_of, "_failed", None)
        assert _not_latched(driver, stopped)
        driver.close()


@dataclass
class Capacity:
    """A disk of `size_bytes`: a file that would grow beyond it does not."""

    folder: Path
    size_bytes: int

    def __call__(self, _call: str, _name: str, growth: int) -> bool:
        return growth > 0 and self.used() + growth > self.size_bytes

    def used(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir() if not file.name.endswith("-shm"))


@dataclass
class Drain:
    """Takes and deletes whatever there is."""

    driver: StoreDriver
    refused: list[str] = field(default_factory=list)

    def take(self, queue: str, limit: int) -> list[Delivery]:
        outcome = self.driver.outcome(ops.Receive(queue, limit))
        if isinstance(outcome, HeadraceError):
            self.refused.append(f"receive: {outcome!r}")
            return []
        deliveries: list[Delivery] = outcome
        return deliveries

    def delete(self, queue: str, deliveries: list[Delivery]) -> set[bytes]:
        outcome = self.driver.outcome(ops.Delete(queue, [one.receipt for one in deliveries]))
        if isinstance(outcome, HeadraceError) or any(one is not None for one in outcome):
            self.refused.append(f"delete: {outcome!r}")
            return set()
        return {one.message.body for one in deliveries}


def _fields(queue: str, number: int) -> dict[str, str]:
    return {"group": "g", "dedup_id": str(number)} if queue == FIFO else {}


def _fill(driver: StoreDriver, queue: str, start: int) -> tuple[set[bytes], int]:
    """Send until the disk is full; what was acknowledged, and how many sends were made."""
    sent: set[bytes] = set()
    for number in range(start, start + 20_000):
        body = b"%d:" % number + b"x" * 8_000
        outcome = driver.outcome(ops.Send(queue, [entry(body, **_fields(queue, number))]))
        if isinstance(outcome, StoreFull):
            return sent, number + 1
        assert not isinstance(outcome, HeadraceError), outcome
        sent.add(body)
    raise AssertionError("the disk is never full")


def _fill_and_free(root: Path, queue_name: str, *, cycles: int) -> tuple[list[str], int]:
    """Cycles of a disk that fills and is freed. Returns broken promises, and how many sends were refused."""
    found: list[str] = []
    refused = number = 0
    with disk() as log:
        log.errno_ = errno.ENOSPC
        driver = StoreDriver(SQLITE, root)
        queue = driver.create(queue_name)
        capacity = Capacity(driver.folder, 0)
        held: set[bytes] = set()
        for _ in range(cycles):
            capacity.size_bytes = capacity.used() + 600_000
            log.fails = capacity
            sent, number = _fill(driver, queue, number)
            held |= sent
            refused += 1
            drain = Drain(driver)
            deliveries = drain.take(queue, 30)
            held -= drain.delete(queue, deliveries[:20])
            found += drain.refused
            found += [] if deliveries else ["received nothing on a full disk"]
            capacity.size_bytes = 1 << 40
            driver.pass_time(60_000)
            again = driver.outcome(ops.Send(queue, [entry(b"%d:" % number, **_fields(queue, number))]))
            if isinstance(again, HeadraceError) or isinstance(again[0], HeadraceError):
                found.append(f"no recovery without a restart: {again!r}")
            else:
                held.add(b"%d:" % number)
            number += 1
        left = driver.folder
        shown = {one.message.body for one in driver.peek(queue)}
        found += ["lost or doubled before the restart"] if shown != held else []
        log.fails = never
        driver.crash()
        shown = {one.message.body for one in driver.peek(queue)}
        found += ["lost or doubled after the restart"] if shown != held else []
        driver.close()
    assert left.exists()
    return found, refused


@pytest.mark.parametrize("queue_name", ["q", "q.fifo"])
def test_full_disk_refuses_sends_and_nothing_else(
    memory_path: Path, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    found, refused = _fill_and_free(memory_path, queue_name, cycles=10)
    assert not found, "\n".join(found[:20])
    assert refused == 10
    lines = [record for record in caplog.records if "is full" in record.getMessage()]
    assert 1 <= len(lines) <= 11, "one log line a minute at most"


def test_fifo_lease_on_a_full_disk_survives_a_crash(memory_path: Path) -> None:
    with disk() as log:
        log.errno_ = errno.ENOSPC
        driver = StoreDriver(SQLITE, memory_path)
        queue = driver.create("q.fifo")
        for number in range(3):
            driver.send(queue, str(number), group="g", dedup_id=str(number))
        log.fails = lambda _call, _name, growth: growth > 0  # not a byte more, the reserve's room included
        outcome = driver.outcome(ops.Receive(queue, 1))
        log.fails = never
        driver.crash()
        again = driver.receive(queue, 1)
        driver.close()
    assert isinstance(outcome, StoreFull) or not again, "a group has two owners"


# Another process, because SQLite's locks are the process's.
INTRUDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_lock_held_by_another_program_is_waited_for_and_told(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_MS", 20)
    driver = StoreDriver(SQLITE, memory_path)
    queue = driver.create("q")
    program = [sys.executable, "-c", INTRUDER, str(driver.folder / "headrace.db")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as intruder:
        assert intruder.stdout is not None
        assert intruder.stdout.readline() == b"locked\n"
        outcome = driver.outcome(ops.Send(queue, [entry("x")]))
        intruder.communicate(b"")
    assert isinstance(outcome, StoreError)
    driver.send(queue, "y")
    assert [one.message.body for one in driver.peek(queue)] == [b"y"]
    driver.close()


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Not root while the test runs: root writes into read-only folders."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("used_before", [False, True])
def test_read_only_folder_is_refused_with_the_reason(
    memory_path: Path, used_before: bool, request: pytest.FixtureRequest
) -> None:
    folder_ = memory_path / "data"
    folder_.mkdir()
    if used_before:
        sqlite.open_store(folder_)[0].close()
    memory_path.chmod(0o755)
    for path in folder_.iterdir():
        path.chmod(0o444)
    folder_.chmod(0o555)
    request.getfixturevalue("unprivileged")
    with pytest.raises(StoreUnusable, match="denied"):
        sqlite.open_store(folder_)


def test_second_owner_is_refused(memory_path: Path) -> None:
    driver = StoreDriver(SQLITE, memory_path)
    with pytest.raises(StoreUnusable, match="another broker"):
        sqlite.open_store(driver.folder)
    driver.send(driver.create("q"), "x")
    driver.close()
