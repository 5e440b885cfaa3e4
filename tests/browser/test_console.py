"""The console in a real browser: every page without a complaint, live values, keyboard, a phone; and what is done by clicking."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

import headrace
from headrace.native.client import Client
from headrace.native.messages import Outgoing
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import Transact
from tests.broker_process import BrokerProcess, broker
from tests.console.serving import Served, serving
from tests.patience import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHIN_MS = 1_000 * PATIENCE_S
SCRIPT = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="no chromium here: apt-get install chromium"
    ),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with broker(tmp_path_factory.mktemp("browser") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def client(node: BrokerProcess) -> Iterator[Client]:
    with headrace.connect(node.url) as one:
        prepare(one)
        yield one


def prepare(client: Client) -> None:
    """Queues with something to see: JSON, script tags, a long name, dead letters of a task."""
    client.queue("orders", create=True).send_many([{"order": number, "city": "Zürich"} for number in range(40)])
    client.queue("hostile", create=True).send(SCRIPT, attributes={"note": SCRIPT})
    client.queue("a-name-as-long-as-they-may-be-" + "x" * 50, create=True)
    client.queue("tasks-dead", create=True)
    client.queue("tasks", create=True, dead_letter="tasks-dead", max_receives=1_000)
    told = {"headrace-error": "ValueError", "headrace-task": "shop.pay", "headrace-reason": SCRIPT}
    attempt = {"at_ms": 1_800_000_000_000, "attempt": 1, "error": "ValueError", "message": SCRIPT, "traceback": SCRIPT}
    body = json.dumps({"task": "shop.pay", "id": "1", "args": {}, "history": [attempt]}).encode()
    attributes = Outgoing("x", attributes=told).entry().attributes
    letters = [Entry(body, attributes, source=arn_of("tasks"))] * 5
    client.call(Transact(sends=[(arn_of("tasks-dead"), letters)]))


@pytest.fixture(scope="module")
def served(node: BrokerProcess, client: Client) -> Iterator[Served]:
    with serving(broker=node.url) as one:
        yield one


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "CI is meant to have chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, served: Served) -> Iterator[Any]:
    """A fresh visitor's page. At the end: it had nothing to complain of."""
    context = chromium.new_context(base_url=served.url, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(WITHIN_MS)
    found = context.new_page()
    complaints = watch(found)
    yield found
    context.close()
    assert complaints == []


def watch(page: Any) -> list[str]:
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    return complaints


def wait_live(page: Any) -> None:
    page.wait_for_selector('#link-state[data-state="live"]')


PLACES = (
    "/", "/queues", "/queues/orders", "/queues/orders/messages/1", "/queues/hostile", "/queues/hostile/messages/1",
    "/dead-letters", "/dead-letters/tasks-dead", "/dead-letters/tasks-dead/1",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_each_page_opens_and_no_body_of_script_tags_becomes_one(page: Any, place: str) -> None:
    page.goto(place)
    if page.query_selector("#live"):
        wait_live(page)
    assert page.title().endswith("· headrace")
    assert page.query_selector("main img") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_each_page_of_the_navigation_fits_a_phone(chromium: Any, served: Served) -> None:
    context = chromium.new_context(base_url=served.url, viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = context.new_page()
    complaints = watch(page)
    page.goto("/")
    links = [link.get_attribute("href") for link in page.query_selector_all(".side nav a")]
    for place in [*links, *PLACES]:
        page.goto(place)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
        own = page.locator("nav [aria-current=page]").bounding_box()
        assert own["x"] >= 0 and own["x"] + own["width"] <= 360, (
            f"{place}: its own entry of the navigation is out of sight"
        )
    context.close()
    assert complaints == []


def test_live_values_and_charts_move_without_loading_anew(page: Any, client: Client) -> None:
    page.goto("/queues/orders")
    wait_live(page)
    page.wait_for_selector("figure .uplot canvas")
    page.evaluate("window.same = true")
    visible = page.locator(".stat", has_text="Visible").locator("dd")
    before = int(visible.inner_text())
    client.queue("orders").send_many(["more"] * 7)
    page.wait_for_function("n => document.querySelector('.stat dd').textContent.trim() === String(n)", arg=before + 7)
    assert page.evaluate("window.same === true")
    assert page.locator("figure .uplot").count() == 3
    newest = "document.querySelector('figure .u-legend').textContent"
    page.wait_for_function(f"n => {newest}.replace(/[^0-9]/g, ' ').split(' ').includes(String(n))", arg=before + 7)


def test_a_hidden_tab_stops_listening_and_comes_back(page: Any, served: Served, client: Client) -> None:
    page.goto("/queues/orders")
    wait_live(page)
    hide = "v => { Object.defineProperty(document, 'hidden', {value: v, configurable: true}); document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    page.wait_for_timeout(0)
    for _ in range(100):
        if served.console._live.viewers == 0:
            break
        page.wait_for_timeout(50)
    assert served.console._live.viewers == 0
    client.queue("orders").send("while nobody looked")
    wanted = client.queue("orders").counts().visible
    page.evaluate(hide, False)
    page.wait_for_function("n => document.querySelector('.stat dd').textContent.trim() === String(n)", arg=wanted)


def test_peek_by_search_shows_json_laid_out(page: Any, client: Client) -> None:
    page.goto("/queues/orders")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "search"
    page.keyboard.type('"order":17')
    page.keyboard.press("Enter")
    page.wait_for_url("**search=**")
    page.click("table.messages tbody a")
    page.wait_for_selector(".body-text .json-key")
    assert '"city": "Zürich"' in page.inner_text(".body-text")
    assert client.queue("orders").counts().received == 0


def test_send_and_purge_by_their_forms(page: Any, client: Client) -> None:
    client.queue("clicked", create=True)
    page.goto("/queues")
    page.wait_for_selector("text=clicked")
    page.click("text=clicked")
    page.fill("textarea[name=body]", '{"sent": "by hand"}')
    page.click("button:text-is('Send')")
    page.wait_for_selector(".notice >> text=Sent to clicked as message 1")
    page.fill("form[action$='/purge'] input[name=name]", "clicked")
    page.click("button:text-is('Purge')")
    page.wait_for_selector(".notice >> text=1 messages are gone")
    assert client.queue("clicked").counts().visible == 0


def test_dead_letters_go_back_by_choice_and_all(page: Any, client: Client) -> None:
    page.goto("/dead-letters/tasks-dead")
    page.check("input[name=seq] >> nth=0")
    page.check("input[name=seq] >> nth=1")
    page.click("button:text-is('Redrive the chosen')")
    page.wait_for_selector(".notice >> text=Moved 2 letters")
    assert client.queue("tasks").counts().visible == 2
    page.click("button:text-is('Redrive all')")
    page.wait_for_selector(".move >> text=3 of 3")
    assert client.queue("tasks").counts().visible == 5


def test_keys_go_to_pages_open_help_and_turn_the_theme(page: Any) -> None:
    page.goto("/")
    page.keyboard.press("g")
    page.keyboard.press("q")
    page.wait_for_url("**/queues")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('tr') !== null")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("t")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_g_and_a_letter_leads_to_each_page_of_the_navigation(page: Any) -> None:
    page.goto("/")
    places = [link.get_attribute("href") for link in page.query_selector_all(".side nav a")]
    letters = ("o", "q", "d", "t", "c", "w", "s", "p", "k", "e")
    page.goto("/settings")
    for letter, place in zip(letters, places, strict=True):
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url(f"**{place}")
        assert page.get_attribute('.side nav a[aria-current="page"]', "href") == place
    assert page.evaluate("document.documentElement.dataset.theme") is None, "g then t is not t"


def test_pages_are_complete_without_javascript(chromium: Any, served: Served, client: Client) -> None:
    client.queue("by-hand", create=True)
    served.look()
    context = chromium.new_context(base_url=served.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/queues/by-hand")
    assert page.is_visible("figure .spark >> nth=0")
    page.fill("textarea[name=body]", "without scripts")
    page.click("button:text-is('Send')")
    assert "without scripts" in page.inner_text("table.messages")
    context.close()
