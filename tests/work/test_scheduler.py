"""Schedulers over a store: one firing however many there are, whatever becomes of the code and the clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from headrace.errors import InvalidParameter
from headrace.queue.operations import Transact
from headrace.testing.tasks import Tasks, in_memory
from headrace.work import App, InvalidArguments, InvalidOption, envelope, keys, schedules
from headrace.work.scheduler import LOOK_MS, Scheduler, fire_now, read_rows, write_row
from headrace.work.schedules import Every

START_MS = 1_767_225_600_000  # 2026-01-01T00:00Z
MINUTE_MS = 60_000


def make_app() -> App:
    app = App(retries=0)

    @app.task(name="tick")
    def tick(n: int = 0) -> None:
        pass

    return app


@pytest.fixture
def tests() -> Iterator[Tasks]:
    with in_memory(make_app(), now_ms=START_MS) as tests:
        yield tests


def scheduler(tests: Tasks, name: str = "app") -> Scheduler:
    return Scheduler(name, tests.app.schedules, tests.app.backend)


def sent(tests: Tasks) -> list[str]:
    return [str(one.scheduled) for one in tests.pending()]


def test_a_schedule_sends_its_task_with_its_arguments_at_its_time(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(7), cron="*/5 * * * *", name="seven")
    one = scheduler(tests)
    assert one.advance(tests.clock()) == START_MS + 15_000
    assert sent(tests) == []
    assert one.advance(START_MS + 5 * MINUTE_MS - 100) == START_MS + 5 * MINUTE_MS
    one.advance(START_MS + 5 * MINUTE_MS)
    [waiting] = tests.pending()
    assert waiting.scheduled == f"seven@{START_MS + 5 * MINUTE_MS}"
    assert msgspec.json.decode(waiting.args) == {"n": 7}
    [(row, _)] = read_rows(tests.app.backend)
    assert (row.last_ms, row.last_id) == (START_MS + 5 * MINUTE_MS, waiting.id)
    [run] = tests.run_pending()
    assert run.disposition == "succeeded"


def test_a_schedules_call_keeps_its_own_expiry_from_each_firing_on(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].options(expires="10s", delay="5s").s(), every="1m", name="short")
    one = scheduler(tests)
    one.advance(START_MS)
    one.advance(START_MS + MINUTE_MS)
    [waiting] = tests.pending()
    assert waiting.expires_ms == START_MS + MINUTE_MS + 10_000


def test_many_schedulers_fire_once(tmp_path: Path) -> None:
    app = make_app()
    app.connect(tmp_path / "data")
    app.schedule(app.tasks["tick"].s(), every="1s", name="often")
    many = [Scheduler("app", app.schedules, app.backend) for _ in range(8)]
    many[0].advance(START_MS)
    gate = threading.Barrier(len(many))

    def run(one: Scheduler) -> None:
        for second in range(1, 6):
            gate.wait()
            one.advance(START_MS + second * 1_000)

    threads = [threading.Thread(target=run, args=(one,)) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [(_, deliveries)] = app.backend.receive(["tasks"], 100, visibility_ms=60_000, wait_s=0)
    times = [envelope.decode(delivery.message.body).scheduled for delivery in deliveries]
    assert sorted(map(str, times)) == [f"often@{START_MS + second * 1_000}" for second in range(1, 6)]
    app.close()


def test_overlapping_firings_are_skipped_until_the_task_has_ended(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="slow", overlap="skip")
    one = scheduler(tests)
    for minute in range(4):
        one.advance(START_MS + minute * MINUTE_MS)
    assert sent(tests) == [f"slow@{START_MS + MINUTE_MS}"]
    [(row, _)] = read_rows(tests.app.backend)
    assert row.skipped == 2
    tests.run_pending()
    one.advance(START_MS + 4 * MINUTE_MS)
    assert sent(tests) == [f"slow@{START_MS + 4 * MINUTE_MS}"]


def test_a_lock_that_is_taken_while_it_fires_delays_no_later_firing(
    tests: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="slow", overlap="skip")
    one, backend = scheduler(tests), tests.app.backend
    one.advance(START_MS)
    by_hand: list[str | None] = []

    def read(key: bytes) -> bytes | None:
        value = backend.wait_state(key, 0)
        if not by_hand:
            by_hand.append(None)
            [(row, _)] = read_rows(backend)
            by_hand[0] = fire_now(backend, row, now_ms=START_MS)
        return value

    monkeypatch.setattr(backend, "read", read)
    assert one.advance(START_MS + MINUTE_MS) == START_MS + MINUTE_MS + LOOK_MS
    [(row, _)] = read_rows(backend)
    assert (row.skipped, row.next_ms) == (1, START_MS + 2 * MINUTE_MS)
    assert [task.id for task in tests.pending()] == by_hand


def test_a_clock_that_steps_fires_nothing_twice(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="m")
    one = scheduler(tests)
    for now_ms in (0, 60_000, -3_600_000, 59_000, 60_000, 61_000, 600_000, 0, 600_001):
        one.advance(START_MS + now_ms)
    scheduler(tests).advance(START_MS + 600_002)
    assert sent(tests) == [f"m@{START_MS + 60_000}", f"m@{START_MS + 600_000}"]


def test_changed_definitions_take_effect_and_removed_ones_are_orphaned(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="kept")
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="gone")
    Scheduler("other", tests.app.schedules[:0], tests.app.backend).advance(START_MS)
    scheduler(tests).advance(START_MS)
    after = make_app()
    after.schedule(after.tasks["tick"].s(), every="10m", name="kept")
    Scheduler("app", after.schedules, tests.app.backend).advance(START_MS + 1_000)
    rows = {row.definition.name: row for row, _ in read_rows(tests.app.backend)}
    assert rows["kept"].definition.timing == Every(10 * MINUTE_MS)
    assert rows["kept"].next_ms == START_MS + 10 * MINUTE_MS
    assert rows["gone"].orphaned
    scheduler(tests).advance(START_MS + 2_000)
    assert not any(row.orphaned for row, _ in read_rows(tests.app.backend))


def test_another_apps_scheduler_fires_what_is_due_and_orphans_nothing(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="m")
    scheduler(tests).advance(START_MS)
    Scheduler("other", [], tests.app.backend).advance(START_MS + MINUTE_MS)
    assert sent(tests) == [f"m@{START_MS + MINUTE_MS}"]
    assert not any(row.orphaned for row, _ in read_rows(tests.app.backend))


def test_a_row_that_cannot_be_read_keeps_no_other_from_firing_and_is_defined_anew(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="m")
    damaged: list[tuple[bytes, bytes | None]] = [
        (keys.schedule("a"), b"{not json"),
        (keys.schedule("m"), b'{"definition": 7}'),
    ]
    tests.app.backend.transact(Transact(state=damaged, name=keys.NAME))
    one = scheduler(tests)
    one.advance(START_MS)
    one.advance(START_MS + MINUTE_MS)
    assert sent(tests) == [f"m@{START_MS + MINUTE_MS}"]
    assert [row.definition.name for row, _ in read_rows(tests.app.backend)] == ["m"]


def test_a_paused_schedule_does_not_fire(tests: Tasks) -> None:
    tests.app.schedule(tests.app.tasks["tick"].s(), every="1m", name="m")
    one = scheduler(tests)
    one.advance(START_MS)
    [(row, stored)] = read_rows(tests.app.backend)
    assert write_row(tests.app.backend, schedules.paused(row, pause=True, now_ms=START_MS), stored)
    assert not write_row(tests.app.backend, row, stored)
    one.advance(START_MS + 10 * MINUTE_MS)
    assert sent(tests) == []


def test_decorators_declare_and_leave_the_task_a_task() -> None:
    app = App(retries=0)

    @app.schedule("30 2 * * *", tz="Europe/Berlin", missed="skip")
    @app.every("30s", name="often", jitter="5s")
    @app.task(name="clean", queue="nights", expires="1h")
    def clean() -> int:
        return 1

    assert clean() == 1
    often, nightly = sorted(app.schedules, key=lambda one: one.name, reverse=True)
    assert (often.name, often.timing, often.jitter_ms) == ("often", Every(30_000), 5_000)
    assert (nightly.name, nightly.queue, nightly.missed) == ("clean", "nights", "skip")
    assert nightly.envelope.expires_ms == 3_600_000


def test_schedules_that_cannot_be_are_refused_when_declared() -> None:
    app = make_app()
    tick = app.tasks["tick"]

    @app.task(name="needs")
    def needs(n: int) -> None:
        pass

    with pytest.raises(InvalidParameter, match="cron"):
        app.schedule("every day")
    with pytest.raises(InvalidArguments, match="needs"):
        app.every("1m")(needs)
    with pytest.raises(InvalidArguments, match="needs"):
        app.schedule(needs.s(), every="1m")
    with pytest.raises(InvalidOption, match="either cron"):
        app.schedule(tick.s(), cron="* * * * *", every="1m")
    with pytest.raises(InvalidOption, match="zone"):
        app.schedule(tick.s(), every="1m", tz="Europe/Berlin")
    with pytest.raises(InvalidOption, match="no such option"):
        app.schedule(tick.s(), every="1m", zone="UTC")  # type: ignore[call-overload]
    with pytest.raises(InvalidOption, match="from 1 second to"):
        app.every("10ms")
    app.schedule(tick.s(), every="1m", name="twice")
    with pytest.raises(InvalidOption, match="another schedule"):
        app.schedule(tick.s(), every="1m", name="twice")
