"""Tasks, runs and schedules, before a real broker: what waits is real, what ran is written as workers write it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.native.client import Client
from headrace.presence import Latency, RunningFacts, TaskFacts, WorkerFacts, write
from headrace.queue.operations import Hold, Transact
from headrace.work import keys
from headrace.work.app import App
from headrace.work.run_log import Run, RunLog
from headrace.work.scheduler import Scheduler
from tests.broker_process import BrokerProcess
from tests.console.holding import stay
from tests.console.serving import Browser, Served, serving
from tests.work.small_worker import SmallWorker

SCRIPT = "<script>alert('x')</script>"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def app(node: BrokerProcess) -> Iterator[App]:
    app = App(node.url)

    @app.task(name="shop.pay", retries=0)
    def pay(card: str) -> None:
        raise ConnectionError(f"no bank for {card}")

    @app.task(name="shop.pack", result_ttl="1h")
    def pack(book: str) -> str:
        return f"packed {book}"

    app.every("1h", name="stock-taking")(app.task(name="shop.take_stock")(lambda: None))
    Scheduler("shop", app.schedules, app.backend).advance(now_ms())
    yield app
    app.close()


@pytest.fixture(scope="module")
def runs(client: Client) -> list[Run]:
    """As workers write them: one task that was retried and then done, one that is dead."""
    begin = now_ms() - 60_000
    found = [
        Run("a" * 32, "shop.pay", "tasks", "w-1", begin, begin + 5, begin + 50, 1, "retried", "ConnectionError: away"),
        Run("a" * 32, "shop.pay", "tasks", "w-2", begin + 1_050, begin + 1_060, begin + 1_100, 2, "succeeded"),
        Run("b" * 32, "shop.<script>alert(1)</script>", "tasks", "w-1", begin, begin, begin + 9, 1, "dead", SCRIPT),
    ]
    client.call(Transact(state=list(RunLog("w-1").write(found, now_ms=begin).items()), name=keys.NAME))
    return found


def page(browser: Browser, path: str, status: int = 200) -> str:
    answer = browser.get(path)
    assert answer.status == status, answer.text
    assert "<script>alert" not in answer.text
    return answer.text


def present(client: Client, **fields: Any) -> None:
    facts = write(WorkerFacts(host="box", pid=7, slots=4, queues=["tasks"], app="shop:app", **fields))
    stay(client, Hold("worker-box-7", "worker", facts))


def test_runs_are_filtered_by_how_they_ended_and_by_text(served: Served, browser: Browser, runs: list[Run]) -> None:
    served.look()
    assert len(browser.get("/api/tasks").json["runs"]) == 3
    by_status = browser.get("/api/tasks?status=retried").json
    assert [(run["attempt"], run["waited_s"], run["took_s"]) for run in by_status["runs"]] == [(1, 0.005, 0.045)]
    assert by_status["fitting"] == 1
    assert {run["id"] for run in browser.get("/api/tasks?find=AWAY").json["runs"]} == {"a" * 32}
    assert [run["id"] for run in browser.get("/api/tasks?find=w-2&task=shop.pay").json["runs"]] == ["a" * 32]
    assert "No run of the last day fits" in page(browser, "/tasks?status=expired")
    page(browser, "/tasks")


def test_a_run_is_a_timeline(served: Served, browser: Browser, runs: list[Run]) -> None:
    served.look()
    facts = browser.get(f"/api/runs/{'a' * 32}").json
    assert [span["kind"] for span in facts["spans"]] == ["wait", "run", "pause", "wait", "run"]
    text = page(browser, f"/runs/{'a' * 32}")
    for said in ("backoff", "attempt 2, succeeded", "1.0 s", "w-2", "ConnectionError: away"):
        assert said in text
    page(browser, f"/runs/{'b' * 32}")


def test_a_task_that_nobody_knows_is_told_in_words(served: Served, browser: Browser) -> None:
    served.look()
    assert "nothing is known of task" in page(browser, "/runs/none-such", status=404)
    assert "no worker knows a task" in page(browser, "/tasks/none.such", status=404)


def test_workers_tell_what_runs(served: Served, browser: Browser, client: Client, runs: list[Run]) -> None:
    begun = now_ms() - 3_000
    told = TaskFacts(task="shop.pay", succeeded=8, failed=2, dead=1, succeeded_s=4.0, run=Latency(count=9, p50_s=0.25))
    present(client, running=[RunningFacts(id="c" * 32, task="shop.pay", started_ms=begun, attempt=2)], tasks=[told])
    served.look()
    facts = browser.get("/api/tasks").json
    assert (facts["totals"]["running"], facts["totals"]["slots"], facts["totals"]["workers"]) == (1, 4, 1)
    [line] = [line for line in facts["tasks"] if line["task"] == "shop.pay"]
    assert (line["succeeded_s"], line["running"], line["run"]["p50_s"]) == (4.0, 1, 0.25)
    assert "250 ms" in page(browser, "/tasks/shop.pay")
    text = page(browser, f"/runs/{'c' * 32}")
    assert "running" in text and "Cancel" in text
    [row] = browser.get("/api/workers").json["running"]
    assert row["id"] == "c" * 32 and 2.5 < row["age_s"] < 30
    assert "box:7" in page(browser, "/workers/worker-box-7")


def test_many_tasks_are_paged(served: Served, browser: Browser, client: Client) -> None:
    for worker in range(2):
        told = [TaskFacts(task=f"many.t{worker}{number:02}", succeeded=1) for number in range(80)]
        stay(client, Hold(f"worker-many-{worker}", "worker", write(WorkerFacts(tasks=told))))
    served.look()
    first, second = (browser.get(f"/api/tasks?page={number}").json for number in (1, 2))
    assert (len(first["tasks"]), len(second["tasks"]) >= 60, second["pages"]) == (100, True, 2)
    assert not {line["task"] for line in first["tasks"]} & {line["task"] for line in second["tasks"]}
    text = page(browser, "/tasks?status=succeeded")
    assert "Page 1 of 2" in text and 'href="/tasks?find=&amp;status=succeeded&amp;task=&amp;page=2"' in text


def test_a_waiting_task_is_found_shown_and_cancelled(
    served: Served, browser: Browser, client: Client, app: App
) -> None:
    handle = app.tasks["shop.pack"].options(delay=3_600).send(SCRIPT)
    served.look()
    [waiting] = [one for one in browser.get("/api/waiting?find=shop.pack").json["waiting"] if one["id"] == handle.id]
    assert (waiting["state"], waiting["queue"], waiting["attempt"]) == ("delayed", "tasks", 1)
    address = f"/runs/{handle.id}?queue=tasks&seq={waiting['seq']}"
    facts = browser.get(f"/api{address}").json
    assert facts["now"]["state"] == "delayed" and facts["bars"][-1]["span"]["open"]
    for place in (address, f"/runs/{handle.id}", "/waiting", "/waiting?find=nothing"):
        page(browser, place)
    page(browser, address)
    done = browser.follow(browser.post(f"/runs/{handle.id}/cancel?queue=tasks&seq={waiting['seq']}"))
    assert "it has not run, and will not" in done.text
    assert client.queue("tasks").counts().delayed == 0
    assert browser.get(f"/api/runs/{handle.id}").json["result"]["status"] == "cancelled"
    assert "had ended already" in browser.follow(browser.post(f"/runs/{handle.id}/cancel")).text


def test_a_dead_task_shows_its_traceback_and_is_started_anew(
    served: Served, browser: Browser, client: Client, app: App
) -> None:
    handle = app.tasks["shop.pay"].send("4111")
    SmallWorker(app).run_ready()
    served.look()
    text = page(browser, f"/runs/{handle.id}")
    assert "no bank for 4111" in text and "Traceback" in text and "Start it anew" in text
    done = browser.follow(browser.post(f"/runs/{handle.id}/retry"))
    assert "it waits in tasks" in done.text
    assert (client.queue("tasks").counts().visible, client.queue("tasks-dead").counts().visible) == (1, 0)
    refused = browser.follow(browser.post(f"/runs/{handle.id}/retry", {"back": "/tasks"}))
    assert "among no dead letters" in refused.text
    SmallWorker(app).run_ready()


def test_a_result_is_shown(served: Served, browser: Browser, app: App) -> None:
    handle = app.tasks["shop.pack"].send("Emma")
    SmallWorker(app).run_ready()
    served.look()
    assert "packed Emma" in page(browser, f"/runs/{handle.id}")


def test_schedules_pause_resume_and_fire(served: Served, browser: Browser, client: Client, app: App) -> None:
    served.look()
    [row] = browser.get("/api/schedules").json["schedules"]
    assert (row["name"], row["when"], row["state"], row["task"]) == (
        "stock-taking",
        "every 1h",
        "active",
        "shop.take_stock",
    )
    assert 0 < row["next_s"] <= 3_600
    assert len(browser.get("/api/schedules/stock-taking").json["upcoming"]) == 5
    for action, told, state in (("pause", "is paused", "paused"), ("resume", "fires again", "active")):
        page(browser, "/schedules/stock-taking")
        assert told in browser.follow(browser.post(f"/schedules/stock-taking/{action}")).text
        assert browser.get("/api/schedules").json["schedules"][0]["state"] == state
    app.tasks["shop.take_stock"].send()  # makes the queue, if no test has yet
    before = client.queue("tasks").counts().visible
    fired = browser.follow(browser.post("/schedules/stock-taking/run"))
    assert "was sent as task" in fired.text and client.queue("tasks").counts().visible == before + 1
    assert browser.get("/api/schedules/stock-taking").json["schedule"]["next_ms"] == row["next_ms"]
    page(browser, "/schedules")
    page(browser, "/schedules/none-such", status=404)
    SmallWorker(app).run_ready()


def test_a_read_only_console_changes_no_task_and_no_schedule(node: BrokerProcess, client: Client, app: App) -> None:
    handle = app.tasks["shop.pack"].options(delay=3_600).send("kept")
    with serving(broker=node.url, read_only=True) as served:
        browser = served.browser()
        assert "Cancel" not in page(browser, f"/runs/{handle.id}")
        page(browser, "/sign-in", status=404)
        for path in (f"/runs/{handle.id}/cancel", "/schedules/stock-taking/pause", "/streams/totals/pause"):
            assert browser.post(path).status == 403
    assert client.queue("tasks").counts().delayed == 1
    handle.cancel()


def test_hidden_bodies_hide_arguments_results_and_errors(node: BrokerProcess, app: App, runs: list[Run]) -> None:
    handle = app.tasks["shop.pack"].send("secret-book")
    SmallWorker(app).run_ready()
    waiting = app.tasks["shop.pack"].options(delay=3_600).send("secret-book")
    dead = app.tasks["shop.pay"].send("secret-card")
    SmallWorker(app).run_ready()
    with serving(broker=node.url, hide_bodies=True) as served:
        browser = served.browser()
        for path in (
            f"/runs/{handle.id}",
            f"/runs/{waiting.id}",
            f"/runs/{dead.id}",
            "/waiting",
            "/tasks",
            f"/runs/{'a' * 32}",
        ):
            for place in (path, f"/api{path}"):
                text = browser.get(place).text
                assert "secret" not in text and "ConnectionError: away" not in text, place
        found = browser.get("/api/tasks?find=w-1").json, browser.get("/api/tasks?find=away").json
        assert [facts["fitting"] > 0 for facts in found] == [True, False], "no search tells what an error says"
    waiting.cancel()


def test_the_backend_of_pages_is_the_one_connection(served: Served) -> None:
    from headrace.console.task_calls import work_on

    async def ask() -> list[Any]:
        return await work_on(served.console._client, lambda backend: backend.state(keys.SCHEDULE))

    assert isinstance(served.call(ask()), list)
