"""A database's clock that steps: nodes go on as if it had not, together, and hide nothing for longer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.queue.store.postgres import clock as clocks
from headrace.queue.store.postgres.clock import AHEAD_MAX_MS, ASKED_MAX, STEP_MS, DatabaseClock, settled
from headrace.queue.store.postgres.connecting import Connection, connect
from headrace.queue.store.postgres.opening import open_store
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask

HOUR_MS = 3_600_000
MINUTE_NS = 60_000_000_000
QUEUE = arn_of("q")
START_MS = 1_700_000_000_000


class Clocks:
    """The clock of the database, which can be set, and the one of all nodes, which cannot."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self.late_ms: list[int] = []  # how long the next questions are on their way
        self.uptime_ms = 5_000

    def uptime_ns(self) -> int:
        return self.uptime_ms * 1_000_000

    def pass_time(self, ms: int) -> None:
        self.wall_ms += ms
        self.uptime_ms += ms


class Told:
    """A connection of which the database's clock tells what the test says."""

    def __init__(self, connection: Connection, given: Clocks) -> None:
        self.transaction = connection.transaction
        self._connection, self._given = connection, given

    def execute(self, statement: str, parameters: tuple[int, ...] = ()) -> object:
        if statement == clocks._WALL:
            self._given.pass_time(self._given.late_ms.pop(0) if self._given.late_ms else 0)
            return self._connection.execute("SELECT %s::bigint", (self._given.wall_ms * 1_000,))
        return self._connection.execute(statement.encode(), parameters)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    given = Clocks()
    monkeypatch.setattr(clocks, "uptime_ns", given.uptime_ns)
    return given


@pytest.fixture
def connection(kind: StoreKind, given: Clocks, tmp_path: Path) -> Iterator[Connection]:
    assert kind.durable
    with connect(databases().of(tmp_path)) as connection:
        connection.execute("UPDATE clock SET offset_ms = 0, seen_ms = 0")
        yield Told(connection, given)  # type: ignore[misc]  # a fake
        connection.execute("UPDATE clock SET offset_ms = 0, seen_ms = 0")


def test_time_is_the_databases(connection: Connection, given: Clocks) -> None:
    clock = DatabaseClock(connection)
    given.pass_time(1_234)
    assert clock() == START_MS + 1_234


@pytest.mark.parametrize("late_ms", [[400], [200, 100, 300], [100, 3]])
def test_clock_goes_by_the_fastest_of_some_answers(connection: Connection, given: Clocks, late_ms: list[int]) -> None:
    """A question that was on its way for long is answered with a later time than the node thinks."""
    given.late_ms = late_ms
    clock = DatabaseClock(connection)
    given.pass_time(10)
    assert abs(clock() - given.wall_ms) <= 2


def test_database_that_is_far_away_is_asked_once(connection: Connection, given: Clocks) -> None:
    given.late_ms = [30] * ASKED_MAX
    clock = DatabaseClock(connection)
    given.late_ms = [45, 30]
    clock.correct(connection)
    assert given.late_ms == [30]


def test_clock_that_is_set_back_stops_nobody(connection: Connection, given: Clocks) -> None:
    nodes = [DatabaseClock(connection), DatabaseClock(connection)]
    given.pass_time(10_000)
    given.wall_ms -= HOUR_MS
    given.pass_time(10_000)
    for node in nodes:
        node.correct(connection)
    given.pass_time(10_000)
    late = DatabaseClock(connection)
    assert [node() for node in (*nodes, late)] == [START_MS + 30_000] * 3


def test_clock_that_is_set_back_while_no_node_runs_loses_no_more_than_that_time(
    connection: Connection, given: Clocks
) -> None:
    DatabaseClock(connection)
    given.wall_ms -= HOUR_MS
    given.pass_time(10_000)
    clock = DatabaseClock(connection)
    assert clock() == START_MS
    given.pass_time(10_000)
    clock.correct(connection)
    assert clock() == START_MS + 10_000


def test_clock_that_is_set_back_a_little_is_waited_for(connection: Connection, given: Clocks) -> None:
    clock = DatabaseClock(connection)
    given.pass_time(10_000)
    assert clock() == START_MS + 10_000
    given.wall_ms -= STEP_MS // 2
    clock.correct(connection)
    assert clock() == START_MS + 10_000
    given.pass_time(STEP_MS)
    assert clock() == START_MS + 10_000 + STEP_MS // 2


