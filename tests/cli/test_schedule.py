"""`headrace schedule`: looking at rows, pausing, resuming, firing now."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from headrace.work import App
from headrace.work.scheduler import Scheduler
from tests.cli.conftest import CommandLine
from tests.native.served import ServedBroker
from tests.work.small_worker import SmallWorker


@pytest.fixture
def app(served: ServedBroker) -> Iterator[App]:
    app = App(served.url, retries=0)

    @app.every("1h", name="hourly", overlap="skip")
    @app.schedule("30 2 * * *", tz="Europe/Berlin")
    @app.task(name="shop.clean")
    def clean() -> None:
        pass

    Scheduler("shop:app", app.schedules, app.backend).advance(now_ms())
    yield app
    app.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_schedules_are_listed_with_their_times(app: App, run: CommandLine) -> None:
    hourly, nightly = run("schedule", "ls").json
    assert (hourly["schedule"], hourly["when"], hourly["state"]) == ("hourly", "every 1h", "active")
    assert (nightly["schedule"], nightly["when"]) == ("shop.clean", "30 2 * * * (Europe/Berlin)")
    assert "every 1h" in run("schedule", "ls", "-o", "table").out
    times = run("schedule", "next", "shop.clean", "-n", "3").json
    assert len(times) == 3 and all(" 02:30:00 CE" in one["local"] or " 03:00:00 CE" in one["local"] for one in times)


def test_a_schedule_is_paused_and_resumed(app: App, run: CommandLine) -> None:
    assert run("schedule", "pause", "hourly").json["state"] == "paused"
    assert run("schedule", "ls").json[0]["next_at"] is None
    Scheduler("shop:app", app.schedules, app.backend).advance(now_ms() + 86_400_000)
    assert [row["task"] for row in run("task", "ls", "--waiting", "-Q", "tasks").json] == ["shop.clean"]
    resumed = run("schedule", "resume", "hourly").json
    assert resumed["state"] == "active" and resumed["next_at"] is not None


def test_a_schedule_is_fired_now_but_does_not_overlap(app: App, run: CommandLine) -> None:
    sent = run("schedule", "run", "hourly")
    assert sent.code == 0
    again = run("schedule", "run", "hourly")
    assert again.code == 1 and "has not ended" in again.err
    SmallWorker(app).run_ready()
    assert run("schedule", "run", "hourly").code == 0


def test_an_orphaned_schedule_is_removed_and_a_declared_one_is_not(app: App, run: CommandLine) -> None:
    refused = run("schedule", "rm", "hourly", "--yes")
    assert refused.code == 1 and "shop:app" in refused.err
    Scheduler("shop:app", [], app.backend).advance(now_ms())
    assert [row["state"] for row in run("schedule", "ls").json] == ["orphaned", "orphaned"]
    assert run("schedule", "rm", "hourly", "--yes").json["removed"] is True
    assert len(run("schedule", "ls").json) == 1
    missing = run("schedule", "pause", "hourly")
    assert missing.code == 1 and "headrace schedule ls" in missing.err
