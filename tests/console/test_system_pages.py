"""Web servers, pipelines, topics, who is present, settings: by facts as processes tell them, and state as pipelines keep it."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from headrace.native.client import Client
from headrace.presence import (
    Facts,
    Latency,
    RouteFacts,
    StreamFacts,
    UpstreamFacts,
    WebFacts,
    WebWorkerFacts,
    WorkerFacts,
    write,
)
from headrace.queue.operations import GetState, Hold, Transact
from tests.console.holding import stay
from tests.console.serving import Browser, Served

SCRIPT = "<script>alert('x')</script>"


def present(client: Client, holder: str, kind: str, facts: Facts | dict[str, Any]) -> None:
    stay(client, Hold(holder, kind, facts if isinstance(facts, dict) else write(facts)))


def page(browser: Browser, path: str, status: int = 200) -> str:
    answer = browser.get(path)
    assert answer.status == status, answer.text
    assert "<script>alert" not in answer.text
    return answer.text


# --- web ---


def server(**fields: Any) -> WebFacts:
    route = RouteFacts(
        route="/orders/{id}",
        requests=10,
        requests_s=2.5,
        statuses={"2xx": 7, "5xx": 3},
        wait=Latency(count=5, p50_s=0.002, p95_s=0.02, p99_s=0.03),
    )
    known: dict[str, Any] = {
        "host": "box", "pid": 5, "url": "http://box:8000", "apps": ["shop:app"], "ready": True, "requests": 20,
        "shed": {"queue-full": 3}, "limited": {"per-ip": 2}, "routes": [route], "durable_queue": "requests",
        "workers": [WebWorkerFacts(pid=6, app="shop:app", stage="serving", rss_bytes=1_048_576)],
        "upstreams": [UpstreamFacts(route="/old", url="http://old:80", up=False, failures=4)],
    }  # fmt: skip
    return WebFacts(**{**known, **fields})


def test_web_servers_are_shown_with_routes_and_what_was_shed(served: Served, browser: Browser, client: Client) -> None:
    client.queue("requests-dead", create=True).send("gave up")
    client.queue("requests", create=True).send_many(["later"] * 3)
    present(client, "web-box-5", "web", server())
    served.look()
    facts = browser.get("/api/web").json
    assert facts["shed"] == {"queue-full": 3} and facts["limited"] == {"per-ip": 2}
    assert (facts["totals"]["shed_share"], facts["totals"]["wait"]["p95_s"]) == (0.15, 0.02)
    [route] = facts["routes"]
    assert [(share["name"], share["x"], share["width"]) for share in route["shares"]] == [
        ("2xx", 0, 70),
        ("5xx", 70, 30),
    ]
    [durable] = facts["durable"]
    assert (durable["waiting"], durable["failed"], durable["dead_queue"]) == (3, 1, "requests-dead")
    text = page(browser, "/web")
    for said in ("queue-full", "429, per-ip", "2xx 7", "5xx 3", "/dead-letters/requests-dead", "http://old:80", "down"):
        assert said in text
    assert "/orders/{id}" in page(browser, "/web/routes/%2Forders%2F%7Bid%7D")
    page(browser, "/web/routes/none", status=404)


def test_a_route_with_a_comma_and_a_percent_sign_has_its_charts(
    served: Served, browser: Browser, client: Client
) -> None:
    present(client, "web-box-9", "web", server(routes=[RouteFacts(route="/at/{x},{y}%", requests=1, requests_s=0.5)]))
    served.look()
    served.look()
    [series] = re.findall(
        r'data-series="(route[^"]*requests)"', page(browser, "/web/routes/%2Fat%2F%7Bx%7D%2C%7By%7D%25")
    )
    [found] = browser.get(f"/api/history?series={quote(series)}").json["values"].values()
    assert 0.5 in found


def test_hostile_facts_stay_text(served: Served, browser: Browser, client: Client) -> None:
    routes = [RouteFacts(route=SCRIPT, requests=1, statuses={SCRIPT: 1})]
    evil = server(url=SCRIPT, apps=[SCRIPT], shed={SCRIPT: 1}, routes=routes, host=SCRIPT)
    present(client, SCRIPT, "web", evil)
    present(client, "strange", SCRIPT, {"queues": [SCRIPT, 5], "host": SCRIPT, "pid": "none"})
    served.look()
    for path in ("/web", "/workers", "/", f"/web/routes/{'%3Cscript%3Ealert(%27x%27)%3C%2Fscript%3E'}"):
        page(browser, path)


# --- streams ---


@pytest.fixture(scope="module")
def pipeline(client: Client) -> str:
    """A pipeline's state, as its runner keeps it."""
    boxes = [
        {"title": "read", "text": f"queue events {SCRIPT}", "inputs": []},
        {"title": "sink", "text": "queue totals", "inputs": [0], "state": False},
    ]
    definition = {"signatures": {}, "sources": {"events": "queue events"}, "shards": 8, "text": SCRIPT, "boxes": boxes}
    progress = {"batch": 4, "sources": {"events": {"watermark": 1_800_000_000_000_000, "rows": 40}}, "rows_out": 8}
    progress |= {"late": 2, "dead": 1, "committed_ms": 5, "state_bytes": 2_048}
    client.queue("events", create=True).send_many(["x"] * 6)
    client.call(Transact(name="streams", state=[(b"totals", b"{}")]))
    state = [(b"definition", json.dumps(definition).encode()), (b"progress/0000", json.dumps(progress).encode())]
    client.call(Transact(name="stream:totals", state=list(state)))
    return "totals"


