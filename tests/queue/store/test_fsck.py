"""fsck changes nothing and finds what was damaged; the repair keeps what is whole."""

from __future__ import annotations

import logging
import random
import re
import shutil
from pathlib import Path

import pytest

from headrace.errors import StoreUnusable
from headrace.queue.store.backup import take_backup
from headrace.queue.store.checking import Report
from headrace.queue.store.fsck import examine, repair
from headrace.testing.driver import StoreDriver
from headrace.testing.stores import SQLITE
from tests.queue.store.bit_rot import PLAIN, QUEUES, Damage, Sample, make_sample, random_damage


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A killed store: a database, and a WAL with frames."""
    return make_sample(tmp_path_factory.mktemp("fsck") / "sample", messages=100, killed=True)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("fsck") / "stopped", messages=100, killed=False)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="headrace")


def ignore(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def copy(sample: Sample, target: Path, *damages: Damage) -> Path:
    shutil.copytree(sample.folder, target)
    for damage in damages:
        damage.apply(target)
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def look(data: Path) -> Report:
    before = contents(data)
    report = examine(data, progress=ignore)
    assert contents(data) == before
    return report


def test_whole_stores_have_no_findings(sample: Sample, stopped: Sample, tmp_path: Path) -> None:
    for name, one in (("killed", sample), ("stopped", stopped)):
        report = look(copy(one, tmp_path / name))
        assert (report.findings, report.messages, report.queues) == ([], len(one.alive), 3), name


def test_message_with_a_wrong_byte_is_named_and_set_aside_by_the_repair(stopped: Sample, tmp_path: Path) -> None:
    body = next(body for body, (queue, _) in stopped.alive.items() if queue == PLAIN and 100 < len(body) < 1_000)
    data = copy(stopped, tmp_path / "data")
    damaged = (stopped.folder / "headrace.db").read_bytes().replace(body, b"!" + body[1:])  # in old pages, too
    (data / "headrace.db").write_bytes(damaged)
    [finding] = look(data).damage
    assert (finding.queue, finding.message) == ("plain", stopped.alive[body][1].seq)
    kept = repair(data, progress=ignore)
    report = look(data)
    assert (report.damage, report.messages) == ([], len(stopped.alive) - 1)
    [set_aside] = report.findings
    assert set_aside.place == "quarantine" and re.search(r"set aside \(checksum\) at \d{4}-\d\d-\d\d ", set_aside.what)
    assert (kept / "headrace.db").read_bytes() == damaged


@pytest.mark.parametrize("name", ["headrace.db", "headrace.db-wal"])
def test_no_damage_that_loses_or_changes_a_message_goes_unseen(
    sample: Sample, stopped: Sample, tmp_path: Path, name: str
) -> None:
    """Whatever byte is wrong: either fsck says so, or all messages are there as they were."""
    chance, seen = random.Random(5), 0
    sample = stopped if name == "headrace.db" else sample
    for number in range(25):
        data = copy(sample, tmp_path / str(number), random_damage(sample, name, chance))
        report = look(data)
        if report.damage:
            seen += 1
            continue
        assert alive_after(data, sample, tmp_path / f"open-{number}") == set(sample.alive), number
    assert seen > 5


def alive_after(data: Path, sample: Sample, root: Path) -> set[bytes]:
    def prepare(folder: Path) -> None:
        shutil.copytree(data, folder, dirs_exist_ok=True)

    root.mkdir()
    driver = StoreDriver(SQLITE, root, now_ms=sample.now_ms, prepare=prepare)
    try:
        return {one.message.body for queue in QUEUES for one in driver.peek(queue)}
    finally:
        driver.close()


def test_lost_page_is_found_and_the_repair_keeps_what_lies_elsewhere(stopped: Sample, tmp_path: Path) -> None:
    page = next(number for number, bodies in stopped.pages.items() if len(bodies) > 3)
    data = copy(stopped, tmp_path / "data", Damage("headrace.db", (page - 1) * 4_096, bytes(4_096)))
    assert look(data).damage
    repair(data, progress=ignore)
    report = look(data)
    assert (report.damage, report.messages) == ([], len(stopped.alive) - len(stopped.pages[page]))


def test_missing_commits_and_lost_leases_are_found(sample: Sample, tmp_path: Path) -> None:
    data = copy(sample, tmp_path / "data")
    journal = data / "leases.journal"
    journal.write_bytes(journal.read_bytes()[:30])
    assert [finding.place for finding in look(data).damage] == ["leases.journal"]
    wal = data / "headrace.db-wal"
    wal.write_bytes(wal.read_bytes()[: -3 * 4_120])
    assert any("were acknowledged and are missing" in finding.what for finding in look(data).damage)


def test_damaged_backup_is_found(stopped: Sample, tmp_path: Path) -> None:
    data = copy(stopped, tmp_path / "data")
    take_backup(data, tmp_path / "backup", version="1", progress=ignore)
    assert look(tmp_path / "backup").findings == []
    Damage("leases.journal", 30, b"?").apply(tmp_path / "backup")
    assert "leases.journal" in {finding.place for finding in look(tmp_path / "backup").damage}


def test_store_that_runs_is_refused(tmp_path: Path) -> None:
    driver = StoreDriver(SQLITE, tmp_path)
    try:
        with pytest.raises(StoreUnusable, match="stop that one first"):
            examine(driver.folder, progress=ignore)
    finally:
        driver.close()
    with pytest.raises(StoreUnusable, match=r"no headrace\.db"):
        examine(tmp_path, progress=ignore)
