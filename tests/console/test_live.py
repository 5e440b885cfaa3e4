"""The live parts: events as they come, once for all viewers, only what has changed; and what happens when the broker goes."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import headrace
from headrace.console import access, history_store, limits
from headrace.console.sampling import Sampler
from headrace.errors import CallerError
from headrace.native.client import Client
from headrace.queue.operations import Operation
from tests.broker_process import BrokerProcess, broker, wait_until
from tests.console.serving import Served, serving
from tests.patience import PATIENCE_S


class Stream:
    """One open event stream."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.answer = answer

    def next(self, kind: str = "") -> tuple[str, str]:
        """Id and data of the next event of that kind; an event without a name is the live part."""
        while True:
            fields: dict[str, list[str]] = {}
            while raw := self.answer.readline():
                line = raw.decode().rstrip("\n")
                if not line:
                    break
                name, _, value = line.partition(": ")
                fields.setdefault(name, []).append(value)
            assert raw, "the stream has ended"
            if fields.get("event", [""])[0] == kind and "data" in fields:
                return fields.get("id", [""])[0], "\n".join(fields["data"])


@contextmanager
def following(served: Served, path: str, **headers: str) -> Iterator[Stream]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    answer = None
    try:
        connection.request("GET", f"/live{path}", headers={name.replace("_", "-"): v for name, v in headers.items()})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert answer.getheader("content-type") == "text/event-stream"
        yield Stream(answer)
    finally:
        if answer is not None:
            answer.close()  # it holds the socket, too
        connection.close()


def test_values_move_as_they_change(served: Served, client: Client) -> None:
    queue = client.queue("moving", create=True)
    served.look()
    with following(served, "/queues/moving") as stream:
        first, html = stream.next()
        assert "<dt>Visible</dt><dd>0</dd>" in html
        queue.send_many(["x"] * 41)
        second, html = stream.next()
        while "<dt>Visible</dt><dd>41</dd>" not in html:
            second, html = stream.next()
        assert first != second
        tick = json.loads(stream.next("tick")[1])
        assert tick["values"]["queue/moving/visible"] in (0, 41)


def test_who_comes_back_is_sent_only_what_has_changed(served: Served, client: Client) -> None:
    client.queue("quiet", create=True)
    served.look()
    with following(served, "/queues/quiet") as stream:
        known, _ = stream.next()
    with following(served, "/queues/quiet", Last_Event_ID=known) as stream:
        stream.next("tick")
        client.queue("quiet").send("now")
        assert stream.next()[0] != known


def test_a_page_is_rendered_once_for_all_who_look(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = 0
    site = served.console._site
    part = site._part

    async def count(*arguments: object) -> object:
        nonlocal rendered
        rendered += 1
        return await part(*arguments)  # type: ignore[arg-type]  # passed on as they came

    async def refresh() -> int:
        """How often one refresh renders; 0: the sampler's own was under way."""
        before = rendered
        await served.console._live.refresh()
        return rendered - before

    monkeypatch.setattr(site, "_part", count)
    wait_until(lambda: served.console._live.viewers == 0)
    with following(served, "/queues") as one, following(served, "/queues") as other:
        one.next()
        other.next()
        while not (found := served.call(refresh())):
            pass
        assert (found, served.console._live.viewers) == (1, 2)


def test_a_viewer_that_leaves_is_forgotten(served: Served) -> None:
    wait_until(lambda: served.console._live.viewers == 0)
    with following(served, "/") as stream:
        stream.next()
        assert served.console._live.viewers == 1
    wait_until(lambda: served.console._live.viewers == 0)
    assert not served.console._live._channels


def test_a_stream_ends_with_the_session_that_opened_it(node: BrokerProcess, tmp_path: Path) -> None:
    users = tmp_path / "users.toml"

    def write(password: str) -> None:
        users.write_text(f'[[users]]\nname = "anna"\npassword = "{access.hash_password(password)}"\n')

    write("one")
    users.chmod(0o600)
    with serving(broker=node.url, users=users) as served:
        browser = served.browser()
        browser.get("/sign-in")
        browser.post("/sign-in", {"name": "anna", "password": "one"})
        with following(served, "/queues", Cookie=browser.cookie) as stream:
            stream.next()
            write("two")
            served.console.reload()
            served.look()
            while stream.answer.readline():
                pass  # what had been sent before; then the end
        assert browser.get("/queues").status == 303


def test_viewers_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until(lambda: served.console._live.viewers == 0)
    monkeypatch.setattr(limits, "VIEWERS_MAX", 1)
    with following(served, "/"):
        answer = served.browser().get("/live/queues")
        assert (answer.status, answer.headers["retry-after"]) == (503, "10")


def test_a_stream_says_now_and_then_that_it_is_there(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_S", 0.0)
    with following(served, "/dead-letters") as stream:
        stream.next()
        while (line := stream.answer.readline()) != b": still here\n":
            assert line


def test_a_queue_that_goes_is_told_on_its_page(served: Served, client: Client) -> None:
    queue = client.queue("going", create=True)
    served.look()
    with following(served, "/queues/going") as stream:
        stream.next()
        queue.remove()
        html = ""
        while "there is no queue" not in html:
            _, html = stream.next()


def test_the_console_stays_up_while_its_broker_is_away_and_keeps_its_history(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with broker(data) as first, headrace.connect(first.url) as client:
        client.queue("kept", create=True).send("x")
        port = first.port
        with serving(broker=str(data)) as served:
            browser = served.browser()
            served.look()
            served.look()
            assert browser.get("/health/ready").status == 200
            first.signal(signal.SIGKILL)
            first.wait_end()
            served.look()
            assert browser.get("/health/ready").status == 503
            page = browser.get("/queues/kept")
            assert page.status == 502
            assert "The broker is away." in browser.get("/").text and "kept" in browser.get("/").text
            with broker(data, "--port", str(port)):
                served.look()
                assert browser.get("/health/ready").status == 200
                sampler = served.console._sampler
                served.call(sampler._client.call(_save(sampler)))
                with serving(broker=str(data)) as other:
                    other.look()
                    assert other.console._sampler.history._series.keys() >= {"queue/kept/visible"}


def test_a_history_that_cannot_be_kept_is_told_once_and_looks_go_on(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> Operation:
        raise CallerError("the store is full")

    monkeypatch.setattr(history_store, "save", refuse)
    monkeypatch.setattr(served.console._sampler, "_saved_minute", 0)
    served.look()
    served.look()
    told = [one.getMessage() for one in caplog.records if getattr(one, "action", "") == "console.history_not_kept"]
    assert told == ["the history is not kept: the store is full"]
    assert served.browser().get("/health/ready").status == 200


def _save(sampler: Sampler) -> Operation:
    return history_store.save(sampler.history, int(sampler._now_s() // 60))
