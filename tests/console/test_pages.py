"""Every page, whole and as JSON, before a real broker; and what its forms do."""

from __future__ import annotations

import json

import pytest

from headrace.console.pages import PAGES, SECTIONS
from headrace.native.client import Client
from headrace.native.messages import Outgoing
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import Transact
from tests.console.serving import Browser, Served

SCRIPT = "<script>alert('x')</script>"
HOSTILE = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "'; DROP TABLE messages; --",
    "\u202etxt.exe\x1b[31m",
]


@pytest.fixture(scope="module", autouse=True)
def queues(client: Client) -> None:
    client.queue("plain", create=True).send_many([{"n": number} for number in range(60)])


def page(browser: Browser, path: str, status: int = 200) -> str:
    answer = browser.get(path)
    assert answer.status == status, answer.text
    return answer.text


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_each_section_is_a_page_and_json(served: Served, browser: Browser, section: object) -> None:
    served.look()
    path = section.path  # type: ignore[attr-defined]  # a Section; pytest's ids want an object
    text = page(browser, path)
    assert 'aria-current="page"' in text and "<h1>" in text
    assert isinstance(browser.get(f"/api{path}").json, dict)


def test_each_page_has_a_section_that_exists_or_none() -> None:
    assert {page.section for page in PAGES} - {""} <= {section.name for section in SECTIONS}


def test_overview_shows_what_waits_and_the_api_the_same(served: Served, browser: Browser) -> None:
    served.look()
    assert "plain" in page(browser, "/")
    facts = browser.get("/api/").json
    [line] = [line for line in facts["queues"] if line["name"] == "plain"]
    assert (line["visible"], line["depth"]) == (60, 60)
    assert "plain" in [queue["name"] for queue in facts["flow"]["queues"]]


def test_list_finds_by_name_and_orders(served: Served, browser: Browser, client: Client) -> None:
    for name, sent in (("find-a", 1), ("find-b", 3)):
        client.queue(name, create=True).send_many(["x"] * sent)
    served.look()
    found = browser.get("/api/queues?find=FIND-&by=waiting").json
    assert [line["name"] for line in found["queues"]] == ["find-b", "find-a"]
    assert "find-a" not in page(browser, "/queues?find=nothing-like-it")


def test_many_queues_are_paged(served: Served, browser: Browser, client: Client) -> None:
    for number in range(101):
        client.queue(f"many-{number:03}", create=True)
    served.look()
    first, second = (browser.get(f"/api/queues?find=many-&page={number}").json for number in (1, 2))
    assert [len(first["queues"]), len(second["queues"]), first["pages"]] == [100, 1, 2]
    assert "Page 2 of 2" in page(browser, "/queues?find=many-&page=2")
    assert "Page 2 of 2" in page(browser, "/queues?find=many-&page=9"), "what is beyond the last is the last"
    assert browser.get("/api/").json["queues_total"] > len(browser.get("/api/").json["queues"])


def test_peek_changes_nothing(served: Served, browser: Browser, client: Client) -> None:
    client.queue("peeked", create=True).send({"looked": "at"})
    served.look()
    for _ in range(3):
        assert "looked" in page(browser, "/queues/peeked")
        assert "looked" in page(browser, "/queues/peeked/messages/1")
    [message] = client.queue("peeked").receive(wait=0)
    assert message.receives == 1


def test_messages_are_paged_to_the_end(served: Served, browser: Browser) -> None:
    served.look()
    seen, after = [], 0
    for _ in range(4):
        facts = browser.get(f"/api/queues/plain?after={after}").json
        seen += [message["seq"] for message in facts["messages"]]
        after = facts["next"]
        if after is None:
            break
    assert seen == list(range(1, 61))


def test_search_looks_into_bodies_and_attributes(served: Served, browser: Browser, client: Client) -> None:
    queue = client.queue("searched", create=True)
    queue.send_many([Outgoing(f"body {number}") for number in range(90)])
    queue.send("tagged", attributes={"tenant": "Acme"})
    served.look()
    by_body = browser.get("/api/queues/searched?search=BODY+77").json
    assert [message["line"] for message in by_body["messages"]] == ["body 77"]
    by_attribute = browser.get("/api/queues/searched?search=tenant=acme").json
    assert [message["line"] for message in by_attribute["messages"]] == ["tagged"]


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_body_stays_text(served: Served, browser: Browser, client: Client, body: str) -> None:
    queue = client.queue("hostile", create=True)
    sent = queue.send(body, attributes={"note": body})
    served.look()
    for path in ("/queues/hostile", f"/queues/hostile/messages/{sent.sequence}", f"/queues/hostile?search={'%3C'}"):
        text = page(browser, path)
        assert "<script>alert" not in text and "<img src=x" not in text and ">49<" not in text
    queue.receive(wait=0)[0].delete()


