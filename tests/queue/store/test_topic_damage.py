"""Bodies that are stored once: what damage to them costs, and stores of before there were topics."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import arn_of, topic_arn_of
from headrace.queue.store import deleting, schema
from headrace.queue.store.disk import Trimmed
from headrace.queue.store.wal import PAGE_BYTES
from headrace.testing.driver import StoreDriver, bodies, entry
from headrace.testing.stores import SQLITE

DATABASE: Final = "headrace.db"
TOPIC: Final = topic_arn_of("t")
QUEUES: Final = (arn_of("a"), arn_of("b"))
COUNT: Final = 60
LONG: Final = 1_000


def body(number: int) -> str:
    return f"{number}-{'x' * (LONG if number % 3 else 20)}"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of a stopped store with a topic, its log and two subscribers; and its time."""
    root = tmp_path_factory.mktemp("topics")
    driver = StoreDriver(SQLITE, root)
    driver.run(ops.CreateTopic(TOPIC, {"retention_ms": 3_600_000}))
    for queue in QUEUES:
        driver.run(ops.CreateQueue(queue))
        driver.run(ops.Subscribe(TOPIC, queue))
    for start in range(0, COUNT, 10):
        driver.send_all(TOPIC, [entry(body(number)) for number in range(start, start + 10)])
    driver.close()
    return driver.folder, driver.clock()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="headrace")


def reopened(sample: tuple[Path, int], root: Path, change: Callable[[Path], None]) -> StoreDriver:
    """A store of the sample's files, changed."""

    def prepare(folder: Path) -> None:
        shutil.copytree(sample[0], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("reserve"))
        change(folder / DATABASE)

    root.mkdir()
    return StoreDriver(SQLITE, root, now_ms=sample[1], prepare=prepare)


def execute(*statements: str) -> Callable[[Path], None]:
    def change(database: Path) -> None:
        with closing(apsw.Connection(str(database))) as db:
            for statement in statements:
                db.execute(statement)

    return change


def test_each_lost_page_costs_what_it_held_and_nothing_is_wrong(sample: tuple[Path, int], tmp_path: Path) -> None:
    pages = (sample[0] / DATABASE).stat().st_size // PAGE_BYTES
    lost = {}
    for number in range(2, pages + 1):
        driver = reopened(sample, tmp_path / str(number), zeroed(number))
        whole = {body(n) for n in range(COUNT)}
        found = []
        for queue in (arn for arn in QUEUES if driver.store.find(arn)):
            shown = [one.message.body.decode() for one in driver.peek(queue)]
            assert set(shown) <= whole and len(set(shown)) == len(shown), number
            assert bodies(driver.receive(queue, COUNT)) == shown
            found.append(len(shown))
        lost[number] = 2 * COUNT - sum(found)
        driver.close()
    assert max(lost.values()) <= COUNT  # a page of references: at most those of one queue here
    assert sum(1 for count in lost.values() if not count) >= 8  # small tables, indexes, inner pages


def test_body_that_was_changed_is_not_delivered(sample: tuple[Path, int], tmp_path: Path) -> None:
    key = "(SELECT body FROM message WHERE typeof(body) = 'integer' ORDER BY body LIMIT 1)"
    driver = reopened(
        sample, tmp_path / "x", execute(f"UPDATE message SET body = zeroblob(length(body)) WHERE key = {key}")
    )
    for queue in QUEUES:
        assert bodies(driver.receive(queue, COUNT)) == [body(n) for n in range(COUNT) if n != 1]
        assert driver.counts(queue).damaged == 1
    shown = driver.run(ops.ReadLog(TOPIC))
    counts = driver.run(ops.GetTopic(TOPIC)).counts
    assert (counts.logged, counts.damaged, len(shown)) == (COUNT - 1, 1, COUNT - 1)
    assert counts.log_bytes == sum(len(message.body) for message in shown)
    driver.close()


def test_body_that_is_gone_is_told(sample: tuple[Path, int], tmp_path: Path) -> None:
    key = "(SELECT body FROM message WHERE typeof(body) = 'integer' ORDER BY body LIMIT 1)"
    driver = reopened(sample, tmp_path / "x", execute(f"DELETE FROM message WHERE key = {key}"))
    for queue in QUEUES:
        assert bodies(driver.receive(queue, COUNT)) == [body(n) for n in range(COUNT) if n != 1]
    driver.close()


