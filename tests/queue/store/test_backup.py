"""A backup is one moment of a store, whole or not there; what is restored goes on as the store would have."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import headrace
from headrace.errors import ReceiptExpired, StateChanged, StoreDamaged, StoreFull, StoreUnusable
from headrace.queue import operations as ops
from headrace.queue.model import arn_of, topic_arn_of
from headrace.queue.store import backup, files
from headrace.queue.store.backup import restore, take_backup
from headrace.queue.store.loading import read_commit
from headrace.queue.store.manifest import Manifest
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.stores import SQLITE
from tests.broker_process import broker, environment, wait_until

HOUR_MS: Final = 3_600_000
PLAIN, FIFO, TOPIC = arn_of("plain"), arn_of("q.fifo"), topic_arn_of("t")


def ignore(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def take(data: Path, target: Path, **how: Any) -> Manifest:
    return take_backup(data, target, version="1", progress=ignore, **how)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[StoreDriver]:
    (tmp_path / "live").mkdir()
    one = StoreDriver(SQLITE, tmp_path / "live")
    yield one
    one.close()


@pytest.fixture
def restored(driver: StoreDriver, tmp_path: Path) -> Iterator[Callable[[], StoreDriver]]:
    """Takes a backup of the running store, restores it and opens that."""
    opened: list[StoreDriver] = []

    def go() -> StoreDriver:
        take(driver.folder, tmp_path / "backup")
        restore(tmp_path / "backup", tmp_path / "again", progress=ignore)
        root = tmp_path / "opened"
        root.mkdir()
        opened.append(StoreDriver(SQLITE, root, now_ms=driver.clock(), prepare=_from(tmp_path / "again")))
        return opened[0]

    yield go
    for one in opened:
        one.close()


def _from(folder: Path) -> Callable[[Path], None]:
    def prepare(target: Path) -> None:
        shutil.copytree(folder, target, dirs_exist_ok=True)

    return prepare


# --- what is in it ---


def test_restored_store_has_messages_leases_groups_and_dedup_ids_of_the_moment(
    driver: StoreDriver, restored: Callable[[], StoreDriver]
) -> None:
    driver.create("plain", visibility_ms=HOUR_MS)
    driver.create("q.fifo")
    driver.send_all(PLAIN, [entry("taken"), entry("waits"), entry("later", delay_ms=60_000)])
    driver.send_all(FIFO, [entry(str(n), group="g", dedup_id=str(n)) for n in range(3)])
    taken = driver.receive_one(PLAIN, visibility_ms=HOUR_MS)
    locked = driver.receive_one(FIFO, visibility_ms=HOUR_MS)
    again = restored()
    driver.send(PLAIN, "after the backup")
    assert bodies(again.receive(PLAIN)) == ["waits"]
    assert again.receive(FIFO) == []  # the group is locked still
    again.send(FIFO, "other", group="g", dedup_id="1")  # a known id: not stored
    assert again.delete(FIFO, locked.receipt) == [None]  # receipts of before are good
    assert bodies(again.receive(FIFO)) == ["1", "2"]
    assert again.delete(PLAIN, taken.receipt) == [None]
    again.pass_time(60_000)
    assert bodies(again.receive(PLAIN)) == ["later"]
    assert again.run(ops.GetQueue(PLAIN)).info.settings.visibility_ms == HOUR_MS


def test_restored_store_has_state_fences_claims_and_topics(
    driver: StoreDriver, restored: Callable[[], StoreDriver]
) -> None:
    driver.create("plain")
    driver.run(ops.CreateTopic(TOPIC, {"retention_ms": HOUR_MS}))
    driver.run(ops.Subscribe(TOPIC, PLAIN))
    driver.send_all(TOPIC, [entry("published")])
    epoch = driver.run(ops.Fence("job"))
    driver.run(ops.Transact(state=[(b"k", b"v")], name="job", epoch=epoch))
    driver.run(ops.Claim(PLAIN, "reader", 1, 10))
    again = restored()
    driver.run(ops.Transact(state=[(b"k", b"changed since")], name="job", epoch=epoch))
    assert again.run(ops.GetState("job")) == [(b"k", b"v")]
    assert isinstance(again.outcome(ops.Transact(name="job", expect=[(b"k", b"w")])), StateChanged)
    assert again.run(ops.Fence("job")) == epoch + 1
    assert [one.body for one in again.run(ops.Claim(PLAIN, "reader", 1, 10))] == [b"published"]
    assert again.run(ops.GetTopic(TOPIC)).counts.logged == 1


def test_message_consumed_since_the_backup_is_there_again_and_its_old_receipt_works_no_more_than_its_lease(
    driver: StoreDriver, restored: Callable[[], StoreDriver]
) -> None:
    driver.create("plain")
    driver.send(PLAIN, "one")
    taken = driver.receive_one(PLAIN, visibility_ms=1_000)
    again = restored()
    assert driver.delete(PLAIN, taken.receipt) == [None]
    again.pass_time(1_000)
    assert bodies(again.receive(PLAIN)) == ["one"]
    assert isinstance(again.delete(PLAIN, taken.receipt)[0], ReceiptExpired | None)


def test_backup_of_a_stopped_and_of_a_killed_store_has_its_messages(driver: StoreDriver, tmp_path: Path) -> None:
    driver.create("plain")
    driver.send(PLAIN, "one")
    shutil.copytree(driver.folder, tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm"))
    assert take(tmp_path / "killed", tmp_path / "of-killed").messages == 1
    driver.close()
    before = {path.name: path.read_bytes() for path in driver.folder.iterdir() if path.suffix != ".db-shm"}
    assert take(driver.folder, tmp_path / "of-stopped").messages == 1
    assert {name: (driver.folder / name).read_bytes() for name in before} == before


def test_lease_journal_that_is_replaced_meanwhile_is_read_with_a_new_moment(
    driver: StoreDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.create("plain")
    driver.send(PLAIN, "one")
    moments: list[tuple[int, int]] = []

    def replaced(db: apsw.Connection) -> tuple[int, int]:
        moments.append(read_commit(db))
        if len(moments) == 1:
            files.replace(driver.folder / "leases.journal", (driver.folder / "leases.journal").read_bytes())
            driver.send(PLAIN, "two")
        return moments[-1]

    monkeypatch.setattr(backup, "read_commit", replaced)
    assert take(driver.folder, tmp_path / "backup").messages == 2
    assert moments[1][0] > moments[0][0]


# --- what is refused ---


def test_backup_and_restore_write_over_nothing(driver: StoreDriver, tmp_path: Path) -> None:
    driver.create("plain")
    (tmp_path / "target").mkdir()
    take(driver.folder, tmp_path / "target")  # empty: that is nothing
    with pytest.raises(StoreUnusable, match="not an empty folder"):
        take(driver.folder, tmp_path / "target")
    with pytest.raises(StoreUnusable, match="not an empty folder"):
        restore(tmp_path / "target", driver.folder, progress=ignore)


@pytest.mark.parametrize("name", ["headrace.db", "leases.journal", "acknowledged"])
def test_restore_of_a_damaged_backup_is_refused_and_makes_nothing(
    driver: StoreDriver, tmp_path: Path, name: str
) -> None:
    driver.create("plain")
    driver.send(PLAIN, "x" * 5_000)
    driver.receive(PLAIN)
    take(driver.folder, tmp_path / "backup")
    damaged = tmp_path / "backup" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(StoreDamaged, match=name):
        restore(tmp_path / "backup", tmp_path / "again", progress=ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "live"]


def test_damage_in_the_store_is_found_by_the_backup_and_none_is_made(driver: StoreDriver, tmp_path: Path) -> None:
    driver.create("plain")
    driver.send(PLAIN, "x" * 200)
    driver.close()
    database = driver.folder / "headrace.db"
    database.write_bytes(database.read_bytes().replace(b"x" * 200, b"x" * 199 + b"y"))
    with pytest.raises(StoreDamaged, match=r"1 findings, .*checksum is wrong \(message 1 of plain\)"):
        take(driver.folder, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    assert take(driver.folder, tmp_path / "backup", verify=False).messages == 1


def test_folder_without_a_store_and_backup_without_a_manifest_are_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"no headrace\.db"):
        take(tmp_path, tmp_path / "backup")
    with pytest.raises(StoreUnusable, match="no backup of headrace"):
        restore(tmp_path, tmp_path / "again", progress=ignore)


# --- full disks, bounds ---


def test_full_disk_leaves_no_backup(driver: StoreDriver, tmp_path: Path) -> None:
    driver.create("plain")

    def full(_seconds: float) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with pytest.raises(StoreFull, match="backup"):
        take(driver.folder, tmp_path / "backup", rate_bytes_s=1, sleep=full)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


def test_full_disk_leaves_no_restored_store(
    driver: StoreDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.create("plain")
    take(driver.folder, tmp_path / "backup")

    def full(_fd: int, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(StoreFull):
        restore(tmp_path / "backup", tmp_path / "again", progress=ignore)
    assert not (tmp_path / "again").exists() and not (tmp_path / "again.partial").exists()


def test_rate_bounds_what_is_copied_in_a_second(driver: StoreDriver, tmp_path: Path) -> None:
    driver.create("plain")
    driver.send_all(PLAIN, [entry("x" * 200_000) for _ in range(20)])
    waited: list[float] = []
    take(driver.folder, tmp_path / "backup", rate_bytes_s=1_000_000, sleep=waited.append)
    assert sum(waited) > 4 and max(waited) < 60


# --- real processes ---


def test_backup_under_load_has_every_message_acknowledged_before_and_none_twice(tmp_path: Path) -> None:
    data, acknowledged, stop = tmp_path / "data", list[int](), threading.Event()
    with broker(data) as running:

        def produce() -> None:
            with headrace.connect(running.url) as client:
                queue = client.queue("load", create=True)
                number = 0
                while not stop.is_set():
                    queue.send_many([{"n": n, "pad": "x" * 2_000} for n in range(number, number + 10)])
                    acknowledged.extend(range(number, number + 10))
                    number += 10

        producer = threading.Thread(target=produce)
        producer.start()
        try:
            wait_until(lambda: len(acknowledged) > 300)
            before = len(acknowledged)
            take(data, tmp_path / "backup", rate_bytes_s=2 * 1_048_576)
            assert len(acknowledged) > before  # it went on meanwhile
        finally:
            stop.set()
            producer.join()
    restore(tmp_path / "backup", tmp_path / "again", progress=ignore)
    with broker(tmp_path / "again") as running, headrace.connect(running.url) as client:
        queue, numbers = client.queue("load"), list[int]()
        while messages := queue.receive(1_000, wait=0):
            numbers += [message.json()["n"] for message in messages]
            queue.delete(messages)
    assert numbers == list(range(len(numbers))) and len(numbers) >= before


def _killed(*arguments: str, partial: Path) -> None:
    """Run a command and kill it when it has begun."""
    process = subprocess.Popen([sys.executable, "-m", "headrace", *arguments], env=environment())
    try:
        wait_until((partial / "headrace.db").exists)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_killed_backup_leaves_none_and_the_next_one_is_whole(driver: StoreDriver, tmp_path: Path) -> None:
    driver.create("plain")
    driver.send_all(PLAIN, [entry("x" * 200_000) for _ in range(20)])
    partial = tmp_path / "backup.partial"
    _killed("backup", str(driver.folder), str(tmp_path / "backup"), "--rate", "1MiB", partial=partial)
    assert partial.exists() and not (tmp_path / "backup").exists()
    driver.send(PLAIN, "the store goes on")
    assert take(driver.folder, tmp_path / "backup").messages == 21
    assert not partial.exists()