@pytest.mark.parametrize(
    "name", ["%3Cscript%3Ealert(1)%3C%2Fscript%3E", "..%2F..%2Fetc%2Fpasswd", "%00", "%FF", "a" * 2_000, "no-such"]
)
def test_a_queue_that_is_not_there_is_told_in_words(browser: Browser, name: str) -> None:
    text = page(browser, f"/queues/{name}", status=404)
    assert "there is no queue" in text and "<script>alert" not in text
    assert "there is no queue" in browser.get(f"/api/queues/{name}").json["error"]


def test_a_queue_of_another_account_has_its_page(served: Served, browser: Browser, client: Client) -> None:
    arn = "arn:aws:sqs:eu-west-1:111122223333:far"
    client.queue(arn, create=True).send("from afar")
    served.look()
    assert "from afar" in page(browser, "/queues/arn%3Aaws%3Asqs%3Aeu-west-1%3A111122223333%3Afar")
    assert "arn%3Aaws%3Asqs%3Aeu-west-1%3A111122223333%3Afar" in page(browser, "/queues")


def test_a_binary_body_is_shown_and_downloaded_whole(served: Served, browser: Browser, client: Client) -> None:
    client.queue("binary", create=True).send(b"\xff\x00\x01")
    served.look()
    assert "/wAB" in page(browser, "/queues/binary/messages/1")
    client.queue("binary").send("text for a file")
    answer = browser.get("/queues/binary/messages/2/body")
    assert (answer.text, answer.headers["content-disposition"]) == ("text for a file", "attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("seq", ["999", "x", "-1", "9" * 30])
def test_a_message_that_is_gone_is_told_in_words(served: Served, browser: Browser, seq: str) -> None:
    served.look()
    page(browser, f"/queues/plain/messages/{seq}", status=404)


def test_send_form_sends(served: Served, browser: Browser, client: Client) -> None:
    client.queue("sent", create=True)
    served.look()
    page(browser, "/queues/sent")
    shown = browser.follow(browser.post("/queues/sent/send", {"body": "line 1\r\nline 2 ü"}))
    assert "Sent to sent as message 1." in shown.text
    assert client.queue("sent").receive(wait=0)[0].text == "line 1\nline 2 ü"


def test_send_form_keeps_fifo_rules(served: Served, browser: Browser, client: Client) -> None:
    client.queue("sent.fifo", create=True, fifo=True)
    served.look()
    page(browser, "/queues/sent.fifo")
    refused = browser.follow(browser.post("/queues/sent.fifo/send", {"body": "x", "back": "/queues/sent.fifo"}))
    assert 'class="notice bad"' in refused.text
    browser.post("/queues/sent.fifo/send", {"body": "x", "group": "g", "dedup_id": "d"})
    assert client.queue("sent.fifo").counts().visible == 1


def test_purge_needs_the_name(served: Served, browser: Browser, client: Client) -> None:
    client.queue("purged", create=True).send_many(["x"] * 5)
    served.look()
    page(browser, "/queues/purged")
    refused = browser.follow(browser.post("/queues/purged/purge", {"name": "other", "back": "/queues/purged"}))
    assert "type the name purged" in refused.text
    assert client.queue("purged").counts().visible == 5
    done = browser.follow(browser.post("/queues/purged/purge", {"name": "purged"}))
    assert "Purged purged: 5 messages are gone." in done.text
    assert client.queue("purged").counts().visible == 0


def test_one_message_is_deleted(served: Served, browser: Browser, client: Client) -> None:
    client.queue("pruned", create=True).send_many(["a", "b", "c"])
    served.look()
    page(browser, "/queues/pruned/messages/2")
    browser.post("/queues/pruned/messages/2/delete")
    assert [message.text for message in client.queue("pruned").peek()] == ["a", "c"]


# --- dead letters ---


def letters(client: Client, name: str, count: int = 3) -> None:
    """A queue and its dead letters: of a task, with an error, a reason and a history."""
    client.queue(f"{name}-dead", create=True)
    client.queue(name, create=True, dead_letter=f"{name}-dead", max_receives=3)
    attempts = [
        {"at_ms": 1_800_000_000_000, "attempt": 1, "error": "ValueError", "message": SCRIPT, "traceback": "line 41"}
    ]
    body = json.dumps({"task": "shop.pay", "id": "1", "args": {}, "history": attempts}).encode()
    told = Outgoing("x", attributes={"headrace-error": "ValueError", "headrace-task": "shop.pay"}).entry().attributes
    entries = [Entry(body, told, source=arn_of(name)) for _ in range(count)]
    other = Entry(b"another's", source=arn_of(name))
    client.call(Transact(sends=[(arn_of(f"{name}-dead"), [*entries, other])]))


def test_letters_are_grouped_and_one_tells_its_history(served: Served, browser: Browser, client: Client) -> None:
    letters(client, "grouped")
    served.look()
    facts = browser.get("/api/dead-letters/grouped-dead").json
    assert [(group["error"], group["count"]) for group in facts["groups"]] == [
        ("ValueError", 3),
        ("received too often", 1),
    ]
    key = facts["groups"][0]["key"]
    assert [letter["seq"] for letter in browser.get(f"/api/dead-letters/grouped-dead?group={key}").json["letters"]] == [
        1,
        2,
        3,
    ]
    text = page(browser, "/dead-letters/grouped-dead/1")
    assert "line 41" in text and "shop.pay" in text and "<script>alert" not in text
    assert "grouped-dead" in page(browser, "/dead-letters")


def test_chosen_letters_go_back_and_nothing_else(served: Served, browser: Browser, client: Client) -> None:
    letters(client, "chosen")
    served.look()
    page(browser, "/dead-letters/chosen-dead")
    done = browser.follow(browser.post("/dead-letters/chosen-dead/redrive", {"seq": ["1", "3"]}))
    assert "Moved 2 letters to where they came from." in done.text
    assert [message.sequence for message in client.queue("chosen-dead").peek()] == [2, 4]
    back = client.queue("chosen").peek()
    assert [message.json()["task"] for message in back] == ["shop.pay", "shop.pay"]
    assert back[0].attributes["headrace-error"] == "ValueError"


def test_a_group_goes_elsewhere(served: Served, browser: Browser, client: Client) -> None:
    letters(client, "group")
    client.queue("elsewhere.fifo", create=True, fifo=True)
    served.look()
    page(browser, "/dead-letters/group-dead")
    key = browser.get("/api/dead-letters/group-dead").json["groups"][0]["key"]
    browser.post("/dead-letters/group-dead/redrive", {"group": key, "to": "elsewhere.fifo"})
    assert client.queue("elsewhere.fifo").counts().visible == 3
    assert [message.text for message in client.queue("group-dead").peek()] == ["another's"]


def test_all_letters_go_back_by_the_broker_with_progress(served: Served, browser: Browser, client: Client) -> None:
    letters(client, "all", count=20)
    served.look()
    page(browser, "/dead-letters/all-dead")
    browser.post("/dead-letters/all-dead/redrive-all", {"rate": "1"})
    [move] = browser.get("/api/dead-letters/all-dead").json["moves"]
    assert (move["status"], move["running"], move["rate_max"]) == ("RUNNING", True, 1)
    assert "<progress" in page(browser, "/dead-letters/all-dead")
    stopped = browser.follow(browser.post("/dead-letters/all-dead/cancel"))
    assert "Stopped." in stopped.text


def test_letters_are_deleted_only_for_good(served: Served, browser: Browser, client: Client) -> None:
    letters(client, "deleted")
    served.look()
    page(browser, "/dead-letters/deleted-dead")
    browser.post("/dead-letters/deleted-dead/delete", {"seq": "1"})
    assert client.queue("deleted-dead").counts().visible == 4
    done = browser.follow(browser.post("/dead-letters/deleted-dead/delete", {"seq": ["1", "77"], "sure": "yes"}))
    assert "Deleted 1 letter of deleted-dead. 1 could not be" in done.text


def test_a_letter_of_unknown_origin_stays_and_says_so(served: Served, browser: Browser, client: Client) -> None:
    client.queue("lost-dead", create=True).send("whence?")
    served.look()
    page(browser, "/dead-letters/lost-dead")
    refused = browser.follow(
        browser.post("/dead-letters/lost-dead/redrive", {"seq": "1", "back": "/dead-letters/lost-dead"})
    )
    assert "does not say which queue gave it up" in refused.text
    [kept] = client.queue("lost-dead").peek()
    assert kept.state == "visible"


def test_history_is_json_of_any_series(served: Served, browser: Browser) -> None:
    served.look()
    served.look()
    found = browser.get("/api/history?series=queue/plain/visible,no/such&span=600").json
    assert len(found["times"]) == len(found["values"]["queue/plain/visible"]) == 600
    assert 60 in found["values"]["queue/plain/visible"]
    assert set(found["values"]["no/such"]) == {None}