def test_lost_topic_leaves_its_queues_whole(sample: tuple[Path, int], tmp_path: Path) -> None:
    driver = reopened(sample, tmp_path / "x", execute("DELETE FROM topic"))
    for queue in QUEUES:
        assert bodies(driver.receive(queue, COUNT)) == [body(n) for n in range(COUNT)]
    assert driver.run(ops.ListTopics()) == []
    driver.run(ops.CreateTopic(TOPIC))
    driver.run(ops.Subscribe(TOPIC, QUEUES[0]))
    driver.send(TOPIC, "new")
    assert bodies(driver.receive(QUEUES[0])) == ["new"]
    driver.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE topic_log SET first = -1",
        "UPDATE topic_log SET first = 1 << 60",
        "UPDATE topic_log SET first = 'x'",
        "UPDATE topic_log SET reserved = 1 << 60",
        "UPDATE topic_log SET messages = -1",
        "UPDATE topic SET id = -1",
        "UPDATE topic SET id = 1 << 40",
        "UPDATE topic SET id = (SELECT min(id) FROM queue)",
        "UPDATE topic SET info = '{'",
        "UPDATE subscription SET details = '{'",
        """UPDATE subscription SET details = '{"queue": "q", "filter": {"a": []}}'""",
        "UPDATE subscription SET topic = 99",
    ],
)
def test_damaged_row_about_a_topic_costs_no_message_of_a_queue(
    sample: tuple[Path, int], tmp_path: Path, damage: str
) -> None:
    driver = reopened(sample, tmp_path / "x", execute(damage))
    for queue in QUEUES:
        assert bodies(driver.receive(queue, COUNT)) == [body(n) for n in range(COUNT)]
    driver.reopen()
    driver.close()


def test_body_is_stored_once_and_a_short_one_copied(sample: tuple[Path, int]) -> None:
    with closing(apsw.Connection(str(sample[0] / DATABASE))) as db:
        rows = dict(db.execute("SELECT typeof(body), count(*) FROM message GROUP BY 1"))
    long = sum(len(body(number)) > LONG for number in range(COUNT))
    assert rows == {"integer": 2 * long, "blob": COUNT + 2 * (COUNT - long)}


def test_rows_go_when_nobody_needs_them(sample: tuple[Path, int], tmp_path: Path) -> None:
    driver = reopened(sample, tmp_path / "x", execute())
    first = driver.receive(QUEUES[0], 10)
    driver.delete(QUEUES[0], *[one.receipt for one in first])
    driver.run(ops.DeleteQueue(QUEUES[1]))
    driver.run(ops.DeleteTopic(TOPIC))
    driver.pass_time(60_000)
    assert rows_of(driver) == COUNT - 10 + sum(len(body(n)) > LONG for n in range(10, COUNT))
    driver.run(ops.Purge(QUEUES[0]))
    driver.pass_time(60_000)
    assert rows_of(driver) == 0
    driver.reopen()
    driver.close()
    with closing(apsw.Connection(str(driver.folder / DATABASE))) as db:
        assert db.execute("SELECT count(*) FROM topic").fetchall() == [(0,)]


def held_by_a_slow_queue(root: Path, count: int) -> StoreDriver:
    """A store with a topic without a log, whose two queues hold `count` messages each; the topic's rows are theirs alone."""
    driver = StoreDriver(SQLITE, root)
    driver.run(ops.CreateTopic(TOPIC))
    for queue in QUEUES:
        driver.run(ops.CreateQueue(queue))
        driver.run(ops.Subscribe(TOPIC, queue))
    driver.send_all(TOPIC, [entry(f"{number}-{'x' * LONG}") for number in range(count)])
    return driver


def test_rows_in_use_are_looked_through_ever_more_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_SLICE", 4)
    driver = held_by_a_slow_queue(tmp_path, 400)
    slices = []
    trim = deleting.trim

    def counted(*args: Any, **how: Any) -> Trimmed:
        slices.append(how)
        return trim(*args, **how)

    monkeypatch.setattr(deleting, "trim", counted)
    driver.pass_time(60_000)
    assert 60 < len(slices) < 150
    driver.close()


