"""Damage in the database file: only what was hit is lost, and it is told."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from headrace.errors import StoreDamaged, StoreUnusable
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.queue.store import files, opening, schema, sqlite
from headrace.queue.store.folder import Folder
from headrace.queue.store.pages import TABLE_INTERIOR, TABLE_LEAF, BadPage, Pages, tree_page
from headrace.queue.store.wal import PAGE_BYTES
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.stores import SQLITE
from tests.queue.store.bit_rot import FIFO, LATER, PLAIN, Damage, Sample, Verdict, judge, make_sample

DATABASE: Final = "headrace.db"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A stopped store of some 150 pages: an inner page, a free list, overflow pages."""
    return make_sample(tmp_path_factory.mktemp("salvage") / "sample", messages=300, killed=False)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="headrace")


def page_kinds(sample: Sample) -> dict[int, int | None]:
    """Page number -> its kind; None if it is not a tree's."""
    kinds: dict[int, int | None] = {}
    with closing(Pages(sample.folder / DATABASE, PAGE_BYTES, {})) as pages:
        for number in range(1, pages.count + 1):
            try:
                kinds[number] = tree_page(pages.page(number), number).kind
            except BadPage:
                kinds[number] = None
    return kinds


def flipped(sample: Sample, offset: int, value: int) -> Damage:
    content = (sample.folder / DATABASE).read_bytes()
    return Damage(DATABASE, offset, bytes([content[offset] ^ value]))


def must_lose_nothing(verdict: Verdict, where: object) -> None:
    assert (verdict.refused, verdict.missing, verdict.wrong) == ("", 0, []), where


# --- pages ---


@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_lost_page_costs_what_lay_on_it(sample: Sample, tmp_path: Path, filling: str) -> None:
    for number in page_kinds(sample):
        data = bytes(PAGE_BYTES) if filling == "zeros" else random.Random(number).randbytes(PAGE_BYTES)
        verdict = judge(sample, Damage(DATABASE, (number - 1) * PAGE_BYTES, data), tmp_path / str(number))
        assert (verdict.refused, verdict.wrong) == ("", []), number
        assert verdict.missing == len(sample.pages.get(number, ())), number


def test_lost_inner_page_costs_nothing(sample: Sample, tmp_path: Path) -> None:
    inner = [number for number, kind in page_kinds(sample).items() if kind == TABLE_INTERIOR]
    assert inner
    for number in inner:
        for data in (bytes(PAGE_BYTES), random.Random(number).randbytes(PAGE_BYTES)):
            verdict = judge(sample, Damage(DATABASE, (number - 1) * PAGE_BYTES, data), tmp_path / f"{number}-{data[0]}")
            must_lose_nothing(verdict, number)


@pytest.mark.parametrize("place", range(100))
def test_file_header_is_put_right(sample: Sample, tmp_path: Path, place: int) -> None:
    for value in (0x01, 0x80, 0xFF):
        must_lose_nothing(judge(sample, flipped(sample, place, value), tmp_path / str(value)), (place, value))


