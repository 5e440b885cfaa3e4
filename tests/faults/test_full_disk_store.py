"""A full disk, simulated: no byte more than the test allows, and a clock that only the test moves."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from headrace.errors import HeadraceError, StoreFailed, StoreFull, StoreUnusable
from headrace.queue import operations as ops
from headrace.queue.store import files, folder, journal, sqlite, wal
from headrace.queue.store.disk import LeaseRecord
from headrace.queue.store.folder import MIB, RESERVE_MIN_BYTES, Folder
from headrace.queue.store.journal import LeaseJournal
from headrace.testing.driver import StoreDriver, entry
from headrace.testing.stores import SQLITE
from tests.faults.recording import DiskLog, never, recorded

BODY = b"x" * 100_000


class SmallDisk:
    """A disk on which our files have so many bytes: those that would grow beyond fail, and what the system says is free
    agrees."""

    def __init__(self, log: DiskLog, place: Path, size_bytes: int) -> None:
        self.log = log
        self.place = place
        self.total_bytes = self.size_bytes = size_bytes
        log.fails = self.fails

    def fails(self, call: str, _name: str, growth: int) -> bool:
        return call == "write" and growth > 0 and growth > self.free()

    def free(self) -> int:
        used = sum(file.stat().st_size for file in self.place.rglob("*") if file.is_file() and "shm" not in file.name)
        return max(0, self.size_bytes - used)


@pytest.fixture
def disk(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    with recorded(files, folder, journal, wal, sqlite) as log:
        log.errno_ = errno.ENOSPC
        small = SmallDisk(log, memory_path, 40 * MIB)
        monkeypatch.setattr(files, "free_bytes", lambda _path: small.free())
        monkeypatch.setattr(files, "total_bytes", lambda _path: small.total_bytes)
        yield small
        log.fails = never


def fill(driver: StoreDriver, queue: str) -> int:
    """Send until the disk is full; how many messages were stored."""
    for number in range(1_000):
        outcome = driver.outcome(ops.Send(queue, [entry(BODY)]))
        if isinstance(outcome, HeadraceError):
            assert isinstance(outcome, StoreFull)
            return number
    raise AssertionError("the disk is never full")


def accepts(driver: StoreDriver, queue: str) -> bool:
    outcome = driver.outcome(ops.Send(queue, [entry("small")]))
    assert not isinstance(outcome, HeadraceError) or isinstance(outcome, StoreFull)
    return not isinstance(outcome, StoreFull)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_space_that_deletes_make_within_the_database_is_space(
    disk: SmallDisk, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk.log.errno_ = number
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q")
    stored = fill(driver, queue)
    driver.pass_time(2_000)
    assert not accepts(driver, queue), "nothing was freed"
    driver.run(ops.Delete(queue, [one.receipt for one in driver.receive(queue, 10)]))
    driver.pass_time(2_000)
    assert not accepts(driver, queue), "less was freed than what sends are accepted with"
    while driver.peek(queue):
        driver.run(ops.Delete(queue, [one.receipt for one in driver.receive(queue, 10)]))
    driver.pass_time(1_000)
    assert accepts(driver, queue)
    assert stored * len(BODY) > 15 * MIB
    actions = [getattr(record, "action", "") for record in caplog.records if record.name == "headrace.store"]
    assert actions == ["store.full", "store.not_full"]
    driver.close()


def test_purge_makes_space(disk: SmallDisk) -> None:
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q")
    fill(driver, queue)
    driver.run(ops.Purge(queue))
    driver.pass_time(1_000)
    assert accepts(driver, queue)
    driver.close()


def test_deletes_go_on_without_any_space(disk: SmallDisk) -> None:
    """Beyond the length of the WAL, which a checkpoint lets be used again from its start."""
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q")
    stored = fill(driver, queue)
    receipts = [one.receipt for _ in range(stored // 10) for one in driver.receive(queue, 10)]
    disk.size_bytes = 0
    writes = sum(event.kind == "write" for event in disk.log.events)
    for receipt in receipts:
        assert driver.outcome(ops.Delete(queue, [receipt])) == [None]
    assert sum(event.kind == "write" for event in disk.log.events) - writes > len(receipts)
    disk.size_bytes = 1_000 * MIB
    driver.crash()
    assert len(driver.peek(queue, limit=1_000)) == stored - len(receipts)
    driver.close()


def test_each_commit_gives_the_database_the_space_that_a_checkpoint_needs(disk: SmallDisk) -> None:
    driver = StoreDriver(SQLITE, disk.place)
    fill(driver, driver.create("q"))
    with contextlib.closing(apsw.Connection(str(driver.folder / "headrace.db"))) as connection:
        ((pages,),) = connection.execute("PRAGMA page_count")
    assert pages * 4_096 > 15 * MIB
    assert (driver.folder / "headrace.db").stat().st_size >= pages * 4_096
    driver.close()


def test_only_a_queue_that_is_there_can_be_created_on_a_full_disk(disk: SmallDisk) -> None:
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q")
    fill(driver, queue)
    assert not isinstance(driver.outcome(ops.CreateQueue(queue)), HeadraceError)
    assert isinstance(driver.outcome(ops.CreateQueue(queue + "2")), StoreFull)
    driver.close()


def test_transaction_that_acknowledges_goes_on_and_one_that_only_stores_does_not(disk: SmallDisk) -> None:
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q")
    fill(driver, queue)
    one, other = driver.receive(queue, 2)
    small, large = (b"result", b"r" * 500), (b"result", b"r" * 50_000)
    refused = [
        ops.Transact(state=[small], name="job"),
        ops.Transact([(queue, [one.receipt])], state=[large], name="job"),
        ops.Transact([(queue, [one.receipt])], [(queue, [entry("next")])], name="job"),
    ]
    for operation in refused:
        assert isinstance(driver.outcome(operation), StoreFull)
    accepted = ops.Transact([(queue, [one.receipt, other.receipt])], state=[small], name="job")
    assert not isinstance(driver.outcome(accepted), HeadraceError)
    assert driver.run(ops.GetState("job")) == [small]
    driver.close()


def test_failed_sync_is_the_end_though_the_disk_is_full(disk: SmallDisk) -> None:
    """After it nobody knows what the disk has, whatever the error's number."""
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q.fifo")
    driver.send(queue, "1", group="g", dedup_id="1")
    disk.log.fails = lambda call, _name, _growth: call == "sync"
    assert isinstance(driver.outcome(ops.Receive(queue)), StoreFailed)
    disk.log.fails = never
    assert isinstance(driver.outcome(ops.Delete(queue, [bytes(28)])), StoreFailed)
    driver.close()


