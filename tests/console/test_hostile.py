"""Whatever holders say of themselves, and whatever stands in state that is read: pages open, text stays text, looks go on."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from headrace.console.rendering import age, clock, count, milliseconds, moment, rate_text, size
from headrace.console.responses import POLICY
from headrace.errors import InvalidParameter
from headrace.native.client import Client
from headrace.native.messages import Outgoing
from headrace.presence import KINDS, Facts, read
from headrace.queue.operations import Hold, Transact
from headrace.work import keys
from tests.console.holding import stay
from tests.console.serving import Browser, Served
from tests.patience import PATIENCE_S

SCRIPT = "\"><script>alert(1)</script>'"
HUGE: tuple[Any, ...] = (float("inf"), float("nan"), -(2**63), 2**64 - 1, 1e308)
LATENCY = {"count": 2**63, "p50_s": float("inf"), "p95_s": float("nan"), "p99_s": -1e308}
PATHS = ("/", "/queues", "/tasks", "/waiting", "/schedules", "/web", "/streams", "/topics", "/workers", "/settings")
GARBAGE = (b"", b"{}", b"\xff", b"[]", b"null", b"\xc1", b'{"sources":{"a":5}}')


def said(number: Any) -> dict[str, Any]:
    """Facts of all kinds at once, as a liar would write them."""
    task = {"task": SCRIPT, "succeeded_s": number, "wait": LATENCY, "run": LATENCY}
    running = {"id": SCRIPT, "task": SCRIPT, "started_ms": 2**63}
    route = {"route": SCRIPT, "requests": 5, "requests_s": number, "statuses": {SCRIPT: -5}, "wait": LATENCY}
    names = {"host": SCRIPT, "version": SCRIPT, "app": SCRIPT, "url": "javascript:alert(1)", "pipeline": SCRIPT}
    lists = {"queues": [SCRIPT], "produces": [SCRIPT], "tasks": [task], "running": [running], "routes": [route]}
    return (
        names | lists | {"oldest_wait_s": number, "succeeded_s": number, "rss_bytes": 2**63, "watermark_ms": -(2**63)}
    )


@pytest.mark.parametrize("number", HUGE)
def test_any_number_can_be_shown(number: Any) -> None:
    for show in (age, clock, count, milliseconds, moment, rate_text, size):
        assert str(show(number))


@pytest.mark.parametrize("number", HUGE)
def test_pages_open_whatever_holders_say(served: Served, browser: Browser, client: Client, number: Any) -> None:
    for kind in (*KINDS, "other"):
        stay(client, Hold(f"liar-{kind}", kind, said(number)))
        stay(client, Hold(f"fool-{kind}", kind, {"host": [SCRIPT], "pid": "x", "version": {}, "queues": 5}))
    served.look()
    served.look()
    assert browser.get("/health/ready").status == 200
    for path in (*PATHS, *(f"/workers/liar-{kind}" for kind in KINDS)):
        for answer in (browser.get(path), browser.get(f"/api{path}")):
            assert answer.status == 200, path
        assert "<script>alert" not in browser.get(path).text, path


def test_facts_that_are_none_are_those_of_nobody() -> None:
    assert read("worker", {"host": [1], "pid": "x", "queues": 5}) == Facts()


def test_state_that_nobody_of_ours_has_written_is_left_out(served: Served, browser: Browser, client: Client) -> None:
    for number, value in enumerate(GARBAGE):
        name = b"%d" % number
        rows: list[tuple[bytes, bytes | None]] = [
            (keys.RUNS + name, value),
            (keys.SCHEDULE + name, value),
            (keys.result(f"t{number}"), value),
        ]
        client.call(Transact(name=keys.NAME, state=rows))
        pipeline: list[tuple[bytes, bytes | None]] = [
            (b"definition", value),
            (b"control", value),
            (b"owners", value),
            (b"progress/zz", b"{}"),
        ]
        client.call(Transact(name=f"stream:p{number}", state=pipeline))
        client.call(Transact(name="streams", state=[(b"p" + name, b"")]))
        client.call(Transact(name="console", state=[(b"m/" + name, value), (b"t/xx", value)]))
    served.look()
    assert browser.get("/health/ready").status == 200
    assert [path for path in PATHS if browser.get(path).status != 200] == []
    assert {browser.get(f"/runs/t{number}").status for number in range(len(GARBAGE))} == {404}


@pytest.mark.parametrize("inputs", [[0], [5], [-1]])
def test_a_plan_that_cannot_be_drawn_is_left_out(
    served: Served, browser: Browser, client: Client, inputs: list[int]
) -> None:
    definition = {"sources": {}, "text": "read", "boxes": [{"title": "read", "text": "events", "inputs": inputs}]}
    client.call(Transact(name="streams", state=[(b"drawn", b"{}")]))
    client.call(Transact(name="stream:drawn", state=[(b"definition", json.dumps(definition).encode())]))
    served.look()
    answer = browser.get("/streams/drawn")
    assert (answer.status, 'class="plan"' in answer.text) == (200, False)


@pytest.mark.parametrize("seq", ["0", "9" * 19, str(2**63 - 1), "٣", "-1"])
def test_a_message_beyond_all_numbers_is_not_there(served: Served, browser: Browser, client: Client, seq: str) -> None:
    client.queue("counted", create=True)
    served.look()
    assert browser.get(f"/queues/counted/messages/{seq.replace('٣', '%D9%A3')}").status == 404


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), 1e20, "9"])
def test_a_delay_that_is_no_time_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidParameter, match="delay"):
        Outgoing("x", delay=delay * 1_000 if isinstance(delay, float) else [delay]).entry()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"],
    ids=["nonsense", "no host", "too long"],
)  # fmt: skip
def test_errors_of_the_engine_have_the_strict_headers(served: Served, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S) as one:
        one.sendall(request_)
        answer = b""
        while data := one.recv(65_536):
            answer += data
    assert answer[9:10] == b"4"
    assert b"Content-Security-Policy: " + POLICY in answer and b"nosniff" in answer
