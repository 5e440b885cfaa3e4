"""A whole store copied from SQLite to PostgreSQL and back: all of it, also when the copy is killed on the way."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from headrace.clock import Clock, ManualClock, SteadyClock
from headrace.errors import QueueExists, StoreDamaged, StoreUnusable
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of, topic_arn_of
from headrace.queue.store import copying
from headrace.queue.store.base import Request, Store
from headrace.queue.store.copying import Copied, MessageRecord, QueueRecord, Source, Target, copy
from headrace.queue.store.sqlite import open_store as open_sqlite_store
from headrace.queue.store.sqlite_copy import SqliteSource, SqliteTarget
from headrace.testing.driver import StoreDriver, StoreKind
from headrace.testing.postgres import databases, find_programs
from headrace.testing.stores import POSTGRES, SQLITE
from headrace.testing.topic_machine import topic_machine_for

psycopg = pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")

from headrace.queue.store.postgres.copy_target import PostgresTarget  # noqa: E402 - see above
from headrace.queue.store.postgres.copying import PostgresSource  # noqa: E402
from headrace.queue.store.postgres.opening import open_store as open_postgres_store  # noqa: E402
from headrace.queue.store.postgres.schema import migrate  # noqa: E402

pytestmark = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")


def silent(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def copied(source: Source, target: Target, progress: copying.Progress = silent) -> Copied:
    """One try; whatever comes of it, both are closed."""
    with closing(source), closing(target):
        return copy(source, target, progress=progress)


def there_and_back(folder: Path, clock: Clock, place: Path) -> None:
    """Let the store in `folder` be one that was copied to PostgreSQL and back."""
    url, back = databases().of(place), place.with_name(place.name + "-back")
    copied(SqliteSource(folder, clock=clock), PostgresTarget(url))
    copied(PostgresSource(url, clock=clock), SqliteTarget(back))
    shutil.rmtree(folder)
    back.rename(folder)


# --- whatever is in a store ---

_numbers = itertools.count()


def _open_copied(folder: Path, clock: ManualClock, cooldowns: bool) -> Store:
    if (folder / "headrace.db").exists():
        there_and_back(folder, clock, folder.parent / f"copy-{next(_numbers)}")
    return SQLITE.open(folder, clock, cooldowns)


_places: dict[Path, Path] = {}  # where the database of a machine's folder is by now


def _open_copied_back(folder: Path, clock: ManualClock, cooldowns: bool) -> Store:
    if folder in _places:
        between, place = (folder.parent / f"{name}-{next(_numbers)}" for name in ("between", "place"))
        copied(PostgresSource(databases().of(_places[folder]), clock=clock), SqliteTarget(between))
        copied(SqliteSource(between, clock=clock), PostgresTarget(databases().of(place)))
        shutil.rmtree(between)
        _places[folder] = place
    return POSTGRES.open(_places.setdefault(folder, folder), clock, cooldowns)


COPIED = StoreKind("copied", _open_copied, durable=True, in_files=False)


COPIED_BACK = StoreKind("copied-back", _open_copied_back, durable=True, in_files=False)


class CopiedMachine(topic_machine_for(COPIED)):  # type: ignore[misc]  # made at run time
    """Each restart is a copy there and back. Receipts and receive attempts of before are no more."""

    @rule(stopped_ms=st.sampled_from([0, 1_000, 60_000]))
    def restart(self, stopped_ms: int) -> None:
        super().restart(stopped_ms)
        self.receipts.clear()
        for queue in self.queues.values():
            queue.attempts.clear()


class CopiedBackMachine(CopiedMachine):
    kind = COPIED_BACK


# Nightly runs set more. Each step on a database is some ten round trips.
EXAMPLES = int(os.environ.get("HEADRACE_COPY_EXAMPLES", "6"))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=30, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )  # fmt: skip


TestWhateverIsInAFolder = CopiedMachine.TestCase
TestWhateverIsInAFolder.settings = _settings(EXAMPLES)
TestWhateverIsInADatabase = CopiedBackMachine.TestCase
TestWhateverIsInADatabase.settings = _settings(max(1, EXAMPLES // 3))


# --- killed, refused ---


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Path]:
    """A stopped store with something of everything."""
    driver = StoreDriver(SQLITE, tmp_path)
    driver.create("plain")
    driver.create("plain.fifo")
    driver.send_all(arn_of("plain"), [Entry(str(one).encode()) for one in range(30)])
    driver.send_all(arn_of("plain.fifo"), [Entry(b"x", group=f"g{one % 3}", dedup_id=str(one)) for one in range(10)])
    driver.receive(arn_of("plain"), 5)
    driver.receive(arn_of("plain.fifo"), 2)
    driver.run(ops.Claim(arn_of("plain"), "reader", 1, 3))
    driver.run(ops.Transact(state=[(b"a", b"1"), (b"b", b"2")], name="job"))
    driver.run(ops.Fence("job"))
    driver.run(ops.CreateTopic(topic_arn_of("t"), {"retention_ms": 600_000}))
    driver.run(ops.Subscribe(topic_arn_of("t"), arn_of("plain")))
    driver.run(ops.Send(topic_arn_of("t"), [Entry(b"published" * 100)] * 3))
    driver.store.close()
    yield driver.folder
    driver.close()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of the database of `tmp_path / "database"`. However a copy into it has ended, it can be used again."""
    made = databases().of(tmp_path / "database")
    yield made
    with psycopg.connect(made, autocommit=True) as connection:
        connection.execute("DROP SCHEMA headrace CASCADE")
        migrate(connection)


