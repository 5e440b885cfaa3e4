"""HTTP runs of ASGI applications, on an exchange without a client."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.web.apps.app_call import App, Message, Receive, Scope, Send, single_callable
from headrace.web.apps.asgi import AsgiTarget
from headrace.web.apps.lifespan import Lifespan
from tests.patience import PATIENCE_S
from tests.web.fakes import FakeExchange

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), PATIENCE_S)

    asyncio.run(limited())


def descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def answer(app: App, exchange: FakeExchange) -> FakeExchange:
    target = AsgiTarget(app)
    target(exchange)
    await exchange.done.wait()
    await turns()
    assert target.in_flight == 0
    return exchange


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send(HEAD)
    await send(body(b"hello"))


def test_a_whole_answer_is_one_call() -> None:
    async def test() -> None:
        exchange = await answer(hello, FakeExchange())
        assert exchange.log == ["respond 200"] and exchange.text == "hello"
        assert exchange.header("Content-Type") == "text/plain"

    run(test)


def test_the_scope_is_the_specification_s() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    async def test() -> None:
        exchange = FakeExchange("PUT", "/caf%C3%A9/x?a=%20b", {"X-One": "1"}, secure=True, version="2")
        exchange.root_path = "/m%20t"
        await answer(app, exchange)

    run(test)
    (scope,) = scopes
    assert scope["type"] == "http" and scope["asgi"]["version"] == "3.0"
    assert scope["http_version"] == "2" and scope["method"] == "PUT" and scope["scheme"] == "https"
    assert scope["root_path"] == "/m t" and scope["path"] == "/m t/café/x"
    assert scope["raw_path"] == b"/m%20t/caf%C3%A9/x" and scope["query_string"] == b"a=%20b"
    assert (b"x-one", b"1") in scope["headers"]
    assert scope["client"] == ("192.0.2.1", 40_000) and scope["server"] == ("127.0.0.1", 8000)
    assert "state" not in scope


def test_a_unix_socket_has_no_client_address_and_no_port() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    async def test() -> None:
        exchange = FakeExchange(peer="unix")
        exchange.server = ("/run/web.sock", 0)
        await answer(app, exchange)

    run(test)
    assert scopes[0]["client"] is None and scopes[0]["server"] == ("/run/web.sock", None)


def test_every_request_gets_a_copy_of_the_lifespan_s_state() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["mine"] = True
        seen.append(scope["state"])
        await hello(scope, receive, send)

    async def test() -> None:
        lifespan = Lifespan(app, "off")
        lifespan.state["pool"] = "p"
        target = AsgiTarget(app, lifespan=lifespan)
        exchange = FakeExchange()
        target(exchange)
        await exchange.done.wait()
        assert lifespan.state == {"pool": "p"}

    run(test)
    assert seen == [{"pool": "p", "mine": True}]


def test_a_body_is_received_in_the_pieces_that_arrive_and_then_the_disconnect() -> None:
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            got.append(await receive())
            if not got[-1].get("more_body"):
                break
        await send(HEAD)
        waiting = asyncio.ensure_future(receive())
        await turns()
        assert not waiting.done()
        await send(body(b""))
        got.append(await waiting)

    async def test() -> None:
        exchange = FakeExchange("POST", body=None)
        target = AsgiTarget(app)
        target(exchange)
        for piece in (b"one", b"two"):
            await turns()
            exchange.arrive(piece)
        await turns()
        exchange.end()
        await exchange.done.wait()
        await turns()
        assert target.in_flight == 0

    run(test)
    assert [m.get("body") for m in got] == [b"one", b"two", b"", None]
    assert [m["type"] for m in got][-1] == "http.disconnect"


def test_a_body_that_came_along_is_one_message() -> None:
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(await receive())
        await hello(scope, receive, send)

    async def test() -> None:
        await answer(app, FakeExchange("POST", body=b"all"))

    run(test)
    assert got == [{"type": "http.request", "body": b"all", "more_body": False}]


def test_a_cut_body_is_a_disconnect_never_a_whole_body() -> None:
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(await receive())
        got.append(await receive())

    async def test() -> None:
        exchange = FakeExchange("POST", body=None, length=10)
        AsgiTarget(app)(exchange)
        exchange.arrive(b"half")
        await turns()
        exchange.leave()
        await turns()

    run(test)
    assert got == [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]


def test_sending_waits_while_the_client_takes_nothing() -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        for number in range(3):
            await send(body(b"x", more=True))
            sent.append(number)
        await send(body(b""))

    async def test() -> None:
        exchange = FakeExchange()
        exchange.block()
        AsgiTarget(app)(exchange)
        await turns()
        assert sent == [] and exchange.log == ["start 200", "send 1"]
        exchange.unblock()
        await exchange.done.wait()
        assert exchange.whole and exchange.text == "xxx"

    run(test)


def test_an_abandoned_receive_leaves_no_waiter_behind() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0)
        await hello(scope, receive, send)

    async def test() -> None:
        exchange = FakeExchange()
        target = AsgiTarget(app)
        target(exchange)
        (task_run,) = target._runs
        await exchange.done.wait()
        assert len(task_run._waiters) == 0

    run(test)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([body(b"x")], "before the answer was started"),
        ([HEAD, HEAD], "sent twice"),
        ([HEAD, body(b"x"), body(b"y")], "after the answer was complete"),
        ([HEAD, body(b"x"), HEAD], "sent twice"),
        ([{"type": "http.response.trailers"}], "not a message of an HTTP answer"),
        ([HEAD, {"type": "http.response.body", "body": "text"}], "must be bytes, not str"),
        ([{"type": "http.response.start", "status": 99}], "status 99"),
        ([{"type": "http.response.start", "status": 200, "headers": [(b"a\r\nb", b"")]}], "not a header name"),
        ([{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc")]}], "no header may have"),
    ],
)
def test_messages_out_of_order_or_broken_are_refused_where_they_are_sent(messages: list[Message], words: str) -> None:
    errors: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for message in messages:
                await send(message)
        except Exception as error:
            errors.append(str(error))
            raise

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        assert exchange.status in (200, 500) and exchange.whole

    run(test)
    assert len(errors) == 1 and words in errors[0]


@pytest.mark.parametrize("started", [False, True])
def test_a_failure_before_anything_was_sent_is_500_and_logged(started: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send(HEAD)
        raise KeyError("boom")

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        assert exchange.status == 500 and exchange.problem["status"] == 500

    with caplog.at_level(logging.INFO, "headrace.web"):
        run(test)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and record.exc_info is not None
    assert record.__dict__["action"] == "web.app.failed" and "boom" in record.getMessage()


def test_a_failure_in_the_midst_of_an_answer_aborts_it_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send(body(b"half", more=True))
        raise KeyError("boom")

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        assert exchange.aborted and not exchange.whole

    with caplog.at_level(logging.INFO, "headrace.web"):
        run(test)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("messages", "log", "words"),
    [
        ([], ["respond 500"], "returned without an answer"),
        ([HEAD], ["respond 500"], "returned without completing its answer"),
        ([HEAD, body(b"x", more=True)], ["start 200", "send 1", "abort"], "returned without completing its answer"),
    ],
)
def test_an_application_that_returns_too_early_is_told_so(
    messages: list[Message], log: list[str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        assert exchange.log == log

    run(test)
    (record,) = caplog.records
    assert record.__dict__["action"] == "web.app.incomplete" and words in record.getMessage()


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("announced", [3, 9])
def test_a_body_of_another_length_than_announced_is_not_whole(
    pieces: int, announced: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        length = b"%d" % announced
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for number in range(pieces):
            await send(body(b"123456"[::pieces], more=number + 1 < pieces))

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        assert exchange.aborted or exchange.status == 500

    run(test)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_head_is_answered_with_the_length_only() -> None:
    async def test() -> None:
        exchange = await answer(hello, FakeExchange("HEAD"))
        assert exchange.whole and exchange.text == ""

    run(test)


def test_a_client_that_leaves_ends_nothing_but_is_told() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append((await receive())["type"])
        await send(HEAD)
        await send(body(b"to nobody"))
        seen.append("end")

    async def test() -> None:
        exchange = FakeExchange()
        target = AsgiTarget(app)
        freed: list[int] = []
        target.on_free = lambda: freed.append(target.in_flight)
        target(exchange)
        await turns()
        exchange.leave()
        await turns(10)
        assert target.in_flight == 0 and freed == [0] and exchange.log == []

    run(test)
    assert seen == ["http.disconnect", "end"]


def test_an_endless_answer_to_nobody_lets_others_run() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        while True:
            await send(body(b"x" * 100, more=True))

    async def test() -> None:
        exchange = FakeExchange()
        target = AsgiTarget(app)
        exchange.block()
        target(exchange)
        await turns()
        exchange.leave()
        await turns(20)
        await target.close(0)
        assert target.in_flight == 0

    run(test)


def test_a_file_is_sent_by_the_server(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"from the file")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "http.response.pathsend" in scope["extensions"]
        await send(HEAD)
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        assert exchange.log == ["start 200", "file 13", "finish"] and exchange.text == "from the file"
        assert exchange.fields.length == 13

    run(test)


@pytest.mark.parametrize("what", ["absent", "folder", "fifo"])
def test_what_is_no_file_is_an_error_of_the_application(what: str, tmp_path: Path) -> None:
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    if what == "fifo":
        os.mkfifo(path)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        assert exchange.status == 500

    before = descriptors()
    run(test)
    after = descriptors()
    assert after == before


def test_early_hints_are_an_interim_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
        await hello(scope, receive, send)

    async def test() -> None:
        exchange = await answer(app, FakeExchange())
        ((status, fields),) = exchange.informed
        assert status == 103 and len(fields.pairs()) == 2

    run(test)


def test_a_drain_waits_for_what_runs_and_cancels_what_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await asyncio.Event().wait()
        await receive()
        await asyncio.sleep(0.001)
        await hello(scope, receive, send)

    async def test() -> None:
        target = AsgiTarget(app)
        quick, slow = FakeExchange(), FakeExchange(target="/slow")
        target(quick)
        await target.close(5)
        assert quick.whole and quick.status == 200
        target(slow)
        await target.close(0.01)
        assert slow.status == 503 and target.in_flight == 0
        await target.close(0)  # idempotent

    run(test)
    assert [record.__dict__["action"] for record in caplog.records] == ["web.app.cancel"]


def test_asgi_2_applications_run() -> None:
    class Old:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            await hello(self.scope, receive, send)

    def old(scope: Scope) -> Callable[[Receive, Send], Awaitable[None]]:
        return Old(scope)

    async def test() -> None:
        for app in (Old, old):
            exchange = FakeExchange()
            AsgiTarget(app)(exchange)
            await exchange.done.wait()
            assert exchange.text == "hello"

    run(test)
    assert single_callable(hello) is hello
