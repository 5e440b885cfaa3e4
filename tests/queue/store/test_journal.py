from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path
from zlib import crc32

import pytest

from headrace.clock import SteadyClock
from headrace.queue.store.disk import LeaseRecord
from headrace.queue.store.folder import Folder, Noted
from headrace.queue.store.journal import LeaseJournal, frame, head, number_of, parse
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.stores import SQLITE

HOUR_MS = 3_600_000
HEAD_BYTES = len(head(1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases.journal"


def record(number: int) -> LeaseRecord:
    return LeaseRecord(
        1, 1_000 + number, 2_000 + number, [(number, 1, 1_000)], f"attempt-{number}" if number % 3 else None
    )


def written(path: Path, count: int) -> list[LeaseRecord]:
    """A journal of so many records, one flush each."""
    journal = LeaseJournal(path)
    records = [record(number) for number in range(count)]
    for one in records:
        journal.note(one)
        journal.flush()
    journal.close()
    return records


def reopened(path: Path, noted: Noted | None = None) -> tuple[list[LeaseRecord], bool]:
    """(what a journal reads, whether it says that leases are lost)."""
    journal = LeaseJournal(path, noted)
    journal.close()
    return journal.records, journal.lost


def noted_of(path: Path) -> Noted:
    """What a broker notes after all of the journal was synced."""
    data = path.read_bytes()
    return Noted(journal=number_of(data) or 0, journal_bytes=len(data))


def test_records_come_back_in_order(path: Path) -> None:
    records = written(path, 10)
    assert reopened(path) == (records, False)
    assert reopened(path, noted_of(path)) == (records, False)


def test_noted_records_are_written_by_flush_only(path: Path) -> None:
    journal = LeaseJournal(path)
    journal.note(record(1))
    assert parse(path.read_bytes()).records == []
    journal.flush()
    journal.sync()
    assert parse(path.read_bytes()).records == [record(1)]
    journal.note(record(2))
    journal.forget_noted()
    journal.flush()
    assert parse(path.read_bytes()).records == [record(1)]
    journal.close()


def test_snapshot_replaces_the_file_and_gives_it_a_number_of_its_own(path: Path) -> None:
    written(path, 10)
    journal = LeaseJournal(path)
    before = journal.number
    journal.snapshot([record(3)])
    journal.note(record(4))
    journal.flush()
    journal.close()
    assert reopened(path) == ([record(3), record(4)], False)
    assert number_of(path.read_bytes()) == journal.number != before


@pytest.mark.parametrize("cut", [1, 5, 9, 20])
def test_torn_tail_is_no_loss(path: Path, cut: int) -> None:
    records = written(path, 5)
    path.write_bytes(path.read_bytes()[:-cut])
    assert reopened(path) == (records[:-1], False)
    assert reopened(path) == (records[:-1], False)


def test_short_journal_is_a_loss_if_more_of_it_was_synced(path: Path) -> None:
    records = written(path, 5)
    noted = noted_of(path)
    path.write_bytes(path.read_bytes()[:-3])
    assert reopened(path, noted) == (records[:-1], True)


def test_note_of_another_journal_says_nothing_about_this_one(path: Path) -> None:
    """A power cut between a snapshot and its note."""
    records = written(path, 5)
    assert reopened(path, Noted(journal=1, journal_bytes=10_000)) == (records, False)


def test_damaged_byte_anywhere_loses_at_most_one_record_and_is_told(path: Path) -> None:
    records = written(path, 6)
    good, noted = path.read_bytes(), noted_of(path)
    for position in range(len(good)):
        data = bytearray(good)
        data[position] ^= 0xFF
        path.write_bytes(data)
        found, lost = reopened(path, noted)
        assert [one for one in found if one not in records] == []
        assert len(found) >= len(records) - 1, position
        assert lost == (len(found) < len(records)), position
        assert reopened(path, noted_of(path)) == (found, False), "what was repaired is told once"


def test_damaged_beginning_loses_nothing(path: Path) -> None:
    records = written(path, 3)
    data = bytearray(path.read_bytes())
    data[:HEAD_BYTES] = bytes(HEAD_BYTES)
    path.write_bytes(data)
    assert reopened(path) == (records, False)
    assert number_of(path.read_bytes()) is not None


def test_records_behind_a_lost_sector_are_found(path: Path) -> None:
    records = written(path, 60)
    data = bytearray(path.read_bytes())
    data[512:1_024] = random.Random(1).randbytes(512)
    path.write_bytes(data)
    found, lost = reopened(path)
    assert lost
    assert found[-1] == records[-1]
    assert len(found) >= 60 - 512 // len(frame(record(1))) - 2


def test_length_beyond_the_file_is_damage_and_not_memory(path: Path) -> None:
    records = written(path, 4)
    data = bytearray(path.read_bytes())
    data[HEAD_BYTES : HEAD_BYTES + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert reopened(path) == (records[1:], True)


def test_payload_that_is_no_record_is_damage(path: Path) -> None:
    payload = b"\x95junk"
    data = head(7) + len(payload).to_bytes(4, "little") + crc32(payload).to_bytes(4, "little") + payload
    path.write_bytes(data + frame(record(1)))
    assert reopened(path) == ([record(1)], True)


# --- in a store ---


def fifo_store(root: Path) -> tuple[StoreDriver, str]:
    """Three groups of two messages; the head of each is in flight, for a minute, an hour and a minute."""
    driver = StoreDriver(SQLITE, root)
    queue = driver.create("q.fifo")
    plain = driver.create("plain")
    driver.send(plain, "plain")
    driver.send_all(
        queue, [entry(f"{group}{n}", group=group, dedup_id=f"{group}{n}") for n in (1, 2) for group in "abc"]
    )
    for visibility_ms in (60_000, HOUR_MS, 60_000):
        driver.receive(queue, 1, visibility_ms=visibility_ms)
    return driver, queue


def damaged_copy(driver: StoreDriver, root: Path, *, record_hit: int) -> StoreDriver:
    """A store killed and with one record of its lease journal damaged."""
    content = bytearray((driver.folder / "leases.journal").read_bytes())
    positions = [HEAD_BYTES]
    for one in parse(bytes(content)).records:
        positions.append(positions[-1] + len(frame(one)))
    content[positions[record_hit] + 12] ^= 1

    def prepare(folder: Path) -> None:
        shutil.copytree(driver.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*-shm"))
        (folder / "leases.journal").write_bytes(content)

    root.mkdir()
    return StoreDriver(SQLITE, root, now_ms=driver.clock(), prepare=prepare)


@pytest.mark.parametrize("record_hit", [0, 1, 2])
def test_lost_fifo_lease_closes_fifo_queues_until_the_last_lease_ends(tmp_path: Path, record_hit: int) -> None:
    driver, queue = fifo_store(tmp_path)
    again = damaged_copy(driver, tmp_path / "again", record_hit=record_hit)
    assert again.receive(queue) == []
    assert bodies(again.receive("arn:aws:sqs:us-east-1:000000000000:plain")) == ["plain"]
    again.pass_time(59 * 60_000)
    again.reopen()  # the closure survives a restart
    assert again.receive(queue) == []
    again.pass_time(60_000)
    assert sorted(bodies(again.receive(queue))) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    again.close()
    driver.close()


def test_closed_fifo_queue_still_takes_messages_and_deletes(tmp_path: Path) -> None:
    driver, queue = fifo_store(tmp_path)
    again = damaged_copy(driver, tmp_path / "again", record_hit=0)
    again.send(queue, "d1", group="d", dedup_id="d1")
    assert again.receive(queue) == []
    assert again.counts(queue).visible == 5
    again.pass_time(HOUR_MS)
    assert "d1" in bodies(again.receive(queue))
    again.close()
    driver.close()


def test_without_a_note_fifo_queues_are_closed_for_the_longest_lease(tmp_path: Path) -> None:
    driver, queue = fifo_store(tmp_path)
    (driver.folder / "acknowledged").write_bytes(b"")
    again = damaged_copy(driver, tmp_path / "again", record_hit=0)
    again.pass_time(HOUR_MS)
    assert again.receive(queue) == []
    again.close()
    driver.close()


# --- what is noted beside ---


def test_damaged_note_is_told_and_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noted = Noted(5, 6, 7, 8, 9)
    folder = Folder(tmp_path)
    assert folder.noted() is None
    folder.note(noted)
    assert folder.noted() == noted
    good = folder.acknowledged_path.read_bytes()
    caplog.set_level(logging.WARNING, logger="headrace")
    for position in range(len(good)):
        data = bytearray(good)
        data[position] ^= 0x10
        folder.acknowledged_path.write_bytes(data)
        assert folder.noted() is None
    assert len(caplog.records) == 1
    folder.close()


def test_damaged_clock_is_not_believed(tmp_path: Path) -> None:
    """A flipped digit may be two hundred years."""
    driver = StoreDriver(SQLITE, tmp_path)
    driver.close()
    folder = Folder(driver.folder)
    anchor = SteadyClock().anchor()
    folder.keep_anchor(anchor)
    assert folder.anchor() == anchor
    path = driver.folder / "clock.json"
    good = path.read_bytes()
    for position in range(len(good)):
        for value in (0x01, 0x08, 0x80):
            data = bytearray(good)
            data[position] ^= value
            path.write_bytes(data)
            assert folder.anchor() in (None, anchor)
    folder.close()