@pytest.mark.parametrize("place", range(8))
def test_flip_in_a_leaf_s_header_costs_nothing(sample: Sample, tmp_path: Path, place: int) -> None:
    leaves = [number for number, kind in page_kinds(sample).items() if kind == TABLE_LEAF and sample.pages.get(number)]
    for number in leaves[:: max(1, len(leaves) // 2)]:
        for bit in range(8):
            damage = flipped(sample, (number - 1) * PAGE_BYTES + place, 1 << bit)
            must_lose_nothing(judge(sample, damage, tmp_path / f"{number}-{bit}"), (number, place, bit))


def test_database_of_noise_is_refused_with_what_to_do(sample: Sample, tmp_path: Path) -> None:
    size = (sample.folder / DATABASE).stat().st_size
    verdict = judge(sample, Damage(DATABASE, 0, random.Random(1).randbytes(size)), tmp_path / "noise")
    assert "restore a backup" in verdict.refused


# --- what is told, what is kept ---


def damaged_driver(sample: Sample, root: Path, *damages: Damage) -> StoreDriver:
    def prepare(folder: Path) -> None:
        shutil.copytree(sample.folder, folder, dirs_exist_ok=True)
        for damage in damages:
            damage.apply(folder)

    return StoreDriver(SQLITE, root, now_ms=sample.now_ms, prepare=prepare)


def leaf_of(sample: Sample, queue: str) -> int:
    """A page in the middle of a queue, with several messages of it."""
    kinds = page_kinds(sample)
    leaves = [
        number
        for number, found in sample.pages.items()
        if len(found) > 2 and kinds[number] == TABLE_LEAF and {sample.alive[body][0] for body in found} == {queue}
    ]
    return leaves[len(leaves) // 2]


def test_loss_is_logged_counted_and_kept_aside(
    sample: Sample, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="headrace")
    number = leaf_of(sample, LATER)
    lost = len(sample.pages[number])
    driver = damaged_driver(sample, tmp_path, Damage(DATABASE, (number - 1) * PAGE_BYTES, bytes(PAGE_BYTES)))
    assert driver.store.statistics().damaged == driver.counts(LATER).damaged == lost
    assert driver.counts(PLAIN).damaged == 0
    told = [record for record in caplog.records if getattr(record, "action", "") == "store.salvaged"]
    assert [(record.__dict__["queue"], record.__dict__["lost"]) for record in told] == [(LATER, lost)]
    seqs = [sample.alive[body][1].seq for body in sample.pages[number]]
    first, last = told[0].getMessage().rpartition(" in ")[2].split(" to ")
    assert int(first) <= min(seqs) and max(seqs) <= int(last)
    copies = list(driver.folder.glob("damaged-*/headrace.db"))
    assert len(copies) == 1
    assert not (driver.folder / "headrace.db.new").exists()
    driver.close()


def test_rebuilt_store_is_not_damaged_any_more(sample: Sample, tmp_path: Path) -> None:
    number = leaf_of(sample, PLAIN)
    driver = damaged_driver(sample, tmp_path, Damage(DATABASE, (number - 1) * PAGE_BYTES, bytes(PAGE_BYTES)))
    shown = driver.peek(PLAIN)
    driver.reopen()
    assert driver.store.statistics().damaged == 0
    assert driver.peek(PLAIN) == shown
    assert len(list(driver.folder.glob("damaged-*"))) == 1
    driver.close()


def test_damaged_row_goes_to_quarantine(sample: Sample, tmp_path: Path) -> None:
    page = leaf_of(sample, PLAIN)
    body = min(sample.pages[page], key=len)
    _, message = sample.alive[body]
    start = (page - 1) * PAGE_BYTES
    content = (sample.folder / DATABASE).read_bytes()[start : start + PAGE_BYTES]
    cell = next(cell for cell in tree_page(content, page).cells if cell is not None and body in cell.local)
    row = start + content.index(body, cell.start) + 10
    inner = next(number for number, kind in page_kinds(sample).items() if kind == TABLE_INTERIOR)
    driver = damaged_driver(
        sample, tmp_path, flipped(sample, row, 4), Damage(DATABASE, (inner - 1) * PAGE_BYTES, bytes(PAGE_BYTES))
    )
    assert driver.store.statistics().damaged == 1
    folder = driver.folder
    driver.close()
    ((key, reason, kept),) = sql(folder, "SELECT key, reason, body FROM quarantine")
    assert (key & (1 << 40) - 1, reason, len(kept)) == (message.seq, "checksum", len(body))


def test_numbers_are_not_given_twice(sample: Sample, tmp_path: Path) -> None:
    with_number = max(message.seq for queue, message in sample.alive.values() if queue == PLAIN)
    for number in [number for number, kind in page_kinds(sample).items() if kind == TABLE_LEAF][:12]:
        place = tmp_path / str(number)
        place.mkdir()
        driver = damaged_driver(sample, place, Damage(DATABASE, (number - 1) * PAGE_BYTES, bytes(PAGE_BYTES)))
        assert driver.send(PLAIN, "x").seq > with_number
        driver.close()


def test_crash_at_any_step_of_taking_in_is_finished_by_the_next_start(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = leaf_of(sample, PLAIN)
    damage = Damage(DATABASE, (number - 1) * PAGE_BYTES, bytes(PAGE_BYTES))
    steps = 0
    for step in range(100):
        place = tmp_path / str(step)
        place.mkdir()
        with monkeypatch.context() as patch, crashing_at(step, patch) as crashed:
            with suppress(StoreUnusable):
                damaged_driver(sample, place, damage).close()
            if not crashed:
                break
        steps += 1
        again = tmp_path / f"{step}-again"
        again.mkdir()
        driver = StoreDriver(SQLITE, again, now_ms=sample.now_ms, prepare=taking(place / "store-1"))
        left = len(driver.peek(PLAIN)) + len(driver.peek(LATER)) + len(driver.peek(FIFO))
        assert left == len(sample.alive) - len(sample.pages[number])
        driver.close()
    assert steps >= 5


def taking(source: Path) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)

    return prepare


class crashing_at:  # noqa: N801 - a context manager
    """Let the n-th file operation of a rebuild fail, and all after it: the process is gone."""

    def __init__(self, step: int, patch: pytest.MonkeyPatch) -> None:
        self._left = step
        self._crashed: list[str] = []
        for name in ("rename", "remove", "sync_folder", "sync_path"):
            patch.setattr(files, name, self._counted(name, getattr(files, name)))

    def _counted(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            if self._crashed or self._left == 0:
                self._crashed.append(name)
                raise OSError(5, f"crashed at {name}")
            self._left -= 1
            real(*args)

        return call

    def __enter__(self) -> list[str]:
        return self._crashed

    def __exit__(self, *_: object) -> None: ...


# --- large databases: checked when damage was met ---


def test_damage_met_while_running_is_repaired_by_the_next_start(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "CHECKED_BYTES_MAX", 0)
    number = leaf_of(sample, LATER)
    driver = damaged_driver(sample, tmp_path, Damage(DATABASE, (number - 1) * PAGE_BYTES, bytes(PAGE_BYTES)))
    assert driver.store.statistics().damaged == 0
    shown = {one.message.body for one in driver.peek(LATER)}
    alive = {body for body, (queue, _) in sample.alive.items() if queue == LATER}
    assert shown == alive - sample.pages[number]
    assert driver.store.statistics().damaged == len(sample.pages[number])
    assert driver.store.failed() is None
    assert (driver.folder / "suspect").exists()
    driver.reopen()
    assert not (driver.folder / "suspect").exists()
    assert driver.store.statistics().damaged == 0, "they have been told"
    assert {one.message.body for one in driver.peek(LATER)} == alive - sample.pages[number]
    counts = driver.counts(LATER)
    assert counts.visible + counts.in_flight + counts.delayed == len(alive - sample.pages[number])
    assert len(list(driver.folder.glob("damaged-*"))) == 1
    driver.close()


# --- rows of the small tables ---


def sql(folder: Path, statement: str, *values: Any) -> list[Any]:
    with closing(apsw.Connection(str(folder / DATABASE))) as connection:
        return list(connection.execute(statement, values))


def edited(sample: Sample, root: Path, *statements: str) -> StoreDriver:
    """The sample with rows changed behind the store's back."""

    def prepare(folder: Path) -> None:
        shutil.copytree(sample.folder, folder, dirs_exist_ok=True)
        for statement in statements:
            sql(folder, statement)

    return StoreDriver(SQLITE, root, now_ms=sample.now_ms, prepare=prepare)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE queue SET info = '{\"arn\"'",
        "UPDATE queue SET info = '[]'",
        "UPDATE queue SET info = replace(info, '0:plain', '0:plaim')",
        "UPDATE queue SET floor = -5",
        "UPDATE queue SET floor = 1 << 39",
        "UPDATE queue SET floor = 'x'",
        "UPDATE progress SET messages = messages + 64",
        "UPDATE progress SET messages = 0",
        "UPDATE progress SET messages = -1",
        "UPDATE progress SET reserved = 1",
        "UPDATE progress SET reserved = 1 << 45",
        "DELETE FROM progress WHERE queue = 2",
        "INSERT INTO garbage (first, last) VALUES (1 << 40, (1 << 40) + 100000)",
        "INSERT INTO garbage (first, last) VALUES (1 << 40, 3 << 40)",
        "INSERT INTO dedup VALUES (9999, 3, 'k', 'text', 1, 1)",
        "INSERT INTO dedup VALUES (9999, 3, 'k', x'00', 'text', 1)",
        "INSERT INTO move_task VALUES ('h', 's', 1, '{}')",
        "INSERT INTO deleted_queue VALUES ('arn', 'soon')",
        "INSERT INTO fence VALUES ('name', x'00')",
        "UPDATE meta SET value = x'00' WHERE name = 'secret'",
        "DELETE FROM meta",
        "DELETE FROM commit_log",
        "UPDATE commit_log SET seq = 'x'",
        "UPDATE sqlite_sequence SET seq = 1 << 60",
        "DROP INDEX message_delayed",
        "DROP TABLE fence",
        "ALTER TABLE state RENAME COLUMN value TO valuf",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 17",
    ],
)
def test_impossible_row_is_put_right_and_no_message_lost(sample: Sample, tmp_path: Path, change: str) -> None:
    driver = edited(sample, tmp_path, change)
    for queue in (PLAIN, LATER, FIFO):
        assert {one.message.body for one in driver.peek(queue)} == {
            body for body, (owner, _) in sample.alive.items() if owner == queue
        }
        counts = driver.counts(queue)
        assert counts.visible + counts.in_flight + counts.delayed == len(driver.peek(queue))
    driver.reopen()
    driver.close()


def test_queue_whose_settings_are_lost_keeps_its_name_and_kind(sample: Sample, tmp_path: Path) -> None:
    driver = edited(sample, tmp_path, "UPDATE queue SET info = ''")
    settings = {one.info.arn: one.info.settings for one in driver.run(ops.ListQueues())}
    assert {arn: one.fifo for arn, one in settings.items()} == {PLAIN: False, LATER: False, FIFO: True}
    driver.close()


def test_messages_of_a_queue_that_nothing_names_are_in_a_queue_of_their_own(sample: Sample, tmp_path: Path) -> None:
    driver = edited(sample, tmp_path, "DELETE FROM queue WHERE id IN (1, 3)")
    recovered = [arn_of("recovered-1.fifo"), arn_of("recovered-3.fifo")]  # every message there has a group
    assert sorted(one.info.arn for one in driver.run(ops.ListQueues())) == sorted([LATER, *recovered])
    assert {one.message.body for one in driver.peek(recovered[0])} == {
        body for body, (queue, _) in sample.alive.items() if queue == PLAIN
    }
    driver.close()


def test_damaged_claim_is_emptied_and_its_number_not_used_again(tmp_path: Path) -> None:
    driver = StoreDriver(SQLITE, tmp_path)
    queue = driver.create("q")
    driver.send_all(queue, [entry(str(number)) for number in range(4)])
    driver.run(ops.Claim(queue, "r", 1, 2))
    driver.store.close()
    sql(driver.folder, "UPDATE claim SET seqs = x'ff'")
    driver.reopen()
    assert driver.run(ops.Claim(queue, "r", 1, 2)) == []
    assert [message.body for message in driver.run(ops.Claim(queue, "r", 2, 9))] == [b"0", b"1", b"2", b"3"]
    driver.close()


def test_text_that_is_none_costs_its_message(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does not look into texts; Python does."""
    victims = sorted(message.seq for queue, message in sample.alive.values() if queue == FIFO)[10:12]
    keys = ", ".join(str(3 << 40 | seq) for seq in victims)
    monkeypatch.setattr(opening, "CHECKED_BYTES_MAX", 0)
    driver = edited(sample, tmp_path, f"UPDATE message SET message_group = CAST(x'ff41' AS TEXT) WHERE key IN ({keys})")
    shown = {one.message.seq for one in driver.peek(FIFO)}
    alive = {message.seq for queue, message in sample.alive.values() if queue == FIFO}
    assert shown == alive - set(victims)
    assert driver.store.statistics().damaged == len(victims)
    driver.close()


def test_damaged_group_of_a_message_in_flight_does_not_free_its_group(sample: Sample, tmp_path: Path) -> None:
    driver = edited(sample, tmp_path, "UPDATE message SET message_group = 'other' WHERE key >> 40 = 3")
    assert driver.receive(FIFO) == []
    driver.close()


def test_damaged_sent_time_does_not_expire_a_message(tmp_path: Path) -> None:
    driver = StoreDriver(SQLITE, tmp_path)
    queue = driver.create("q", retention_ms=600_000)
    driver.send_all(queue, [entry("old"), entry("older")])
    driver.store.close()
    sql(driver.folder, "UPDATE message SET sent_ms = 5")
    driver.reopen()
    driver.pass_time(1_000)
    assert driver.counts(queue).expired == 0
    assert driver.store.statistics().damaged == 2
    driver.close()


def test_newer_format_is_refused(sample: Sample, tmp_path: Path) -> None:
    """Other tables with another version are no damage."""
    with pytest.raises(StoreUnusable, match="newer headrace"):
        edited(sample, tmp_path, "ALTER TABLE queue ADD COLUMN more", f"PRAGMA user_version = {schema.VERSION + 1}")


# --- the last commit's number and time ---


@pytest.mark.parametrize("ahead_ms", [1 << 33, 1 << 40])
def test_flipped_time_of_the_last_commit_does_not_move_the_clock(sample: Sample, tmp_path: Path, ahead_ms: int) -> None:
    shutil.copytree(sample.folder, tmp_path / "store")
    sql(tmp_path / "store", "UPDATE commit_log SET now_ms = now_ms + ?", ahead_ms)
    disk = sqlite.SqliteDisk(Folder(tmp_path / "store"))
    assert disk.latest_ms() <= sample.now_ms
    disk.close()


def test_flipped_number_of_the_last_commit_is_not_taken_for_lost_commits(sample: Sample, tmp_path: Path) -> None:
    driver = edited(sample, tmp_path, "UPDATE commit_log SET seq = seq & 31")
    assert len(driver.peek(PLAIN)) > 0
    driver.close()


def test_lost_commits_are_refused_with_what_to_do(tmp_path: Path) -> None:
    driver = StoreDriver(SQLITE, tmp_path)
    queue = driver.create("q")
    driver.send(queue, "first")
    driver.store.close()
    before = (driver.folder / DATABASE).read_bytes()
    driver.reopen()
    driver.clock.advance(10)
    driver.send(queue, "second")
    driver.store.close()
    (driver.folder / DATABASE).write_bytes(before)
    with pytest.raises(StoreDamaged, match="acknowledged"):
        driver.reopen()
    (driver.folder / "acknowledged").unlink()
    driver.reopen()
    assert bodies(driver.receive(queue)) == ["first"]
    driver.close()