def test_durable_commit_is_not_refused_because_it_could_not_be_noted(disk: SmallDisk) -> None:
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q")
    disk.log.fails = lambda _call, name, _growth: name == "acknowledged"
    driver.send(queue, "1")
    disk.log.fails = disk.fails
    driver.send(queue, "2")
    driver.crash()
    assert [one.message.body for one in driver.peek(queue)] == [b"1", b"2"]
    driver.close()


def test_lease_journal_is_compacted_early_on_a_full_disk(disk: SmallDisk) -> None:
    driver = StoreDriver(SQLITE, disk.place)
    queue = driver.create("q", visibility_ms=1_000)
    fill(driver, queue)
    largest = 0
    for _ in range(1_000):
        assert driver.receive(queue, 10)
        largest = max(largest, (driver.folder / "leases.journal").stat().st_size)
        driver.pass_time(1_000)
    assert largest < 2 * journal.TIGHT_SNAPSHOT_MIN_BYTES
    driver.close()


def test_journal_that_could_not_be_replaced_goes_on_as_it_was(disk: SmallDisk) -> None:
    leases = LeaseJournal(disk.place / "leases.journal")
    number = leases.number
    leases.note(LeaseRecord(1, 0, 1_000, [(1, 1, 0)]))
    leases.flush()
    disk.log.fails = lambda call, name, _growth: call == "write" and name.endswith(".new")
    with pytest.raises(OSError, match="ENOSPC"):
        leases.snapshot([])
    disk.log.fails = never
    assert leases.number == number
    assert not (disk.place / "leases.journal.new").exists(), "half a file takes the room that others need"
    leases.close()
    again = LeaseJournal(disk.place / "leases.journal")
    assert [record.queue for record in again.records] == [1]
    again.close()


@pytest.mark.parametrize(("total_mib", "reserve_mib"), [(6, 1), (16, 2), (64, 8), (100_000, 8)])
def test_reserve_is_a_part_of_a_small_disk(disk: SmallDisk, total_mib: int, reserve_mib: int) -> None:
    disk.total_bytes = disk.size_bytes = total_mib * MIB
    data = Folder(disk.place / "data")
    assert data.keep_reserve()
    assert (disk.place / "data" / "reserve").stat().st_size == reserve_mib * MIB
    data.close()


def test_reserve_is_not_kept_where_there_is_no_room_beyond_it_or_for_itself(disk: SmallDisk) -> None:
    disk.total_bytes = 64 * MIB
    data = Folder(disk.place / "data")
    disk.size_bytes -= disk.free() - 11 * MIB
    assert not data.keep_reserve()
    assert data.keep_reserve(unused_bytes=40 * MIB)
    data.free_reserve()
    disk.size_bytes -= disk.free() - RESERVE_MIN_BYTES + 1
    assert not data.keep_reserve(unused_bytes=40 * MIB), "leases cannot be written into the database"
    data.close()


def test_new_store_needs_room_and_an_old_one_is_opened_on_any_disk(disk: SmallDisk) -> None:
    disk.total_bytes = disk.size_bytes = 16 * MIB
    with pytest.raises(StoreUnusable, match=r"needs 25\.6 MiB of free disk space, and 1[56]\.\d MiB are free"):
        sqlite.open_store(disk.place / "data")
    disk.total_bytes = disk.size_bytes = 40 * MIB
    sqlite.open_store(disk.place / "data")[0].close()
    disk.size_bytes = 8 * MIB
    store, _ = sqlite.open_store(disk.place / "data")
    store.advance()
    assert store.statistics().full
    store.close()


def test_new_store_beyond_a_quota_is_refused_with_the_same_words(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has space, its owner has none: only the write says so."""
    disk.log.errno_ = errno.EDQUOT
    disk.total_bytes = disk.size_bytes = 16 * MIB
    monkeypatch.setattr(files, "free_bytes", lambda _path: 1_000 * MIB)
    with pytest.raises(StoreUnusable, match="MiB of them are for the write-ahead log"):
        sqlite.open_store(disk.place / "data")