def test_clock_that_is_set_forward_a_little_and_back_again_goes_on(connection: Connection, given: Clocks) -> None:
    clock = DatabaseClock(connection)
    given.wall_ms += AHEAD_MAX_MS
    clock.correct(connection)
    assert clock() == START_MS + AHEAD_MAX_MS
    given.wall_ms -= AHEAD_MAX_MS
    given.pass_time(10_000)
    clock.correct(connection)
    assert clock() == START_MS + AHEAD_MAX_MS + 10_000


def test_clock_that_is_set_forward_by_days_ends_nothing(connection: Connection, given: Clocks) -> None:
    nodes = [DatabaseClock(connection), DatabaseClock(connection)]
    for step_ms in (240 * HOUR_MS, -240 * HOUR_MS):  # and back, when somebody has seen it
        given.pass_time(5_000)
        given.wall_ms += step_ms
        for node in nodes:
            node.correct(connection)
    late = DatabaseClock(connection)
    given.pass_time(5_000)
    assert [node() for node in (*nodes, late)] == [START_MS + 15_000] * 3


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS])
def test_offset_ends_when_no_node_has_run_for_long(connection: Connection, given: Clocks, step_ms: int) -> None:
    clock = DatabaseClock(connection)
    given.wall_ms += step_ms
    clock.correct(connection)
    assert clock() == START_MS
    given.pass_time(AHEAD_MAX_MS)
    assert DatabaseClock(connection)() == START_MS + AHEAD_MAX_MS
    given.pass_time(2 * HOUR_MS)
    assert DatabaseClock(connection)() == given.wall_ms


def test_node_that_was_paused_for_long_takes_the_time_of_those_that_ran(
    connection: Connection, given: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, other = DatabaseClock(connection), DatabaseClock(connection)
    stood_still_ns = given.uptime_ns()
    given.pass_time(2 * HOUR_MS)
    other.correct(connection)
    monkeypatch.setattr(clocks, "uptime_ns", lambda: stood_still_ns)
    paused.correct(connection)
    assert paused() == START_MS + 2 * HOUR_MS


def test_offset_changes_only_for_what_is_certain() -> None:
    assert settled(7, wall_ms=1_000, certain_ms=1_007 + STEP_MS, possible_ms=None) == 7
    assert settled(7, wall_ms=1_000, certain_ms=1_008 + STEP_MS, possible_ms=None) == 8 + STEP_MS
    ahead = 1_000_000 + AHEAD_MAX_MS
    assert settled(7, wall_ms=ahead, certain_ms=0, possible_ms=1_000_007) == 7
    assert settled(8, wall_ms=ahead, certain_ms=0, possible_ms=1_000_007) == 7 - AHEAD_MAX_MS
    assert settled(8, wall_ms=ahead, certain_ms=1_000_008, possible_ms=None) == 8
    assert settled(8, wall_ms=ahead, certain_ms=1_000_007, possible_ms=None) == 0
    assert settled(2 * AHEAD_MAX_MS, wall_ms=6, certain_ms=7, possible_ms=None) == 2 * AHEAD_MAX_MS


def test_node_whose_clocks_stood_still_grants_no_lease_that_has_ended(kind: StoreKind, tmp_path: Path) -> None:
    """As a virtual machine that was paused: nothing tells it so but the database."""
    assert kind.durable
    store, clock = open_store(databases().of(tmp_path), cooldowns=False)
    assert isinstance(clock, DatabaseClock)
    ask(store, ops.CreateQueue(QUEUE), ops.Send(QUEUE, [Entry(b"x")]))
    clock._offset_ns, clock._last_ms = (clock._offset_ns or 0) - MINUTE_NS, 0
    assert len(ask(store, ops.Receive(QUEUE, 1, 30_000))[0]) == 1
    with psycopg.connect(databases().of(tmp_path)) as connection:
        left = connection.execute(
            "SELECT visible_ms - (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM headrace.message"
        ).fetchone()
    assert left is not None
    assert left[0] > 0
    store.close()
