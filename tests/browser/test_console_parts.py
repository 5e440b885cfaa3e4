"""The console on real parts: a broker, a web server, workers and a pipeline, all under `headrace up`; looked at, and told what to do."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import headrace
from headrace.native.client import Client
from headrace.work.app import App
from tests.broker_process import wait_until
from tests.browser.test_console import CHROMIUM, WITHIN_MS, wait_live, watch
from tests.browser.test_console import chromium as chromium  # noqa: PLC0414 (a fixture)
from tests.patience import PATIENCE_S
from tests.up.up_process import BROKER, STREAM, WEB, UpProcess, up

TASKS = """
import asyncio
import headrace

app = headrace.App()

@app.task(name="shop.pack", result_ttl="1h")
def pack(book: str) -> str:
    return f"packed {book}"

@app.task(name="shop.pay", retries=1, backoff=headrace.work.Backoff(10))
def pay(card: str) -> None:
    raise ConnectionError(f"no bank for {card}")

@app.task(name="shop.wait")
async def wait() -> None:
    await asyncio.Event().wait()

@app.every("1h", name="stock-taking")
@app.task(name="shop.take_stock")
def take_stock() -> None: ...
"""
SETTINGS = f'{BROKER}\n{WEB}broker = "data"\n\n[worker]\napp = "tasks:app"\nprocesses = 1\nthreads = 2\n\n{STREAM}\n[console]\nport = 0\n'

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="no chromium here: apt-get install chromium"
    ),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    folder = tmp_path_factory.mktemp("parts")
    (folder / "tasks.py").write_text(TASKS)
    with up(folder, SETTINGS) as process:
        yield process


@pytest.fixture(scope="module")
def client(parts: UpProcess) -> Iterator[Client]:
    with headrace.connect(parts.folder / "data") as one:
        yield one


@pytest.fixture(scope="module")
def app(parts: UpProcess) -> Iterator[App]:
    """Sends what the workers know."""
    app = App(parts.folder / "data")
    app.task(name="shop.pack", result_ttl="1h")(lambda book: None)
    app.task(name="shop.pay")(lambda card: None)
    app.task(name="shop.wait")(lambda: None)
    yield app
    app.close()


@pytest.fixture
def page(chromium: Any, parts: UpProcess) -> Iterator[Any]:
    context = chromium.new_context(base_url=parts.url_of("console"), viewport={"width": 1280, "height": 860})
    context.set_default_timeout(WITHIN_MS)
    found = context.new_page()
    complaints = watch(found)
    yield found
    context.close()
    assert complaints == []


def test_numbers_of_tasks_move_while_one_looks(page: Any, app: App) -> None:
    page.goto("/tasks")
    wait_live(page)
    page.evaluate("window.same = true")
    for book in ("Emma", "Ulysses", "Moby Dick"):
        app.tasks["shop.pack"].send(book).result(timeout=PATIENCE_S)
    page.wait_for_selector("#tasks >> text=shop.pack")
    done = page.locator("#tasks tr", has_text="shop.pack").locator('td[data-label="Done"]')
    page.wait_for_function("cell => Number(cell.textContent) >= 3", arg=done.element_handle())
    page.wait_for_selector("table.runs >> text=succeeded")
    assert page.evaluate("window.same === true")
    assert page.locator("figure .uplot").count() == 3


def test_a_result_is_found_from_the_list_of_runs(page: Any, app: App) -> None:
    handle = app.tasks["shop.pack"].send("Middlemarch")
    handle.result(timeout=PATIENCE_S)
    page.goto(f"/tasks?find={handle.id}")
    page.click("table.runs tbody a >> nth=0")
    page.wait_for_selector("pre >> text=packed Middlemarch")
    assert page.is_visible(".timeline rect.span-run.is-good")


def test_a_dead_task_tells_its_life_and_is_started_anew(page: Any, app: App, client: Client) -> None:
    app.tasks["shop.pay"].send("4111")
    wait_until(
        lambda: client.queue("tasks-dead").peek(1)
    )  # what is on its way to the disk is counted, and not shown yet
    page.goto("/dead-letters/tasks-dead")
    page.click("#letters tbody a >> nth=0")
    page.click("a:text-is('its run')")
    page.wait_for_selector(".spans-list >> text=attempt 2, dead")
    assert "no bank for 4111" in page.inner_text(".attempts >> nth=0")
    page.click("button:text-is('Start it anew')")
    page.wait_for_selector(".notice >> text=Started anew")
    page.wait_for_selector(".spans-list li.is-bad >> nth=1")  # it ran again, and is dead again: told by itself


def test_a_running_task_is_cancelled(page: Any, app: App, client: Client) -> None:
    handle = app.tasks["shop.wait"].send()
    page.goto("/workers")
    page.wait_for_selector("text=Running now")
    page.click("table >> text=shop.wait")
    page.click(f"a[href='/runs/{handle.id}']")
    page.wait_for_selector(".timeline rect.is-open")
    page.click("button:text-is('Cancel')")
    page.wait_for_selector(".notice >> text=Cancellation requested")
    page.wait_for_selector(".spans-list >> text=attempt 1, cancelled")


def test_a_schedule_is_paused_and_fired(page: Any) -> None:
    page.goto("/schedules")
    page.wait_for_selector("text=stock-taking")
    page.click("text=stock-taking")
    page.click("button:text-is('Pause')")
    page.wait_for_selector(".notice >> text=stock-taking is paused")
    page.click("button:text-is('Run now')")
    page.wait_for_selector(".notice >> text=was sent as task")
    page.click("button:text-is('Resume')")
    page.wait_for_selector(".notice >> text=fires again")


def test_a_pipeline_is_drawn_paused_and_goes_on(page: Any, client: Client) -> None:
    page.goto("/streams")
    page.click("text=doubled")
    wait_live(page)
    assert page.locator("svg.plan rect").count() >= 3
    client.queue("events").send_many([{"k": "a", "v": 1}] * 20)
    page.wait_for_selector("p.facts >> text=20 rows in and 20 out")
    page.click("button:text-is('Pause')")
    page.wait_for_selector(".notice >> text=begins no more batches")
    page.wait_for_selector(".stat >> text=paused")
    page.click("button:text-is('Resume')")
    page.wait_for_selector(".stat >> text=running")


def test_a_web_server_tells_its_routes_and_workers(page: Any, parts: UpProcess) -> None:
    for _ in range(5):
        assert urllib.request.urlopen(parts.url_of("web"), timeout=PATIENCE_S).status == 200
    page.goto("/web")
    page.wait_for_selector("#routes >> text=2xx 5")
    assert page.is_visible("text=serving")
    page.click("#routes tbody a >> nth=0")
    page.wait_for_selector("h1")
    assert "Answers" in page.inner_text("main")


def test_everybody_is_present_and_in_the_flow(page: Any) -> None:
    page.goto("/workers")
    for kind in ("worker", "web", "stream", "console"):
        page.wait_for_selector(f"#holders .badge >> text={kind}")
    page.goto("/")
    page.wait_for_selector(".flow .node >> text=worker")
    page.goto("/settings")
    assert "headrace.toml: broker.port" in page.inner_text("main")


def test_each_page_fits_a_phone_and_is_complete_without_javascript(chromium: Any, parts: UpProcess) -> None:
    tasks = ("/tasks", "/tasks/shop.pack", "/waiting", "/schedules", "/schedules/stock-taking")
    places = (*tasks, "/web", "/streams", "/streams/doubled", "/topics", "/workers", "/settings")
    size = {"width": 360, "height": 740}
    context = chromium.new_context(
        base_url=parts.url_of("console"), viewport=size, java_script_enabled=False, color_scheme="dark"
    )
    page = context.new_page()
    for place in places:
        page.goto(place)
        assert page.inner_text("h1") and page.locator("main table, main .empty, main dl").count(), place
        width = page.locator("main").bounding_box()["width"]
        assert width <= 360, place
    context.close()
