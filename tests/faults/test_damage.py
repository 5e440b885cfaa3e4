"""Bit rot: flipped bytes in the database, its WAL and the lease journal of a stopped or killed store.

Messages that were hit are reported and never delivered damaged; no others are lost. A store that cannot tell which were hit
refuses to open, with the reason, and keeps a copy: that is a report too, and never silence.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw
import pytest

from headrace.errors import StoreDamaged, StoreError
from headrace.queue import operations as ops
from headrace.testing.driver import StoreDriver, entry
from headrace.testing.stores import SQLITE

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
FLIPS = int(os.environ.get("HEADRACE_FLIPS", "40"))
MESSAGES: Final = 40
BODY_BYTES: Final = 3_000


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="headrace")


@dataclass
class Tally:
    """What became of many damaged stores."""

    opened: int = 0
    refused: int = 0
    harmless: int = 0
    hit: int = 0
    violations: list[str] = field(default_factory=list)


def _bodies() -> dict[bytes, bytes]:
    """Number -> body: long enough that every few bodies there is a page of their own."""
    chance = random.Random(1)
    return {b"%d" % number: b"%d:" % number + chance.randbytes(BODY_BYTES) for number in range(MESSAGES)}


def make_store(root: Path, *, killed: bool) -> Path:
    """A store with messages, one a commit; stopped cleanly (all in the database), or killed (all in the WAL)."""
    driver = StoreDriver(SQLITE, root)
    queue = driver.create("q")
    for body in _bodies().values():
        driver.send(queue, body)
    if not killed:
        driver.close()
        return driver.folder
    copy = root / "killed"
    shutil.copytree(driver.folder, copy, ignore=shutil.ignore_patterns("*-shm"))
    driver.close()
    return copy


def flip(source: Path, name: str, position: int, value: int) -> bytes:
    content = bytearray((source / name).read_bytes())
    content[position] ^= value
    return bytes(content)


def check(source: Path, place: Path, name: str, position: int, value: int, tally: Tally) -> None:
    """Flip one byte of one file, open the store, and take everything out."""
    where = f"{name} byte {position} xor {value:#x}"
    place.mkdir()

    def prepare(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(flip(source, name, position, value))

    try:
        driver = StoreDriver(SQLITE, place, prepare=prepare)
    except StoreDamaged as error:
        tally.refused += 1
        tally.violations += [] if str(error) else [f"{where}: refused without a reason"]
        shutil.rmtree(place)
        return
    except Exception as error:  # noqa: BLE001 - whatever else escapes is what is looked for
        tally.violations.append(f"{where}: opening failed with {error!r}")
        return
    tally.opened += 1
    try:
        tally.violations += [f"{where}: {one}" for one in _taken_out(driver, tally)]
    except StoreError as error:
        tally.violations.append(f"{where}: the store stopped, what is left cannot be had: {error!r}")
    finally:
        driver.close()
    shutil.rmtree(place)


def _taken_out(driver: StoreDriver, tally: Tally) -> list[str]:
    """Receive whatever comes; what is missing must have been reported."""
    bodies = set(_bodies().values())
    queue = next((one.info.arn for one in driver.run(ops.ListQueues())), None)
    if queue is None:
        return ["the queue is gone and nobody said so"]
    received: Counter[bytes] = Counter()
    for _ in range(3):
        received.update(one.message.body for one in driver.receive(queue, 100))
    missing = bodies - received.keys()
    reported = driver.store.statistics().damaged
    tally.harmless += not missing
    tally.hit += len(missing)
    found = [f"delivered damaged: {body[:20]!r}" for body in received.keys() - bodies]
    found += [f"delivered {count} times" for count in received.values() if count > 1]
    if len(missing) > reported:
        found.append(f"{len(missing)} missing, {reported} reported")
    counts = driver.counts(queue)
    if (counts.visible, counts.in_flight) != (0, len(received)):
        found.append(
            f"counts {counts.visible} visible, {counts.in_flight} in flight after {len(received)} were received"
        )
    return found + _still_works(driver, queue)


def _still_works(driver: StoreDriver, queue: str) -> list[str]:
    sent = driver.send(queue, "fresh")
    fresh = [one for one in driver.receive(queue, 10) if one.message.id == sent.id]
    return (
        [] if fresh and driver.delete(queue, fresh[0].receipt) == [None] else ["a fresh message does not come through"]
    )


def run(root: Path, name: str, *, killed: bool, flips: int) -> Tally:
    source = make_store(root, killed=killed)
    size = (source / name).stat().st_size
    chance = random.Random(f"{SEED}-{name}")
    tally = Tally()
    for number in range(flips):
        position = chance.randrange(size)
        check(source, root / f"flip-{number}", name, position, chance.choice([0x01, 0x80, 0xFF]), tally)
    return tally


@pytest.mark.parametrize(("name", "killed"), [("headrace.db", False), ("headrace.db-wal", True)])
def test_flipped_byte_is_reported_and_costs_only_what_it_hits(memory_path: Path, name: str, killed: bool) -> None:
    tally = run(memory_path, name, killed=killed, flips=FLIPS)
    print(f"{name}: {tally}")
    assert not tally.violations, "\n".join(tally.violations[:20])
    assert tally.opened > FLIPS / 2, "nearly every store refused to open: this run proves little"


def test_flipped_body_byte_costs_its_message_only(memory_path: Path) -> None:
    """In the middle of a body on an overflow page, nothing else can be hit."""
    source = make_store(memory_path, killed=False)
    content = (source / "headrace.db").read_bytes()
    lost = []
    for number in (7, 20, MESSAGES - 1):
        body = _bodies()[b"%d" % number]
        position = content.index(body[200:600]) + 100
        tally = Tally()
        check(source, memory_path / f"body-{number}", "headrace.db", position, 0xFF, tally)
        assert not tally.violations
        lost.append((tally.opened, tally.hit))
    assert lost == [(1, 1)] * 3


def test_damaged_message_is_kept_aside_and_told(memory_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_store(memory_path, killed=False)
    body = _bodies()[b"3"]
    position = (source / "headrace.db").read_bytes().index(body[200:600]) + 100
    again = memory_path / "again"
    again.mkdir()

    def prepare(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "headrace.db").write_bytes(flip(source, "headrace.db", position, 0xFF))

    driver = StoreDriver(SQLITE, again, prepare=prepare)
    caplog.set_level(logging.WARNING, logger="headrace")
    (queue,) = [one.info.arn for one in driver.run(ops.ListQueues())]
    assert len(driver.receive(queue, 100)) == MESSAGES - 1
    assert driver.counts(queue).damaged == driver.store.statistics().damaged == 1
    assert any("damage" in getattr(record, "action", "") for record in caplog.records)
    folder = driver.folder
    driver.close()
    rows = list(apsw.Connection(str(folder / "headrace.db")).execute("SELECT key & 1048575, body FROM quarantine"))
    assert len(rows) == 1
    assert rows[0][1][:3] == b"3:" + body[2:3]


def test_wal_cut_short_by_damage_does_not_pass_for_whole(memory_path: Path) -> None:
    """SQLite itself drops the flipped frame and all after it without a word."""
    source = make_store(memory_path, killed=True)
    size = (source / "headrace.db-wal").stat().st_size
    tally = Tally()
    frame = 24 + 4_096
    for number, position in enumerate(range(32 + 10 * frame + 300, size, 12 * frame)):
        check(source, memory_path / f"cut-{number}", "headrace.db-wal", position, 0xFF, tally)
    assert not tally.violations, "\n".join(tally.violations)


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_lost_frames_in_the_wal_are_told(memory_path: Path, frames: int) -> None:
    """Damage that cannot be mended: the store refuses to open rather than forget acknowledged messages."""
    source = make_store(memory_path, killed=True)
    frame = 24 + 4_096
    content = bytearray((source / "headrace.db-wal").read_bytes())
    content[32 + 100 * frame : 32 + (100 + frames) * frame] = bytes(frames * frame)

    def prepare(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "headrace.db-wal").write_bytes(content)

    place = memory_path / "lost"
    place.mkdir()
    with pytest.raises(StoreDamaged, match="damage"):
        StoreDriver(SQLITE, place, prepare=prepare)
    copies = list(place.glob("store-1/damaged-*/headrace.db-wal"))
    assert len(copies) == 1
    assert copies[0].read_bytes() == bytes(content)


def test_without_the_checks_damage_goes_unnoticed(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test must fail when the WAL is not looked at and the last acknowledged commit is not compared."""
    monkeypatch.setattr("headrace.queue.store.opening.check_wal", lambda *_args, **_options: 0)
    monkeypatch.setattr("headrace.queue.store.folder.Folder.acknowledged", lambda _self: 0)
    tally = run(memory_path, "headrace.db-wal", killed=True, flips=10)
    assert tally.violations


def test_damaged_lease_journal_costs_leases_at_most(memory_path: Path) -> None:
    driver = StoreDriver(SQLITE, memory_path)
    queue = driver.create("q")
    driver.send_all(queue, [entry(str(number)) for number in range(20)])
    for _ in range(10):
        driver.receive(queue, 2)
    source = memory_path / "killed"
    shutil.copytree(driver.folder, source, ignore=shutil.ignore_patterns("*-shm"))
    driver.close()
    size = (source / "leases.journal").stat().st_size
    for position in range(size):
        place = memory_path / f"journal-{position}"
        place.mkdir()

        def prepare(folder: Path, position: int = position) -> None:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            (folder / "leases.journal").write_bytes(flip(source, "leases.journal", position, 0xFF))

        again = StoreDriver(SQLITE, place, prepare=prepare)
        assert sorted(int(one.message.body) for one in again.peek(queue)) == list(range(20))
        counts = again.counts(queue)
        assert counts.visible + counts.in_flight == 20
        again.close()
        shutil.rmtree(place)