def test_a_pipeline_is_shown_with_its_plan(served: Served, browser: Browser, pipeline: str) -> None:
    served.look()
    [line] = browser.get("/api/streams").json["streams"]
    assert (line["standing"], line["lag"], line["late"], line["dead"], line["rows_in"]) == ("stopped", 6, 2, 1, 40)
    assert line["watermark_ms"] == 1_800_000_000_000
    text = page(browser, "/streams/totals")
    assert '<svg class="plan"' in text and "<style>" not in text and "2.0 KiB" in text
    assert browser.get("/api/streams/totals").json["plan"]["shards"] == 8
    page(browser, "/streams/none", status=404)


def test_a_pipeline_that_runs_is_paused_and_goes_on(
    served: Served, browser: Browser, client: Client, pipeline: str
) -> None:
    def control() -> dict[bytes, bytes]:
        return dict(client.call(GetState("stream:totals", b"control")))

    present(client, "stream-box-8", "stream", StreamFacts(host="box", pid=8, pipeline="totals", rss_bytes=1))
    served.look()
    assert browser.get("/api/streams").json["streams"][0]["standing"] == "running"
    page(browser, "/streams/totals")
    paused = browser.follow(browser.post("/streams/totals/pause")).text
    assert "begins no more batches" in paused and ">Resume<" in paused, "it offers what it can do now"
    assert json.loads(control()[b"control"]) == {"paused": True}
    served.look()
    assert "Resume" in page(browser, "/streams/totals")
    assert "goes on" in browser.follow(browser.post("/streams/totals/resume")).text
    assert json.loads(control()[b"control"]) == {"paused": False}


# --- topics ---


def test_a_topic_is_shown_with_its_subscriptions(served: Served, browser: Browser, client: Client) -> None:
    topic = client.topic("sales", create=True, retention=3_600)
    client.queue("billing", create=True)
    topic.subscribe("billing", filter={"kind": ["order"]})
    topic.publish("one")
    served.look()
    [line] = browser.get("/api/topics").json["topics"]
    assert (line["name"], line["subscriptions"], line["logged"], line["retention_s"]) == ("sales", 1, 1, 3_600)
    text = page(browser, "/topics/sales")
    assert "/queues/billing" in text and "&#34;order&#34;" in text and "live" in text
    assert browser.get("/api/topics?find=nothing").json["topics"] == []
    page(browser, "/topics/none", status=404)


# --- who is present ---


def test_everybody_who_is_present_is_listed(served: Served, browser: Browser, client: Client) -> None:
    present(client, "worker-box-1", "worker", WorkerFacts(host="box", pid=1, app="shop:app", slots=4, draining=True))
    present(client, "mine", "poller", {})
    served.look()
    facts = browser.get("/api/workers").json
    told = {one["holder"]: (one["kind"], one["what"], one["state"]) for one in facts["holders"]}
    assert told["worker-box-1"] == ("worker", "shop:app", "draining")
    assert told["mine"] == ("poller", "", "")
    assert "console" in facts["kinds"]
    assert [one["holder"] for one in browser.get("/api/workers?kind=poller").json["holders"]] == ["mine"]
    assert [one["holder"] for one in browser.get("/api/workers?find=WORKER-box").json["holders"]] == ["worker-box-1"]
    page(browser, "/workers/mine")
    assert "not present any more" in page(browser, "/workers/gone", status=404)


# --- settings ---


def test_settings_of_the_broker_are_told_with_their_origin(served: Served, browser: Browser) -> None:
    served.look()
    facts = browser.get("/api/settings").json
    told = {one["name"]: one["origin"] for one in facts["broker"]["settings"]}
    assert told["data"] != "default" and told["cooldowns"] in ("default", "--no-cooldowns")
    assert 0 < facts["broker"]["disk_free_bytes"] <= facts["broker"]["disk_bytes"]
    assert facts["store"]["commit_p99_ms"] >= 0
    console = {one["name"]: (one["value"], one["origin"]) for one in facts["console"]}
    assert console["read_only"] == ("off", "default") and console["broker"][1] == "set"
    text = page(browser, "/settings")
    assert "connections_max" in text and "Longest message" in text


@pytest.mark.parametrize("path", ["/tasks", "/schedules", "/web", "/streams", "/topics", "/workers", "/settings"])
def test_each_page_goes_on_while_the_broker_is_away(path: str, tmp_path: Any) -> None:
    from tests.console.serving import serving

    with serving(broker=f"unix://{tmp_path}/nobody.sock") as served:
        answer = served.browser().get(path)
        assert (answer.status, "The broker is away" in answer.text) in ((200, True), (502, False)), answer.text