def test_rows_that_the_front_of_the_queues_frees_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_SLICE", 4)
    driver = held_by_a_slow_queue(tmp_path, 400)
    driver.pass_time(30_000)  # a round over all of them is on its way
    for queue in QUEUES:
        driver.delete(queue, *[one.receipt for one in driver.receive(queue, 100)])
    driver.pass_time(2_000)
    assert rows_of(driver) == 3 * 300
    driver.close()


def test_rows_between_those_in_use_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_SLICE", 4)
    driver = held_by_a_slow_queue(tmp_path, 40)
    for queue in QUEUES:
        taken = driver.receive(queue, 40)
        driver.delete(queue, *[one.receipt for number, one in enumerate(taken) if number % 3])
    driver.pass_time(60_000)
    assert rows_of(driver) == 3 * 14
    for queue in QUEUES:
        assert len(driver.peek(queue)) == 14
    driver.close()


def rows_of(driver: StoreDriver) -> int:
    with closing(apsw.Connection(str(driver.folder / DATABASE))) as db:
        ((count,),) = db.execute("SELECT count(*) FROM message")
        assert isinstance(count, int)
        return count


OLD: Final = arn_of("old")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of a stopped store as the first version left it: tables made by its own statements; and its time."""
    root = tmp_path_factory.mktemp("old")
    driver = StoreDriver(SQLITE, root)
    driver.run(ops.CreateQueue(OLD))
    driver.send_all(OLD, [entry(body(number)) for number in range(COUNT)])
    driver.close()
    database = driver.folder / DATABASE
    newer = database.rename(root / "newer.db")
    with closing(apsw.Connection(str(database))) as db:
        db.execute(schema.STEPS[0])
        tables: list[Any] = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        db.execute("ATTACH ? AS newer", (str(newer),))
        for (name,) in tables:
            db.execute(f"DELETE FROM main.{name}")
            db.execute(f"INSERT INTO main.{name} SELECT * FROM newer.{name}")
        db.execute("DELETE FROM main.sqlite_sequence WHERE name = 'topic'")
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 1")
    database.chmod(0o600)
    return driver.folder, driver.clock()


def test_store_of_version_1_becomes_current(old: tuple[Path, int], tmp_path: Path) -> None:
    driver = reopened(old, tmp_path / "x", execute())
    driver.run(ops.CreateTopic(TOPIC))
    driver.run(ops.Subscribe(TOPIC, OLD))
    driver.send(TOPIC, "new")
    driver.reopen()
    assert bodies(driver.receive(OLD, 2 * COUNT)) == [*[body(n) for n in range(COUNT)], "new"]
    driver.close()
    with closing(apsw.Connection(str(driver.folder / DATABASE))) as db:
        assert db.pragma("user_version") == schema.VERSION == 2


def test_damaged_store_of_version_1_is_salvaged(old: tuple[Path, int], tmp_path: Path) -> None:
    """Page by page: most damage is met before there is a current table; each costs what it held, and topics work after."""
    lost = {}
    for number in range(1, (old[0] / DATABASE).stat().st_size // PAGE_BYTES + 1):
        driver = reopened(old, tmp_path / str(number), zeroed(number))
        shown = [one.message.body.decode() for one in driver.peek(OLD)]
        assert shown == [body(n) for n in range(COUNT) if body(n) in shown], number
        lost[number] = COUNT - len(shown)
        assert lost[number] <= driver.counts(OLD).damaged, number
        driver.run(ops.CreateTopic(TOPIC, {"retention_ms": 3_600_000}))
        driver.run(ops.Subscribe(TOPIC, OLD))
        driver.send(TOPIC, "new")
        driver.reopen()
        assert driver.peek(OLD)[-1].message.body == b"new"
        driver.close()
    assert max(lost.values()) <= 5  # a leaf of messages
    assert sum(count > 0 for count in lost.values()) > 5 and lost[1] == 0


def zeroed(number: int) -> Callable[[Path], None]:
    def change(database: Path) -> None:
        with database.open("r+b") as file:
            file.seek((number - 1) * PAGE_BYTES)
            file.write(bytes(PAGE_BYTES))

    return change