@pytest.fixture(autouse=True)
def small_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "BATCH", 7)


class Killed(Exception):
    """What ends a copy in these tests."""


def _killed_at(step: int) -> Callable[[str, int, int], None]:
    steps = itertools.count(1)

    def progress(stage: str, done: int, total: int) -> None:
        del stage, done, total
        if next(steps) == step:
            raise Killed

    return progress


def _until_done(try_once: Callable[[copying.Progress], Copied]) -> tuple[Copied, int]:
    """Try again, killed at the first step, then at the second, …: what came of it, after how many tries."""
    for tries in itertools.count(1):
        try:
            return try_once(_killed_at(tries)), tries
        except Killed:
            continue
    raise AssertionError


def test_copy_that_is_killed_again_and_again_is_whole(filled: Path, tmp_path: Path, url: str) -> None:
    back = tmp_path / "back"
    clock = ManualClock()
    there, tries = _until_done(lambda p: copied(SqliteSource(filled, clock=clock), PostgresTarget(url), p))
    assert (there.queues, there.topics, there.messages) == (2, 1, 46)
    assert tries > 5
    again, tries = _until_done(lambda p: copied(PostgresSource(url, clock=clock), SqliteTarget(back), p))
    assert again == there
    assert tries > 5
    with closing(SqliteSource(filled, clock=clock)) as one, closing(SqliteSource(back, clock=clock)) as other:
        assert _all(one) == _all(other)


def _all(side: Source) -> Any:
    queues = [queue.info for queue in side.queues()]
    messages = [list(copying._pages(side.messages, info.arn, 0)) for info in queues]
    logs = [list(copying._pages(side.published, topic.info.arn, 0)) for topic in side.topics()]
    return queues, side.topics(), messages, logs, side.state(("", b"")), side.rest()


def test_topic_goes_on_behind_what_was_copied(tmp_path: Path, url: str) -> None:
    """Though no queue has had so many messages."""
    topic, clock = topic_arn_of("t"), ManualClock()
    driver = StoreDriver(SQLITE, tmp_path)
    driver.run(ops.CreateTopic(topic, {"retention_ms": 600_000}))
    driver.run(ops.Send(topic, [Entry(b"0"), Entry(b"1"), Entry(b"2")]))
    driver.close()
    copied(SqliteSource(driver.folder, clock=clock), PostgresTarget(url))
    store, _ = open_postgres_store(url, clock=clock)
    answers: list[Any] = []
    for operation in (ops.Send(topic, [Entry(b"3")]), ops.ReadLog(topic)):
        store.execute([Request(operation, answers.append)])
    store.close()
    assert [message.body for message in answers[1]] == [b"0", b"1", b"2", b"3"]


def test_reader_goes_on_in_the_groups_that_it_has_claimed_from(tmp_path: Path, url: str) -> None:
    queue, clock = arn_of("q.fifo"), ManualClock()
    driver = StoreDriver(SQLITE, tmp_path)
    driver.run(ops.CreateQueue(queue, {"fifo": True}))
    driver.run(ops.Send(queue, [Entry(b"%d" % number, group="g", dedup_id=str(number)) for number in range(2)]))
    driver.run(ops.Claim(queue, "reader", 1, 1))
    driver.close()
    copied(SqliteSource(driver.folder, clock=clock), PostgresTarget(url))
    store, _ = open_postgres_store(url, clock=clock)
    answers: list[Any] = []
    for operation in (ops.Claim(queue, "other", 1, 1), ops.Claim(queue, "reader", 2, 1)):
        store.execute([Request(operation, answers.append)])
    store.close()
    assert [[message.body for message in claimed] for claimed in answers] == [[], [b"1"]]


def test_database_that_is_half_copied_is_nobodys(filled: Path, tmp_path: Path, url: str) -> None:
    with pytest.raises(Killed):
        copied(SqliteSource(filled), PostgresTarget(url), _killed_at(2))
    with pytest.raises(StoreUnusable, match="copy into it is not whole"):
        POSTGRES.open(tmp_path / "database", ManualClock(), True)
    with pytest.raises(StoreUnusable, match="copy into it is not whole"):
        PostgresSource(url)
    copied(SqliteSource(filled), PostgresTarget(url))
    POSTGRES.open(tmp_path / "database", ManualClock(), True).close()


def test_folder_that_is_half_copied_is_not_there(filled: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        copied(SqliteSource(filled), SqliteTarget(tmp_path / "new"), _killed_at(2))
    assert not (tmp_path / "new").exists()
    copied(SqliteSource(filled), SqliteTarget(tmp_path / "new"))
    SQLITE.open(tmp_path / "new", ManualClock(), True).close()


@pytest.mark.parametrize("kind", ["database", "folder"])
def test_source_that_was_used_since_is_not_gone_on_with(filled: Path, tmp_path: Path, url: str, kind: str) -> None:

    def target() -> Target:
        return PostgresTarget(url) if kind == "database" else SqliteTarget(tmp_path / "new")

    with pytest.raises(Killed):
        copied(SqliteSource(filled), target(), _killed_at(2))
    store = SQLITE.open(filled, ManualClock(), True)
    store.execute([ops_request(ops.Receive(arn_of("plain"), 1))])
    store.close()
    with pytest.raises(StoreUnusable, match="before it was last used"):
        copied(SqliteSource(filled), target())
    if kind == "database":
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA headrace CASCADE")
        copied(SqliteSource(filled), target())


def ops_request(operation: ops.Operation) -> Any:
    return Request(operation, lambda _outcome: None)


def test_target_with_something_in_it_is_refused(filled: Path, tmp_path: Path, url: str) -> None:
    store = POSTGRES.open(tmp_path / "database", ManualClock(), True)
    store.execute([ops_request(ops.CreateQueue(arn_of("there"), {}))])
    store.close()
    with pytest.raises(StoreUnusable, match="there is a store with queues"):
        copied(SqliteSource(filled), PostgresTarget(url))
    with pytest.raises(StoreUnusable, match="it is there already"):
        SqliteTarget(filled)


def test_stores_that_brokers_have_are_refused(filled: Path, tmp_path: Path, url: str) -> None:
    store = POSTGRES.open(tmp_path / "database", ManualClock(), True)
    store.execute([ops_request(ops.CreateQueue(arn_of("there"), {}))])
    for opened in (PostgresSource, PostgresTarget):
        with pytest.raises(StoreUnusable, match="stop them first"):
            opened(url)
    store.close()
    running = SQLITE.open(filled, ManualClock(), True)
    with pytest.raises(StoreUnusable):
        SqliteSource(filled)
    running.close()
    with pytest.raises(StoreUnusable, match=r"no headrace\.db"):
        SqliteSource(tmp_path / "nothing")


def test_time_goes_on_whatever_the_clocks_say(filled: Path, tmp_path: Path, url: str) -> None:
    """A store whose time is an hour ahead: nothing in it may be delayed by an hour."""
    ahead = SteadyClock(floor_ms=time.time_ns() // 1_000_000 + 3_600_000)
    copied(SqliteSource(filled, clock=ahead), PostgresTarget(url))
    store, clock = open_postgres_store(url)
    store.close()
    copied(PostgresSource(url), SqliteTarget(tmp_path / "back"))
    store_back, clock_back = open_sqlite_store(tmp_path / "back", wal_bytes=0)
    store_back.close()
    assert abs(clock() - ahead()) < 600_000
    assert abs(clock_back() - ahead()) < 600_000


class Loses(PostgresTarget):
    """Loses a message."""

    def put_messages(self, queue: QueueRecord, records: list[MessageRecord]) -> None:
        super().put_messages(queue, records[1:])


def test_difference_is_found_and_the_target_stays_closed(filled: Path, tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreDamaged, match="the messages of plain"):
        copied(SqliteSource(filled), Loses(url))
    with pytest.raises(StoreUnusable, match="not whole"):
        POSTGRES.open(tmp_path / "database", ManualClock(), True)


def test_queue_takes_new_messages_behind_the_copied_ones(filled: Path, tmp_path: Path) -> None:
    clock = ManualClock()
    there_and_back(filled, clock, tmp_path / "database")
    (tmp_path / "again").mkdir()
    driver = StoreDriver(SQLITE, tmp_path / "again", prepare=lambda folder: _replace(folder, filled))
    sent = driver.send(arn_of("plain"), "new")
    assert sent.seq > max(one.message.seq for one in driver.peek(arn_of("plain"))[:-1])
    with pytest.raises(QueueExists):
        driver.run(ops.CreateQueue(arn_of("plain"), {"delay_ms": 5}))
    driver.close()


def _replace(folder: Path, by: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(by, folder)
